"""Files that a person has edited or a disk has spoiled, of every kind.

A seeded generator drops a field, changes its type, or gives it a value that is
impossible. Whoever reads the file answers in one line that names it, or leaves
out what is damaged where the file is a log.
"""

import csv
import json
import logging
import math
import pathlib
import random
import re

import numpy as np
import pytest
from PIL import Image

import jaxflow
from jaxflow.config import default_config, load_config, resolve, save_config
from jaxflow.config import files as config_files
from jaxflow.data import LatentFolder, Pairs
from jaxflow.errors import UsageError
from jaxflow.evaluation import best_checkpoint
from jaxflow.evaluation.statistics import read_statistics
from jaxflow.figures import read_log, save_strip
from jaxflow.reading import checked, read_table
from jaxflow.reports.costs import read_costs
from jaxflow.reports.quality import read_rows
from jaxflow.runs import rounds
from jaxflow.runs.pair_generation import PairOptions
from jaxflow.training.csv_log import CsvLog

TIMES = {"median": 2e-3, "p95": 3e-3, "num": 300}
PAIRS = {
  **{"workdir": "runs/a", "step": 20, "ema": "sampling", "solver": "heun"},
  **{"num": 64, "nfe": 2, "guidance": 1.0, "seed": 0, "shard_size": 32},
  **{"shape": [2], "num_classes": 0, "parameters": "5eed"},
  "grid": {"name": "uniform"},
  "config": {
    "data": {"name": "ring"},
    "sample": {"grid": {"name": "uniform"}},
  },
}
LATENTS = {
  **{"data": "gray", "raw_dir": None, "data_dir": None, "images": "5eed"},
  **{"size": 8, "flip": False, "autoencoder": "a.bin", "parameters": "5eed"},
  **{"shape": [4, 4, 1], "num_classes": 3, "dtype": "float16", "scale": 0.5},
  "counts": {"train": 40, "test": 6},
  "shard_size": 16,
  "statistics": {"mean": [0.5], "std": [1.5]},
}
COST = {
  **{"model": "run", "method": "mean_flow", "solver": "jumps", "nfe": 1},
  **{"batch": 8, "compile_seconds": 0.5, "latency": TIMES, "network": TIMES},
  **{"samples_per_second": 4e3, "memory": 888, "flops": 384.0},
  **{"overhead": 0.1, "overhead_error": 0.01, "flops_overhead": 0.0},
  "operations_overhead": None,
  "scores": {"fid": {"value": 2.0, "real": 1.0}},
}
ROW = {
  **{"nfe": 1, "step": 20, "ema": "sampling"},
  "sampling": {"sample": {"guidance": 1.0}, "flow_map": {}},
  "scores": {"fid": {"value": 2.0, "error": 0.1, "real": 1.0, "num": 10}},
}
ENTRY = {"number": 3, "metric": "fid", "value": 0.5, "step": 20}


def read_best(folder):
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(best_checkpoint, "saved_steps", lambda folder: [3])
    best_checkpoint.Best(folder, "fid")


def read_rounds(folder):
  rounds._save_or_compare(folder, rounds.Rounds(), PairOptions())


def config_of(**changes):
  return resolve(
    default_config("mean_flow", data="ring", model="mlp"),
    **{"shape": (2,), "num_classes": 8, "teacher": None, **changes},
  )


def stored(config):
  return {"version": jaxflow.__version__, "seeding": 2, **config.to_dict()}


ROUNDS = {
  **{"rounds": 3, "start": 0.4, "end": 0.9, "teacher": "", "num": 50_000},
  **{"solver": "heun", "nfe": 40, "guidance": 1.0, "grid": None, "seed": 0},
  **{"ema": "sampling", "shard_size": 4096},
}
# By name: what it holds, and who reads it in a folder.
FILES = {
  "config.json": (stored(config_of()), load_config),
  "pairs.json": (PAIRS, Pairs.open),
  "latents.json": (LATENTS, LatentFolder.open),
  "bench.json": ({"rows": [COST]}, lambda w: read_costs(w / "bench.json")),
  "evaluation.json": (
    {"schema": 1, "rows": [ROW]},
    lambda w: read_rows(w / "evaluation.json"),
  ),
  "best.json": ({"checkpoints": [ENTRY]}, read_best),
  "rectify.json": (ROUNDS, read_rounds),
}
# None of them is of the type of any field but the first.
OTHER_TYPES = ({"x": 1}, [[1, "x"]], True)
# Any number, but for those that say where zero or below is right.
IMPOSSIBLE = (-1, math.nan, math.inf)
SIGNED = {
  *("overhead", "flops_overhead", "operations_overhead", "guidance", "value"),
  *("real", "error", "mean", "data", "fsdp", "tensor", "time_scale"),
}


