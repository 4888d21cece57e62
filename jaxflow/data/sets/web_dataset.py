"""Pictures in tar files, as the package WebDataset writes them.

The package itself reads tar files from their beginning; here a sample is read
by its place, so that a batch depends on seed and number only.
"""

import fnmatch
import pathlib
import re
from collections.abc import Mapping, Sequence

from jaxflow.data.collected import (
  TEST,
  TRAIN,
  Labelled,
  classes_of,
  named_splits,
  source_of,
  split_parts,
  splits_said,
)
from jaxflow.data.looking import INDEX, Seen, look, seen_in, some, warn_once
from jaxflow.data.pictures import WHITE, Colour, PictureError
from jaxflow.data.sets.picture_folder import states_in
from jaxflow.data.sets.tar_shards import Place, places_in
from jaxflow.data.source import NO_LABEL, Source
from jaxflow.errors import UsageError

_SUFFIX = ".tar"
_PACKED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
# Shards whose names say no split.
_OTHERS = "others"
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")


def load(
  split: str,
  *,
  dir: str | None = None,
  image: str | None = None,
  label: str | None = None,
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
  """Open one split of the pictures in tar files, as images in [-1, 1].

  The arguments are those of `jaxflow.data.load`.
  """
  if not dir:
    raise UsageError(
      "data.dir=None: data.name='webdataset' needs the folder of the tar "
      "files; set data.dir to it"
    )
  folder, where = pathlib.Path(dir), f"data.dir={dir!r}"
  shards = _shards(folder, where)
  groups = _groups(shards, splits, where)
  chosen = named_splits(
    splits,
    groups,
    where=where,
    train=(*TRAIN, _OTHERS),
    test_share=test_share,
  )
  if chosen["train"] == _OTHERS:
    _check_no_splits(groups, where)
  used = {x: shards[x] for part in chosen.values() for x in groups[part]}
  places = places_in(
    folder,
    used,
    image=image,
    label=label if conditional else NO_LABEL,
    where=where,
    threads=threads,
  )
  pictures = look(
    where,
    folder / INDEX,
    {k: [*used[x.shard], x.offset, x.length] for k, x in places.items()},
    lambda name: _see(places[name]),
    max_broken=max_broken,
    threads=threads,
  )
  part_of = {x: part for part in chosen.values() for x in groups[part]}
  found: dict[str, list[Labelled]] = {part: [] for part in chosen.values()}
  for picture in pictures:
    place = places[picture.name]
    found[part_of[place.shard]].append((picture, place.label))
  labels = (place.label for place in places.values())
  return source_of(
    split_parts(found, chosen, lambda x: places[x.name].key, test_share, where),
    split,
    lambda name: places[name].read(),
    classes_of(labels, where) if conditional else None,
    name="webdataset",
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


def _see(place: Place) -> Seen:
  """Look at the picture of a sample."""
  try:
    return seen_in(place.read())
  except PictureError as error:
    return 0, 0, str(error)


def _shards(folder: pathlib.Path, where: str) -> dict[str, list[int]]:
  """Return the tar files of a folder, by name, with size and time."""
  files = states_in(folder, where)
  shards = {k: x for k, x in files.items() if k.lower().endswith(_SUFFIX)}
  packed = [k for k in files if k.lower().endswith(_PACKED)]
  if not shards:
    reason = f"{some(packed)}: unpack these" if packed else "give such a folder"
    raise UsageError(f"{where} holds no files *{_SUFFIX}, {reason}")
  if packed:
    warn_once(f"{where}: packed, left out: {some(packed)}")
  return shards


def _groups(
  shards: Mapping[str, Sequence[int]],
  given: Mapping[str, str | None],
  where: str,
) -> dict[str, list[str]]:
  """Return tar files by what `data.split` says, or by a word in their names."""
  found: dict[str, list[str]] = {}
  rest = list(shards)
  for name, pattern in given.items():
    if not pattern:
      continue
    patterns = _spelt_out(pattern)
    part = [x for x in shards if _matches(x, patterns)]
    twice = [x for x in part if x not in rest]
    if twice:
      raise UsageError(
        f"data.split.{name}={pattern!r}: {some(twice)} of {where} would be in "
        "data.split.train too; name other files"
      )
    found[pattern] = part
    if not part:
      raise UsageError(
        f"data.split.{name}={pattern!r}: no tar file of {where} is named so, "
        f"but {some([*rest]) or 'none'}"
      )
    rest = [x for x in rest if x not in part]
  for name in rest:
    words = re.split("[^a-z]+", _saying(name).lower())
    known = [x for x in (*TRAIN, *TEST) if x in words]
    plain = known and len(splits_said(_saying(name))) == 1
    found.setdefault(known[0] if plain else _OTHERS, []).append(name)
  return found


def _saying(name: str) -> str:
  """Return the name of a file, or of the nearest folder, that says a split."""
  return next((x for x in reversed(name.split("/")) if splits_said(x)), "")


def _check_no_splits(groups: Mapping[str, Sequence[str]], where: str) -> None:
  """Raise UsageError if files that say no known split seem to say one."""
  said = {x: splits_said(_saying(x)) for x in groups[_OTHERS]}
  seeming = [x for x in said if said[x]]
  if seeming and (len(groups) > 1 or {"test"} in said.values()):
    raise UsageError(
      f"{where}: {some(seeming)} would be trained on, but may hold test "
      "pictures: name the splits, data.split.train and data.split.test"
    )


def _spelt_out(pattern: str) -> list[str]:
  """Return the patterns that one with ranges stands for.

  Example:
    >>> _spelt_out("a-{08..10}.tar")
    ['a-08.tar', 'a-09.tar', 'a-10.tar']
  """
  found = _RANGE.search(pattern)
  if not found:
    return [pattern]
  start, end = pattern[: found.start()], pattern[found.end() :]
  numbers = range(int(found[1]), int(found[2]) + 1)
  return [
    f"{start}{number:0{len(found[1])}}{rest}"
    for rest in _spelt_out(end)
    for number in numbers
  ]


def _matches(name: str, patterns: Sequence[str]) -> bool:
  """Return whether a pattern is that of a file, with its folder or without."""
  ends = name, name.rpartition("/")[2]
  return any(
    fnmatch.fnmatchcase(x, pattern) or name.startswith(f"{pattern}/")
    for pattern in patterns
    for x in ends
  )
