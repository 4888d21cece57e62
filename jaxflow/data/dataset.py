"""A whole data set as arrays in host memory, checked once."""

import dataclasses

import numpy as np

from jaxflow.errors import UsageError

__all__ = ["Dataset", "from_arrays"]


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
  """One split of a data set; made by `load` or `from_arrays`.

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
    rows = {"data": self.data[index]}
    if self.noise is not None:
      rows["noise"] = self.noise[index]
    if self.label is not None:
      rows["cond"] = self.label[index]
    return rows


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

  Returns:
    The data set.

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
  index = np.argwhere(~np.isfinite(data))[0]
  position = ", ".join(map(str, index))
  raise UsageError(
    f"{where}: the value at [{position}] is {data[tuple(index)]}; repair or"
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
