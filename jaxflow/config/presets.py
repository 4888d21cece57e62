"""Config files: where they are found by name, and how they are read.

A config file is Python code with `get_config(method)`. `digits` is
`configs/digits.py` in the folder where the user works, or else the file that
comes with the library.
"""

import ast
import contextlib
import importlib.util
import pathlib
from collections.abc import Iterator
from types import ModuleType

from ml_collections import ConfigDict

from jaxflow.config.components import Config, complete, methods
from jaxflow.errors import UsageError, did_you_mean, named

_PACKAGE = pathlib.Path(__file__).parents[1]
# In a wheel; beside the package, in a checkout.
_SHIPPED = (_PACKAGE / "configs", _PACKAGE.parent / "configs")


def _folders() -> list[pathlib.Path]:
  """Return the folders in which names are looked up, the first match first."""
  shipped = [folder for folder in _SHIPPED if folder.is_dir()]
  return [pathlib.Path("configs"), *shipped[:1]]


def names() -> list[str]:
  """Return the names of the config files that there are."""
  files = (file for folder in _folders() for file in folder.glob("*.py"))
  return sorted({file.stem for file in files if file.stem != "__init__"})


def find(name: str) -> pathlib.Path:
  """Return the file of a path or of a name; raise UsageError without one.

  Of a name in `names()` the user's own file in `configs/` goes first.
  """
  path = pathlib.Path(name)
  if path.is_file():
    return path
  if path.name == name and not path.suffix:
    for folder in _folders():
      file = folder / f"{name}.py"
      if file.is_file():
        return file
  raise UsageError(
    f"config={name}: there is no file {name!r}; {did_you_mean(name, names())}"
    "give a config file, configs/digits.py:mean_flow for instance, or one of "
    f"{', '.join(names())}"
  )


def preset(name: str) -> Config:
  """Return the config of a file and a method with every field set.

  Args:
    name: "NAME:METHOD" with a name of `names`, or "FILE.py:METHOD".

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
  given, _, method = name.partition(":")
  path = find(given)
  if not method:
    raise UsageError(
      f"config={name!r}: name a method behind it, {given}:mean_flow for "
      f"instance; there are {', '.join(methods())}"
    )
  if path.suffix != ".py":
    raise UsageError(f"config={name}: {given!r} is no Python file")
  with _refused(name):
    config = _run(path).get_config(method)
  absent = "method", "data", "model", "loss"
  if isinstance(config, ConfigDict):
    absent = [x for x in absent if not config.get(x)]
  if absent:
    raise UsageError(
      f"config={name}: what get_config of {given!r} returns has no "
      f"{absent[0]}: return what jaxflow.config.default_config makes"
    )
  return config


def summary(path: pathlib.Path) -> str:
  """Return the first line of the docstring of a config file, "" without one."""
  try:
    text = ast.get_docstring(ast.parse(path.read_text()))
  except (SyntaxError, ValueError):
    return ""
  return (text or "").partition("\n")[0]


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
