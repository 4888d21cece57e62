"""Pictures in a folder of the user: their files, classes and splits."""

import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence

from jaxflow.data.collected import (
  TEST,
  TRAIN,
  Labelled,
  choose_splits,
  named_classes,
  source_of,
  split_parts,
  splits_said,
)
from jaxflow.data.looking import (
  INDEX,
  Picture,
  Seen,
  look,
  seen_in,
  some,
  state_of,
  warn_once,
)
from jaxflow.data.pictures import SUFFIXES, WHITE, Colour
from jaxflow.data.source import Source
from jaxflow.errors import UsageError


def load(
  split: str,
  *,
  dir: str | None,
  size: int | None = None,
  channels: int | None = None,
  background: Colour = WHITE,
  crop: str = "centre",
  conditional: bool = True,
  splits: Mapping[str, str | None] = {},
  test_share: float | None = None,
  max_broken: int = 0,
  ram_gib: float = 4.0,
  threads: int = 1,
) -> Source:
  """Open one split of the pictures in `dir`, as images in [-1, 1].

  The arguments are those of `jaxflow.data.load`.
  """
  if not dir:
    raise UsageError(
      "data.dir=None: data.name='folder' needs the folder of the pictures; set "
      "data.dir to it"
    )
  folder, where = pathlib.Path(dir), f"data.dir={dir!r}"
  pictures = look(
    where,
    folder / INDEX,
    states_in(folder, where),
    lambda name: _see(folder / name),
    max_broken=max_broken,
    threads=threads,
  )
  parts = _splits(where, pictures, splits, test_share)
  labels = (label for part in parts.values() for _, label in part)
  return source_of(
    parts,
    split,
    lambda name: folder / name,
    named_classes(labels) if conditional else None,
    name="folder",
    root=dir,
    where=where,
    remedy="mend or remove it, and start again",
    size=size,
    channels=channels,
    background=background,
    crop=crop,
    ram_gib=ram_gib,
    threads=threads,
  )


def states_in(folder: pathlib.Path, where: str) -> dict[str, list[int]]:
  """Return by name the files in a folder, with what changes when one does."""
  try:
    return {name: state_of(path) for name, path in sorted(_files(folder))}
  except OSError as error:
    raise UsageError(
      f"{where} cannot be read ({error.strerror}): give a folder that is there"
    ) from error


def _files(folder: pathlib.Path) -> Iterator[tuple[str, pathlib.Path]]:
  """Yield the files in a folder and in those inside, but for hidden ones."""
  waiting, seen = [(folder, "")], set()
  while waiting:
    place, start = waiting.pop()
    state = place.stat()
    if (state.st_dev, state.st_ino) in seen:  # A link to a folder around it.
      continue
    seen.add((state.st_dev, state.st_ino))
    with os.scandir(place) as entries:
      for entry in entries:
        if entry.name.startswith(".") or entry.name == INDEX:
          continue
        path, name = pathlib.Path(entry.path), f"{start}{entry.name}"
        if entry.is_dir():
          waiting.append((path, f"{name}/"))
        elif entry.is_file():
          yield name, path


def _see(path: pathlib.Path) -> Seen:
  """Look at a file, which need not have the name of a picture."""
  return seen_in(path, other=path.suffix.lower() not in SUFFIXES)


def _splits(
  where: str,
  pictures: Sequence[Picture],
  given: Mapping[str, str | None],
  test_share: float | None,
) -> dict[str, Sequence[Labelled]]:
  """Return the pictures of each split, with the names of their classes."""
  tops = {x.name.partition("/")[0] if "/" in x.name else "" for x in pictures}
  own = "" not in tops and {x.lower() for x in tops} <= {*TRAIN, *TEST}
  named = any(given.values())
  beside = [x.name for x in pictures if "/" not in x.name]
  if not own and not named:
    _check_no_splits(tops - {""}, beside, where)
  chosen = choose_splits(
    given,
    tops - {""},
    tops if own and not named else (),
    where=where,
    what="folder",
    test_share=test_share,
  )
  if not chosen and not beside:
    _say_wrapped(where, pictures)
  if chosen and beside:
    warn_once(f"{where}: in no split: {len(beside)} ({some(beside)})")
  chosen = chosen or {"train": ""}
  found = {x: _classed(pictures, f"{x}/" if x else "") for x in chosen.values()}
  return split_parts(found, chosen, lambda x: x.name, test_share, where)


def _check_no_splits(
  folders: Iterable[str], beside: Sequence[str], where: str
) -> None:
  """Raise UsageError if folders that are to be classes seem to be splits."""
  said = {x: splits_said(x) for x in sorted(folders)}
  seeming = [x for x in said if said[x]]
  if len(seeming) < 2 or len(set().union(*said.values())) < 2:
    return
  others = [*(x for x in said if not said[x]), *beside]
  around = f" beside {some(others)}" if others else ""
  train, test = (
    next(x for x in sorted(seeming, key=lambda x: len(said[x])) if y in said[x])
    for y in ("train", "test")
  )
  raise UsageError(
    f"{where} has folders that seem to be splits, {some(seeming)}{around}: "
    f"name them, data.split.train={train!r} and data.split.test={test!r} for "
    "instance; classes need other names"
  )


def _say_wrapped(where: str, pictures: Sequence[Picture]) -> None:
  """Say it if all pictures are in one folder, and that in several."""
  parts = [x.name.split("/") for x in pictures]
  around = {x[0] for x in parts}
  inside = sorted({x[1] for x in parts if len(x) > 2})
  if len(around) == 1 and len(inside) > 1:
    warn_once(
      f"{where} holds one folder, {min(around)!r}, so there are no classes; "
      f"name that folder for those inside it ({some(inside)})"
    )


def _classed(pictures: Iterable[Picture], start: str) -> list[Labelled]:
  """Return the pictures below a folder, with the first folder inside of it."""
  below = [x for x in pictures if x.name.startswith(start)]
  inside = [x.name.removeprefix(start).rpartition("/")[0] for x in below]
  names = [name.partition("/")[0] or None for name in inside]
  return list(zip(below, names, strict=True))
