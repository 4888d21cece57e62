"""Snippets of README and docs run as they are printed, and commands are read.

The pages of methods, networks and plug-ins have tests of their own, which run
their blocks; tutorials run while the site is built.
"""

import functools
import json
import pathlib
import re
import shlex
import sys
import tomllib
import unittest.mock

import numpy as np
import plain_autoencoder
import pytest
from absl import flags
from PIL import Image
from test_docs import BLOCK, ROOT, checker

import jaxflow
from jaxflow.commands import flags as command_flags
from jaxflow.commands import main
from jaxflow.config.files import save_config
from jaxflow.pretrained import autoencoder_files

# A command of a block that is indented, without lines that go on.
COMMAND = re.compile(
  r"^ {4}((?:\w+=\S+ )*)(?:\.venv/bin/)?(jaxflow|python|make|pip) (.+)$", re.M
)
# A line of Python that is indented.
INDENTED = re.compile(
  r"^ {4,}(?:from [\w.]+ import .+|import [\w.]+"
  r"|\(?\w+(?:, ?\w+)*,?\)? = .+|(?:def|class) \w+.*:)$",
  re.M,
)
ELSEWHERE = {"networks.md", "plugins.md", "README.md"}


def name_of(page):
  return str(page.relative_to(ROOT))


def pages(wanted):
  """The pages of README, CONTRIBUTING and docs of which `wanted` is true."""
  found = [x for x in checker.pages() if "experiments" not in x.parts]
  return [page for page in found if wanted(page)]


def python_blocks(page):
  return [
    code for kind, code in BLOCK.findall(page.read_text()) if kind == "python"
  ]


def commands(page):
  text = re.sub(r"\\\n\s*", " ", BLOCK.sub("", page.read_text()))
  return [(tool, rest) for _, tool, rest in COMMAND.findall(text)]


def is_tested_elsewhere(page):
  return page.name in ELSEWHERE or page.parent.name == "methods"


@pytest.fixture
def short(monkeypatch):
  """Trainings end after two steps, and evaluations compare few samples."""
  train = jaxflow.train

  def shortened(config, *arguments, **given):
    config.train.update(steps=2, log_every=1, batch_size=16)
    config.train.sample_every = 0
    config.optimizer.warmup_steps = 0
    config.model.update(depth=1, width=16, num_heads=1)
    config.evaluation.update(num=20, kept=20)
    config.evaluation.network = {"name": "none"}
    config.evaluation.flow.num = 0
    return train(config, *arguments, **given)

  monkeypatch.setattr(jaxflow, "train", shortened)


@pytest.fixture
def world(monkeypatch, tmp_path):
  """A folder with what the pages speak of: pictures, weights, a logger."""
  monkeypatch.chdir(tmp_path)
  for split in ("train", "test"):
    (tmp_path / split / "3").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(tmp_path / split / "3/a.png")
  tensors = plain_autoencoder.tensors(widths=(32,))
  monkeypatch.setattr(autoencoder_files, "read_tensors", lambda file: tensors)
  monkeypatch.setitem(sys.modules, "wandb", unittest.mock.MagicMock())
  monkeypatch.setattr(sys, "path", [*sys.path])


@pytest.mark.parametrize(
  "page",
  pages(lambda page: python_blocks(page) and not is_tested_elsewhere(page)),
  ids=name_of,
)
@pytest.mark.filterwarnings("default")
def test_python_runs_as_printed(page, short, world):
  """Blocks of a page follow each other in one program."""
  names = {"__name__": "snippet"}
  for code in python_blocks(page):
    exec(compile(code, name_of(page), "exec"), names)


def test_readme_computes_what_it_says(short, world):
  names = {"__name__": "snippet"}
  for code in python_blocks(ROOT / "README.md"):
    exec(code, names)
  assert names["images"].shape == (16, 8, 8, 1)
  assert [row["nfe"] for row in names["rows"]] == [1, 2]
  # The last layer is zero, so one jump leaves the noise where it is.
  np.testing.assert_array_equal(names["points"], names["noise"])
  assert np.abs(names["gradient"]["output"]).max() > 0


