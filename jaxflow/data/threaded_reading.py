"""Reading of numbered parts of a stream in threads, ahead of their use."""

from collections.abc import Callable
from typing import Any

__all__ = ["read_in_threads"]

# Parts that wait for each thread beside the one it is reading.
_BUFFER = 2

# The stream has no end, but grain wants one.
_END = 2**62


def read_in_threads(
  read: Callable[[int], Any], *, start: int, threads: int
) -> Any:
  """Iterate over `read(start)`, `read(start + 1)`, ... for ever, in order.

  Reading begins with the first `next`. An error in a thread is raised
  where its part would have come.

  Args:
    read: Returns the part of a number; called by several threads at once.
    start: Number of the first part.
    threads: Parts that are read at once.

  Returns:
    A grain iterator; its `close` stops the threads.

  Example:
    >>> squares = read_in_threads(lambda i: i * i, start=3, threads=2)
    >>> next(squares), next(squares)
    (9, 16)
    >>> squares.close()
  """
  # Half a second to import, which data in memory need not wait for.
  import grain

  numbers = grain.MapDataset.range(start, _END)
  options = grain.ReadOptions(
    num_threads=threads, prefetch_buffer_size=_BUFFER * threads
  )
  return iter(numbers.map(read).to_iter_dataset(options))
