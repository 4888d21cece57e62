"""Sources of batches: samples that can be read by their index."""

import dataclasses
import hashlib
from collections.abc import Iterable
from typing import Protocol

import numpy as np

from jaxflow.errors import UsageError


class NoSplitError(UsageError):
  """A data set is there, but has no such split."""


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


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
  """A source in memory; made by `load` or `from_arrays`.

  Attributes:
    data: Samples [N, ...], float32; images are channels-last in [-1, 1].
    label: Classes [N], int32 in [0, num_classes), or None.
    num_classes: Number of classes, 0 without labels.
    name: Name of the data set in a config.
    split: "train" or "test".
    noise: For pairs, the noise [N, ...] from which each sample was made; None
      for real data.
  """

  data: np.ndarray
  label: np.ndarray | None
  num_classes: int
  name: str
  split: str
  noise: np.ndarray | None = None

  def __len__(self) -> int:
    """Return the number of samples N."""
    return len(self.data)

  @property
  def shape(self) -> tuple[int, ...]:
    """Shape of one sample."""
    return self.data.shape[1:]

  def take(self, index: np.ndarray) -> dict[str, np.ndarray]:
    """Copy samples by their index, as `Source.take` describes."""
    arrays = {"data": self.data, "noise": self.noise, "cond": self.label}
    return {k: v[index] for k, v in arrays.items() if v is not None}


def from_arrays(
  data: np.ndarray,
  label: np.ndarray | None = None,
  *,
  num_classes: int = 0,
  name: str = "arrays",
  split: str = "train",
  noise: np.ndarray | None = None,
) -> Dataset:
  """Check arrays and return them as a data set.

  Args:
    data: Samples [N, ...], already scaled; cast to float32.
    label: Classes [N], integers in [0, num_classes), or None.
    num_classes: Number of classes, 0 without labels.
    name: Name in errors and logs.
    split: "train" or "test".
    noise: Unit noise of the shape of `data`, for pairs; cast to float32.

  Raises:
    UsageError: The data set is empty, a value is not finite, or the labels
      do not fit the samples or `num_classes`, or the noise the samples.

  Example:
    >>> dataset = from_arrays(np.zeros((5, 2)), np.arange(5), num_classes=5)
    >>> len(dataset), dataset.data.dtype.name
    (5, 'float32')
  """
  where = f"data.name={name!r} ({split})"
  data = np.asarray(data, np.float32)
  if data.ndim < 2 or not data.size:
    raise UsageError(
      f"{where}: data has shape {data.shape}; give at least one sample, as an"
      " array [N, ...] of rank 2 or more"
    )
  _check_finite(data, where)
  if label is not None:
    label = _checked_label(np.asarray(label), len(data), num_classes, where)
  elif num_classes:
    raise UsageError(
      f"{where}: num_classes={num_classes} but there are no labels; give"
      " labels or num_classes=0"
    )
  if noise is not None:
    noise = np.asarray(noise, np.float32)
    if noise.shape != data.shape:
      raise UsageError(
        f"{where}: noise has shape {noise.shape}; give {data.shape}, the noise"
        " of each sample"
      )
    _check_finite(noise, where)
  return Dataset(data, label, num_classes, name, split, noise)


def _check_finite(data: np.ndarray, where: str) -> None:
  # The sum is finite only if every value is, and needs no array of flags;
  # float64 so that large finite values cannot overflow it.
  if np.isfinite(np.sum(data, dtype=np.float64)):
    return
  index = np.argwhere(~np.isfinite(data))[0].tolist()
  raise UsageError(
    f"{where}: the value at {index} is {data[tuple(index)]}; repair or"
    f" remove sample {index[0]}"
  )


def _checked_label(
  label: np.ndarray, num_samples: int, num_classes: int, where: str
) -> np.ndarray:
  if label.shape != (num_samples,) or label.dtype.kind not in "iu":
    raise UsageError(
      f"{where}: labels are {label.dtype} {label.shape}; give one integer for"
      f" each of the {num_samples} samples"
    )
  wrong = np.flatnonzero((label < 0) | (label >= num_classes))
  if wrong.size:
    raise UsageError(
      f"{where}: the label at [{wrong[0]}] is {label[wrong[0]]}, outside"
      f" 0..{num_classes - 1}; correct it or num_classes={num_classes}"
    )
  return label.astype(np.int32)


class _Unlabelled:
  """A source without its labels."""

  num_classes = 0

  def __init__(self, source: Source):
    self._source = source
    self.name, self.split, self.shape = source.name, source.split, source.shape

  def __len__(self) -> int:
    """Return the number of samples."""
    return len(self._source)

  def take(self, index: np.ndarray) -> dict[str, np.ndarray]:
    """Read samples without "cond"."""
    rows = self._source.take(index)
    rows.pop("cond", None)
    return rows


def without_labels(source: Source) -> Source:
  """Return a source without its labels; one in memory stays there.

  Example:
    >>> labelled = from_arrays(np.zeros((3, 2)), np.arange(3), num_classes=3)
    >>> list(without_labels(labelled).take(np.arange(2)))
    ['data']
  """
  if isinstance(source, Dataset):
    return dataclasses.replace(source, label=None, num_classes=0)
  return _Unlabelled(source)


def in_memory(source: Source, num: int, *, seed: int = 0) -> Dataset:
  """Read at most `num` samples of a source, in its order, chosen at random.

  A source that is in memory is returned whole. `seed` is 0 or more.

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
  """Hash `num` evenly spaced samples of each source: 16 hexadecimal digits.

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