@pytest.mark.parametrize("page", pages(lambda page: True), ids=name_of)
def test_python_stands_in_blocks_that_run(page):
  text = BLOCK.sub("", page.read_text())
  assert not INDENTED.findall(text), "write it as a block of python"


def test_a_wrong_name_is_found(tmp_path, short, world, monkeypatch):
  monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
  page = tmp_path / "page.md"
  page.write_text("```python\nx = 1\n```\n\n```python\nx + never\n```\n")
  with pytest.raises(NameError, match="never"):
    test_python_runs_as_printed(page, short, world)


def test_tutorials_are_stored_without_results():
  for file in (ROOT / "docs/tutorials").glob("*.ipynb"):
    for cell in json.loads(file.read_text())["cells"]:
      kept = cell.get("outputs"), cell.get("execution_count")
      assert not any(kept), f"{file.name}: clear the outputs of {cell['id']}"


@pytest.mark.parametrize("page", pages(commands), ids=name_of)
def test_commands_have_the_flags_that_there_are(page, monkeypatch, tmp_path):
  monkeypatch.chdir(tmp_path)
  (tmp_path / "configs").symlink_to(ROOT / "configs")
  for tool, rest in commands(page):
    if rest.startswith("-c "):
      continue
    words = shlex.split(rest, comments=True)
    if tool == "jaxflow":
      check_jaxflow(page, words)
    elif tool == "make":
      assert re.search(rf"^{words[0]}:", (ROOT / "Makefile").read_text(), re.M)
    elif tool == "pip":
      check_extra(rest)
    elif words[0] == "-m":
      ours = ROOT / f"{words[1].replace('.', '/')}.py"
      package = words[1].partition(".")[0]
      assert ours.is_file() or package in sys.stdlib_module_names, rest
    else:
      assert (ROOT / words[0]).is_file(), rest


@functools.cache
def config_of_digits():
  config = jaxflow.preset("digits:mean_flow")
  config.data.update(shape=(8, 8, 1), num_classes=10)
  return config


def check_jaxflow(page, words):
  """Read a command as `jaxflow` does; runs that it opens are digits' ones."""
  name, *arguments = words
  command = main.command_of(name)
  values = command_flags.defined(command)
  if page.name == "plugins.md":  # The configs of its package: test_plugins.py.
    for argument in arguments:
      flag = argument.removeprefix("--").partition("=")[0]
      section = flag.removeprefix("config.").partition(".")[0]
      known = flag in (*values, "plugins") or section in config_of_digits()
      assert known, argument
    return
  for folder in re.findall(r"--workdirs?=(\S+)", " ".join(arguments)):
    if not command.takes_config:
      for place in map(pathlib.Path, folder.split(",")):
        place.mkdir(parents=True, exist_ok=True)
        save_config(config_of_digits(), place / "config.json")
  try:
    changes = command_flags.read(command, values, arguments)
    command_flags.config_of(command, values, changes)
  except flags.Error as error:
    raise AssertionError(f"{words}: {error}") from error


def check_extra(rest):
  project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
  for extra in re.findall(r"\[(\w+)\]", rest):
    assert extra in project["optional-dependencies"], rest


@pytest.mark.parametrize(
  "line",
  [
    "    jaxflow train --config=ring:mean_flow --workdir=x --config.train.s=1",
    "    jaxflow evaluate --workdir=x --calls=1",
    "    jaxflow evaluate --workdir=x --config.train.steps=1",
    "    make everything",
    "    python -m experiments.nothing.run",
    "    pip install 'jaxflow-generative[all]'",
  ],
)
def test_wrong_commands_are_found(line, tmp_path, monkeypatch):
  page = tmp_path / "page.md"
  page.write_text(f"{line}\n")
  with pytest.raises((AssertionError, ValueError, AttributeError)):
    test_commands_have_the_flags_that_there_are(page, monkeypatch, tmp_path)