def places(value, path=()):
  """The paths of all fields, and of list entries, of nested values."""
  found = [path] if path else []
  inside = value.items() if isinstance(value, dict) else ()
  if isinstance(value, list | tuple):
    inside = enumerate(value)
  return found + [p for k, x in inside for p in places(x, (*path, k))]


def at(values, path):
  for name in path:
    values = values[name]
  return values


def changed(values, path, new):
  """Return values with another one in a place, or without it."""
  values = json.loads(json.dumps(values))
  outer = at(values, path[:-1])
  if new is ...:
    del outer[path[-1]]
  else:
    outer[path[-1]] = new
  return values


def dotted(path):
  text = "".join(f"[{x}]" if isinstance(x, int) else f".{x}" for x in path)
  return text.removeprefix(".")


def line_of(folder, name):
  """The line that answers a damaged file."""
  with pytest.raises(UsageError) as caught:
    FILES[name][1](folder)
  line = str(caught.value)
  assert "\n" not in line and f"{name} cannot be read (" in line, line
  return line


@pytest.mark.parametrize("name", FILES)
def test_whole_file_is_read(name, tmp_path):
  (tmp_path / name).write_text(json.dumps(FILES[name][0]))
  FILES[name][1](tmp_path)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
  "content",
  ["", "{", "[]", "3", "null", '"x"', "no JSON", "[" * 10_000, "\x00"],
)
def test_file_of_another_kind_is_one_line(name, content, tmp_path):
  (tmp_path / name).write_text(content)
  line_of(tmp_path, name)
  (tmp_path / name).write_bytes(b"\xff\xfe" + content.encode())
  line_of(tmp_path, name)


@pytest.mark.parametrize("name", FILES)
def test_file_that_is_cut_is_one_line(name, tmp_path):
  text = json.dumps(FILES[name][0])
  for cut in random.Random(0).sample(range(1, len(text) - 1), 10):
    (tmp_path / name).write_text(text[:cut])
    line_of(tmp_path, name)


@pytest.mark.parametrize("name", FILES)
def test_another_type_is_named(name, tmp_path):
  values, draw = FILES[name][0], random.Random(1)
  paths = [p for p in places(values) if p not in ANYTHING]
  for path in draw.sample(paths, min(60, len(paths))):
    was = at(values, path)
    was = list(was) if isinstance(was, tuple) else was
    new = draw.choice([x for x in OTHER_TYPES if type(x) is not type(was)])
    (tmp_path / name).write_text(json.dumps(changed(values, path, new)))
    line = line_of(tmp_path, name)
    assert f"({dotted(path)}" in line, (path, new, line)


# Fields that only the record keeps, or of which any value is one.
ANYTHING = {
  # A stored config cannot ask for a download: it is False, whatever it says.
  ("data", "download"),
  ("sampling", "sample", "guidance"),
  ("rows", 0, "sampling", "sample", "guidance"),
  ("rows", 0, "sampling", "flow_map"),
}


@pytest.mark.parametrize("name", FILES)
def test_impossible_number_is_named(name, tmp_path):
  values = FILES[name][0]
  for path in places(values):
    was, last = at(values, path), [x for x in path if isinstance(x, str)][-1]
    number = isinstance(was, int | float) and not isinstance(was, bool)
    if not number or path in ANYTHING or last in SIGNED:
      continue
    for new in IMPOSSIBLE:
      (tmp_path / name).write_text(json.dumps(changed(values, path, new)))
      try:
        line = line_of(tmp_path, name)
      except pytest.fail.Exception:
        raise AssertionError(f"{dotted(path)}={new} is accepted") from None
      except AssertionError as error:  # Another value than the command's.
        assert name == "rectify.json" and f"{last}={new}, not" in str(error)
      else:
        assert last in line, line


# Fields that may be absent, and names that a file may choose.
OPTIONAL = {
  *("raw_dir", "data_dir", "statistics", "operations_overhead", "schema"),
  *("sampling", "sampling.sample", "sampling.flow_map", "ema", "grid"),
  *("scores.fid", "scores.fid.error", "scores.fid.num"),
}


@pytest.mark.parametrize("name", sorted(FILES.keys() - {"config.json"}))
def test_absent_field_is_named(name, tmp_path):
  values = FILES[name][0]
  for path in places(values):
    field = re.sub(r"^rows\[0\]\.?", "", dotted(path))
    free = field in OPTIONAL and name not in ("pairs.json", "best.json")
    free |= name == "evaluation.json" and field in ("nfe", "scores.fid.real")
    if isinstance(path[-1], int) or path in ANYTHING or free:
      continue
    (tmp_path / name).write_text(json.dumps(changed(values, path, ...)))
    assert f"{dotted(path)} is absent" in line_of(tmp_path, name)


