import json
import math
from unittest import mock

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from PIL import Image

from jaxflow import api
from jaxflow.config import load_config, make_plan
from jaxflow.data import Dataset
from jaxflow.errors import UsageError
from jaxflow.evaluation import of_run
from jaxflow.parallel import sharding
from jaxflow.runs import inputs, restoring, start
from jaxflow.training import checkpoints, loop, step
from jaxflow.training.callbacks import Callbacks

CLASSES = "data.conditional=True"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """Return a folder with the runs `plain` and, with classes, `labelled`."""
  path = tmp_path_factory.mktemp("runs")
  tiny.train(path, "plain", "flow_matching", "train.sample_every=20")
  flags = CLASSES, "loss.label_dropout=0.5", "train.steps=20"
  tiny.train(path, "labelled", "flow_matching", *flags)
  return path


def sample(workdir, out, *flags):
  result = tiny.run("sample", f"--workdir={workdir}", f"--out={out}", *flags)
  assert result.code == 0, result.err
  return tiny.arrays(out) if out.suffix == ".npz" else result


def test_workdir_holds_all_of_a_run(folder):
  workdir = folder / "plain"
  names = {path.name for path in workdir.iterdir()}
  assert names == {
    *("config.json", "checkpoints", "metrics.csv", "tensorboard", "samples")
  }
  assert {p.name for p in (workdir / "checkpoints").iterdir()} == {"20", "40"}
  pictures = sorted((workdir / "samples").iterdir())
  assert [p.name for p in pictures] == ["00000020.png", "00000040.png"]
  with Image.open(pictures[0]) as picture:
    assert min(picture.size) > 100
  assert list((workdir / "tensorboard").glob("events.*"))


def test_a_step_is_traced_once(tmp_path):
  """To be checked with one step a dispatch, and to be run with five."""
  count = mock.patch.object(step, "mean_gradient", wraps=step.mean_gradient)
  with count as traced:
    tiny.train(tmp_path, "run", "flow_matching", "train.steps=10")
  assert traced.call_count == 1


def test_config_of_a_workdir_is_resolved(folder):
  plain = json.loads((folder / "plain" / "config.json").read_text())
  assert plain["data"]["shape"] == [2]
  assert plain["data"]["num_classes"] == 0
  assert plain["train"]["steps"] == 40
  labelled = json.loads((folder / "labelled" / "config.json").read_text())
  assert labelled["data"]["num_classes"] == 8


def test_metrics_have_a_row_for_each_log_line(folder):
  text = (folder / "plain" / "metrics.csv").read_text()
  columns = text.splitlines()[0].split(",")
  assert columns[:2] == ["step", "loss"]
  assert {
    *("raw", "gradient_norm", "learning_rate", "skipped"),
    *("samples_per_second", "seconds"),
  } <= set(columns)
  table = tiny.rows(folder / "plain")
  assert [row["step"] for row in table] == tiny.LOGGED
  # The first step has no speed yet.
  assert not table[0].pop("samples_per_second", "")
  for row in table:
    assert row["loss"] == row["raw"]
    assert row["learning_rate"] == "0.01"
    assert row["skipped"] == "0"
    assert all(math.isfinite(float(value)) for value in row.values())


def test_first_row_is_the_first_step(folder, tmp_path):
  """A run that logs every step says the same of it."""
  flags = "train.steps=2", "train.log_every=1"
  every = tiny.train(tmp_path, "run", "flow_matching", *flags)
  first, second = tiny.rows(every)
  logged = tiny.rows(folder / "plain")[0]
  for name in ("loss", "raw", "gradient_norm"):
    assert float(first[name]) == pytest.approx(float(logged[name]), rel=1e-4)
  assert first["loss"] != second["loss"]


def test_rows_beyond_the_checkpoint_are_dropped(folder, tmp_path):
  workdir = tiny.train(tmp_path, "run", "flow_matching", "train.steps=20")
  kept = tiny.rows(workdir)
  full = tiny.rows(workdir, without=())
  with open(workdir / "metrics.csv", "a") as file:
    # What a killed process leaves: rows after its last checkpoint, half a row.
    file.write(",".join(["30"] + ["7"] * (len(full[0]) - 1)) + "\n40,7")
  tiny.train(tmp_path, "run", "flow_matching")
  assert tiny.rows(workdir)[:3] == kept
  seconds = [float(row["seconds"]) for row in tiny.rows(workdir, without=())]
  assert seconds[:3] == [float(row["seconds"]) for row in full]
  assert seconds == sorted(seconds) and 0 < seconds[0] < seconds[-1]
  assert tiny.rows(workdir) == tiny.rows(folder / "plain")


