"""Config files, read: Python code with `get_config(method)`."""

import contextlib
import importlib.util
import pathlib
from collections.abc import Iterator
from types import ModuleType

from ml_collections import ConfigDict

from jaxflow import config_files
from jaxflow.config.components import Config, complete, methods
from jaxflow.errors import UsageError, named


def preset(name: str) -> Config:
  """Return the config of a file and a method with every field set.

  Args:
    name: "NAME:METHOD" with a name of `config_files.names`, or
      "FILE.py:METHOD".

  Returns:
    The config, unlocked, to be changed and given to `jaxflow.train`.

  Example:
    >>> config = preset("digits:mean_flow")
    >>> config.train.steps = 500
    >>> config.times.law.name
    'uniform'
  """
  with named(config="name"):
    config = load_file(name)
  complete(config)
  return config


def load_file(name: str) -> Config:
  """Return the unlocked config of "NAME:METHOD" or "FILE.py:METHOD"."""
  path, method = config_files.parts(name)
  with _refused(name):
    config = _run(path).get_config(method)
  absent = "method", "data", "model", "loss"
  if isinstance(config, ConfigDict):
    absent = [x for x in absent if not config.get(x)]
  if absent:
    raise UsageError(
      f"config={name}: what get_config of {str(path)!r} returns has no "
      f"{absent[0]}: return what jaxflow.config.default_config makes"
    )
  return config


def methods_of(path: pathlib.Path) -> list[str]:
  """Return the methods for which a config file has a config."""
  found = []
  with contextlib.suppress(UsageError), _refused(path.stem):
    module = _run(path)
    for name in methods():
      with contextlib.suppress(UsageError), _refused(path.stem):
        module.get_config(name)
        found.append(name)
  return found


@contextlib.contextmanager
def _refused(name: str) -> Iterator[None]:
  """Raise UsageError for whatever the code of a config file raises."""
  try:
    yield
  except (UsageError, KeyboardInterrupt):
    raise
  except BaseException as error:  # Of sys.exit as well.
    what = f"{type(error).__name__} ({error})".removesuffix(" ()")
    raise UsageError(
      f"config={name}: {name.partition(':')[0]!r} raises {what}: correct the "
      "file; --debug shows where"
    ) from error


def _run(path: pathlib.Path) -> ModuleType:
  """Run a config file."""
  specification = importlib.util.spec_from_file_location("config", path)
  assert specification is not None and specification.loader is not None
  module = importlib.util.module_from_spec(specification)
  specification.loader.exec_module(module)
  return module
