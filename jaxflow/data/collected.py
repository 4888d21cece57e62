"""Splits, classes and images of pictures that were looked at."""

import collections
import dataclasses
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxflow.data.images import Images
from jaxflow.data.looking import Picture, some, warn_once
from jaxflow.data.pictures import WHITE, Colour, PictureError, decode
from jaxflow.data.source import (
  MOST_CLASSES,
  NO_LABEL,
  TEST_SHARE,
  NoSplitError,
  Source,
  rows_of_split,
)
from jaxflow.errors import UsageError, did_you_mean

# Names by which splits are known in any case, the first that is there.
TRAIN = "train", "training"
TEST = "test", "testing", "val", "valid", "validation"

# The name of a class, its number, or None for no label.
Label = str | int | None
Labelled = tuple[Picture, Label]

# Words that seem to say a split, known or not.
_SAYING = re.compile(r"(train|test|val)(ing|id|idation)?(set|data|val|test)?")
_NUMBER = re.compile(r"[-+]?(\d+\.\d*|\.\d+|\d+(?=e[-+]))(e[-+]?\d+)?", re.I)


@dataclasses.dataclass(frozen=True)
class Classes:
  """The classes of a set: how many, and their names, or () without."""

  num: int
  names: tuple[str, ...] = ()


def splits_said(name: str) -> set[str]:
  """Return the splits that words in a name seem to say.

  Example:
    >>> splits_said("Train2017"), splits_said("valley"), splits_said("a-valset")
    ({'train'}, set(), {'test'})
  """
  words = map(_SAYING.fullmatch, re.split("[^a-z]+", name.lower()))
  said = {x for found in words if found for x in (found[1], found[3])}
  return {"train"} & said | {"test" for x in ("test", "val") if x in said}


def choose_splits(
  given: Mapping[str, str | None],
  there: Collection[str],
  known: Collection[str],
  *,
  where: str,
  what: str = "split",
  train: Sequence[str] = TRAIN,
  test_share: float | None = None,
) -> dict[str, str]:
  """Return which parts of a set are "train" and "test", {} if none is.

  Without "test" it is to be held out of "train".

  Args:
    given: What `data.split` says.
    there: Names of all parts.
    known: Those that may be taken for what their name says.
    where: The set, for messages.
    what: What a part is, for messages.
    train: Names that stand for "train", the first that is there.
    test_share: The share that the user holds out, which leaves a test split
      unused.

  Raises:
    UsageError: A part is not there or is named twice, or the training split
      is not named.
  """
  chosen = {k: v for k, v in given.items() if v}
  for name, part in chosen.items():
    if part not in there:
      raise UsageError(
        f"data.split.{name}={part!r}: {did_you_mean(part, there)}{where} has "
        f"no {what} of this name, only {some(sorted(there))}"
      )
  if len(chosen) > len({*chosen.values()}):
    raise UsageError(
      f"data.split.test={given['test']!r}: this is data.split.train too, and "
      f"tests need pictures of their own; name another {what}"
    )
  for name, words in (("train", train), ("test", TEST)):
    unnamed = sorted({*known} - {*chosen.values()})
    free = [x for word in words for x in unnamed if x.lower() == word]
    if free and name not in chosen:
      chosen[name] = free[0]
  if "train" not in chosen:
    if any(given.values()):
      raise UsageError(
        f"data.split.test={given['test']!r}: name the {what} of the other "
        "pictures, data.split.train"
      )
    return {}
  if test_share is not None:
    chosen.pop("test", None)
  unused = sorted({*there} - {*chosen.values()} - {""})
  if unused:
    warn_once(
      f"{where}: in no split: {some(unused)}; data.split.train and "
      "data.split.test name others"
    )
  return chosen


def named_splits(
  given: Mapping[str, str | None],
  there: Mapping[str, Any],
  *,
  where: str,
  what: str = "split",
  train: Sequence[str] = TRAIN,
  test_share: float | None = None,
) -> dict[str, str]:
  """Choose splits by what parts of a set are called; one alone is "train".

  The arguments are those of `choose_splits`.
  """
  chosen = choose_splits(
    given,
    there,
    there,
    where=where,
    what=what,
    train=train,
    test_share=test_share,
  )
  if not chosen and len(there) > 1:
    raise NoSplitError(
      f"{where} has no train split, only {', '.join(there)}: name one, "
      "data.split.train"
    )
  return chosen or {"train": next(iter(there))}


def split_parts(
  found: Mapping[str, Sequence[Labelled]],
  chosen: Mapping[str, str],
  key: Callable[[Picture], str],
  test_share: float | None,
  where: str,
) -> dict[str, Sequence[Labelled]]:
  """Return the pictures of each split.

  Args:
    found: Pictures of the parts of a set.
    chosen: Which part is which split; without "test" it is held out.
    key: Names a picture, for the hash that holds it out.
    test_share: Share that is held out, None for the default.
    where: The set, for messages.
  """
  if "test" in chosen:
    return {split: found[part] for split, part in chosen.items()}
  whole, parts = found[chosen["train"]], {}
  share = TEST_SHARE if test_share is None else test_share
  for split in ("train", "test"):
    try:
      names = (key(picture) for picture, _ in whole)
      rows = rows_of_split(names, split, share, where)
    except NoSplitError:
      continue
    parts[split] = [whole[row] for row in rows]
  return parts