def notes_of(folder, values, caplog):
  (folder / "config.json").write_text(json.dumps(values))
  caplog.clear()
  config_files._warn_once.cache_clear()
  with caplog.at_level(logging.WARNING, logger="jaxflow"):
    for _ in range(2):  # A command may open a run twice, and says it once.
      load_config(folder)
  start = f"{folder / 'config.json'}: "
  assert all(x.getMessage().startswith(start) for x in caplog.records)
  return [x.getMessage().removeprefix(start) for x in caplog.records]


class TestNotes:
  def test_nothing_is_said_of_a_config_of_this_version(self, tmp_path, caplog):
    save_config(config_of(), tmp_path / "config.json")
    values = json.loads((tmp_path / "config.json").read_text())
    assert values == json.loads(json.dumps(stored(config_of())))
    assert notes_of(tmp_path, values, caplog) == []

  def test_fields_that_this_version_should_have_written(self, tmp_path, caplog):
    values = changed(stored(config_of()), ("train", "steps"), ...)
    values["data"]["flip"] = None
    with pytest.raises(UsageError, match=r"data\.flip is absent: give true"):
      notes_of(tmp_path, values, caplog)
    values["data"]["flip"] = False
    del values["path"]["t_max"]
    assert notes_of(tmp_path, values, caplog) == [
      "absent, so defaults hold (2): path.t_max=1.0, train.steps=10000"
    ]
    # Those of an earlier version are known to lack some.
    values["version"] = "0.1.0"
    assert notes_of(tmp_path, values, caplog) == []

  def test_a_renamed_field_that_is_none_is_said(self, tmp_path, caplog):
    values = stored(config_of())
    assert values["data"].pop("size", 0) is None
    values["data"]["sise"] = None
    assert notes_of(tmp_path, values, caplog) == [
      "no field, so left out: data.sise"
    ]

  def test_a_newer_version_is_never_read_in_silence(self, tmp_path, caplog):
    values = stored(config_of()) | {"version": "7.1.0"}
    line = f"it is of version 7.1.0, newer than {jaxflow.__version__}"
    assert notes_of(tmp_path, values, caplog) == [line]
    values = stored(config_of()) | {"seeding": 9}
    assert len(notes_of(tmp_path, values, caplog)) == 1
    for name in FILES.keys() - {"config.json"}:
      text = json.dumps(FILES[name][0] | {"schema": 2})
      (tmp_path / name).write_text(text)
      assert "(schema=2: this version reads 1)" in line_of(tmp_path, name)

  def test_samples_that_a_seed_no_longer_gives(self, tmp_path, caplog):
    path = {"name": "trigonometric", "noise_std": 1.0, "t_min": 0.0}
    angular = stored(config_of()) | {"path": path | {"t_max": math.pi / 2}}
    assert notes_of(tmp_path, angular, caplog) == []
    old = changed(angular, ("seeding",), ...)
    (line,) = notes_of(tmp_path, old, caplog)
    assert line.startswith("one seed drew other samples") and "trigono" in line
    # The linear path has always been exact.
    old = changed(stored(config_of()), ("seeding",), ...)
    assert notes_of(tmp_path, old, caplog) == []
    old["sample"]["guidance_end"] = 0.5
    assert "interval" in notes_of(tmp_path, old, caplog)[0]
    old["sample"]["guidance_end"] = None
    del old["evaluation"], old["version"]
    (line,) = notes_of(tmp_path, old, caplog)
    assert "each sample has noise of its own" in line


def test_config_of_a_teacher_is_checked(tmp_path):
  teacher = config_of()
  config = default_config("consistency_distillation", data="ring", model="mlp")
  config = resolve(config, shape=(2,), num_classes=8, teacher=teacher)
  values = changed(
    stored(config), ("teacher", "config", "train", "batch_size"), -3
  )
  (tmp_path / "config.json").write_text(json.dumps(values))
  line = line_of(tmp_path, "config.json")
  assert "teacher.config.train.batch_size=-3: give 1 or more" in line


def test_values_are_those_of_their_annotations():
  assert checked({"a": [1], "c": 2}, {"a": [int], "b": int | None}) == {
    **{"a": [1], "c": 2}
  }
  assert checked(3, float) == 3 and checked(None, int | None) is None
  assert checked((1, 2), tuple[int, ...]) == [1, 2]
  for value, kind in (
    *((1.0, int), (True, int), (True, float), (1, bool), (1, str)),
    *(([1, "x"], list[int]), ({"a": "x"}, dict[str, int]), ("x", list)),
  ):
    with pytest.raises(ValueError, match="give "):
      checked(value, kind, "field")


