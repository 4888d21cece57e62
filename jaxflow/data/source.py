"""Sources of batches: samples that can be read by their index."""

import dataclasses
import hashlib
from collections.abc import Iterable
from typing import Any, Protocol

import jax
import numpy as np

from jaxflow.conditions import leaves, narrowed, rows
from jaxflow.data.scaling import Scaling
from jaxflow.errors import UsageError
from jaxflow.types import PyTree


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

  def take(self, index: np.ndarray) -> dict[str, Any]:
    """Read samples; several threads may call it at once.

    Args:
      index: Which samples, integers [n] in [0, N), in any order.

    Returns:
      New arrays whose row i is sample `index[i]`: "data" [n, ...], float32;
      with labels "cond" [n], int32 in [0, num_classes], where num_classes says
      that a sample has none, or vectors [n, K], float32, where NaN does, or a
      pytree of arrays [n, ...], as the network declares it; for pairs "noise"
      [n, ...], float32.
    """
    ...


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
  """A source in memory; made by `load` or `from_arrays`.

  Attributes:
    data: Samples [N, ...], float32; images are channels-last in [-1, 1].
    label: Classes [N], int32 in [0, num_classes], or None; num_classes is the
      label of samples without one. Or vectors [N, K], float32, NaN for none.
    num_classes: Number of classes, 0 without labels.
    name: Name of the data set in a config.
    split: "train" or "test".
    noise: For pairs, the noise [N, ...] from which each sample was made; None
      for real data.
    class_names: Names of the classes, or ().
    scaling: How values became samples, or None.
    conditions: How numbers became labels that are vectors, or None.
    cond: Other conditions, a pytree of arrays [N, ...]; None with labels.
  """

  data: np.ndarray
  label: np.ndarray | None
  num_classes: int
  name: str
  split: str
  noise: np.ndarray | None = None
  class_names: tuple[str, ...] = ()
  scaling: Scaling | None = None
  conditions: Scaling | None = None
  cond: PyTree = None

  def __len__(self) -> int:
    """Return the number of samples N."""
    return len(self.data)

  @property
  def shape(self) -> tuple[int, ...]:
    """Shape of one sample."""
    return self.data.shape[1:]

  def take(self, index: np.ndarray) -> dict[str, Any]:
    """Copy samples by their index, as `Source.take` describes."""
    cond = self.label if self.cond is None else self.cond
    arrays = {"data": self.data, "noise": self.noise, "cond": cond}
    there = {k: v for k, v in arrays.items() if v is not None}
    return rows(there, index)


