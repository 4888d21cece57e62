"""Arrays in files of NumPy: tables, sequences, images, volumes."""

import functools
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxflow.data.arrays import ArrayFile, Arrays, arrays_of
from jaxflow.data.looking import warn_once
from jaxflow.data.scaling import Scaling, check_kind
from jaxflow.data.source import (
  MOST_CLASSES,
  NO_LABEL,
  TEST_SHARE,
  NoSplitError,
  Source,
  as_labels,
  held_out,
  is_vector,
)
from jaxflow.errors import UsageError, did_you_mean
from jaxflow.files import expanded
from jaxflow.reading import read_arrays, reading

# Names of samples and labels in .npz files: those of `jaxflow.train`, and those
# that `jaxflow sample` writes.
_SAMPLES = ("data", "samples")
_LABELS = ("labels", "label")


def load(
  split: str,
  *,
  file: str | None,
  label: str | None = None,
  conditional: bool = True,
  splits: Mapping[str, str | None] = {},
  test_share: float | None = None,
  normalise: str | None = None,
  scaling: Scaling | None = None,
  conditions: Scaling | None = None,
  ram_gib: float = 4.0,
) -> Source:
  """Open one split of the arrays in `file`.

  The arguments are those of `jaxflow.data.load`.
  """
  check_kind(normalise)
  if not file:
    raise UsageError(
      "data.file=None: data.name='arrays' needs an .npy or .npz file; set "
      "data.file to it"
    )
  label = label if conditional else NO_LABEL
  other = splits.get("test")
  train = _open(splits.get("train") or file, "train", label)
  test = None
  if other:
    test = _open(other, "test", label, train.num_classes)
    if pathlib.Path(other).resolve() == pathlib.Path(file).resolve():
      raise UsageError(
        f"data.split.test={other!r} is data.file: give other samples, or set "
        "data.test_share"
      )
    kinds = [_kind_of(x) for x in (test, train)]
    if test.shape != train.shape or kinds[0] != kinds[1]:
      raise UsageError(
        f"data.split.test={other!r}: its samples have shape {test.shape} and "
        f"{kinds[0]}, those of data.file={file!r} have {train.shape} and "
        f"{kinds[1]}: they must agree"
      )
  else:
    share = TEST_SHARE if test_share is None else test_share
    part = functools.partial(held_out, train, share=share)
    try:
      test = part(split="test")
    except NoSplitError:
      if split == "test":
        raise
    train = part(split="train")
  if scaling is None:
    scaling = train.scaling_of(normalise)
  if conditions is None:
    conditions = train.conditions_found()
  chosen: Any = {"train": train, "test": test}[split]
  return chosen.scaled(scaling, ram_gib, conditions)


def _open(
  file: str, split: str, label: str | None, num_classes: int | None = None
) -> Arrays:
  """Return the samples in a file, and their labels."""
  field = "data.file" if split == "train" else f"data.split.{split}"
  path = pathlib.Path(expanded(field, file) or "")
  where = f"{field}={file!r}"
  if not path.is_file():
    raise UsageError(f"{where} is no file: give an .npy or .npz file")
  if path.suffix == ".npy":
    values: Any = ArrayFile(path)
    labels = _label_file(label, split)
  elif path.suffix == ".npz":
    values, labels = _arrays(path, where, label)
  else:
    raise UsageError(f"{where}: give a file that ends in .npy or .npz")
  labels = None if labels is None else as_labels(labels)
  if labels is not None and labels.dtype.kind == "f":
    _say_whole(labels, where)
  if labels is not None and labels.dtype.kind not in "iuf":
    raise UsageError(
      f"{where}: labels are of type {labels.dtype}; give whole numbers for "
      f"classes, -1 for none, or real ones, or data.label={NO_LABEL!r}"
    )
  if labels is not None and not num_classes and not is_vector(labels):
    num_classes = int(labels.max(initial=-1)) + 1
    # No sample has a class.
    labels = labels if num_classes else None
    if num_classes > MOST_CLASSES:
      raise UsageError(
        f"{where}: a label is {num_classes - 1}; give classes from 0 to "
        f"{MOST_CLASSES - 1}, or real numbers"
      )
  return arrays_of(
    values, labels, num_classes=num_classes or 0, name="arrays", split=split
  )


def _say_whole(labels: np.ndarray, where: str) -> None:
  """Say it if labels are real numbers [N] that may be meant as classes."""
  known = labels[np.isfinite(labels)]
  if labels.shape == (labels.size,) and known.size and not (known % 1).any():
    warn_once(
      f"{where}: labels are whole, but of type {labels.dtype}, so they are "
      "vectors and no classes; store classes as integers"
    )


def _kind_of(source: Arrays) -> str:
  """Return in words what labels samples have."""
  if source.label is None:
    return "no labels"
  return "labels of real numbers" if is_vector(source.label) else "classes"


def _label_file(label: str | None, split: str) -> np.ndarray | None:
  """Return the labels beside an .npy file, in a file of their own."""
  if label in (None, NO_LABEL):
    return None
  if split == "test":
    raise UsageError(
      f"data.label={label!r} is the file of the training labels: name .npz "
      "files, which hold labels, or set data.test_share, not data.split.test"
    )
  path = pathlib.Path(expanded("data.label", label) or "")
  if path.suffix != ".npy" or not path.is_file():
    raise UsageError(
      f"data.label={label!r}: with data.file an .npy file, give the .npy file "
      f"of the labels, or {NO_LABEL!r}"
    )
  return ArrayFile(path)[:]


def _arrays(
  path: pathlib.Path, where: str, label: str | None
) -> tuple[np.ndarray, np.ndarray | None]:
  """Return samples and labels of an .npz file."""
  with reading(where, "give a file as numpy.savez writes it"):
    arrays = read_arrays(path)
  if label is None:
    label = next((x for x in _LABELS if x in arrays), NO_LABEL)
  elif label != NO_LABEL and label not in arrays:
    raise UsageError(
      f"data.label={label!r}: {did_you_mean(label, arrays)}{where} holds "
      f"{', '.join(arrays) or 'nothing'}; choose one, or {NO_LABEL!r}"
    )
  others = [x for x in arrays if x not in (label, *_LABELS)]
  names = [x for x in _SAMPLES if x in arrays] or others
  if not names or (len(names) > 1 and names[0] not in _SAMPLES):
    raise UsageError(
      f"{where} holds {', '.join(arrays) or 'nothing'}: call the samples "
      f"{_SAMPLES[0]!r}"
    )
  return arrays[names[0]], arrays.get(label)