LOG = "step,loss,seconds\n10,0.5,1\n20,0.25,2\n30,0.125,3\n"


@pytest.mark.parametrize(
  ("text", "steps", "damaged"),
  [
    (LOG, [10, 20, 30], 0),
    # A killed process leaves half a line.
    (LOG[:-6], [10, 20], 0),
    (LOG.replace("0.25", "many"), [10, 30], 1),
    (LOG.replace("20,", ""), [10, 30], 1),
    (LOG.replace("0.25", '".25'), [10, 30], 1),
    (LOG.replace("20,", "\u00b2\u0000,"), [10, 30], 1),
    (LOG.replace("20,0.25,2", "20,0.25,2,7"), [10, 30], 1),
    (LOG.replace("step", "stop"), [], 3),
    ("x" * 200_000 + "\n1\n", [], 1),
    ("", [], 0),
  ],
)
def test_a_log_keeps_its_whole_rows(text, steps, damaged, tmp_path, caplog):
  path = tmp_path / "metrics.csv"
  path.write_text(text)
  with caplog.at_level(logging.WARNING, logger="jaxflow"):
    rows, found = read_table(path)
  assert ([int(row["step"]) for row in rows], found) == (steps, damaged)
  lines = [record.getMessage() for record in caplog.records]
  count = "1 damaged row is" if found == 1 else f"{found} damaged rows are"
  assert lines == [f"{path}: {count} left out"] * bool(found)
  log = CsvLog(tmp_path, start=30)
  assert log.seconds == (float(rows[-1]["seconds"]) if rows else 0)
  aside = tmp_path / "damaged-metrics.csv"
  assert aside.exists() == bool(damaged)
  if damaged:  # Training goes on, and nothing of the log is lost.
    assert aside.read_text() == text
  log.on_log(40, {"loss": 0.1})
  with open(path, newline="") as file:
    assert [row["step"] for row in csv.DictReader(file)] == [
      *map(str, steps),
      "40",
    ]
  assert read_log(path)["step"].tolist() == [*steps, 40]


def test_bytes_that_are_no_log(tmp_path):
  path = tmp_path / "metrics.csv"
  path.write_bytes(bytes(range(256)) * 8)
  assert read_table(path)[0] == []
  with pytest.raises(UsageError, match=r"metrics\.csv cannot be read"):
    read_log(path)


@pytest.mark.parametrize("share", [0, 0.1, 0.4, 0.7])
def test_a_damaged_picture_is_named(share, tmp_path):
  whole = tmp_path / "whole.png"
  Image.new("RGB", (64, 64), (1, 2, 3)).save(whole)
  cut = tmp_path / "00000010.png"
  content = whole.read_bytes()
  cut.write_bytes(content[: int(share * len(content))])
  with pytest.raises(UsageError, match=r"00000010\.png cannot be read"):
    save_strip([whole, cut], tmp_path / "out.png", names=["a", "b"])


def statistics(path: pathlib.Path, **changes):
  about = {"num": 20, "network": "a"}
  arrays = {"mu": np.zeros(2), "sigma": np.eye(2), "about": json.dumps(about)}
  np.savez(path, **(arrays | changes))


@pytest.mark.parametrize("num", ["x", None, True, -1, 1, math.nan, 2.5, [2]])
def test_statistics_of_an_impossible_number(num, tmp_path):
  path = tmp_path / "a.npz"
  statistics(path)
  assert read_statistics(path, "a")[0].num == 20
  if num is not None:
    statistics(path, about=json.dumps({"num": num}))
    with pytest.raises(
      UsageError, match=r"a\.npz.*about\.num=.*: give "
    ) as info:
      read_statistics(path, "a")
    assert "\n" not in str(info.value)


def test_statistics_that_are_damaged(tmp_path):
  path, draw = tmp_path / "a.npz", random.Random(2)
  statistics(path)
  whole = path.read_bytes()
  for _ in range(20):
    path.write_bytes(whole[: draw.randrange(len(whole))])
    with pytest.raises(UsageError, match=r"a\.npz' cannot be read") as info:
      read_statistics(path, "a")
    assert "\n" not in str(info.value)


def test_logs_that_were_damaged_twice_are_both_kept(tmp_path):
  path = tmp_path / "metrics.csv"
  for damage in ("many", "few"):
    path.write_text(LOG.replace("0.25", damage))
    CsvLog(tmp_path, start=30)
  first, second = (tmp_path / f"damaged-metrics{n}.csv" for n in ("", "-1"))
  assert "many" in first.read_text() and "few" in second.read_text()
