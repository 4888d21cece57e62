"""Config files: where they are found by name. It needs no JAX.

`digits` is `configs/digits.py` in the folder where the user works, or else the
file that comes with the library.
"""

import ast
import pathlib
from collections.abc import Sequence

from jaxflow import catalogue, plugins
from jaxflow.errors import UsageError, did_you_mean

_PACKAGE = pathlib.Path(__file__).parent
# In a wheel; beside the package, in a checkout.
_SHIPPED = (_PACKAGE / "configs", _PACKAGE.parent / "configs")


def _folders() -> list[pathlib.Path]:
  """Return the folders in which names are looked up, the first match first."""
  return [pathlib.Path("configs"), *_shipped()]


def _shipped() -> list[pathlib.Path]:
  """Return the folder that comes with the library, in a list."""
  return [folder for folder in _SHIPPED if folder.is_dir()][:1]


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


def chosen(arguments: Sequence[str]) -> str:
  """Return the value of the last `--config=NAME:METHOD` of arguments.

  Raises UsageError if there is none.
  """
  found = [x for x in arguments if x.split("=")[0] == "--config"]
  if not found or "=" not in found[-1]:
    raise UsageError(
      "--config is missing: give a config and a method, "
      "--config=digits:mean_flow"
    )
  return found[-1].split("=", 1)[1]


def parts(name: str) -> tuple[pathlib.Path, str]:
  """Return file and method of "NAME:METHOD" or "FILE.py:METHOD".

  Raises UsageError if the file is none, or there is no method.
  """
  given, _, method = name.partition(":")
  path = find(given)
  if not method:
    raise UsageError(
      f"config={name!r}: name a method behind it, {given}:mean_flow for "
      f"instance; there are {', '.join(catalogue.entries())}"
    )
  if path.suffix != ".py":
    raise UsageError(f"config={name}: {given!r} is no Python file")
  return path, method


def check(name: str) -> None:
  """Raise UsageError for "NAME:METHOD" if it is mistyped.

  Of a file that comes with the library a method that is nearly one is mistyped.
  The file itself knows what else it has: a user's may know other methods.
  """
  path, method = parts(name)
  elsewhere = plugins.are_there() or plugins.is_dotted(method)
  ours = path.resolve().parent in [x.resolve() for x in _shipped()]
  # Behind a dash a config may take more, the size of a network for instance.
  row, known = method.partition("-")[0], catalogue.entries()
  if not ours or elsewhere or row in known:
    return
  if meant := did_you_mean(row, known):
    raise UsageError(
      f"method={row!r} is unknown: {meant}jaxflow methods lists all"
    )


def summary(path: pathlib.Path) -> str:
  """Return the first line of the docstring of a config file, "" without one."""
  try:
    text = ast.get_docstring(ast.parse(path.read_text()))
  except (SyntaxError, ValueError):
    return ""
  return (text or "").partition("\n")[0]
