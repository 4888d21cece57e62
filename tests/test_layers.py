"""Which module may import which, read from the source."""

import ast
import functools
import pathlib
import subprocess
import sys

import pytest

import jaxflow
from jaxflow.methods import METHODS
from jaxflow.pretrained.formats import FORMATS

FOLDER = pathlib.Path(jaxflow.__file__).parent
CORE = {
  *("types", "paths", "predictions", "times", "weights", "rows"),
  *("couplings", "solvers", "flow_maps", "guidance", "sampling", "losses"),
  *("methods", "options", "conditions"),
}


def name_of(file):
  """`jaxflow/losses/mean_flow.py -> jaxflow.losses.mean_flow`."""
  parts = file.relative_to(FOLDER.parent).with_suffix("").parts
  return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {name_of(file): file for file in sorted(FOLDER.rglob("*.py"))}


@functools.cache
def imports(module):
  """Every module that a module imports, inside functions too."""
  names = set()
  for node in ast.walk(ast.parse(FILES[module].read_text())):
    if isinstance(node, ast.Import):
      names |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      assert not node.level, f"{module}: write absolute imports"
      # `from package import name` may name a module of the package.
      members = {f"{node.module}.{alias.name}" for alias in node.names}
      names |= (members & set(FILES)) or {node.module}
      if members - set(FILES):
        names.add(node.module)
  return names


def layer(module):
  """`jaxflow.losses.mean_flow -> losses`, `jaxflow -> ""`."""
  return module.split(".")[1] if "." in module else ""


def own(module):
  """Return the modules of jaxflow that a module imports."""
  return {name for name in imports(module) if name.split(".")[0] == "jaxflow"}


def foreign(module):
  """Return the top-level packages of others that a module imports."""
  tops = {name.split(".")[0] for name in imports(module)}
  return tops - {"jaxflow"} - sys.stdlib_module_names


def reached(module):
  """Every module of jaxflow that an import loads, directly or not."""
  found, new = set(), {module}
  while new:
    found |= new
    new = set().union(*(own(name) for name in new)) - found
  return found


def of_layer(*layers):
  return [module for module in FILES if layer(module) in layers]


def test_every_layer_is_found():
  assert {layer(module) for module in FILES} >= CORE | {
    *("training", "models", "data", "evaluation", "config", "runs", "metrics"),
    *(
      "figures",
      "reports",
      "parallel",
      "pretrained",
      "compilation",
      "commands",
    ),
  }


def test_imports_are_read():
  assert own("jaxflow.losses.consistency") >= {
    "jaxflow.couplings",
    "jaxflow.paths",
    "jaxflow.types",
  }
  assert foreign("jaxflow.models.mlp") == {"jax", "flax"}


@pytest.mark.parametrize("module", of_layer(*CORE))
def test_core_imports_jax_and_core_only(module):
  assert foreign(module) <= {"jax", "numpy"}
  assert {layer(name) for name in own(module)} <= CORE


@pytest.mark.parametrize(
  ("start", "forbidden"),
  [
    ("training", {"models", "data", "evaluation", "runs", "config"}),
    ("metrics", {"training", "models", "data", "runs", "config"}),
    ("figures", {"training", "models", "data", "runs", "config"}),
    ("data", {"training", "losses", "methods", "runs", "config"}),
    ("models", {"training", "losses", "methods", "data", "runs", "config"}),
    ("pretrained", {"training", "methods", "data", "runs", "config"}),
    ("parallel", {"training", "models", "data", "runs", "config"}),
  ],
)
def test_layer_never_reaches(start, forbidden):
  for module in of_layer(start):
    for name in reached(module):
      assert layer(name) not in forbidden, f"{module} reaches {name}"


@pytest.mark.parametrize(
  ("package", "layers"),
  [("flax", {"models", "pretrained"}), ("ml_collections", {"config"})],
)
def test_package_stays_in_one_layer(package, layers):
  users = {layer(module) for module in FILES if package in foreign(module)}
  assert users == layers


def test_nothing_imports_the_command_line():
  for module in FILES:
    if layer(module) not in ("commands", "__main__"):
      assert "commands" not in {layer(name) for name in own(module)}, module


def docstrings(tree):
  """Return the constant nodes that are docstrings."""
  owners = (ast.Module, ast.ClassDef, ast.FunctionDef)
  for node in ast.walk(tree):
    if isinstance(node, owners) and ast.get_docstring(node) is not None:
      yield node.body[0].value


def test_only_the_table_knows_the_methods():
  for module, file in FILES.items():
    if layer(module) in ("methods", "losses"):
      continue
    tree = ast.parse(file.read_text())
    skip = {id(node) for node in docstrings(tree)}
    # A format is called after the code that writes it, as a method may be.
    names = METHODS.keys() - (
      {*FORMATS} if layer(module) == "pretrained" else {}
    )
    for node in ast.walk(tree):
      if isinstance(node, ast.Constant) and id(node) not in skip:
        assert not (isinstance(node.value, str) and node.value in names), (
          f"{file}:{node.lineno}: {node.value!r}"
        )


HEAVY = [
  *("flax", "optax", "orbax", "tensorflow", "tensorflow_datasets"),
  *("ml_collections", "sklearn", "matplotlib"),
]


def test_losses_load_nothing_heavy():
  modules = "jaxflow.losses, jaxflow.paths, jaxflow.times, jaxflow.sampling"
  assert not loaded(modules) & set(HEAVY)


def test_commands_wait_for_nothing_that_only_some_call():
  """They say how samples are judged and drawn, but may do neither."""
  found = loaded("jaxflow.commands.main, jaxflow.api, jaxflow.evaluation")
  assert not found & {"scipy", "sklearn", "matplotlib"}
  assert not found & {"grain", "tensorflow", "tensorflow_datasets"}
  assert "optax" in found


def loaded(modules):
  """Return the top-level packages that are loaded after `import <modules>`."""
  result = subprocess.run(
    [sys.executable, "-c", f"import sys, {modules}\nprint(*sys.modules)"],
    capture_output=True,
    text=True,
    check=True,
    cwd=FOLDER.parent,
  )
  return {name.split(".")[0] for name in result.stdout.split()}
