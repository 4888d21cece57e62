"""Plug-ins: objects of other packages, by the names in a config.

A name with a colon, `my_package.my_file:my_row`, is an object of a module;
other names are those that a program gave to `jaxflow.register`. A config may
be a stranger's, so the code of a package runs only if the user allowed it, by
`--plugins` or JAXFLOW_PLUGINS, or if the program has imported it already.
"""

import functools
import importlib
import importlib.util
import inspect
import os
import pathlib
import re
import sys
import types
from collections.abc import Mapping
from typing import Any

from jaxflow.errors import PlugInError, UsageError, did_you_mean, named

ENVIRONMENT = "JAXFLOW_PLUGINS"

# Top-level packages that `allow` was given.
_ALLOWED: dict[str, None] = {}
_REGISTERED: dict[str, dict[str, Any]] = {}


def allow(names: str) -> None:
  """Let configs name objects of packages.

  Args:
    names: Packages with commas between. A path, `./my_package` or `my_file.py`,
      is found where it is; other names are found as `import` finds them.

  Raises:
    PlugInError: If a package is not there, or is no plug-in.
  """
  _ALLOWED.update(dict.fromkeys(_packages(names)))


def is_dotted(name: str) -> bool:
  """Say whether a name is that of an object of a module.

  A set of TFDS may have a version behind a colon.

  Example:
    >>> is_dotted("my_package.my_file:my_row"), is_dotted("mnist:3.0.1")
    (True, False)
  """
  return re.fullmatch(r"\S*:(?!\d)\S*", name) is not None


def find(kind: str, name: str) -> Any | None:
  """Return the plug-in of a name, or None if there is none.

  Raises:
    PlugInError: If the code must not run, or has no such object.
  """
  if is_dotted(name):
    return _load(name)
  return registered(kind).get(name)


def registered(kind: str) -> Mapping[str, Any]:
  """Return the registered objects of a kind, those of allowed packages too."""
  for package in _allowed():
    _import(f"plugins={package!r}", package)
  return _REGISTERED.get(kind, {})


def add(kind: str, name: str, value: Any) -> None:
  """Keep an object by its name; raise UsageError if another has it."""
  table = _REGISTERED.setdefault(kind, {})
  if table.get(name, value) is not value:
    raise UsageError(
      f"name={name!r}: another {kind} is registered by that name: choose "
      "another name"
    )
  table[name] = value


def are_there() -> bool:
  """Return whether names may stand for objects of plug-ins."""
  return bool(_REGISTERED or _allowed())


def _packages(names: str) -> list[str]:
  """Return the packages of a list; let Python find those that are paths."""
  parts = filter(None, map(str.strip, names.split(",")))
  return [_package(part) for part in parts]


@functools.cache
def _package(given: str) -> str:
  """Return the name of a package, which stands alone or at the end of a path.

  Its code does not run.
  """
  path = pathlib.Path(given).expanduser()
  by_path = os.sep in given or path.suffix == ".py"
  name = path.stem if by_path else given
  if not name.isidentifier():
    raise PlugInError(
      f"plugins={given!r}: give the name of a package, or the path of its "
      "folder or file"
    )
  if reason := _no_plugin(name):
    raise PlugInError(f"plugins={given!r}: {reason}")
  if by_path:
    if not path.exists():
      raise PlugInError(f"plugins={given!r}: there is no such folder or file")
    # Last, so that no file beside it hides a module of others.
    sys.path.append(str(path.parent.resolve()))
    importlib.invalidate_caches()
  if name not in sys.modules:
    found = importlib.util.find_spec(name)
    if found is None:
      raise PlugInError(
        f"plugins={given!r}: Python finds no such package: install it, or give "
        "the path of its folder"
      )
    places = [*(found.submodule_search_locations or ()), found.origin]
    here = path.resolve()
    if by_path and here not in [pathlib.Path(x).resolve() for x in places if x]:
      raise PlugInError(
        f"plugins={given!r}: Python finds another {name!r} first, {places[0]}: "
        "give it another name"
      )
  return name


def _no_plugin(package: str) -> str:
  """Return why nothing of a package is a plug-in, "" if something may be."""
  if package == "__main__":
    return "no other program finds it: move it to a file of its own"
  if package in sys.stdlib_module_names:
    return f"{package!r} is part of Python, and no plug-in"
  if package == "jaxflow":
    return "what jaxflow has for configs has names without ':'"
  return ""


def _allowed() -> list[str]:
  """Return the packages that the user allowed."""
  with named(plugins=ENVIRONMENT):
    return [*_ALLOWED, *_packages(os.environ.get(ENVIRONMENT, ""))]


def _uses_jaxflow(package: str) -> bool:
  """Return whether the program has imported a package that is made for it.

  Packages that a program imports for something else may hold functions that a
  stranger had better not call.
  """
  modules = [
    module
    for name, module in sys.modules.copy().items()
    if name.partition(".")[0] == package and module is not None
  ]
  values = [x for module in modules for x in vars(module).copy().values()]
  return any(_home(x).partition(".")[0] == "jaxflow" for x in values)


def _home(value: Any) -> str:
  """Return the module that defines an object, or the class of one."""
  if isinstance(value, types.ModuleType):
    return value.__name__
  defined = inspect.isroutine(value) or inspect.isclass(value)
  return str((value if defined else type(value)).__module__)


def _load(name: str) -> Any:
  """Return the object of `module:object`."""
  where, _, attribute = name.partition(":")
  package = where.partition(".")[0]
  start = f"name={name!r}"
  if not all(map(str.isidentifier, (*where.split("."), attribute))):
    raise PlugInError(
      f"{start}: write module:object, my_package.my_file:my_row for instance"
    )
  if reason := _no_plugin(package):
    raise PlugInError(f"{start}: {reason}")
  if package not in _allowed() and not _uses_jaxflow(package):
    raise PlugInError(
      f"{start}: the code of {package!r} is not allowed to run: if you trust "
      f"it, add --plugins={package}, or set {ENVIRONMENT}={package}"
    )
  module = _import(start, where)
  if not hasattr(module, attribute):
    near = did_you_mean(attribute, vars(module))
    raise PlugInError(
      f"{start}: the module {where!r} has no {attribute!r}: "
      f"{near or 'correct the name'}"
    )
  value = getattr(module, attribute)
  home = _home(value)
  # Of others, the package decided to have an object.
  fixed = inspect.isroutine(value) or isinstance(value, type | types.ModuleType)
  if fixed and home.partition(".")[0] != package:
    raise PlugInError(
      f"{start}: it is of {home!r}, which {where!r} has imported: name what "
      f"{package!r} defines itself"
    )
  return value


def _import(start: str, name: str) -> types.ModuleType:
  """Import a module of an allowed package."""
  try:
    return importlib.import_module(name)
  except KeyboardInterrupt:
    raise
  except BaseException as error:  # Of sys.exit as well.
    absent = (isinstance(error, ModuleNotFoundError) and error.name) or "?"
    if f"{name}.".startswith(f"{absent}."):
      raise PlugInError(
        f"{start}: there is no module {absent!r}: correct the name, or "
        "install it"
      ) from error
    what = f"{type(error).__name__} ({error})".removesuffix(" ()")
    raise PlugInError(
      f"{start}: importing {name!r} raises {what}: correct it; --debug shows "
      "where"
    ) from error