def test_skipped_steps_are_counted_in_the_log(tmp_path, monkeypatch):
  load = inputs.data.load

  def broken(*args, **kwargs):
    # A value that is finite, but whose square is not.
    dataset = load(*args, **kwargs)
    data = dataset.data.copy()
    data[::400] = 1e30
    return Dataset(data, None, 0, dataset.name, dataset.split)

  monkeypatch.setattr(inputs.data, "load", broken)
  workdir = tiny.train(tmp_path, "run", "flow_matching")
  counts = [int(row["skipped"]) for row in tiny.rows(workdir)]
  # 41 of 16,384 rows are broken: about 4 % of the batches of 16.
  assert counts == sorted(counts)
  state = tiny.state_of(workdir)
  assert counts[-1] == int(state.skipped) > 0
  assert int(state.step) == 40
  chex.assert_tree_all_finite(state.params)


def test_samples_as_arrays(folder, tmp_path):
  arrays = sample(folder / "plain", tmp_path / "a.npz", "--num=6")
  assert set(arrays) == {"samples"}
  assert arrays["samples"].shape == (6, 2)
  assert arrays["samples"].dtype == np.float32
  workdir = folder / "labelled"
  arrays = sample(workdir, tmp_path / "b.npz", "--num=11")
  assert arrays["label"].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2]
  assert arrays["samples"].shape == (11, 2)
  arrays = sample(workdir, tmp_path / "c.npz", "--num=3", "--label=5")
  assert arrays["label"].tolist() == [5, 5, 5]


def test_samples_as_a_picture(folder, tmp_path):
  out = tmp_path / "new" / "grid.png"
  result = sample(folder / "plain", out, "--num=10", "--nfe=3")
  assert result.out == f"10 samples, 3 network call(s) each: {out}\n"
  with Image.open(out) as picture:
    assert picture.format == "PNG"


def test_seed_decides_the_samples(folder, tmp_path):
  workdir = folder / "plain"
  first = sample(workdir, tmp_path / "a.npz", "--seed=3", "--num=8")["samples"]
  again = sample(workdir, tmp_path / "b.npz", "--seed=3", "--num=8")["samples"]
  other = sample(workdir, tmp_path / "c.npz", "--seed=4", "--num=8")["samples"]
  assert first.tobytes() == again.tobytes()
  assert np.abs(first - other).min() > 0


def test_label_decides_the_samples(folder, tmp_path):
  workdir = folder / "labelled"
  a = sample(workdir, tmp_path / "a.npz", "--label=1", "--num=8")["samples"]
  b = sample(workdir, tmp_path / "b.npz", "--label=2", "--num=8")["samples"]
  assert np.abs(a - b).max() > 1e-3


@pytest.mark.parametrize("nfe", [1, 2, 5])
def test_samples_come_from_the_average(folder, tmp_path, nfe):
  """Euler's steps by hand, with the parameters of the average."""
  workdir = folder / "plain"
  drawn = sample(workdir, tmp_path / "a.npz", f"--nfe={nfe}", "--num=4")
  mesh = sharding.make_mesh()
  run, state = restoring.load(workdir, mesh=mesh)
  keys = [jax.random.fold_in(jax.random.key(0), i) for i in range(4)]
  noise = jax.numpy.stack(
    [jax.random.normal(jax.random.split(key)[0], (2,)) for key in keys]
  )

  def solve(params):
    x = noise
    for i in range(nfe, 0, -1):
      t = jax.numpy.full(4, i / nfe)
      x = x - run.model.network.apply(params, x, t, t, None) / nfe
    return np.asarray(x)

  expected = solve(state.ema["sampling"])
  np.testing.assert_allclose(drawn["samples"], expected, rtol=1e-4, atol=1e-5)
  assert np.abs(solve(state.params) - expected).max() > 1e-2