def classes_of(labels: Iterable[Label], where: str) -> Classes:
  """Return the classes that labels are of: numbers from 0 on, or names.

  A name alone is no class. -1 and None are no label.

  Raises:
    UsageError: A label is neither, some are names and others numbers, or most
      names are of one sample only.

  Example:
    >>> classes_of([*"aab"], "x"), classes_of([4, -1], "x").num
    (Classes(num=2, names=('a', 'b')), 5)
  """
  found: Any = collections.Counter(x for x in labels if x is not None)
  if not found:
    return Classes(0)
  if all(isinstance(x, str) for x in found):
    _check_names(found, where)
    return named_classes(found)
  wrong = [x for x in found if type(x) is not int or not -1 <= x < MOST_CLASSES]
  if wrong:
    raise UsageError(
      f"{where}: a label is {min(map(repr, wrong))}: labels are whole numbers "
      "from 0 on, or all of them names; data.label chooses others, "
      f"{NO_LABEL!r} leaves them out"
    )
  return Classes(max(found) + 1)


def named_classes(labels: Iterable[Any]) -> Classes:
  """Return the classes of names, none if there is one name only.

  Names that are whole numbers are in the order of these, others in that of
  texts.

  Example:
    >>> named_classes(["10", "9"]).names, named_classes(["b10", "b9"]).names
    (('9', '10'), ('b10', 'b9'))
  """
  names = sorted({x for x in labels if x is not None})
  if all(x.isdecimal() for x in names):
    names.sort(key=int)
  return Classes(len(names), tuple(names)) if len(names) > 1 else Classes(0)


def _check_names(found: Mapping[str, int], where: str) -> None:
  """Raise UsageError for texts, with their counts, that name no classes."""
  leave = f"data.label chooses others, {NO_LABEL!r} leaves them out"
  for text in sorted(found):
    if _NUMBER.fullmatch(text) and float(text) % 1:
      raise UsageError(
        f"{where}: a label is {text!r}: numbers of classes are whole; {leave}"
      )
  alone = sorted(x for x, count in found.items() if count == 1)
  if 1 < len(found) < 2 * len(alone):
    raise UsageError(
      f"{where}: of {len(found)} labels {len(alone)} have one sample only "
      f"({alone[0][:40]!r}), so they are texts and no classes; set "
      f"data.label={NO_LABEL}, or choose others"
    )


def source_of(
  parts: Mapping[str, Sequence[Labelled]],
  split: str,
  read: Callable[[str], Any],
  classes: Classes | None,
  *,
  name: str,
  root: str,
  where: str,
  remedy: str,
  size: int | None = None,
  channels: int | None = None,
  background: Colour = WHITE,
  crop: str = "centre",
  ram_gib: float = 4.0,
  threads: int = 1,
) -> Source:
  """Return a split of pictures as images in [-1, 1].

  Args:
    parts: By split, pictures and their labels.
    split: "train" or "test".
    read: Returns what `decode` takes, given the name of a picture.
    classes: The classes of the labels, or None to leave labels out.
    name: The data set in a config.
    root: What stands before the names of pictures, for messages.
    where: The set, for messages.
    remedy: What to do with a picture that breaks later.
    size: As `jaxflow.data.load` describes this and the following.
    channels: See `size`.
    background: See `size`.
    crop: See `size`.
    ram_gib: See `size`.
    threads: See `size`.

  Raises:
    UsageError: There is no such split, or pictures are of several sizes.
  """
  if split not in parts:
    raise NoSplitError(f"{where} has no {split} split, only {', '.join(parts)}")
  classes = classes or Classes(0)
  numbered = {x: i for i, x in enumerate(classes.names)}
  numbers = [
    numbered.get(x, -1) if isinstance(x, str) else -1 if x is None else int(x)
    for _, x in parts[split]
  ]
  alone = [
    x.name
    for (x, _), number in zip(parts[split], numbers, strict=True)
    if number < 0
  ]
  if alone and classes.num:
    warn_once(f"{where}: used without a label: {len(alone)} ({some(alone)})")
  pictures = [x for part in parts.values() for x, _ in part]
  images = Images(
    records=_Records(
      read,
      root,
      [picture.name for picture, _ in parts[split]],
      np.asarray(numbers),
      channels or 3,
      background,
    ),
    name=name,
    split=split,
    shape=(*_size(pictures, where, size), channels or 3),
    num_classes=classes.num,
    class_names=classes.names,
    remedy=remedy,
  )
  return images.fitting(ram_gib, threads, crop)


@dataclasses.dataclass(frozen=True)
class _Records:
  """Decodes pictures by their number."""

  read: Callable[[str], Any]
  root: str
  names: Sequence[str]
  labels: np.ndarray
  channels: int
  background: Colour

  def __len__(self) -> int:
    return len(self.names)

  def __getitem__(self, number: int) -> dict[str, Any]:
    name = self.names[number]
    try:
      image = decode(self.read(name), self.channels, background=self.background)
    except PictureError as error:
      raise PictureError(f"{self.root}/{name}: {error}") from error
    return {"image": image, "label": int(self.labels[number])}


def _size(
  pictures: Sequence[Picture], where: str, size: int | None
) -> tuple[int, int]:
  """Return height and width of the images."""
  if size is not None:
    return size, size
  sizes = {(x.height, x.width): x.name for x in pictures}
  if len(sizes) > 1:
    (low, small), (high, large) = min(sizes.items()), max(sizes.items())
    raise UsageError(
      f"data.size=None: the pictures of {where} vary in size, "
      f"{low[0]}x{low[1]} ({small}) and {high[0]}x{high[1]} ({large}) for "
      "instance; set data.size=64, for instance, to crop and scale them"
    )
  return next(iter(sizes))
