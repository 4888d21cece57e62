"""Config files: where they are found by name, and how they are read.

A config file is Python code with `get_config(method)`. `digits` is
`configs/digits.py` in the folder where the user works, or else the file that
comes with the library.
"""

import ast
import difflib
import importlib.util
import pathlib
from types import ModuleType

from ml_collections import ConfigDict

from jaxflow.config.components import Config, complete
from jaxflow.errors import UsageError, named
from jaxflow.methods import METHODS

_PACKAGE = pathlib.Path(__file__).parents[1]
# In a wheel; beside the package, in a checkout.
_SHIPPED = (_PACKAGE / "configs", _PACKAGE.parent / "configs")


def _folders() -> list[pathlib.Path]:
  """Return the folders in which names are looked up, the first match first."""
  shipped = [folder for folder in _SHIPPED if folder.is_dir()]
  return [pathlib.Path("configs"), *shipped[:1]]


def names() -> list[str]:
  """Return the names of the config files that there are.

  Example:
    >>> "digits" in names()
    True
  """
  files = (file for folder in _folders() for file in folder.glob("*.py"))
  return sorted({file.stem for file in files if file.stem != "__init__"})


def find(name: str) -> pathlib.Path:
  """Return the file of a config.

  Args:
    name: The path of a file, or a name of `names`: the user's own file in
      `configs/` goes before the shipped one.

  Example:
    >>> find("digits").name
    'digits.py'
  """
  path = pathlib.Path(name)
  if path.is_file():
    return path
  if path.name == name and not path.suffix:
    for folder in _folders():
      file = folder / f"{name}.py"
      if file.is_file():
        return file
  near = difflib.get_close_matches(name, names(), n=1)
  hint = f"did you mean {near[0]!r}? " if near else ""
  raise UsageError(
    f"config={name}: there is no file {name!r}; {hint}give a config file, "
    f"configs/digits.py:mean_flow for instance, or one of {', '.join(names())}"
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
  """Call `get_config` of a config file.

  Args:
    name: "NAME:METHOD" or "FILE.py:METHOD", as `preset` takes it.
  """
  given, _, method = name.partition(":")
  path = find(given)
  if not method:
    raise UsageError(
      f"config={name}: name a method behind it, {given}:mean_flow for "
      f"instance; there are {', '.join(METHODS)}"
    )
  if path.suffix != ".py":
    raise UsageError(f"config={name}: {given!r} is no Python file")
  try:
    config = _run(path).get_config(method)
  except UsageError:
    raise
  except Exception as error:  # The file is the user's: it may raise anything.
    raise UsageError(
      f"config={name}: {given!r} raises {type(error).__name__} ({error}): "
      "correct the file; --debug shows where"
    ) from error
  if not isinstance(config, ConfigDict):
    raise UsageError(
      f"config={name}: get_config of {given!r} returns "
      f"{type(config).__name__}: return what jaxflow.config.default_config "
      "makes"
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
  try:
    module = _run(path)
  except Exception:  # The file is the user's: it may raise anything.
    return []
  return [name for name in METHODS if _has(module, name)]


def _run(path: pathlib.Path) -> ModuleType:
  """Run a config file."""
  specification = importlib.util.spec_from_file_location("config", path)
  assert specification is not None and specification.loader is not None
  module = importlib.util.module_from_spec(specification)
  specification.loader.exec_module(module)
  return module


def _has(module: ModuleType, method: str) -> bool:
  try:
    module.get_config(method)
  except Exception:
    return False
  return True
