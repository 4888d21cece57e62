"""Sources of batches: samples that can be read by their index."""

import dataclasses
import hashlib
from collections.abc import Iterable
from typing import Protocol

import numpy as np

from jaxflow.data.dataset import Dataset, from_arrays

__all__ = ["Source", "digest", "in_memory", "without_labels"]


class Source(Protocol):
  """One split of a data set, in memory or not."""

  @property
  def name(self) -> str:
    """Name of the data set in a config."""
    ...

  @property
  def split(self) -> str:
    """The split, "train" or "test"."""
    ...

  @property
  def num_classes(self) -> int:
    """Number of classes, 0 without labels."""
    ...

  @property
  def shape(self) -> tuple[int, ...]:
    """Shape of one sample."""
    ...

  def __len__(self) -> int:
    """Return the number of samples N."""
    ...

  def take(self, index: np.ndarray) -> dict[str, np.ndarray]:
    """Read samples; several threads may call it at once.

    Args:
      index: Which samples, integers [n] in [0, N), in any order.

    Returns:
      New arrays whose row i is sample `index[i]`: "data" [n, ...], float32;
      with labels "cond" [n], int32; for pairs "noise" [n, ...], float32.
    """
    ...


class Unlabelled:
  """A source without its labels; made by `without_labels`.

  Attributes:
    source: The source.
  """

  num_classes = 0

  def __init__(self, source: Source):
    self.source = source
    self.name, self.split, self.shape = source.name, source.split, source.shape

  def __len__(self) -> int:
    """Return the number of samples."""
    return len(self.source)

  def take(self, index: np.ndarray) -> dict[str, np.ndarray]:
    """Read samples without "cond"."""
    rows = self.source.take(index)
    rows.pop("cond", None)
    return rows


def without_labels(source: Source) -> Source:
  """Return a source without its labels; one in memory stays there.

  Args:
    source: Any source.

  Example:
    >>> labelled = from_arrays(np.zeros((3, 2)), np.arange(3), num_classes=3)
    >>> list(without_labels(labelled).take(np.arange(2)))
    ['data']
  """
  if isinstance(source, Dataset):
    return dataclasses.replace(source, label=None, num_classes=0)
  return Unlabelled(source)


def in_memory(source: Source, num: int, *, seed: int = 0) -> Dataset:
  """Read a random part of a source; one in memory is returned whole.

  Args:
    source: Any source.
    num: Most samples to read.
    seed: Non-negative seed of the choice.

  Returns:
    The samples, in the order of the source.

  Example:
    >>> dataset = from_arrays(np.zeros((3, 2)))
    >>> in_memory(dataset, 2) is dataset
    True
  """
  if isinstance(source, Dataset):
    return source
  index = np.arange(len(source))
  if num < len(index):
    generator = np.random.default_rng(seed)
    index = np.sort(generator.choice(index, num, replace=False))
  rows = source.take(index)
  return from_arrays(
    rows["data"],
    rows.get("cond"),
    num_classes=source.num_classes,
    name=source.name,
    split=source.split,
  )


def digest(sources: Iterable[Source], num: int = 8) -> str:
  """Hash a few samples of each source.

  Args:
    sources: Any sources.
    num: How many samples of each are read, evenly spaced.

  Returns:
    16 hexadecimal digits.

  Example:
    >>> ones, zeros = (from_arrays(f((9, 2))) for f in (np.ones, np.zeros))
    >>> digest([ones]) == digest([zeros])
    False
  """
  state = hashlib.sha256()
  for source in sources:
    index = np.linspace(0, len(source) - 1, num).astype(int)
    for name, rows in sorted(source.take(index).items()):
      state.update(f"{name} {rows.dtype} {rows.shape} ".encode())
      state.update(rows.tobytes())
  return state.hexdigest()[:16]
