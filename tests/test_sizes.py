"""Sizes in flags and in files that no memory can hold: one line, at once."""

import json
import pathlib
import tracemalloc

import numpy as np
import pytest
import tiny

from jaxflow import data
from jaxflow.data.folders.shard_folder import ShardFiles
from jaxflow.data.folders.writing import write_missing_shards
from jaxflow.errors import UsageError
from jaxflow.parallel import memory
from jaxflow.runs.drawing import check_num
from jaxflow.runs.pair_generation import PairOptions

HUGE = 10**18


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """Return a folder with a run, `plain`, and pairs of it."""
  path = tmp_path_factory.mktemp("sizes")
  workdir = tiny.train(path, "plain", "flow_matching", "train.steps=10")
  command = ["--num=8", "--nfe=2", f"--out={path / 'pairs'}"]
  result = tiny.run("pairs", f"--workdir={workdir}", *command)
  assert result.code == 0, result.err
  return path


def refused(*arguments):
  """Return the line with which a command refuses its arguments."""
  tracemalloc.start()
  try:
    result = tiny.run(*arguments)
    used = tracemalloc.get_traced_memory()[1]
  finally:
    tracemalloc.stop()
  assert (result.code, result.err.count("\n")) == (2, 1), result
  assert used < 2**28, used
  return result.err


@pytest.mark.parametrize(
  ("command", "flag"),
  [
    ("sample", "num"),
    ("sample", "nfe"),
    ("evaluate", "nfe"),
    ("report", "num"),
    ("report", "nfe"),
    ("bench", "nfe"),
    ("bench", "batch"),
    ("pairs", "num"),
    ("pairs", "nfe"),
  ],
)
def test_flags(command, flag, folder, tmp_path):
  out = {"sample": ["--out=a.npz"], "pairs": [f"--out={tmp_path / 'out'}"]}
  line = refused(
    command,
    f"--workdir={folder / 'plain'}",
    f"--{flag}={HUGE}",
    *[x.replace("a.npz", f"{tmp_path}/a.npz") for x in out.get(command, [])],
  )
  most = "a whole number, at least 1, " if flag == "nfe" else ""
  assert f"--{flag}={HUGE}: give {most}at most " in line


def test_rows_of_a_shard(folder, tmp_path):
  line = refused(
    *("pairs", f"--workdir={folder / 'plain'}", f"--num={2**32}", "--nfe=2"),
    *(f"--shard_size={HUGE}", f"--out={tmp_path / 'out'}"),
  )
  assert line.split(": ")[1].startswith(f"--shard_size={2**32}")


@pytest.mark.parametrize(
  ("field", "most"), [("train.batch_size", ""), ("evaluation.num", "4 to 4294")]
)
def test_fields(field, most, tmp_path):
  command = tiny.train_command(
    tmp_path, "new", "flow_matching", f"{field}={HUGE}"
  )
  assert f"{field}={HUGE}: give {most or 'at most'}" in refused(*command)


def test_rounds(tmp_path):
  config = f"--config={tiny.config_file(tmp_path)}:reflow"
  command = ["rectify", config, f"--workdir={tmp_path / 'new'}", "--seed=8"]
  line = refused(*command, f"--rounds={HUGE}")
  assert f"--rounds={HUGE}: give at most {2**32 - 8}, each" in line


def test_pairs_of_a_description(folder, tmp_path):
  description = json.loads((folder / "pairs" / "pairs.json").read_text())
  described = description | {"num": HUGE, "shard_size": 1}
  (tmp_path / "pairs.json").write_text(json.dumps(described))
  line = refused(
    *tiny.train_command(tmp_path, "new", "reflow", f"data.pairs={tmp_path}")
  )
  assert f"0 of {HUGE} shards are there; go on with: jaxflow pairs" in line


def test_shards_are_counted_by_what_is_there(tmp_path):
  files = ShardFiles(tmp_path, "train", ".npy", HUGE, 2)
  assert files.count == HUGE // 2 and files.found() == []
  for shard in (0, 3):
    files.path(shard).write_text("")
  # Of another number of shards, of another split, and a draft.
  for name in ("train-00000-of-00002.npy", "test-00000-of-00001.npy", "a"):
    (tmp_path / name).write_text("")
  files.path(5).with_name(f".{files.path(5).name}.1.tmp").write_text("")
  assert len(files.found()) == 2
  assert files.span(files.count - 1) == (HUGE - 2, HUGE)


def test_what_a_killed_process_left_is_removed(tmp_path):
  files = ShardFiles(tmp_path, "train", ".npy", 4, 2)
  names = ".train-00001-of-00002.npy.5eed.tmp", ".test-00000-of-00001.npy.1.tmp"
  for name in (*names, "train-00000-of-00002.npy"):
    (tmp_path / name).write_text("")
  files.remove_drafts()
  # The other split is nobody's here.
  assert {p.name for p in tmp_path.iterdir()} == {
    names[1],
    "train-00000-of-00002.npy",
  }


def test_missing_shards_are_made_one_by_one(tmp_path):
  files = ShardFiles(tmp_path, "train", ".npy", 7, 2)
  files.path(1).write_text("")
  made, lines = [], []

  def write(shard, arrays):
    made.append((shard, arrays[0].tolist()))
    files.path(shard).write_text("")

  options = {"batch_size": 64, "devices": 1, "unit": "rows"}
  seen = []
  for _ in range(2):
    assert write_missing_shards(
      files,
      lambda first, size: [np.arange(first, first + size)],
      write,
      log=lines.append,
      check=lambda names: seen.append(sorted(names)),
      **options,
    )
  assert made == [(0, [0, 1]), (2, [4, 5]), (3, [6])]
  assert [line.split(":")[0] for line in lines[:3]] == [
    *("shard 1/4", "shard 3/4", "shard 4/4")
  ]
  assert seen == [
    ["train-00001-of-00004.npy"],
    [files.path(shard).name for shard in range(4)],
  ]
  assert "nothing to do" in lines[3] and lines[2].endswith("ETA 0:00")


def test_bounds_follow_from_what_is_there():
  values = memory.of_host() // 16 // 3
  check_num(3, (values,))
  with pytest.raises(UsageError, match="num=4: give at most 3: more exceed"):
    check_num(4, (values,))
  with pytest.raises(UsageError, match="num=0: give at least 1"):
    check_num(0, (2,))
  with pytest.raises(UsageError, match=f"give at most {2**32}, one a noise"):
    PairOptions(num=2**32 + 1)
  assert (
    data.Pairs(pathlib.Path(), {"num": 5, "shard_size": 2}).files.count == 3
  )
