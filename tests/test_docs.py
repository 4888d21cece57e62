"""The pages of docs/methods agree with the table, the code and one another."""

import contextlib
import importlib.util
import io
import json
import pathlib
import re
import sys

import jax
import jax.numpy as jnp
import pytest

from jaxflow.commands import flags as command_flags
from jaxflow.commands import main
from jaxflow.config import components, default_config, registry
from jaxflow.config.files import flatten
from jaxflow.methods import METHODS

ROOT = pathlib.Path(__file__).parents[1]
FOLDER = ROOT / "docs/methods"
HEADINGS = [
  *("Idea", "Equations", "When to use it", "Cost", "Traps", "How to run"),
  *("Example", "Sources"),
]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
every_row = pytest.mark.parametrize("name", METHODS)


def load_script(name):
  """Import a script of docs/, which is no package."""
  file = ROOT / f"docs/{name}.py"
  specification = importlib.util.spec_from_file_location(name, file)
  module = importlib.util.module_from_spec(specification)
  specification.loader.exec_module(module)
  return module


checker = load_script("check_links")


def text_of(name):
  return (FOLDER / f"{name}.md").read_text()


def sections(name):
  """Return the text below each heading of a page."""
  parts = re.split(r"^## (.+)$", text_of(name), flags=re.MULTILINE)
  return dict(zip(parts[1::2], parts[2::2], strict=True))


def table_names(text):
  """Return the names in the first column of a Markdown table of methods."""
  return re.findall(r"^\| \[?`(\w+)`", text, flags=re.MULTILINE)


def test_every_row_has_a_page_and_every_page_a_row():
  pages = {page.stem for page in FOLDER.glob("*.md")} - {"README"}
  assert pages == set(METHODS)


@every_row
def test_headings(name):
  text = BLOCK.sub("", text_of(name))
  assert text.startswith(f"# `{name}`\n")
  assert re.findall(r"^#+ (.+)$", text, re.MULTILINE)[1:] == HEADINGS


@every_row
def test_page_names_its_loss_config_and_paper(name):
  row, page = METHODS[name], sections(name)
  assert f"losses.{row.loss.__name__}(" in page["Example"]
  assert f"flow_maps.{row.flow_map.__name__}(" in page["Example"]
  assert row.paper.split("arXiv:")[1] in page["Sources"]


def test_every_equation_of_a_loss_is_on_a_page():
  """Its rows together link the equations of a docstring, and no others."""
  written, linked = {}, {}
  for name, row in METHODS.items():
    module = sys.modules[row.loss.__module__]
    numbers = re.findall(r"\((\d+)\)$", module.__doc__, re.MULTILINE)
    written[module.__name__] = set(numbers)
    equations = sections(name)["Equations"]
    assert checker.CODE_LINK.search(equations)
    found = re.findall(r"^- \((\d+)\)", equations, re.MULTILINE)
    linked.setdefault(module.__name__, set()).update(found)
  assert linked == written


@every_row
def test_costs_are_the_measured_ones(name):
  folder = ROOT / "experiments/training_cost/results"
  results = json.loads((folder / "training_cost.json").read_text())
  cost = sections(name)["Cost"]
  assert re.search(r"FLOPs \d+\.\d\d\b", cost)
  for row in results["rows"]:
    variant, remat = row["labels"]["variant"], row["labels"]["remat"]
    if remat == "no" and variant.split(",")[0] == name:
      ratio = row["numbers"]["flops_ratio"]["mean"]
      assert f"{ratio:.2f}" in cost, variant


@every_row
def test_example_runs_and_prints_what_the_page_says(name):
  blocks = BLOCK.findall(text_of(name))
  examples = [code for kind, code in blocks if kind == "python"]
  printed = [text for kind, text in blocks if kind == "text"]
  out = io.StringIO()
  for code in examples:
    namespace = {"__name__": name}
    with contextlib.redirect_stdout(out):
      exec(code, namespace)
  assert [out.getvalue()] == printed
  for key in ("samples", "student"):
    for leaf in jax.tree.leaves(namespace[key]):
      assert jnp.isfinite(leaf).all()
  moved = jax.tree.map(
    lambda a, b: bool((a != b).any()), namespace["student"], namespace["params"]
  )
  assert any(jax.tree.leaves(moved))


