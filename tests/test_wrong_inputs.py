"""Wrong inputs that once gave a raw exception or were accepted: one line each.

experiments/chaos/campaign.py makes a thousand of them; these stand for kinds
that it found.
"""

import json
import shutil
import types
from typing import Any, Literal

import numpy as np
import pytest
import tiny

from jaxflow.errors import UsageError
from jaxflow.evaluation import classifiers
from jaxflow.files import SUMS, changed_file
from jaxflow.options import Finite
from jaxflow.reading import checked


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """Return a folder with a run, `plain`, and pairs of it."""
  path = tmp_path_factory.mktemp("wrong")
  workdir = tiny.train(path, "plain", "flow_matching", "train.steps=10")
  command = ["--num=8", "--nfe=2", "--shard_size=4", f"--out={path / 'pairs'}"]
  result = tiny.run("pairs", f"--workdir={workdir}", *command)
  assert result.code == 0, result.err
  return path


def refused(*arguments, words):
  result = tiny.run(*arguments)
  assert result.code == 2 and result.err.count("\n") == 1, result
  assert words in result.err, result.err


@pytest.mark.parametrize("command", ["stats", "rectify", "compile", "train"])
@pytest.mark.parametrize(
  ("field", "value", "words"),
  [
    # No command but training looks at most of them.
    ("model.depth", -9, "model.depth=-9: give 1 to 10000"),
    ("model.depth", 2**63, f"model.depth={2**63}: give "),
    ("model.heads", 2**62, f"model.heads={2**62}: give 1 to 10000"),
    ("data.shape", -3, "data.shape=[-3]: give whole numbers, each 1 or more"),
    ("data.shape", "x", "data.shape=['x']: give whole numbers, each 1 or more"),
    ("data.stored_dir", "x", "give --config.data.data_dir"),
    ("loss.prediction", "x", "loss.prediction='x': choose one of 'data', '"),
    ("optimizer.name", "x", "optimizer.name='x' is unknown: use one of adam"),
    ("optimizer.schedule", "x", "optimizer.schedule='x' is unknown: use one"),
    ("optimizer.weight_decay", 1.5, "weight_decay=1.5 has no effect"),
    ("sample.guidance_end", -3.0, "sample.guidance_end=-3.0: give a finite"),
    ("model.width", 2**31, f"model.width={2**31}: give a number of 32 bits"),
    ("train.steps", 2**70, f"train.steps={2**70}: give a number of 64 bits"),
  ],
)
def test_fields_of_all_commands(command, field, value, words, tmp_path):
  file = tiny.config_file(tmp_path)
  config = f"--config={file}:reflow", f"--config.{field}={value}"
  place = {
    "stats": f"--out={tmp_path / 's.npz'}",
    "compile": "--topology=host:1",
  }.get(command, f"--workdir={tmp_path / 'new'}")
  refused(command, *config, place, words=words)
  assert [path.name for path in tmp_path.iterdir()] == [file.name]


@pytest.mark.parametrize("flag", ["num", "nfe", "seed"])
@pytest.mark.parametrize("value", ["nan", "1e3x", "--", ""])
def test_flags_beside_a_config(flag, value, tmp_path):
  config = f"--config={tiny.config_file(tmp_path)}:reflow"
  command = "rectify", config, f"--workdir={tmp_path / 'new'}"
  words = f"--{flag}={value}: give a whole number"
  refused(*command, f"--{flag}={value}", words=words)


def test_an_interval_beyond_the_path(tmp_path):
  command = tiny.train_command(
    tmp_path, "new", "flow_matching", "sample.guidance_end=1.5"
  )
  refused(*command, words="sample.guidance_end=1.5: give a time of Linear(")
  # An end of the path itself, and times before its first, are ones.
  ends = "sample.guidance_start=0", "sample.guidance_end=1"
  tiny.train(tmp_path, "new", "flow_matching", "train.steps=5", *ends)


@pytest.mark.parametrize("command", ["train", "compile"])
@pytest.mark.parametrize("name", ["edm", "linear"])
def test_a_network_on_another_path_is_named(command, name, tmp_path):
  name = f"trigonometric_from_{name}"
  arguments = tiny.train_command(
    tmp_path, "new", "mean_flow", f"parameterization.name={name}"
  )
  if command == "compile":
    kept = [x for x in arguments[1:] if not x.startswith("--workdir")]
    arguments = ["compile", *kept, "--topology=host:1"]
  refused(*arguments, words=f"parameterization.name={name!r}: path=Linear(")


