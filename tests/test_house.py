"""Counts that keep the source small, read from the source.

`python tests/test_house.py` prints every count, its limit and its places.
"""

import ast
import importlib
import inspect
import types

import pytest
import source
from source import FILES, LIBRARY, ROOT, belongs, tree_of

from jaxflow import flow_maps
from jaxflow.methods import METHODS

# The most there may be.
MAX_CONFIG_FILES = 8
MAX_FIELD_PARAMETERS = 0
MAX_OPTION_PLACES = 10
# 34 with 22 methods; the others are plug-ins, conditions and doors out, of
# which the server is one. Two files are words of others that need no JAX, which
# every folder they could stand in loads.
MAX_TOP_LEVEL = 40
MAX_COMMAND_LINES = 2_900
# 31,000 with 22 methods, trainer, evaluation and API, 1,000 for checks of files
# that others have edited or a disk has spoiled; the rest are ways in: sets of
# pictures and arrays, plug-ins, networks and checkpoints of other libraries,
# and 6,000 for ways out: graphs, programs, pages, servers, comparisons; 5,500
# for rows of 2025 and 2026, their memories, companions, orders of data; 1,000
# for attention in kernels and for commands that start at once; 500 for the
# derivative of some rows in the pass of all.
MAX_LIBRARY_LINES = 55_500
# 8,200 with 14 studies, 1,300 for the campaign of wrong inputs; the rest are
# the studies of ways in and out, and of attention and of whole steps.
MAX_EXPERIMENT_LINES = 12_000

# Parts of the library, by the start of their modules' names.
CONFIG = ("jaxflow.config",)
COMMANDS = ("jaxflow.commands",)
COMMAND_USERS = (*COMMANDS, "jaxflow.__main__")
OPTION_USERS = ("jaxflow.losses", "jaxflow.flow_maps")

# The sections of a config.
SECTIONS = {
  *("method", "seed", "data", "path", "model", "parameterization", "loss"),
  "adapter",
  *("flow_map", "optimizer", "ema", "teacher", "init", "features"),
  *("discriminator", "train", "checkpoint", "mesh", "sample", "evaluation"),
  "times",
}
# Those whose fields are options of a loss or of a flow map.
OPTION_SECTIONS = {"loss", "flow_map"}

# Arguments of losses and flow maps that no config gives.
GIVEN = {
  *("path", "num_classes", "sample_times", "progress"),
  *("target_fn", "teacher", "discriminator"),
}
# An option by its name, whose value in the loss is no plain one.
NAMES = {"last_layer"}
# Words that are fields of `sample`, or keys of a network's condition, as well:
# alone they do not say that an option is meant.
SHARED = {"guidance_start", "guidance_end", "omega", "t_start", "t_end"}

# Modules whose public names are listed in `__all__`.
PUBLIC = (
  "jaxflow",
  *("jaxflow.flow_maps", "jaxflow.guidance", "jaxflow.losses"),
  *("jaxflow.metrics", "jaxflow.models", "jaxflow.paths"),
  *("jaxflow.predictions", "jaxflow.sampling", "jaxflow.solvers"),
  *("jaxflow.times", "jaxflow.weights"),
)

LINES = (
  (LIBRARY / "commands", MAX_COMMAND_LINES),
  (LIBRARY, MAX_LIBRARY_LINES),
  (ROOT / "experiments", MAX_EXPERIMENT_LINES),
)


def places(module, found):
  """What a reader found in a module, as `file:line: what`."""
  file = FILES[module].relative_to(ROOT)
  return [f"{file}:{line}: {what}" for line, what in sorted(found)]


def config_places():
  """Where files know the config, by module."""
  found = {m: source.config_reads(tree_of(m), SECTIONS) for m in FILES}
  found = {module: places(module, reads) for module, reads in found.items()}
  return {module: reads for module, reads in found.items() if reads}


def field_places():
  """Functions that are told, for their messages, how a config names a value."""
  return [
    place
    for module in FILES
    if not belongs(module, CONFIG)
    for place in places(module, source.functions_with(tree_of(module), "field"))
  ]


def keywords():
  """The keyword-only arguments of losses and flow maps, with their defaults."""
  functions = {getattr(flow_maps, name) for name in flow_maps.__all__}
  functions |= {f for row in METHODS.values() for f in (row.loss, row.flow_map)}
  return {
    (p.name, p.default)
    for function in functions
    for p in inspect.signature(function).parameters.values()
    if p.kind is p.KEYWORD_ONLY and p.name not in GIVEN
  }


def option_places():
  """Options that files name beside losses, flow maps and what these import."""
  own = source.reached(m for m in FILES if belongs(m, OPTION_USERS))
  own.add("jaxflow.methods")
  # A format says in sections of a config what a published file is.
  own |= {m for m in FILES if belongs(m, ("jaxflow.pretrained.formats",))}
  keys = {name for name, _ in keywords()}
  # Components, a solver for instance, count behind their section only.
  plain = {
    k for k, v in keywords() if type(v) in (bool, int, float, str, tuple)
  }
  return [
    place
    for module in FILES
    if module not in own
    for place in places(
      module,
      source.option_reads(
        tree_of(module),
        sections=OPTION_SECTIONS,
        keys=keys,
        words=(plain | NAMES) - SHARED,
      ),
    )
  ]


def top_level():
  """The folders and files in the library's folder."""
  parts = {f.relative_to(LIBRARY).parts[0] for f in FILES.values()}
  return [f"jaxflow/{part}" for part in sorted(parts)]


