"""Sets of the package `datasets`: their splits, pictures and labels.

Its arrow files are memory-mapped, and pictures are read by their row.
"""

import dataclasses
import hashlib
import itertools
import json
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jaxflow.data.collected import (
  Classes,
  Label,
  Labelled,
  classes_of,
  named_splits,
  source_of,
  split_parts,
)
from jaxflow.data.looking import INDEX, look, seen_in, some, state_of
from jaxflow.data.pictures import WHITE, Colour, PictureError
from jaxflow.data.sets.hugging_face_files import (
  fetched,
  line_of,
  package,
  tables_in,
)
from jaxflow.data.source import NO_LABEL, Source
from jaxflow.errors import UsageError, did_you_mean
from jaxflow.reading import DAMAGE

_NUMBERS = ("int", "uint", "bool")


def load(
  split: str,
  *,
  dir: str | None = None,
  hub: str | None = None,
  config: str | None = None,
  image: str | None = None,
  label: str | None = None,
  data_dir: str | None = None,
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
  download: bool = False,
) -> Source:
  """Open one split of a set of pictures, as images in [-1, 1].

  The arguments are those of `jaxflow.data.load`.
  """
  if bool(dir) == bool(hub):
    raise UsageError(
      f"data.dir={dir!r}, data.hub={hub!r}: data.name='huggingface' needs one "
      "of them, a folder of parquet or arrow files or a name on the hub"
    )
  where = f"data.dir={dir!r}" if dir else f"data.hub={hub!r}"
  package(where)
  folder = pathlib.Path(dir) if dir else fetched(hub or "", download)
  tables = tables_in(folder, config, data_dir, where)
  chosen = named_splits(splits, tables, where=where, test_share=test_share)
  parts = {part: tables[part] for part in chosen.values()}
  column = _picture_column(parts, image, where)
  kind = _label_column(parts, label, where) if conditional else None
  files = {part: _Rows(table, column) for part, table in parts.items()}

  def read(name: str) -> bytes:
    part, _, number = name.rpartition("/")
    return files[part].read(int(number))

  pictures = look(
    where,
    _folder_of(next(iter(parts.values()))) / INDEX,
    {
      f"{part}/{i}": [rows.state]
      for part, rows in files.items()
      for i in range(len(rows.table))
    },
    lambda name: _see(read, name),
    max_broken=max_broken,
    threads=threads,
  )
  labels = {
    part: _labels(table, kind.column) if kind else [None] * len(table)
    for part, table in parts.items()
  }
  if kind and label and not any(x is not None for x in _all(labels)):
    raise UsageError(
      f"data.label={label!r}: no row of {where} has this label; choose "
      f"another, or {NO_LABEL!r}"
    )
  found: dict[str, list[Labelled]] = {part: [] for part in parts}
  for picture in pictures:
    part, _, number = picture.name.rpartition("/")
    found[part].append((picture, labels[part][int(number)]))
  return source_of(
    split_parts(
      found,
      chosen,
      lambda picture: picture.name.rpartition("/")[2],
      test_share,
      where,
    ),
    split,
    read,
    kind and (kind.classes or classes_of(_all(labels), where)),
    name="huggingface",
    root=dir or hub or "",
    where=where,
    remedy="mend its row, and start again",
    size=size,
    channels=channels,
    background=background,
    crop=crop,
    ram_gib=ram_gib,
    threads=threads,
  )


@dataclasses.dataclass(frozen=True)
class _Labels:
  """A column of labels, and its classes where the set says them."""

  column: str
  classes: Classes | None


class _Rows:
  """The files of pictures in a column of a table, by their row."""

  def __init__(self, table: Any, column: str):
    self.table = table.select_columns([column]).with_format("arrow")
    self._column = column
    # Paths of the arrow files, with size and time: what changes with the data.
    files = [pathlib.Path(x["filename"]) for x in table.cache_files]
    states = [[x.name, *state_of(x)] for x in files]
    text = json.dumps([column, states])
    self.state = hashlib.sha256(text.encode()).hexdigest()[:16]

  def read(self, row: int) -> bytes:
    """Return the bytes of a picture; raise PictureError if there are none."""
    try:
      value = self.table[row][self._column][0].as_py()
    except DAMAGE as error:
      raise PictureError(
        f"its row cannot be read ({line_of(error)})"
      ) from error
    path = None
    if isinstance(value, dict):
      value, path = value.get("bytes"), value.get("path")
    if isinstance(value, bytes):
      return value
    elsewhere = f", only a path, {path!r}" if path else ""
    raise PictureError(f"the row has no picture{elsewhere}")