def test_earlier_step_is_sampled(folder, tmp_path):
  workdir = folder / "plain"
  early = sample(workdir, tmp_path / "a.npz", "--step=20")["samples"]
  late = sample(workdir, tmp_path / "b.npz", "--step=40")["samples"]
  last = sample(workdir, tmp_path / "c.npz")["samples"]
  assert late.tobytes() == last.tobytes()
  assert np.abs(early - late).max() > 1e-3


def test_evaluation_prints_and_writes_every_score(folder):
  workdir = folder / "plain"
  result = tiny.run("evaluate", f"--workdir={workdir}", "--nfe=1,2")
  assert result.code == 0, result.err
  assert "real data" in result.out
  path = workdir / "evaluation.json"
  table = json.loads(path.read_text())["rows"]
  path.unlink()
  assert not list(workdir.glob(".*.tmp"))
  assert [row["nfe"] for row in table] == [1, 2]
  for row in table:
    assert set(row) == {
      *("model", "nfe", "step", "samples_per_second", "scores"),
      *("ema", "seed", "num", "reference", "networks", "sampling", "left_out"),
      "floor",
    }
    assert (row["model"], row["step"]) == ("flow_matching", 40)
    assert row["samples_per_second"] > 0
    assert set(row["scores"]) == {
      *("sliced_wasserstein", "energy_distance", "wasserstein", "mmd"),
      *("precision", "recall", "density", "coverage"),
      *("mode_coverage", "high_quality"),
    }
    for name, score in row["scores"].items():
      assert set(score) == {
        *("value", "error", "num", "real", "real_error", "real_num"),
        "degrees",
      }
      assert name in result.out
      for value, error in (("value", "error"), ("real", "real_error")):
        style = (
          ".4f" if abs(score[value]) >= 1e-3 or not score[value] else ".2e"
        )
        text = f"{score[value]:{style}} ± {score[error]:{style}}"
        assert text in result.out
    assert f"NFE {row['nfe']}: {row['samples_per_second']:,.0f} samples/s" in (
      result.out
    )


def test_evaluation_takes_its_calls_from_the_config(folder, monkeypatch):
  asked = []

  def streamer(run, nfe, mesh):
    asked.append(nfe)
    if nfe == 4:
      raise UsageError("nfe=4: too many")

  monkeypatch.setattr(of_run, "streamer", streamer)
  with pytest.raises(UsageError, match=r"^evaluation\.nfe=4: too many"):
    api.load(folder / "plain").evaluate()
  assert asked == [1, 2, 4]


def test_student_from_scratch_may_differ_from_its_teacher(folder, tmp_path):
  flags = "model.width=24", "teacher.init_student=False", "train.steps=5"
  teacher = f"teacher.workdir={folder / 'plain'}"
  method = "consistency_distillation"
  workdir = tiny.train(tmp_path, "run", method, teacher, *flags)
  state = tiny.state_of(workdir)
  assert state.params["hidden_0"]["kernel"].shape[1] == 24
  assert state.frozen["teacher"]["hidden_0"]["kernel"].shape[1] == 16


def test_a_teacher_of_another_path_is_converted(folder, tmp_path):
  flags = "path.name=trigonometric", "teacher.init_student=False"
  workdir = tiny.train(
    tmp_path,
    "run",
    "consistency_distillation",
    f"teacher.workdir={folder / 'plain'}",
    "train.steps=5",
    *flags,
  )
  plan = make_plan(load_config(workdir))
  state = tiny.state_of(workdir)
  teacher = plan.roles.teacher.network_fn(
    state.frozen["teacher"], path=plan.model.path
  )
  # Where both paths hold data and noise alike, x scales by sqrt(2) and the
  # velocity (noise - data) by pi / 2.
  x, t = jnp.ones((3, 2)), jnp.full(3, 0.5)
  own = plan.roles.teacher.network_fn(state.frozen["teacher"])
  data = x / 2**0.5 - t[:, None] * own(x / 2**0.5, t, t, None)
  noise = x * 2**0.5 - data
  np.testing.assert_allclose(
    teacher(x, t, t, None),
    jnp.pi / 2 * (noise - data) / 2**0.5,
    rtol=1e-4,
  )


