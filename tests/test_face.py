"""What `import jaxflow` offers, and what it costs."""

import importlib
import importlib.util
import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

import jaxflow

ROOT = pathlib.Path(jaxflow.__file__).parents[1]
NAMES = {
  *("METHODS", "Network", "TrainedRun", "__version__"),
  *("import_run", "load", "preset", "register", "train"),
  *("figures", "flow_maps", "guidance", "losses", "metrics", "models"),
  *("paths", "predictions", "sampling", "solvers", "times", "weights"),
}
HEAVY = ("absl", "flax", "jax", "ml_collections", "numpy", "optax", "orbax")
# Percent of the public names whose types are known to whoever imports them.
LEAST_KNOWN = 95


def python(code):
  done = subprocess.run(
    [sys.executable, "-c", code],
    cwd=ROOT,
    stdout=subprocess.PIPE,
    text=True,
    check=True,
  )
  return done.stdout.strip()


def test_import_lists_the_names_and_loads_nothing():
  code = (
    "import jaxflow, json, sys;"
    f" print(json.dumps([dir(jaxflow), sorted({{*{HEAVY}, 'tensorflow'}} &"
    " {x.partition('.')[0] for x in sys.modules})]))"
  )
  listed, loaded = json.loads(python(code))
  assert set(listed) == NAMES
  assert listed == sorted(listed)
  assert loaded == []


def test_names_are_imported_when_used():
  code = (
    "import sys, jaxflow; a = 'jax' in sys.modules;"
    " jaxflow.losses.mean_flow_loss; b = 'jax' in sys.modules;"
    " c = 'ml_collections' in sys.modules;"
    " jaxflow.preset('ring:mean_flow'); d = 'ml_collections' in sys.modules;"
    " print(a, b, c, d)"
  )
  assert python(code) == "False True False True"


@pytest.mark.parametrize("name", sorted(NAMES))
def test_name_resolves(name):
  assert name in jaxflow.__all__
  value = getattr(jaxflow, name)
  if name.islower() and importlib.util.find_spec(f"jaxflow.{name}"):
    assert value is importlib.import_module(f"jaxflow.{name}")


def test_nothing_else_is_listed():
  assert set(jaxflow.__all__) == NAMES
  assert len(jaxflow.__all__) == len(NAMES)


def test_star_gives_the_names():
  code = "from jaxflow import *; print(train.__module__, METHODS is not None)"
  assert python(code) == "jaxflow.api True"


def test_unknown_name():
  message = "module 'jaxflow' has no attribute 'samplers'"
  with pytest.raises(AttributeError, match=message):
    _ = jaxflow.samplers  # pyright: ignore
  assert not hasattr(jaxflow, "jax")


def test_docstring_example_names_what_there_is():
  used = re.findall(r"jaxflow\.(\w+)\(", jaxflow.__doc__)
  assert used == ["preset", "train"]
  assert set(used) <= NAMES


def test_type_checkers_know_the_public_names(tmp_path):
  if importlib.util.find_spec("pyright") is None:
    pytest.skip("needs pyright")
  path = os.pathsep.join(
    [str(pathlib.Path(sys.executable).parent), os.environ["PATH"]]
  )
  done = subprocess.run(
    [
      *(sys.executable, "-m", "pyright", "--verifytypes", "jaxflow"),
      *("--ignoreexternal", "--outputjson"),
    ],
    cwd=tmp_path,
    env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)},
    stdout=subprocess.PIPE,
    text=True,
  )
  found = json.loads(done.stdout)["typeCompleteness"]
  counts = found["exportedSymbolCounts"]
  total = sum(counts.values())
  assert total > 1000, done.stdout[:2000]
  wrong = [
    f"{symbol['name']}: {report['message'].splitlines()[0]}"
    for symbol in found["symbols"]
    for report in symbol["diagnostics"]
    if symbol["isExported"] and not symbol["isTypeKnown"]
  ]
  known = 100 * counts["withKnownType"] / total
  assert known >= LEAST_KNOWN, "\n".join(wrong)