def from_arrays(
  data: np.ndarray,
  label: np.ndarray | None = None,
  *,
  num_classes: int = 0,
  name: str = "arrays",
  split: str = "train",
  noise: np.ndarray | None = None,
  class_names: tuple[str, ...] = (),
  cond: PyTree = None,
) -> Dataset:
  """Check arrays and return them as a data set.

  Args:
    data: Samples [N, ...], already scaled; cast to float32.
    label: Classes [N], integers in [0, num_classes), or None; -1 for samples
      without a label. Or vectors [N, K] of real numbers, NaN for none.
    num_classes: Number of classes, 0 without labels.
    name: Name in errors and logs.
    split: "train" or "test".
    noise: Unit noise of the shape of `data`, for pairs; cast to float32.
    class_names: Names of the classes, or ().
    cond: In place of labels, a pytree of arrays [N, ...] of the types that the
      network declares: {"tokens": ..., "mask": ...} for instance.

  Raises:
    UsageError: The data set is empty, a value is not finite, or the labels
      do not fit the samples or `num_classes`, or noise or conditions do not fit
      the samples.

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
  check_finite(data, where)
  if label is not None and cond is not None:
    raise UsageError(f"{where}: give labels or cond, not both")
  conditions = None
  label = None if label is None else as_labels(label)
  if label is not None and is_vector(label) and not num_classes:
    label = checked_vectors(label, len(data), where).astype(np.float32)
    size = label.shape[1]
    conditions = Scaling.of_conditions([0.0] * size, [1.0] * size)
  elif label is not None:
    label = checked_label(label, len(data), num_classes, where)
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
    check_finite(noise, where)
  if cond is not None:
    cond = _checked_cond(cond, len(data), where)
  return Dataset(
    *(data, label, num_classes, name, split, noise, class_names),
    conditions=conditions,
    cond=cond,
  )


def _checked_cond(cond: PyTree, num_samples: int, where: str) -> PyTree:
  """Return conditions as arrays; raise UsageError unless they fit samples."""
  try:
    cond = narrowed(jax.tree.map(np.asarray, cond))
  except ValueError as error:
    raise UsageError(f"{where}: of cond, {error}") from error
  for name, x in leaves(cond).items():
    if x.shape[:1] != (num_samples,):
      raise UsageError(
        f"{where}: {name} of cond has shape {x.shape}; give a row for each of "
        f"the {num_samples} samples"
      )
  return cond


def check_finite(
  data: np.ndarray, where: str, numbers: np.ndarray | None = None
) -> None:
  """Raise UsageError where a value is not finite.

  `numbers` are those of the samples, [N]; None counts them from 0.
  """
  # The sum is finite only if every value is, and needs no array of flags;
  # float64 so that large finite values cannot overflow it.
  if np.isfinite(np.sum(data, dtype=np.float64)):
    return
  index = np.argwhere(~np.isfinite(data))[0].tolist()
  sample = index[0] if numbers is None else int(numbers[index[0]])
  raise UsageError(
    f"{where}: the value at {[sample, *index[1:]]} is {data[tuple(index)]};"
    f" repair or remove sample {sample}"
  )


def checked_label(
  label: np.ndarray, num_samples: int, num_classes: int, where: str
) -> np.ndarray:
  """Return labels as a Dataset has them; raise UsageError for a wrong one."""
  if label.shape != (num_samples,) or label.dtype.kind not in "iu":
    raise UsageError(
      f"{where}: labels are {label.dtype} {label.shape}; give one integer for"
      f" each of the {num_samples} samples"
    )
  wrong = np.flatnonzero((label < -1) | (label >= num_classes))
  if wrong.size:
    raise UsageError(
      f"{where}: the label at [{wrong[0]}] is {label[wrong[0]]}, outside"
      f" 0..{num_classes - 1}, and not -1 for none; correct it or"
      f" num_classes={num_classes}"
    )
  return null_labels(label, num_classes)


# More would be numbers of something else.
MOST_CLASSES = 1_000_000
# The value of `data.label` that leaves labels out.
NO_LABEL = "none"
# Share of the samples that are held out, where nothing else is said.
TEST_SHARE = 0.1
# Samples that are read at once, for their labels.
_READ = 1024


def as_labels(label: Any) -> np.ndarray:
  """Return labels as an array; a column of whole numbers [N, 1] are classes."""
  label = np.asarray(label)
  column = label.ndim == 2 and label.shape[1] == 1 and label.dtype.kind in "iu"
  return label[:, 0] if column else label


def is_vector(label: np.ndarray) -> bool:
  """Return whether labels are numbers, and no classes."""
  return label.dtype.kind == "f" or label.ndim > 1


def checked_vectors(
  label: np.ndarray, num_samples: int, where: str
) -> np.ndarray:
  """Return labels that are numbers as [N, K], float64, NaN for none.

  Raises:
    UsageError: They are not finite, or not one vector a sample.
  """
  vectors = label[:, None] if label.ndim == 1 else label
  if len(vectors) != num_samples or vectors.ndim != 2 or not vectors.size:
    raise UsageError(
      f"{where}: labels are {label.dtype} {label.shape}; give one number, or "
      f"one vector, for each of the {num_samples} samples"
    )
  vectors = vectors.astype(np.float64)
  wrong = np.flatnonzero(np.isinf(vectors).any(axis=1))
  if wrong.size:
    raise UsageError(
      f"{where}: the label at [{wrong[0]}] is {vectors[wrong[0]].tolist()}; "
      "give finite numbers, or NaN for none"
    )
  vectors[np.isnan(vectors).any(axis=1)] = np.nan
  return vectors


def scales_of(vectors: np.ndarray, where: str) -> Scaling:
  """Return scales that give each number of labels mean 0 and deviation 1.

  Raises:
    UsageError: If no sample has a label.
  """
  known = vectors[~np.isnan(vectors).any(axis=1)]
  if not len(known):
    raise UsageError(
      f"{where}: all labels are NaN, so no sample has one; leave labels out"
    )
  found = Scaling.of([known], known.dtype, "standard")
  return Scaling.of_conditions(found.offset, found.scale)


def null_labels(label: np.ndarray, num_classes: int) -> np.ndarray:
  """Return labels as int32, with the null label in place of -1.

  Example:
    >>> null_labels(np.array([2, -1]), 3).tolist()
    [2, 3]
  """
  return np.where(label < 0, num_classes, label).astype(np.int32)


def known_labels(label: np.ndarray, num_classes: int) -> np.ndarray:
  """Return labels with -1 in place of the null label; vectors stay."""
  if is_vector(label):
    return label
  return np.where(label < num_classes, label, -1)


def class_names(source: Source) -> tuple[str, ...]:
  """Return the names of a source's classes, () if it has none."""
  return tuple(getattr(source, "class_names", ()))


def classes_without_samples(source: Source) -> list[int]:
  """Return the classes of no sample; [] too if labels are not in memory.

  Example:
    >>> label = np.array([2, 0])
    >>> source = from_arrays(np.zeros((2, 1)), label, num_classes=3)
    >>> classes_without_samples(source)
    [1]
  """
  label, rows = (getattr(source, x, None) for x in ("label", "rows"))
  if label is None or not source.num_classes:
    return []
  label = label if rows is None else label[rows]
  counts = np.bincount(label, minlength=source.num_classes + 1)
  return np.flatnonzero(counts[: source.num_classes] == 0).tolist()


