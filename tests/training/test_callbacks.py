"""What callbacks are told, and what the writers of logs make of it."""

import csv
import importlib
import json
import os
import sys

import numpy as np
import pytest
import tiny
from tensorboardX.proto.event_pb2 import Event

from jaxflow.config.presets import load_file
from jaxflow.errors import RunError, UsageError
from jaxflow.runs.train import train
from jaxflow.training.callbacks import Callbacks, Start
from jaxflow.training.csv_log import CsvLog
from jaxflow.training.progress import Remaining, clock_time, progress_line
from jaxflow.training.tensorboard_log import TensorBoardLog
from jaxflow.training.wandb_log import WandbLog


class Recorder:
  """Notes every call."""

  def __init__(self):
    self.calls = []

  def on_start(self, start):
    self.calls.append(("start", start.step, start.steps))
    self.start = start

  def on_log(self, step, scalars):
    self.calls.append(("log", step))
    self.scalars = scalars

  def on_checkpoint(self, step):
    self.calls.append(("checkpoint", step))

  def on_samples(self, step, samples):
    self.calls.append(("samples", step))
    self.samples = samples

  def close(self):
    self.calls.append(("close",))


class Failing(Recorder):
  """Fails at a step."""

  def __init__(self, step):
    super().__init__()
    self.step = step

  def on_log(self, step, scalars):
    super().on_log(step, scalars)
    if step >= self.step:
      raise ValueError("boom")


def run(folder, *callbacks, workdir=None, lines=None):
  """Train 40 steps, with logs every 10 and checkpoints and samples every 20."""
  config = load_file(f"{tiny.config_file(folder)}:flow_matching")
  config.train.sample_every = 20
  log = (lambda line: None) if lines is None else lines.append
  return train(config, workdir, callbacks=callbacks, log=log)


def events(workdir):
  """Read `{(name, step): value}` from the files of TensorBoard."""
  found = {}
  for path in sorted((workdir / "tensorboard").iterdir()):
    data = path.read_bytes()
    while data:
      # Length (8 bytes), its checksum (4), the event, its checksum (4).
      size = int.from_bytes(data[:8], "little")
      event = Event.FromString(data[12 : 12 + size])
      data = data[16 + size :]
      for value in event.summary.value:
        found[value.tag, event.step] = value.simple_value
  return found


def test_callbacks_hear_of_a_run_in_order(tmp_path):
  recorder, workdir = Recorder(), tmp_path / "run"
  run(tmp_path, recorder, workdir=workdir)
  assert recorder.calls == [
    ("start", 0, 40),
    ("log", 1),
    ("log", 10),
    ("log", 20),
    ("checkpoint", 20),
    ("samples", 20),
    ("log", 30),
    ("log", 40),
    ("checkpoint", 40),
    ("samples", 40),
    ("close",),
  ]
  assert recorder.start.batch_size == 16
  assert recorder.start.workdir == workdir
  saved = json.loads((workdir / "config.json").read_text())
  del saved["version"], saved["seeding"]
  assert json.loads(json.dumps(recorder.start.config)) == saved
  assert recorder.samples.shape == (2000, 2)
  assert {"loss", "gradient_norm", "seconds"} <= set(recorder.scalars)


def test_both_writers_hold_the_same_scalars(tmp_path):
  run(tmp_path, workdir=tmp_path / "run")
  written = events(tmp_path / "run")
  rows = tiny.rows(tmp_path / "run", without=())
  table = {
    (name, int(row["step"])): float(value)
    for row in rows
    for name, value in row.items()
    if name != "step" and value
  }
  assert set(written) == set(table) and len(rows) == 5
  for key, value in table.items():
    assert written[key] == pytest.approx(value, rel=1e-5), key


def test_rows_beyond_the_start_are_dropped(tmp_path):
  log = CsvLog(tmp_path)
  for step in (10, 20, 30):
    log.on_log(step, {"loss": step / 8, "seconds": float(step)})
  again = CsvLog(tmp_path, start=20)
  assert again.seconds == 20
  again.on_log(25, {"loss": 0.25, "seconds": 21.0, "new": 3.0})
  with open(tmp_path / "metrics.csv", newline="") as file:
    assert list(csv.reader(file)) == [
      ["step", "loss", "seconds", "new"],
      ["10", "1.25", "10", ""],
      ["20", "2.5", "20", ""],
      ["25", "0.25", "21", "3"],
    ]


