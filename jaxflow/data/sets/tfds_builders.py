"""Sets of TFDS: found by their name, prepared on request or not at all."""

import contextlib
import os
import re
import socket
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterable, Iterator
from typing import Any

import tensorflow_datasets as tfds
from absl import logging
from tensorflow_datasets.core.registered import DatasetNotFoundError
from tensorflow_datasets.core.utils import file_utils

from jaxflow.errors import UsageError

# TFDS' default format, TFRecord, cannot be read without TensorFlow.
FILE_FORMAT = "array_record"
# Seconds for all hosts together; looking up a name has no limit of its own.
_LIMIT = 4.0
# NAME, NAME/CONFIG, NAME:1.2.3: names of other hubs would be looked up there.
_NAME = re.compile(r"\w+(/[\w+.-]+)?(:\d+\.\d+\.\d+)?")
_FEATURES: Any = tfds.features.FeatureConnector
_ANY_CLASS = vars(_FEATURES)["cls_from_name"]


def names() -> list[str]:
  """Return the names of all sets of TFDS, of images or not."""
  return tfds.list_builders(with_community_datasets=False)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
  """Let absl log errors only."""
  verbosity = logging.get_verbosity()
  logging.set_verbosity(min(verbosity, logging.ERROR))
  try:
    yield
  finally:
    logging.set_verbosity(verbosity)


def find(name: str, data_dir: str | None) -> tfds.core.DatasetBuilder | None:
  """Return the builder of a set, from TFDS or from prepared files.

  The name may have a config and a version; those that do not exist raise
  UsageError. None says that there is no such set.
  """
  if not _NAME.fullmatch(name):
    return None
  try:
    _FEATURES.cls_from_name = _own_class
    return tfds.builder(name, data_dir=data_dir)
  except DatasetNotFoundError:
    return None
  except (ValueError, AssertionError) as error:
    raise UsageError(f"data.name={name!r}: {_line(error)}") from error
  except Exception as error:  # TFDS takes its files as they should be.
    raise UsageError(
      f"data.name={name!r}: its features.json or dataset_info.json is damaged "
      f"({type(error).__name__}: {_line(error)}): prepare the set again"
    ) from error
  finally:
    _FEATURES.cls_from_name = _ANY_CLASS


def _own_class(name: str) -> Any:
  """Return a feature class of TFDS, which itself imports any that is named."""
  if name.startswith("tensorflow_datasets.core.features."):
    return _ANY_CLASS.__get__(None, _FEATURES)(name)
  raise ValueError(
    f"features.json names the class {name!r}, which is not of TFDS: prepare the"
    " set with tfds.features.Image and tfds.features.ClassLabel"
  )


def is_known(folder: str) -> bool:
  """Return whether TFDS looks in a folder, or in one around it, by itself."""
  places = folder, *file_utils.list_data_dirs()
  path, *known = (os.path.realpath(os.path.expanduser(x)) for x in places)
  return any(os.path.commonpath((path, root)) == root for root in known)


def is_prepared(builder: tfds.core.DatasetBuilder) -> bool:
  """Return whether a set is on disk; raise UsageError if half of it is."""
  if not builder.data_path.exists():
    return False
  # TFDS moves only finished folders here: one without its description was
  # damaged later.
  if not (builder.data_path / "dataset_info.json").exists():
    raise UsageError(damaged(builder))
  return True


def damaged(builder: tfds.core.DatasetBuilder) -> str:
  """Return the error message of a prepared set that cannot be read."""
  return (
    f"data.data_dir={str(builder.data_dir_root)!r}: {builder.data_path} is"
    " damaged; delete that folder to have it prepared again"
  )


def data_source(builder: tfds.core.DatasetBuilder, split: str) -> Any:
  """Return the records of a split, a sequence of dicts."""
  # TFDS' decorators hide the signature from type checkers.
  as_data_source: Any = builder.as_data_source
  return as_data_source(split)