def _see(read: Any, name: str) -> tuple[int, int, str]:
  """Look at the picture of a row."""
  try:
    return seen_in(read(name))
  except PictureError as error:
    return 0, 0, str(error)


def _picture_column(
  tables: Mapping[str, Any], image: str | None, where: str
) -> str:
  """Return the column of the pictures."""
  features = _features(tables, where)
  there = [k for k, x in features.items() if _holds_pictures(x, where)]
  if image is None:
    usual = there[:1] if len(there) == 1 else [x for x in there if x == "image"]
    if usual:
      return usual[0]
    raise UsageError(
      f"data.image=None: {where} has "
      + (
        f"pictures in {some(there)}; choose one"
        if there
        else f"no column of pictures, only {_columns(features)}"
      )
    )
  _check_column("image", image, features, where)
  if image not in there:
    raise UsageError(
      f"data.image={image!r}: the column holds {_kind(features[image])}, no "
      f"files of pictures; those of {where} that do: {some(there) or 'none'}"
    )
  return image


def _holds_pictures(feature: Any, where: str) -> bool:
  """Return whether a column may hold the files of pictures."""
  datasets = package(where)
  # Without the package's own description a picture is bytes beside a path.
  binary = feature.get("bytes") if isinstance(feature, dict) else feature
  return isinstance(feature, datasets.Image) or (
    getattr(binary, "dtype", "") in ("binary", "large_binary")
  )


def _label_column(
  tables: Mapping[str, Any], label: str | None, where: str
) -> _Labels | None:
  """Return the column of the labels, or None for none."""
  datasets = package(where)
  features = _features(tables, where)
  if label == NO_LABEL:
    return None
  if label is None:
    there = [k for k, x in features.items() if type(x) is datasets.ClassLabel]
    if "label" in features:
      label = "label"
    elif len(there) < 2:
      label = next(iter(there), None)
    else:
      raise UsageError(
        f"data.label=None: {where} has labels in {some(there)}; choose one, or "
        f"{NO_LABEL!r}"
      )
    if label is None:
      return None
  _check_column("label", label, features, where)
  feature = features[label]
  if isinstance(feature, datasets.ClassLabel):
    names = tuple(feature.names or ())
    # Names that are the numbers say nothing.
    plain = names == tuple(map(str, range(len(names))))
    return _Labels(
      label, Classes(feature.num_classes or 0, () if plain else names)
    )
  kind = getattr(feature, "dtype", "")
  if kind.rstrip("0123456789") not in (*_NUMBERS, "string", "large_string"):
    raise UsageError(
      f"data.label={label!r}: the column of {where} holds {_kind(feature)}, no "
      f"numbers or names of classes; choose another, or {NO_LABEL!r}"
    )
  return _Labels(label, None)


def _check_column(
  what: str, column: str, features: Mapping[str, Any], where: str
) -> None:
  if column not in features:
    raise UsageError(
      f"data.{what}={column!r}: {did_you_mean(column, features)}{where} has "
      f"the columns {_columns(features)}; choose one"
    )


def _features(tables: Mapping[str, Any], where: str) -> Mapping[str, Any]:
  """Return the columns that all tables have."""
  first, *others = (table.features for table in tables.values())
  return {k: v for k, v in first.items() if all(k in x for x in others)}


def _columns(features: Mapping[str, Any]) -> str:
  return ", ".join(f"{k} ({_kind(v)})" for k, v in features.items())


def _kind(feature: Any) -> str:
  name = type(feature).__name__
  return feature.dtype if name == "Value" else name


def _labels(table: Any, column: str) -> list[Label]:
  """Return a column of labels; truth values are 0 and 1."""
  values = table.select_columns([column]).with_format("arrow")[:]
  found = values.column(0).to_pylist()
  return [int(x) if isinstance(x, bool) else x for x in found]


def _all(labels: Mapping[str, Sequence[Label]]) -> Iterator[Label]:
  return itertools.chain.from_iterable(labels.values())


def _folder_of(table: Any) -> pathlib.Path:
  """Return the folder of a table's arrow files."""
  return pathlib.Path(table.cache_files[0]["filename"]).parent
