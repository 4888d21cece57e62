"""Joins requests that wait into batches of a few fixed sizes.

One thread draws. Rows of the first request that waits, and of others with the
same calls and guidance, fill a batch; a request longer than a batch fills
several. What is missing to a fixed size is padded with the last row.
"""

import collections
import concurrent.futures
import dataclasses
import math
import threading
import time
from collections.abc import Mapping, Sequence

import jax
import numpy as np

from jaxflow import conditions
from jaxflow.serving.requests import Request
from jaxflow.serving.sampler import Draw
from jaxflow.types import PyTree


class Full(Exception):
  """The queue takes no more; `args[0]` is after how many seconds it may."""


class Closed(Exception):
  """The server stops: it begins nothing new."""


@dataclasses.dataclass(eq=False)
class _Job:
  request: Request
  future: concurrent.futures.Future[np.ndarray]
  begun: int = 0
  parts: list[np.ndarray] = dataclasses.field(default_factory=list)

  @property
  def kind(self) -> tuple[int, float | None]:
    return self.request.nfe, self.request.guidance


class Batcher:
  """A queue of requests and the thread that draws them.

  Args:
    draws: Draws a batch, by the number of calls.
    sizes: The sizes of batches, ascending.
    most: The most samples that may wait or be drawn at a time; a request finds
      room if the queue is empty.
  """

  def __init__(
    self, draws: Mapping[int, Draw], sizes: Sequence[int], most: int
  ):
    self._draws, self._sizes, self._most = draws, tuple(sizes), most
    self._jobs: collections.deque[_Job] = collections.deque()
    self._lock = threading.Condition()
    self._rows = 0
    self._closed = False
    self._rate = math.inf
    self._thread = threading.Thread(target=self._work, daemon=True)
    self._thread.start()

  @property
  def rows(self) -> int:
    """Samples that wait or are being drawn."""
    return self._rows

  @property
  def closed(self) -> bool:
    """Whether nothing new is begun."""
    return self._closed

  def submit(self, request: Request) -> concurrent.futures.Future[np.ndarray]:
    """Return the samples `[num, ...]` that a request will have.

    Raises:
      Full: If the queue has no room.
      Closed: If the server stops.
    """
    job = _Job(request, concurrent.futures.Future())
    with self._lock:
      if self._closed:
        raise Closed
      if self._rows and self._rows + request.num > self._most:
        raise Full(max(1, math.ceil(self._rows / self._rate)))
      self._rows += request.num
      self._jobs.append(job)
      self._lock.notify()
    return job.future

  def close(self) -> None:
    """Begin nothing new; what waits is drawn."""
    # A handler of signals calls it, which must not wait for the lock.
    self._closed = True

  def _work(self) -> None:
    while True:
      with self._lock:
        while not self._jobs:
          self._lock.wait()
        taken = self._take()
      if not taken:
        continue
      started = time.perf_counter()
      try:
        rows = self._draw(taken)
      except Exception as error:
        self._fail(taken, error)
        continue
      self._rate = len(rows) / max(time.perf_counter() - started, 1e-9)
      for job, first, count in taken:
        job.parts.append(rows[:count])
        rows = rows[count:]
        if first + count == job.request.num:
          self._release(job.request.num)
          job.future.set_result(np.concatenate(job.parts))

  def _take(self) -> list[tuple[_Job, int, int]]:
    """Return jobs with the numbers of the rows that the next batch draws."""
    room, taken = self._sizes[-1], []
    kind = self._jobs[0].kind
    for job in [job for job in self._jobs if job.kind == kind]:
      if not job.begun and not job.future.set_running_or_notify_cancel():
        self._jobs.remove(job)
        self._rows -= job.request.num
        continue
      count = min(room, job.request.num - job.begun)
      taken.append((job, job.begun, count))
      job.begun += count
      room -= count
      if job.begun == job.request.num:
        self._jobs.remove(job)
      if not room:
        break
    return taken

  def _draw(self, taken: list[tuple[_Job, int, int]]) -> np.ndarray:
    """Return the rows of a batch, without those that pad it."""
    num = sum(count for _, _, count in taken)
    size = next(size for size in self._sizes if size >= num)
    nfe, scale = taken[0][0].kind
    rows = conditions.joined([_rows(*part) for part in taken])
    padded = jax.tree.map(
      lambda x: np.concatenate([x, x[-1:].repeat(size - num, axis=0)]), rows
    )
    return self._draws[nfe](*padded, scale)[:num]

  def _fail(self, taken: list[tuple[_Job, int, int]], error: Exception) -> None:
    """Give an error to all requests of a batch."""
    for job, _, _ in taken:
      with self._lock:
        if job in self._jobs:
          self._jobs.remove(job)
      self._release(job.request.num)
      job.future.set_exception(error)

  def _release(self, num: int) -> None:
    with self._lock:
      self._rows -= num


def _rows(job: _Job, first: int, count: int) -> tuple[PyTree, ...]:
  """Return seeds, numbers, noise and conditions of some rows of a job."""
  asked, index = job.request, np.arange(first, first + count, dtype=np.uint32)
  seeds = np.full(count, asked.seed, np.uint32)
  return seeds, index, *conditions.rows((asked.noise, asked.seen), index)