def test_a_folder_in_place_of_a_file(folder, tmp_path):
  run = shutil.copytree(folder / "plain", tmp_path / "run")
  out = f"--out={tmp_path / 'a.npz'}"
  (run / "config.json").unlink()
  (run / "config.json").mkdir()
  refused("sample", f"--workdir={run}", out, words="cannot be read (Is a dir")


def test_a_log_without_its_checkpoints_is_said(folder, tmp_path):
  shutil.copytree(folder / "plain", tmp_path / "plain")
  shutil.rmtree(tmp_path / "plain" / "checkpoints")
  command = tiny.train_command(
    tmp_path, "plain", "flow_matching", "train.steps=10"
  )
  result = tiny.run(*command)
  assert result.code == 0
  assert "has a log up to step 10 but no checkpoint: training" in result.out
  assert "but no checkpoint" not in tiny.run(*command).out


def test_a_folder_in_place_of_the_sums_of_a_step(folder, tmp_path, caplog):
  run = shutil.copytree(folder / "plain", tmp_path / "run")
  (run / "checkpoints" / "10" / SUMS).unlink()
  (run / "checkpoints" / "10" / SUMS).mkdir()
  result = tiny.run("sample", f"--workdir={run}", f"--out={tmp_path / 'a.npz'}")
  assert result.code == 1 and result.err.count("\n") == 1
  assert "no checkpoint in " in result.err
  assert f"{SUMS} cannot be read (Is a directory)" in caplog.text


@pytest.mark.parametrize("name", ["pairs.json", SUMS])
def test_a_folder_in_place_of_a_description(folder, tmp_path, name):
  pairs = shutil.copytree(folder / "pairs", tmp_path / "pairs")
  (pairs / name).unlink()
  (pairs / name).mkdir()
  command = tiny.train_command(tmp_path, "new", "reflow", f"data.pairs={pairs}")
  refused(*command, words=f"{name} cannot be read (Is a directory)")


def test_shards_that_are_there_are_looked_at(folder, tmp_path):
  pairs = shutil.copytree(folder / "pairs", tmp_path / "pairs")
  shard = pairs / "pairs-00001-of-00002.array_record"
  tiny.flip_bit(shard, np.random.default_rng(0))
  command = ["pairs", f"--workdir={folder / 'plain'}", f"--out={pairs}"]
  command += ["--num=8", "--nfe=2", "--shard_size=4"]
  refused(*command, words=f"{shard.name} is damaged; delete it and make it")
  shard.unlink()
  result = tiny.run(*command)
  assert result.code == 0 and "shard 2/2" in result.out
  assert changed_file(pairs) is None


def test_a_folder_in_place_of_a_shard(folder, tmp_path):
  pairs = shutil.copytree(folder / "pairs", tmp_path / "pairs")
  shard = pairs / "pairs-00001-of-00002.array_record"
  shard.unlink()
  shard.mkdir()
  command = ["pairs", f"--workdir={folder / 'plain'}", f"--out={pairs}"]
  command += ["--num=8", "--nfe=2", "--shard_size=4"]
  refused(*command, words=f"{shard.name} is damaged; delete it and make it")


@pytest.mark.parametrize("change", ["renamed", "added"])
def test_fields_of_rounds_are_all_known(change, tmp_path):
  arguments = f"--config={tiny.config_file(tmp_path)}:reflow", "--rounds=1"
  command = "rectify", *arguments, f"--workdir={tmp_path / 'new'}"
  (tmp_path / "new").mkdir()
  values = {
    **{"rounds": 1, "start": 0.4, "end": 0.9, "teacher": "", "num": 50_000},
    **{"solver": "heun", "nfe": 40, "guidance": 1.0, "seed": 0},
    **{"ema": "sampling", "shard_size": 4096, "gird": None},
  }
  if change == "added":
    values["grid"] = None
  (tmp_path / "new" / "rectify.json").write_text(json.dumps(values))
  refused(*command, words="rectify.json cannot be read (gird is unknown)")


@pytest.mark.parametrize("about", ['""', "[]", "7", "null"])
def test_the_description_of_a_classifier(about, tmp_path):
  path = tmp_path / "a.npz"
  np.savez(path, about=np.array(about))
  with pytest.raises(UsageError, match=r"\(about.*: give named values\)"):
    network: Any = types.SimpleNamespace(file=str(path))
    classifiers._read(path, {}, network)


def test_numbers_that_no_float_holds():
  with pytest.raises(ValueError, match=r"^x=2.*: give a finite number$"):
    checked(2 * 10**400, Finite, "x")
  assert checked(2**70, Finite, "x") == 2**70
  with pytest.raises(ValueError, match=r"^x='c': choose one of 'a', 'b'$"):
    checked("c", Literal["a", "b"], "x")