def test_writers_of_other_names(tmp_path):
  table = CsvLog(tmp_path, name="evaluations")
  callbacks = Callbacks([table, TensorBoardLog(tmp_path, prefix="eval/")])
  callbacks.on_log(5, {"frechet": 2.0})
  callbacks.close()
  assert (tmp_path / "evaluations.csv").read_text().split() == [
    "step,frechet",
    "5,2",
  ]
  assert events(tmp_path) == {("eval/frechet", 5): 2.0}


def test_a_failure_stops_training_once_it_is_saved(tmp_path):
  workdir, lines = tmp_path / "run", []
  failing, other = Failing(10), Recorder()
  message = r"^callback Failing\.on_log failed: ValueError: boom$"
  with pytest.raises(RunError, match=message) as error:
    run(tmp_path, failing, other, workdir=workdir, lines=lines)
  assert isinstance(error.value.__cause__, ValueError)
  assert lines[-1] == (
    f"interrupted: saved step 10 in {workdir}; the same command goes on from "
    "there"
  )
  logs = ("log", 1), ("log", 10)
  assert failing.calls == [("start", 0, 40), *logs, ("close",)]
  assert other.calls == [
    *(("start", 0, 40), *logs, ("checkpoint", 10), ("close",))
  ]
  # It goes on to what an undisturbed run logs.
  assert run(tmp_path, workdir=workdir).finished
  assert [row["step"] for row in tiny.rows(workdir)] == tiny.LOGGED


def test_a_failure_at_the_end_loses_nothing(tmp_path):
  with pytest.raises(RunError, match="boom"):
    run(tmp_path, Failing(40), workdir=tmp_path / "run")
  assert int(tiny.state_of(tmp_path / "run").step) == 40


def test_a_failure_at_the_start_trains_nothing(tmp_path):
  class Broken(Recorder):
    def on_start(self, start):
      raise UsageError("project='': give a name")

  broken = Broken()
  with pytest.raises(
    RunError, match=r"^callback Broken\.on_start failed: proj"
  ):
    run(tmp_path, broken)
  assert broken.calls == [("close",)]


def test_all_are_closed_where_one_fails_to_close():
  class Broken:
    def close(self):
      raise OSError("disk is full")

  first, last = Recorder(), Recorder()
  callbacks = Callbacks([first, Broken(), last])
  callbacks.close()
  assert first.calls == last.calls == [("close",)]
  line = r"^callback Broken\.close failed: OSError: disk is full$"
  with pytest.raises(RunError, match=line):
    callbacks.check()


def test_a_callback_that_fails_to_close_is_named(tmp_path):
  class Broken:
    def close(self):
      raise OSError("disk is full")

  workdir, lines = tmp_path / "run", []
  line = r"^callback Broken\.close failed: OSError: disk is full$"
  with pytest.raises(RunError, match=line):
    run(tmp_path, Broken(), workdir=workdir)
  run(tmp_path, workdir=workdir, lines=lines)
  assert any("nothing to do" in line for line in lines)


def test_progress_line():
  scalars = {
    "loss": 0.25,
    "gradient_norm": 1.5,
    "raw": 2.0,
    "raw_flow": 3.0,
    "skipped": 0,
    "tangent_norm": 7.0,
    "learning_rate": 1e-4,
    "samples_per_second": 12345.4,
    "seconds": 9.0,
  }
  text = "loss 0.25  raw 2  raw flow 3  gradient norm 1.5  learning rate 0.0001"
  assert progress_line(500, 10_000, scalars, 65.0) == (
    f"step    500/10,000  {text}  12,345 samples/s  ETA 1:05"
  )
  skipped = progress_line(500, 500, {"loss": 0.25, "skipped": 1200}, None)
  assert skipped == "step 500/500  loss 0.25  skipped 1,200 step(s)"


def test_time_that_is_left():
  assert [clock_time(x) for x in (0.4, 59.6, 3599, 7384, 90_000)] == [
    *("0:00", "1:00", "59:59", "2:03:04", "25:00:00")
  ]
  remaining = Remaining(Start(step=100, steps=200, batch_size=10))
  # No speed is known of steps that were compiled.
  assert remaining.seconds(110, {}) is None
  # 10 steps in 10 s, then 10 in 20 s: 70 steps of 1.5 s are left.
  assert remaining.seconds(120, {"samples_per_second": 10.0}) == 80
  assert remaining.seconds(130, {"samples_per_second": 5.0}) == 105