def prepare(builder: tfds.core.DatasetBuilder, *, download: bool) -> None:
  """Prepare a set that is not there, or say at once why it cannot be."""
  missing = (
    f"data.name={builder.name!r} is not in"
    f" data.data_dir={str(builder.data_dir_root)!r}"
  )
  if not download:
    raise UsageError(f"{missing}: {remedy(builder)}; or set data.download=True")
  if builder.MANUAL_DOWNLOAD_INSTRUCTIONS:
    problem = "" if os.path.isdir(_manual(builder)) else "files are missing"
  else:
    host = unreachable(builder.url_infos or ())
    problem = f"{host} cannot be reached" if host else ""
  if problem:
    raise UsageError(
      f"data.download=True: {missing} and {problem}: {remedy(builder)}"
    )
  logging.info("Preparing %s, once", builder.data_path)
  # The files in the bucket of TFDS cannot be read without TensorFlow, and
  # asking for it hangs where there is no network.
  options = tfds.download.DownloadConfig(try_download_gcs=False)
  try:
    builder.download_and_prepare(
      download_config=options, file_format=FILE_FORMAT
    )
  except Exception as error:  # The builder's own code may raise anything.
    if is_prepared(builder):
      return  # Another process was first.
    raise UsageError(
      f"data.download=True: {missing} and cannot be prepared"
      f" ({type(error).__name__}: {_line(error)}): {remedy(builder)}"
    ) from error


def remedy(builder: tfds.core.DatasetBuilder) -> str:
  """Return instructions to get a set that is not prepared."""
  root, name = str(builder.data_dir_root), builder.name
  if builder.builder_config:
    name = f"{name}/{builder.builder_config.name}"
  first = ""
  if builder.MANUAL_DOWNLOAD_INSTRUCTIONS:
    first = (
      "put the files that https://www.tensorflow.org/datasets/catalog/"
      f"{builder.name} names into {_manual(builder)}, then "
    )
  return (
    f'{first}run python -c "import tensorflow_datasets as tfds;'
    f" tfds.builder({name!r}, data_dir={root!r},"
    f' file_format={FILE_FORMAT!r}).download_and_prepare()" where'
    " there is a network, and tensorflow for this step; copy"
    f" {builder.data_path} if that is another machine"
  )


def _manual(builder: tfds.core.DatasetBuilder) -> str:
  return os.path.join(str(builder.data_dir_root), "downloads", "manual")


def _line(error: BaseException) -> str:
  return (str(error).splitlines() or [""])[0].strip()


def unreachable(addresses: Iterable[str]) -> str | None:
  """Return a host of these URLs that cannot be reached, or None.

  It opens and closes a connection to each host, or to the proxy of the
  environment, at once.

  Example:
    >>> unreachable(["http://localhost:1/file"])
    'localhost'
  """
  hosts, reached = {_host(address) for address in addresses}, set()

  def connect(host):
    with contextlib.suppress(OSError):
      socket.create_connection(host, timeout=_LIMIT).close()
      reached.add(host)

  # Daemons: one that hangs in a look-up must not keep the process alive.
  threads = [
    threading.Thread(target=connect, args=(host,), daemon=True)
    for host in hosts
  ]
  for thread in threads:
    thread.start()
  end = time.monotonic() + _LIMIT
  for thread in threads:
    thread.join(max(end - time.monotonic(), 0))
  return min((name for name, _ in hosts - reached), default=None)


def _host(address: str) -> tuple[str, int]:
  parts = urllib.parse.urlsplit(address)
  proxy = urllib.request.getproxies().get(parts.scheme)
  if proxy and not urllib.request.proxy_bypass(parts.hostname or ""):
    parts = urllib.parse.urlsplit(proxy if "//" in proxy else f"//{proxy}")
  port = parts.port or (80 if parts.scheme == "http" else 443)
  return parts.hostname or "", port
