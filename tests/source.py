"""Readers of the library's source; what they find is `(line, what)`.

They know a config by its name, and an object by the last part of the expression
that gives it, or by a name to which the same file assigns that expression.
"""

import ast
import functools
import pathlib
import re

import jaxflow

ROOT = pathlib.Path(jaxflow.__file__).parents[1]
LIBRARY = ROOT / "jaxflow"

# What a config is called: one of these, or a name that ends so after a "_".
CONFIG_NAMES = ("config", "saved", "resolved")
# Methods that read a key, of configs and of other mappings.
READERS = {"get", "pop", "setdefault"}

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


def name_of(file):
  """`jaxflow/losses/mean_flow.py -> jaxflow.losses.mean_flow`."""
  parts = file.relative_to(ROOT).with_suffix("").parts
  return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {name_of(file): file for file in sorted(LIBRARY.rglob("*.py"))}


@functools.cache
def tree_of(module):
  return ast.parse(FILES[module].read_text())


def belongs(module, parts):
  """Whether a module is one of these, or lies inside one."""
  return any(f"{module}.".startswith(f"{part}.") for part in parts)


@functools.cache
def imports(module):
  """The modules of the library that a module imports, with the lines."""
  found = {}
  for node in ast.walk(tree_of(module)):
    names = []
    if isinstance(node, ast.Import):
      names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
      # `from package import name` may name a module of the package.
      names = [node.module, *(f"{node.module}.{x.name}" for x in node.names)]
    found |= {name: node.lineno for name in names if name in FILES}
  return found


def reached(modules):
  """What an import of modules loads, directly or not, and these themselves."""
  found, new = set(), set(modules)
  while new:
    found |= new
    new = {name for module in new for name in imports(module)} - found
  return found - {"jaxflow"}


def docstrings(tree):
  """The constant nodes that are docstrings."""
  owners = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
  for node in ast.walk(tree):
    if isinstance(node, owners) and ast.get_docstring(node) is not None:
      yield node.body[0].value


def last_name(node):
  """`run.model.config -> config`; None for neither a name nor an attribute."""
  if isinstance(node, ast.Name):
    return node.id
  return node.attr if isinstance(node, ast.Attribute) else None


def key_of(node):
  """The object and the key that an expression reads, None for another one.

  `x.key`, `x["key"]`, `x.get("key")`, `getattr(x, "key")`, `"key" in x`.
  """
  match node:
    case ast.Attribute(value=base, attr=key):
      return base, key
    case ast.Subscript(value=base, slice=ast.Constant(value=str(key))):
      return base, key
    case ast.Call(
      func=ast.Attribute(value=base, attr=method),
      args=[ast.Constant(value=str(key)), *_],
    ) if method in READERS:
      return base, key
    case ast.Call(
      func=ast.Name(id="getattr" | "hasattr"),
      args=[base, ast.Constant(value=str(key)), *_],
    ):
      return base, key
    case ast.Compare(left=ast.Constant(value=str(key)), comparators=[base]):
      return base, key
  return None


def aliases(tree, is_it):
  """The names to which a file assigns an expression for which `is_it` holds."""
  names = set()
  for node in ast.walk(tree):
    pairs = []
    if isinstance(node, ast.Assign):
      for target in node.targets:
        one = (target, node.value)
        both = all(isinstance(x, ast.Tuple) for x in one)
        pairs += zip(*(x.elts for x in one), strict=False) if both else [one]
    elif isinstance(node, ast.AnnAssign | ast.NamedExpr):
      pairs = [(node.target, node.value)]
    names |= {last_name(target) for target, value in pairs if is_it(value)}
  return names - {None}


def is_config(node):
  name = last_name(node) or ""
  return any(name == x or name.endswith(f"_{x}") for x in CONFIG_NAMES)


def config_reads(tree, sections):
  """Yield the places where a file reads sections of a config."""
  names = aliases(tree, is_config)
  for node in ast.walk(tree):
    found = key_of(node)
    if found and found[1] in sections:
      if is_config(found[0]) or last_name(found[0]) in names:
        yield node.lineno, ast.unparse(node)


def functions_with(tree, parameter):
  """The functions that have a parameter of a name."""
  for node in ast.walk(tree):
    if isinstance(node, FUNCTIONS):
      a = node.args
      given = [*a.posonlyargs, *a.args, *a.kwonlyargs, a.vararg, a.kwarg]
      if parameter in {x.arg for x in given if x is not None}:
        yield node.lineno, getattr(node, "name", "lambda")


def option_reads(tree, *, sections, keys, words):
  """Where a file names an option of some sections.

  Args:
    tree: The file.
    sections: Names of the sections.
    keys: What counts behind a section: as a key of it, `config.loss.omega_max`
      or `loss.get("solver")`, and in a text, "loss.omega_max: give 1".
    words: What counts as a text of its own too, "omega_max".
  """

  def is_section(node):
    found = key_of(node)
    return last_name(node) in sections or (found and found[1] in sections)

  either = "|".join(sorted(sections)), "|".join(sorted(keys))
  dotted = re.compile(r"\b(?:{})\.(?:{})\b".format(*either))
  names = aliases(tree, is_section)
  skip = {id(node) for node in docstrings(tree)}
  # Breadth first: a key is skipped before it is met.
  for node in ast.walk(tree):
    found = key_of(node)
    if found and found[1] in keys:
      if is_section(found[0]) or last_name(found[0]) in names:
        yield node.lineno, ast.unparse(node)
        parts = [*ast.iter_child_nodes(node)]
        skip |= {id(x) for x in parts if isinstance(x, ast.Constant)}
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
      known = node.value in words or dotted.search(node.value)
      if known and id(node) not in skip:
        yield node.lineno, repr(node.value)