@pytest.mark.parametrize(
  "name", [name for name, row in METHODS.items() if "pairs" not in row.needs]
)
def test_commands_are_understood(name, monkeypatch, tmp_path):
  monkeypatch.chdir(ROOT)
  part = sections(name)["How to run"]
  for _, code in BLOCK.findall(part):
    (tmp_path / re.match(r"# (\w+\.py)\n", code)[1]).write_text(code)
  lines = part.replace("\\\n", "").splitlines()
  commands = [x.split() for x in lines if x.startswith("    jaxflow train")]
  assert commands
  for _, _, *arguments in commands:
    here = [
      f"--config={tmp_path}/{x[9:]}"
      if x.startswith("--config=") and not x.startswith("--config=configs/")
      else x
      for x in arguments
    ]
    train = main.command_of("train")
    values = command_flags.defined(train)
    changes = command_flags.read(train, values, here)
    config = command_flags.config_of(train, values, changes)
  assert config.method == name


@every_row
def test_fields_exist(name):
  """What a page writes as a field of the config is one of its row's."""
  config = default_config(name, data="digits", model="dit")
  components.complete(config)
  named = re.findall(r"`(?:--config\.)?([a-z_]+\.[a-z_.]+)[`=]", text_of(name))
  fields = {field for field in named if field.split(".")[0] in config}
  laws = registry.left_out(METHODS[name].loss)
  known = {*flatten(config.to_dict()), *(f"loss.{law}.name" for law in laws)}
  assert fields <= known


def test_tables_list_every_row():
  for page in (ROOT / "README.md", FOLDER / "README.md"):
    text = page.read_text()
    listed = [name for name in table_names(text) if name in METHODS]
    assert set(listed) == set(METHODS), page


def test_index_links_every_page():
  index = (FOLDER / "README.md").read_text()
  for name in METHODS:
    assert f"[`{name}`]({name}.md)" in index


def test_index_says_what_a_row_needs():
  rows = re.findall(
    r"^\| \[`(\w+)`\]\S* \|([^|]*)\|", (FOLDER / "README.md").read_text(), re.M
  )
  needs = {name: set(re.findall(r"\w+", text)) for name, text in rows}
  assert needs == {name: set(row.needs) for name, row in METHODS.items()}


@pytest.mark.parametrize(
  "page", checker.pages(), ids=lambda page: str(page.relative_to(ROOT))
)
def test_links(page):
  assert checker.problems(page) == []


@pytest.fixture
def page(tmp_path):
  """Return a page beside a file of three lines."""
  (tmp_path / "code.py").write_text("a = 1\nb = 2\nb = 2 + a\n")

  def write(text):
    file = tmp_path / "page.md"
    file.write_text(text)
    return file

  return write


@pytest.mark.parametrize(
  ("text", "words"),
  [
    ("[`a = 1`](code.py#L2)", ["line 1", "not 2", "--write"]),
    ("[`a = 3`](code.py#L1)", ["no line of code.py"]),
    ("[`b = 2`](code.py#L2)", ["lines 2, 3 of code.py"]),
    ("[`a = 1`](gone.py#L1)", ["gone.py is no file"]),
    ("[text](gone.md)", ["gone.md is no file"]),
    ("# Top\n[text](#bottom)", ["no such heading"]),
    ("[text](code.py#L1)", ["code.py has no such heading"]),
  ],
)
def test_wrong_links_are_found(page, text, words):
  (problem,) = checker.problems(page(text))
  assert all(word in problem for word in words), problem


@pytest.mark.parametrize(
  "text",
  [
    "[`a = 1`](code.py#L1)",
    "[`b = 2 + a`](code.py#L3) and [code](code.py)",
    "# Top `of` it\n[text](#top-of-it) [text](page.md#top-of-it)",
    "[text](https://example.org/gone)",
    "```python\nx[0](gone.py)\n```",
  ],
)
def test_right_links_pass(page, text):
  assert checker.problems(page(text)) == []


def test_write_sets_the_numbers_only(page):
  text = "[`a = 1`](code.py#L9), [`b = 2`](code.py#L9), [x](gone.md)\n"
  file = page(text)
  checker.refresh(file)
  assert file.read_text() == text.replace("#L9", "#L1", 1)