def command_places():
  """Imports of commands by what lies below them."""
  return [
    place
    for module in FILES
    if not belongs(module, COMMAND_USERS)
    for place in places(
      module,
      [
        (line, f"imports {name}")
        for name, line in source.imports(module).items()
        if belongs(name, COMMANDS)
      ],
    )
  ]


def lines(folder):
  """Number of lines of every Python file in a folder, the longest first."""
  found = {f: f.read_bytes().count(b"\n") for f in folder.rglob("*.py")}
  return dict(sorted(found.items(), key=lambda item: -item[1]))


def listed(found, most):
  return "\n".join([f"{len(found)}, at most {most}:", *found])


def test_few_files_know_the_config():
  found = config_places()
  outside = [p for m, ps in found.items() if not belongs(m, CONFIG) for p in ps]
  assert not outside, listed(outside, 0)
  first = [reads[0] for reads in found.values()]
  assert len(first) <= MAX_CONFIG_FILES, listed(first, MAX_CONFIG_FILES)


def test_no_function_is_told_a_field():
  found = field_places()
  most = MAX_FIELD_PARAMETERS
  assert len(found) <= most, listed(found, most)


def test_options_stay_in_their_losses():
  found = option_places()
  assert len(found) <= MAX_OPTION_PLACES, listed(found, MAX_OPTION_PLACES)


def test_top_level_is_short():
  found = top_level()
  assert len(found) <= MAX_TOP_LEVEL, listed(found, MAX_TOP_LEVEL)


def test_nothing_below_imports_commands():
  found = command_places()
  assert not found, listed(found, 0)


@pytest.mark.parametrize(
  ("folder", "most"), LINES, ids=["commands", "library", "experiments"]
)
def test_folder_is_short(folder, most):
  found = lines(folder)
  longest = [f"{f.relative_to(ROOT)}: {n}" for f, n in found.items()][:20]
  total = sum(found.values())
  assert total <= most, "\n".join([f"{total}, at most {most}:", *longest])


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_are_listed(name):
  assert name in FILES, f"{name}: there is no such module"
  module = importlib.import_module(name)
  where = FILES[name].relative_to(ROOT)
  listed = getattr(module, "__all__", None)
  assert listed is not None, f"{where}:1: no __all__"
  absent = [x for x in listed if not hasattr(module, x)]
  assert not absent, f"{where}: __all__ lists {absent}, which are not there"
  own = {
    key
    for key, value in vars(module).items()
    if not key.startswith("_")
    and not isinstance(value, types.ModuleType)
    and belongs(getattr(value, "__module__", None) or "", [name])
  }
  assert own <= set(listed), f"{where}: __all__ lacks {own - set(listed)}"


CONFIG_CODE = """
import jax
from jaxflow.config import Config
from jaxflow.config import load_config
import ml_collections
def f(run, plan, saved, jobs):
  a = run.config.sample
  b = saved["data"]["shape"], saved.get("init", {}), getattr(saved, "mesh")
  c, d = run.config, 1
  c.train.steps
  "teacher" in c
  teacher_config.loss
  jax.config.update("sample", 1)
  plan.sampling.nfe, plan.sample, config.name, jobs.resolve, jobs.get("data")
"""


def test_reads_of_configs_are_found():
  found = source.config_reads(ast.parse(CONFIG_CODE), SECTIONS)
  assert sorted(line for line, _ in found) == [7, 8, 8, 8, 10, 11, 12]


FIELD_CODE = """
def one(x, *, field): pass
async def two(field="a"): pass
three = lambda field: 0
class Four:
  field: str
  def four(self, *field): pass
def five(fields): field = fields
"""


def test_functions_with_a_parameter_are_found():
  found = source.functions_with(ast.parse(FIELD_CODE), "field")
  assert sorted(found) == [(2, "one"), (3, "two"), (4, "lambda"), (7, "four")]


OPTION_CODE = '''
"""kappa"""
def f(config, loss, options):
  "kappa and loss.kappa are words"
  config.loss.kappa, loss["solver"], config["loss"].get("kappa", 0)
  section = config.flow_map
  "solver" in section
  f"{loss}: loss.kappa={options}: set it"
  for name in ("kappa", "solver", "kappas"):
    solver = g(kappa=options.kappa, solver=options.solver)
  raise ValueError(f"gloss.kappa, loss.kappas")
'''


def test_options_are_found():
  found = source.option_reads(
    ast.parse(OPTION_CODE),
    sections={"loss", "flow_map"},
    keys={"kappa", "solver"},
    words={"kappa"},
  )
  assert sorted(line for line, _ in found) == [5, 5, 5, 7, 8, 9]


def report():
  """Print every count, its limit and its places."""
  known = config_places()
  counts = {
    "files that know the config": (list(known), MAX_CONFIG_FILES),
    "places where they do": ([p for ps in known.values() for p in ps], "any"),
    "functions that are told a field": (field_places(), MAX_FIELD_PARAMETERS),
    "options outside their losses": (option_places(), MAX_OPTION_PLACES),
    "folders and files of jaxflow": (top_level(), MAX_TOP_LEVEL),
    "imports of commands": (command_places(), 0),
  }
  for what, (found, most) in counts.items():
    print(f"{what}: {len(found)}, at most {most}", *found, sep="\n  ")
  for folder, most in LINES:
    total = sum(lines(folder).values())
    print(f"lines of {folder.relative_to(ROOT)}: {total}, at most {most}")


if __name__ == "__main__":
  report()
