"""Parquet and arrow files, local or of the hub, opened by `datasets`.

No code of a set runs: `datasets` 4 has no scripts, other formats than parquet
and arrow are refused, and a README may name files of its own folder only. The
files of a hub's set are fetched by `huggingface_hub`, and from then on are a
folder like any other.
"""

import contextlib
import importlib
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from jaxflow.data.looking import some, warn_once
from jaxflow.errors import UsageError, did_you_mean

# What is fetched of a set: its data, and the files that describe them.
_FETCHED = (
  *("*.parquet", "*.arrow", "README.md", ".huggingface.yaml"),
  *("dataset_dict.json", "*dataset_info.json", "*state.json"),
)
_KINDS = ("parquet", "arrow")


def package(where: str) -> Any:
  """Return the package `datasets`; raise UsageError if it is not installed."""
  try:
    return importlib.import_module("datasets")
  except ImportError as error:
    raise UsageError(
      f"{where}: data.name='huggingface' needs the package datasets ({error}): "
      "pip install 'jaxflow-generative[huggingface]'"
    ) from error


def fetched(hub: str, download: bool) -> pathlib.Path:
  """Return the folder of a set of the hub; fetch it only if that is allowed."""
  huggingface_hub: Any = importlib.import_module("huggingface_hub")
  name, _, revision = hub.partition("@")
  try:
    return pathlib.Path(
      huggingface_hub.snapshot_download(
        name,
        repo_type="dataset",
        revision=revision or None,
        allow_patterns=list(_FETCHED),
        local_files_only=not download,
      )
    )
  except Exception as error:  # Of the network, of the hub, of the disk.
    if download or isinstance(error, huggingface_hub.errors.HFValidationError):
      raise UsageError(
        f"data.hub={hub!r} cannot be fetched ({line_of(error)}): correct the "
        "name, OWNER/NAME or OWNER/NAME@REVISION, or give a folder, data.dir"
      ) from error
    raise UsageError(
      f"data.hub={hub!r} is not on this machine: set data.download=True to "
      "fetch it, or give a folder with its files, data.dir"
    ) from error


def tables_in(
  folder: pathlib.Path, config: str | None, data_dir: str | None, where: str
) -> dict[str, Any]:
  """Return the tables of a folder by the names of their splits."""
  datasets = package(where)
  if not folder.is_dir():
    raise UsageError(f"{where} is no folder: give one that is there")
  saved = any(
    (folder / x).exists() for x in ("dataset_dict.json", "state.json")
  )
  if saved and config:
    raise UsageError(
      f"data.config={config!r}: {where} was written by save_to_disk, which "
      "keeps one config; remove data.config"
    )
  with _opening(where):
    if saved:
      found: Any = datasets.load_from_disk(str(folder), keep_in_memory=False)
    else:
      _check_description(folder, where)
      builder = datasets.load_dataset_builder(
        str(folder), _config(folder, config, where), cache_dir=data_dir
      )
      _check_kind(builder, where)
      _say_unused(folder, builder, where)
      builder.download_and_prepare()
      found = builder.as_dataset(in_memory=False)
  parts = found if isinstance(found, dict) else {"train": found}
  if saved:
    _check_inside(folder, parts, where)
  tables = {str(name): table for name, table in parts.items() if len(table)}
  if not tables:
    raise UsageError(f"{where} has no rows: give a set of two or more pictures")
  return tables


@contextlib.contextmanager
def _opening(where: str) -> Iterator[None]:
  """Make one line of whatever `datasets` raises; show no progress bars."""
  datasets = package(where)
  shown = not datasets.are_progress_bars_disabled()
  datasets.disable_progress_bars()
  try:
    yield
  except UsageError:
    raise
  except Exception as error:  # It wraps those of readers and of the disk.
    cause = error.__cause__ or error
    raise UsageError(
      f"{where} cannot be opened ({type(cause).__name__}: {line_of(cause)}): "
      "give whole parquet or arrow files"
    ) from error
  finally:
    if shown:
      datasets.enable_progress_bars()


def _check_description(folder: pathlib.Path, where: str) -> None:
  """Raise UsageError if a README names files that are not in its folder."""
  huggingface_hub: Any = importlib.import_module("huggingface_hub")
  yaml: Any = importlib.import_module("yaml")
  card, plain = folder / "README.md", folder / ".huggingface.yaml"
  described = []
  if card.is_file():
    text = card.read_text(errors="replace")
    described.append(huggingface_hub.DatasetCard(text).data.to_dict())
  if plain.is_file():
    described.append(yaml.safe_load(plain.read_text()))
  configs = [x.get("configs") for x in described if isinstance(x, dict)]
  for text in _texts(configs):
    path = pathlib.PurePosixPath(text)
    if "://" in text or path.is_absolute() or {"..", "~"} & {*path.parts}:
      raise UsageError(
        f"{where}: its README names {text!r}, which is not in its folder; "
        "correct it, or give a folder of the parquet files alone"
      )


def _texts(value: Any) -> Iterator[str]:
  """Yield the texts in lists and mappings."""
  if isinstance(value, str):
    yield value
  elif isinstance(value, list | dict):
    inside = value.values() if isinstance(value, dict) else value
    for x in inside:
      yield from _texts(x)


def _say_unused(folder: pathlib.Path, builder: Any, where: str) -> None:
  """Warn of files that `datasets` takes for no split, where it has a config."""
  used = {
    os.path.realpath(path)
    for paths in (builder.config.data_files or {}).values()
    for path in paths
  }
  unused = [
    path.relative_to(folder).as_posix()
    for kind in _KINDS
    for path in sorted(folder.rglob(f"*.{kind}"))
    if os.path.realpath(path) not in used
  ]
  if unused and len(builder.builder_configs) < 2:
    warn_once(f"{where}: in no split: {len(unused)} files ({some(unused)})")


def _check_inside(
  folder: pathlib.Path, parts: Mapping[str, Any], where: str
) -> None:
  """Raise UsageError if a saved set names files that are not in its folder."""
  root = os.path.abspath(folder)
  for table in parts.values():
    for file in table.cache_files:
      path = os.path.abspath(file["filename"])
      if os.path.commonpath((root, path)) != root:
        raise UsageError(
          f"{where}: its state.json names {path!r}, which is not in its "
          "folder; save the set again"
        )


def _config(folder: pathlib.Path, config: str | None, where: str) -> str | None:
  """Return the config that is asked for, None for the only one."""
  datasets = package(where)
  names = datasets.get_dataset_config_names(str(folder))
  default = datasets.get_dataset_default_config_name(str(folder))
  if config in names or (config is None and (default or len(names) == 1)):
    return config
  raise UsageError(
    f"data.config={config!r}: {did_you_mean(config or '', names)}{where} has "
    f"{some(names)}; choose one"
  )


def _check_kind(builder: Any, where: str) -> None:
  """Raise UsageError if files are of another kind than parquet or arrow."""
  kind = type(builder).__module__.split(".")[-1]
  if kind not in _KINDS:
    raise UsageError(
      f"{where} holds files for {kind!r}, not parquet or arrow: "
      "data.name='folder' reads pictures, 'webdataset' tar files, and the hub "
      "keeps most sets as parquet too, NAME@refs/convert/parquet"
    )


def line_of(error: BaseException) -> str:
  """Return what an error says as one line."""
  return " ".join(str(error).split())[:300] or type(error).__name__