def labels_of(source: Source) -> np.ndarray:
  """Return the classes of all samples, [N]; read them where they are on disk.

  Raises:
    UsageError: If the samples have no classes.

  Example:
    >>> label = np.array([2, -1])
    >>> labels_of(from_arrays(np.zeros((2, 1)), label, num_classes=3)).tolist()
    [2, 3]
  """
  if not source.num_classes:
    raise UsageError(
      f"data.name={source.name!r} has no classes, and a group is of one class: "
      "take labelled data with data.conditional=True, or set "
      "data.order='shuffled'"
    )
  label, rows = (getattr(source, x, None) for x in ("label", "rows"))
  if label is not None:
    return label if rows is None else label[rows]
  if (read := getattr(source, "labels", None)) is not None:
    return read()
  starts = range(0, len(source), _READ)
  parts = [
    source.take(np.arange(i, min(i + _READ, len(source))))["cond"]
    for i in starts
  ]
  return np.concatenate(parts)


def scaling_of(source: Source) -> Scaling | None:
  """Return how the values of a source became its samples, None if as is."""
  return getattr(source, "scaling", None)


def conditions_of(source: Source) -> Scaling | None:
  """Return how numbers became a source's labels, None if they are classes."""
  return getattr(source, "conditions", None)


def has_labels(source: Source) -> bool:
  """Return whether a source's conditions are classes, or numbers."""
  return bool(source.num_classes) or conditions_of(source) is not None


class _Unlabelled:
  """A source without its labels."""

  num_classes = 0

  def __init__(self, source: Source):
    self._source = source
    self.name, self.split, self.shape = source.name, source.split, source.shape
    self.scaling: Scaling | None = scaling_of(source)

  def __len__(self) -> int:
    """Return the number of samples."""
    return len(self._source)

  def take(self, index: np.ndarray) -> dict[str, Any]:
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
    return dataclasses.replace(
      source,
      **{"label": None, "cond": None, "conditions": None},
      **{"num_classes": 0, "class_names": ()},
    )
  return _Unlabelled(source)


class _Part:
  """Some samples of a source, as a split."""

  def __init__(self, source: Source, rows: np.ndarray, split: str):
    self._source, self._rows, self.split = source, rows, split
    self.name, self.shape = source.name, source.shape
    self.num_classes: int = source.num_classes
    self.class_names: tuple[str, ...] = class_names(source)
    self.conditions: Scaling | None = conditions_of(source)

  def __len__(self) -> int:
    """Return the number of samples."""
    return len(self._rows)

  def take(self, index: np.ndarray) -> dict[str, Any]:
    """Read samples."""
    return self._source.take(self._rows[index])


def rows_of_split(
  names: Iterable[str], split: str, share: float, what: str
) -> np.ndarray:
  """Return the numbers of the samples in a split that names decide.

  About `share` of them are in "test": those whose SHA-256 is small. So a sample
  stays where it is when others come or go.

  Args:
    names: A name for each sample.
    split: "train" or "test".
    share: Share of the test samples, from 0 to below 1.
    what: What is split, for messages.

  Raises:
    NoSplitError: No sample is held out.
    UsageError: No sample is left to train on.

  Example:
    >>> names = [f"{i}.png" for i in range(1000)]
    >>> len(rows_of_split(names, "test", 0.1, "names"))
    109
  """
  limit = share * 2**64
  # File systems have names that are no text.
  coded = (name.encode(errors="surrogateescape") for name in names)
  digests = (hashlib.sha256(x).digest()[:8] for x in coded)
  small = (int.from_bytes(x, "big") < limit for x in digests)
  held = np.fromiter(small, bool)
  rows = np.flatnonzero(held == (split == "test"))
  if rows.size:
    return rows
  if split == "test":
    raise NoSplitError(
      f"data.test_share={share} holds out none of the {len(held)} samples of "
      f"{what}"
    )
  raise UsageError(
    f"data.test_share={share} leaves none of the {len(held)} samples of {what} "
    "to train on: give a smaller one"
  )


def held_out(source: Any, split: str, share: float) -> Any:
  """Return a split of a source that has one split, by the samples' numbers.

  Example:
    >>> source = from_arrays(np.zeros((1000, 2)))
    >>> [len(held_out(source, x, 0.1)) for x in ("train", "test")]
    [894, 106]
  """
  names = map(str, range(len(source)))
  numbers = rows_of_split(names, split, share, f"data.name={source.name!r}")
  if hasattr(source, "part"):
    return source.part(numbers, split)
  if not isinstance(source, Dataset):
    return _Part(source, numbers, split)
  parts = {k: getattr(source, k) for k in ("data", "label", "noise", "cond")}
  return dataclasses.replace(source, split=split, **rows(parts, numbers))


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
  found, label, cond = source.take(index), None, None
  if has_labels(source):
    label = known_labels(found["cond"], source.num_classes)
  else:
    cond = found.get("cond")
  made = from_arrays(
    found["data"],
    label,
    num_classes=source.num_classes,
    name=source.name,
    split=source.split,
    class_names=class_names(source),
    cond=cond,
  )
  return dataclasses.replace(made, conditions=conditions_of(source))


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
    for name, x in sorted(leaves(source.take(index)).items()):
      state.update(f"{name} {x.dtype} {x.shape} ".encode())
      state.update(x.tobytes())
  return state.hexdigest()[:16]
