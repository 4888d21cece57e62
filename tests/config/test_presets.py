"""Configs by name: where they are found, and what is listed of them."""

import pathlib
import re

import pytest
import tiny

import jaxflow
from jaxflow import config_files
from jaxflow.config import make_plan, presets, resolve
from jaxflow.errors import UsageError
from jaxflow.methods import METHODS

SHIPPED = pathlib.Path(__file__).parents[2] / "configs"
OWN = '"""My own ring.\n\nMore of it.\n"""\n' + tiny.CONFIG


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
  """A folder in which the user works, without configs."""
  monkeypatch.chdir(tmp_path)
  return tmp_path


@pytest.fixture
def own(elsewhere):
  """The same, with `configs/ring.py` and `configs/mine.py`."""
  (elsewhere / "configs").mkdir()
  for name in ("ring", "mine"):
    (elsewhere / "configs" / f"{name}.py").write_text(OWN)
  return elsewhere


def test_shipped_configs_are_found_from_any_folder(elsewhere):
  names = sorted(file.stem for file in SHIPPED.glob("*.py"))
  assert {"digits", "ring"} < set(names)
  assert config_files.names() == names
  for name in names:
    assert config_files.find(name) == SHIPPED / f"{name}.py"


def test_own_configs_go_first(own):
  assert config_files.find("ring") == pathlib.Path("configs/ring.py")
  assert config_files.find("mine") == pathlib.Path("configs/mine.py")
  assert config_files.find("digits") == SHIPPED / "digits.py"
  assert config_files.names().count("ring") == 1
  assert "mine" in config_files.names()
  assert presets.preset("ring:flow_matching").train.steps == 40


def test_a_wheel_holds_its_configs_inside(elsewhere, monkeypatch):
  inside, beside = elsewhere / "jaxflow/configs", elsewhere / "configs-beside"
  for folder in (inside, beside):
    folder.mkdir(parents=True)
    (folder / "digits.py").write_text(OWN)
  monkeypatch.setattr(config_files, "_SHIPPED", (inside, beside))
  assert config_files.find("digits") == inside / "digits.py"
  (inside / "digits.py").unlink()
  inside.rmdir()
  assert config_files.find("digits") == beside / "digits.py"


@pytest.mark.parametrize("name", ["digits", "configs/digits.py"])
def test_a_preset_has_every_field(name, monkeypatch):
  monkeypatch.chdir(SHIPPED.parent)
  config = jaxflow.preset(f"{name}:mean_flow")
  # The options of a component are not in what the file returns.
  assert "noise_std" not in presets.load_file(f"{name}:mean_flow").path
  assert config.path.noise_std == 1.0
  config.train.steps = 7
  done = resolve(config, shape=(8, 8, 1), num_classes=10, teacher=None)
  assert make_plan(done).train.steps == 7


@pytest.mark.parametrize(
  ("name", "words"),
  [
    ("digts:mean_flow", ["name=digts: ", "did you mean 'digits'?", "ring"]),
    ("no/such.py:mean_flow", ["there is no file 'no/such.py'"]),
    ("digits", ["name='digits': name a method", "digits:mean_flow"]),
    ("digits:mean_flo", ["did you mean 'mean_flow'?"]),
    ("README.md:mean_flow", ["'README.md' is no Python file"]),
  ],
)
def test_wrong_names(monkeypatch, name, words):
  monkeypatch.chdir(SHIPPED.parent)
  with pytest.raises(UsageError) as error:
    jaxflow.preset(name)
  for word in words:
    assert word in str(error.value)


def test_command_lists_configs_and_their_methods(own):
  (own / "configs" / "broken.py").write_text("1 / 0")
  (own / "configs" / "few.py").write_text(
    '"""A few."""\n\n\ndef get_config(method):\n'
    '  if method != "denoising":\n    raise KeyError(method)\n'
  )
  result = tiny.run("presets")
  assert (result.code, result.err) == (0, "")
  assert max(map(len, result.out.splitlines())) <= 80 + len(str(SHIPPED))
  parts = {}
  for part in re.split(r"\n(?! )", result.out.rstrip()):
    name, *lines = part.splitlines()
    parts[name] = [line.strip() for line in lines]
  assert set(parts) == set(config_files.names())
  assert parts["mine"] == ["My own ring.", "configs/mine.py", "methods: all"]
  assert parts["few"] == ["A few.", "configs/few.py", "methods: denoising"]
  assert parts["broken"][-1] == "methods: none"
  first = (SHIPPED / "digits.py").read_text().splitlines()[0]
  assert parts["digits"][0] in first
  assert parts["digits"][1:] == [str(SHIPPED / "digits.py"), "methods: all"]
  listed = " ".join(parts["cifar10"][2:]).removeprefix("methods: ").split(", ")
  assert set(listed) < set(METHODS) and "mean_flow" in listed


ENDS = {
  "0": "import sys\nsys.exit(0)",
  "no-code": "raise SystemExit",
  "words": 'raise SystemExit("all done")',
  "quit": "quit()",
  "parser": "import argparse\nargparse.ArgumentParser().parse_args(['--x'])",
  "late": "import sys\ndef get_config(method):\n  sys.exit(3)",
  "other": "class Stop(BaseException): pass\nraise Stop",
  "generator": "def get_config(method):\n  raise GeneratorExit",
  "no-function": "",
}


@pytest.mark.parametrize("name", ENDS)
@pytest.mark.parametrize("command", ["train", "stats", "rectify", "compile"])
def test_a_config_file_does_not_decide_the_exit_code(elsewhere, name, command):
  (elsewhere / "mine.py").write_text(ENDS[name])
  places = {"stats": "--out=a.npz", "compile": "--topology=host:1"}
  place = places.get(command, "--workdir=run")
  result = tiny.run(command, "--config=mine.py:mean_flow", place)
  assert (result.code, result.out) == (2, "")
  line = result.err.splitlines()[-1]
  start = f"jaxflow {command}: --config=mine.py:mean_flow: 'mine.py' raises "
  assert line.startswith(start)
  assert "()" not in line and "correct the file; --debug shows where" in line
  # An argument parser says more before it ends.
  assert name == "parser" or result.err.count("\n") == 1
  assert not (elsewhere / "run").exists()


def test_ctrl_c_while_a_config_file_runs_is_no_fault_of_it(elsewhere):
  (elsewhere / "mine.py").write_text("raise KeyboardInterrupt")
  command = "train", "--config=mine.py:mean_flow", "--workdir=run"
  result = tiny.run(*command)
  assert result.code == 130 and "interrupted" in result.err


def test_configs_that_end_the_program_are_listed(own, capfd):
  for name, text in ENDS.items():
    (own / "configs" / f"{name}.py").write_text(text)
  (own / "configs" / "some.py").write_text(
    "import sys\ndef get_config(method):\n"
    '  if method != "denoising":\n    sys.exit(0)\n'
  )
  result = tiny.run("presets")
  assert result.code == 0
  listed = dict(
    re.findall(r"^(\S+)$.*?methods: (\S+)", result.out, re.M | re.S)
  )
  assert {listed[name] for name in ENDS} == {"none"}
  assert (listed["some"], listed["mine"]) == ("denoising", "all")