def test_without_wandb_the_message_names_what_to_install(monkeypatch):
  monkeypatch.setitem(sys.modules, "wandb", None)
  with pytest.raises(UsageError, match=r'pip install "jaxflow-generative\[wan'):
    WandbLog("project")
  result = tiny.run(
    "train", "--config=ring:flow_matching", "--workdir=x", "--wandb=project"
  )
  assert result.code == 2 and "jaxflow-generative[wandb]" in result.err


def test_wandb_is_sent_all_of_a_run(tmp_path, monkeypatch):
  """With a stand-in: what it is asked to do is what is tested."""
  wandb = FakeWandb()
  monkeypatch.setitem(sys.modules, "wandb", wandb)
  workdir = tmp_path / "run"
  log = WandbLog("digits", mode="offline")
  start = Start(
    step=0, steps=40, batch_size=8, workdir=workdir, config={"seed": 3}
  )
  workdir.mkdir()
  callbacks = Callbacks([log])
  callbacks.on_start(start)
  callbacks.on_log(10, {"loss": 0.5})
  callbacks.on_samples(10, np.zeros((4, 8, 8, 1)))
  callbacks.close()
  first = wandb.options
  assert first["project"] == "digits" and first["name"] == "run"
  assert first["mode"] == "offline" and first["config"] == {"seed": 3}
  assert wandb.sent == [(10, {"loss": 0.5}), (10, {"samples": "PNG"}), "finish"]
  # A resumed run is the same, one that begins anew is another.
  for step, same in ((10, True), (0, False)):
    resumed = Start(step=step, steps=40, batch_size=8, workdir=workdir)
    Callbacks([WandbLog("digits")]).on_start(resumed)
    assert (wandb.options["id"] == first["id"]) is same


class FakeWandb:
  """What WandbLog uses of wandb."""

  def __init__(self):
    self.sent = []

  def Settings(self, **options):
    return options

  def Image(self, path):
    with open(path, "rb") as file:
      return file.read()[1:4].decode()

  def init(self, **options):
    self.options = options
    return self

  def log(self, scalars, step):
    self.sent.append((step, scalars))

  def finish(self):
    self.sent.append("finish")


@pytest.mark.filterwarnings("default")
def test_offline_run_of_wandb(tmp_path, monkeypatch):
  pytest.importorskip("wandb")
  monkeypatch.setitem(os.environ, "WANDB_SILENT", "true")
  workdir = tmp_path / "run"
  run(tmp_path, WandbLog("project", mode="offline"), workdir=workdir)
  (folder,) = (workdir / "wandb").glob("offline-run-*")
  (record,) = folder.glob("run-*.wandb")
  found = read_offline(record)
  assert found["steps"] == [10, 20, 30, 40]
  assert found["config"]["method"] == "flow_matching"
  losses = [float(row["loss"]) for row in tiny.rows(workdir)]
  assert found["loss"] == pytest.approx(losses, rel=1e-5)
  assert len(list((folder / "files/media/images").glob("samples*"))) == 2


def records(data):
  """Yield the records of a log of LevelDB, which begins with 7 bytes more."""
  position, parts = 7, b""
  while position < len(data):
    left = 2**15 - position % 2**15
    if left < 7:
      position += left
      continue
    # Checksum (4 bytes), length (2), kind: 1 whole, 2 first, 3 middle, 4 last.
    size = int.from_bytes(data[position + 4 : position + 6], "little")
    kind = data[position + 6]
    parts += data[position + 7 : position + 7 + size]
    position += 7 + size
    if kind in (1, 4):
      yield parts
      parts = b""


def read_offline(path):
  """Read config and history that wandb keeps until they are uploaded."""
  pb = importlib.import_module("wandb.proto.wandb_internal_pb2")
  found = {"config": {}, "steps": [], "loss": []}
  for data in records(path.read_bytes()):
    record = pb.Record.FromString(data)
    for update in record.run.config.update:
      found["config"][update.key] = json.loads(update.value_json)
    items = {
      ".".join(item.nested_key) or item.key: json.loads(item.value_json)
      for item in record.history.item
    }
    if "loss" in items:
      found["steps"].append(items["_step"])
      found["loss"].append(items["loss"])
  return found
