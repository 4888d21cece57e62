"""Arrays of numbers as data, in memory or mapped from a file."""

import dataclasses
import math
import pathlib
from collections.abc import Iterator
from typing import Any, Self

import numpy as np

from jaxflow.data.scaling import Scaling
from jaxflow.data.source import (
  Dataset,
  Source,
  as_labels,
  check_finite,
  checked_label,
  checked_vectors,
  from_arrays,
  is_vector,
  known_labels,
  scales_of,
)
from jaxflow.errors import RunError, UsageError
from jaxflow.reading import DAMAGE, reading

# Values that are read at once where all are: 2 MiB as float64.
_CHUNK = 2**18


class ArrayFile:
  """An array in an .npy file, of which rows are read when they are asked for.

  Each reading maps the file anew, so that what was read does not stay in the
  memory of the process.

  Raises:
    UsageError: If the file is no .npy file of numbers.
  """

  def __init__(self, path: pathlib.Path):
    self.path = path
    with reading(path, "give an .npy file of numbers, as numpy.save writes it"):
      array = self._map()
    self.shape: tuple[int, ...] = array.shape
    self.dtype: np.dtype = array.dtype

  def __getitem__(self, index: Any) -> np.ndarray:
    """Return rows, by a slice or by their numbers."""
    try:
      return np.array(self._map()[index])
    except DAMAGE as error:
      raise RunError(
        f"{self.path} cannot be read any more ({error}): it was changed; "
        "restore it"
      ) from error

  def _map(self) -> np.ndarray:
    return np.lib.format.open_memmap(self.path, mode="r")