def test_failed_start_leaves_a_workdir_for_the_next(tmp_path):
  command = tiny.train_command(tmp_path, "run", "flow_matching")
  wrong = tiny.run(*command, "--config.sample.ema=slow")
  assert wrong.code == 2
  assert tiny.run(*command, "--config.train.steps=5").code == 0


def test_resume_takes_what_may_change(tmp_path):
  """The first dispatch has 5 steps, so that the others end at logs."""
  flags = "train.steps=15", "train.log_every=5", "checkpoint.every=15"
  tiny.train(tmp_path, "run", "flow_matching", *flags)
  flags = "train.steps=40", "train.steps_per_dispatch=20", "train.log_every=20"
  command = tiny.train_command(tmp_path, "run", "flow_matching", *flags)
  result = tiny.run(*command)
  assert result.code == 0, result.err
  assert "20 steps per dispatch, resumed at step 15" in result.out
  steps = [row["step"] for row in tiny.rows(tmp_path / "run")]
  assert steps == ["1", "5", "10", "15", "20", "40"]
  assert int(tiny.state_of(tmp_path / "run").step) == 40


def test_two_dimensional_digits_train_and_sample(tmp_path, tmp_path_factory):
  """Images, classes, a transformer and guidance go the same way."""
  path = tmp_path / "digits.py"
  path.write_text(
    tiny.CONFIG.replace(
      'data="ring", model="mlp"', 'data="digits", model="dit"'
    )
    .replace("data.conditional = False", "loss.label_dropout = 0.25")
    .replace(
      "width=16, depth=1, time_features=8",
      "width=8, depth=1, num_heads=1, patch_size=4",
    )
  )
  workdir = tmp_path / "run"
  result = tiny.run(
    *("train", f"--config={path}:mean_flow", f"--workdir={workdir}"),
    *("--config.train.steps=5", "--config.loss.omega=2"),
    f"--config.data.data_dir={tmp_path_factory.getbasetemp() / 'prepared'}",
  )
  assert result.code == 0, result.err
  arrays = sample(workdir, tmp_path / "a.npz", "--num=5", "--label=3")
  assert arrays["samples"].shape == (5, 8, 8, 1)
  out = tmp_path / "grid.png"
  sample(workdir, out, "--num=4")
  with Image.open(out) as picture:
    # Two by two cells of 32 pixels, with gaps of 2.
    assert picture.size == (70, 70)
  evaluated = tiny.run("evaluate", f"--workdir={workdir}", "--nfe=1")
  assert evaluated.code == 0, evaluated.err
  assert "recognised" in evaluated.out


def test_no_checkpoint_is_due_while_steps_are_skipped(tmp_path):
  run_config = tiny.train(tmp_path, "run", "flow_matching", "train.steps=5")
  state = tiny.state_of(run_config)
  bad = jax.tree.map(lambda x: x, state)
  saved = []

  class Saved(checkpoints.Checkpoints):
    def __init__(self):
      self.folder = tmp_path

    def steps(self):
      return saved

    def save(self, step, state, data_state):
      saved.append(step)

    def wait(self):
      pass

  def step_fn(state, batch):
    step = state.step + 1
    # Steps 8 to 10 are skipped, 11 is good again.
    skipped = max(int(step) - 7, 0) if int(step) < 11 else 0
    changes = {"step": step, "skipped_in_row": jax.numpy.asarray(skipped)}
    return type(state)(**{**vars(state), **changes}), {"loss": np.float32(1)}

  class Batches:
    ready = True
    waited = 0.0

    def __next__(self):
      return {"data": np.zeros((1, 1, 8, 2))}

    def get_state(self):
      return {"position": 0}

  _, finished = loop.train(
    bad,
    step_fn,
    Batches(),
    steps=12,
    batch_size=8,
    log_every=4,
    checkpoint_every=1,
    sample_every=0,
    max_skipped=5,
    learning_rate=lambda step: 0.1,
    checkpoints=Saved(),
    callbacks=Callbacks(),
    on_sample=lambda state, step: None,
    on_steps=lambda state, step, position: None,
    interrupted=lambda: False,
    log=lambda line: None,
  )
  assert finished
  assert saved == [6, 7, 11, 12]


def test_earlier_config_of_an_empty_folder(tmp_path):
  assert start._earlier_config(tmp_path) is None
  assert start._earlier_config(tmp_path / "absent") is None