@dataclasses.dataclass(frozen=True, eq=False)
class Arrays:
  """A source of arrays as they are given, scaled where batches are made.

  Made by `arrays_of`.

  Attributes:
    values: Samples [N, ...] of any type of numbers, an array or an ArrayFile.
    label: Classes [N], as a Dataset has them; or vectors [N, K], float64.
    num_classes: Number of classes, 0 without labels.
    name: Name of the data set in a config.
    split: "train" or "test".
    rows: Which of the values are samples; None for all.
    scaling: How values become samples; None if they are samples.
    conditions: How vectors become labels; None for classes.
  """

  values: Any
  label: np.ndarray | None
  num_classes: int
  name: str
  split: str
  rows: np.ndarray | None = None
  scaling: Scaling | None = None
  conditions: Scaling | None = None

  def __len__(self) -> int:
    """Return the number of samples N."""
    return self.values.shape[0] if self.rows is None else len(self.rows)

  @property
  def shape(self) -> tuple[int, ...]:
    """Shape of one sample."""
    return tuple(self.values.shape[1:])

  def take(self, index: np.ndarray) -> dict[str, np.ndarray]:
    """Read samples, as `Source.take` describes."""
    at = index if self.rows is None else self.rows[index]
    rows = {"data": self._samples(self.values[at])}
    if self.label is not None:
      rows["cond"] = self._labels(at)
    return rows

  def part(self, rows: np.ndarray, split: str) -> Self:
    """Return some of the samples, as a split."""
    rows = rows if self.rows is None else self.rows[rows]
    return dataclasses.replace(self, rows=rows, split=split)

  def scaling_of(self, kind: str | None) -> Scaling:
    """Return the scaling of these samples, all of which are read.

    Raises:
      UsageError: If a value is not finite.
    """
    return Scaling.of(self._parts(), self.values.dtype, kind)

  def conditions_found(self) -> Scaling | None:
    """Return the scales of these samples' vectors; None for classes.

    Each number gets the mean 0 and the deviation 1.

    Raises:
      UsageError: If no sample has a vector.
    """
    if self.label is None or not is_vector(self.label):
      return None
    label = self.label[slice(None) if self.rows is None else self.rows]
    return scales_of(label, f"data.name={self.name!r} ({self.split})")

  def scaled(
    self,
    scaling: Scaling | None,
    ram_gib: float,
    conditions: Scaling | None = None,
  ) -> Source:
    """Return a source of scaled samples, in memory if they take so much."""
    if self.label is not None and is_vector(self.label):
      size = self.label.shape[1]
      if conditions is None or len(conditions.offset) != size:
        raise UsageError(
          f"data.name={self.name!r} ({self.split}): its labels are vectors of "
          f"{size} numbers, those of the training data are not; they must agree"
        )
    else:
      conditions = None
    if scaling is not None and len(scaling.offset) not in (1, self.shape[-1]):
      raise UsageError(
        f"data.offset has {len(scaling.offset)} numbers, and samples of "
        f"data.name={self.name!r} have {self.shape[-1]} channels: give as many"
      )
    own = dataclasses.replace(self, scaling=scaling, conditions=conditions)
    there = scaling is None and type(self.values) is np.ndarray
    size = 4 * len(self) * math.prod(self.shape)
    if not there and size > ram_gib * 2**30:
      return own
    return own._in_memory()

  def _in_memory(self) -> Dataset:
    """Return all samples in memory."""
    at = slice(None) if self.rows is None else self.rows
    if self.scaling is None:
      data = np.asarray(self.values[at], np.float32)
    else:
      data = np.empty((len(self), *self.shape), np.float32)
      first = 0
      for part in self._parts():
        data[first : first + len(part)] = self._samples(part)
        first += len(part)
    known = None
    if self.label is not None:
      known = known_labels(self._labels(at), self.num_classes)
    dataset = from_arrays(
      data,
      known,
      num_classes=self.num_classes,
      name=self.name,
      split=self.split,
    )
    return dataclasses.replace(
      dataset, scaling=self.scaling, conditions=self.conditions
    )

  def _parts(self) -> Iterator[np.ndarray]:
    """Yield all values in parts; raise UsageError where one is not finite."""
    step = max(1, _CHUNK // math.prod(self.shape))
    where = f"data.name={self.name!r} ({self.split})"
    for first in range(0, len(self), step):
      index = np.arange(first, min(first + step, len(self)))
      at = index if self.rows is None else self.rows[index]
      part = self.values[at[0] : at[-1] + 1][at - at[0]]
      check_finite(part, where, at)
      yield part

  def _labels(self, at: Any) -> np.ndarray:
    assert self.label is not None
    label = self.label[at]
    return (
      label if self.conditions is None else self.conditions.normalise(label)
    )

  def _samples(self, values: np.ndarray) -> np.ndarray:
    if self.scaling is None:
      return np.asarray(values, np.float32)
    return self.scaling.normalise(values)


def arrays_of(
  values: Any,
  label: np.ndarray | None = None,
  *,
  num_classes: int = 0,
  name: str = "arrays",
  split: str = "train",
) -> Arrays:
  """Check arrays and return them as a source that is not scaled yet.

  Args:
    values: Samples [N, ...] of numbers: an array, or an ArrayFile.
    label: Classes [N], integers in [0, num_classes), or None; -1 for samples
      without a label. Or numbers [N] or [N, K], NaN for none, a condition.
    num_classes: Number of classes, 0 without labels.
    name: Name in errors and logs.
    split: "train" or "test".

  Raises:
    UsageError: The data are empty or no numbers, or labels do not fit.

  Example:
    >>> arrays_of(np.zeros((5, 2), np.int16)).take(np.arange(1))["data"]
    array([[0., 0.]], dtype=float32)
  """
  where = f"data.name={name!r} ({split})"
  if values.dtype.kind not in "biuf":
    raise UsageError(
      f"{where}: data are of type {values.dtype}; give numbers, whole or real"
    )
  if len(values.shape) < 2 or 0 in values.shape:
    raise UsageError(
      f"{where}: data has shape {tuple(values.shape)}; give at least one "
      "sample, as an array [N, ...] of rank 2 or more"
    )
  if label is not None and is_vector(label := as_labels(label)):
    label = checked_vectors(label, values.shape[0], where)
  elif label is not None:
    label = checked_label(label, values.shape[0], num_classes, where)
  return Arrays(values, label, num_classes, name, split)
