"""Runs on tables, sequences and volumes, by the command line and in Python."""

import json

import numpy as np
import pytest
import tiny

import jaxflow
from jaxflow.config import registry
from jaxflow.errors import UsageError
from jaxflow.models import mlp

SEQUENCES = "model.name=dit", "model.width=16", "model.depth=1"
SEQUENCES += ("model.num_heads=2",)
DRAWS = np.random.default_rng(0).standard_normal((60, 8 * 4 * 4))
KINDS = {
  "table": (
    (DRAWS[:, :5] * [1, 10, 100, 1, 1] + 300).astype(np.int16),
    (),
  ),
  "sequence": (20 * DRAWS[:, :24].reshape(60, 8, 3).cumsum(1), SEQUENCES),
  "volume": (
    np.clip(100 + 30 * DRAWS, 0, 255).astype(np.uint8).reshape(60, 4, 8, 4, 1),
    SEQUENCES,
  ),
}


@pytest.mark.parametrize("kind", list(KINDS))
def test_arrays_train_sample_and_evaluate(tmp_path, kind):
  values, model = KINDS[kind]
  labels = {"labels": np.arange(60) % 3} if kind == "table" else {}
  np.savez(tmp_path / "train.npz", data=values, **labels)
  np.savez(
    tmp_path / "test.npz",
    data=values[:30],
    **{k: x[:30] for k, x in labels.items()},
  )
  flags = [
    "data.name=arrays",
    f"data.file={tmp_path / 'train.npz'}",
    f"data.split.test={tmp_path / 'test.npz'}",
    f"data.conditional={bool(labels)}",
    *("train.steps=10", "train.sample_every=5", "checkpoint.every=10"),
    *("train.log_every=5", *model),
  ]
  workdir = tiny.train(tmp_path, "run", "flow_matching", *flags)
  assert not (workdir / "samples").exists()

  out = tmp_path / "samples.npz"
  place = f"--workdir={workdir}"
  drawn = tiny.run("sample", place, f"--out={out}", "--num=12")
  assert drawn.code == 0, drawn.err
  samples = tiny.arrays(out)["samples"]
  assert samples.dtype == values.dtype
  assert samples.shape == (12, *values.shape[1:])
  # The network is hardly trained: its samples are noise of the data's scale.
  channels = values.reshape(-1, values.shape[-1])
  found = samples.reshape(-1, values.shape[-1])
  apart = (found.mean(0) - channels.mean(0)) / channels.std(0)
  assert np.abs(apart).max() < 1.5
  spread = found.std(0) / channels.std(0)
  assert 0.3 < spread.min() <= spread.max() < 3

  picture = tiny.run("sample", place, f"--out={tmp_path / 'a.png'}")
  assert picture.code == 2
  assert "neither images nor points in the plane; give a file" in picture.err
  chosen = "sliced_wasserstein" + ",recognised" * bool(labels)
  metrics = f"--config.evaluation.metrics={chosen}"
  judged = tiny.run("evaluate", place, "--nfe=1", metrics)
  assert judged.code == 0, judged.err
  (row,) = json.loads((workdir / "evaluation.json").read_text())["rows"]
  assert "sliced_wasserstein" in row["scores"]
  assert row["reference"]["num"] == 30
  if kind == "table":
    assert "recognised" in row["scores"]
    np.testing.assert_array_equal(jaxflow.load(workdir).sample(12), samples)
    command = tiny.train_command(tmp_path, "run", "flow_matching", *flags)
    again = tiny.run(*command)
    assert "nothing to do" in again.out
    assert "--out=samples.npz" in again.out
    assert "not drawn" not in again.out + again.err
    page = tiny.run("report", place)
    assert page.code == 0, page.err
    text = (workdir / "report.html").read_text()
    assert "left out: samples of shape (5,)" in text


def config(**fields):
  found = jaxflow.preset("arrays:flow_matching")
  found.model.update(width=8, depth=1, time_features=8)
  found.train.update(steps=4, batch_size=16, log_every=2, sample_every=0)
  found.train.steps_per_dispatch = 2
  found.checkpoint.every = 2
  found.evaluation.update(num=40, metrics="sliced_wasserstein")
  found.data.update(fields)
  return found


def train(config, workdir=None, **options):
  return jaxflow.train(config, workdir, log=lambda line: None, **options)


def test_arrays_of_a_program_may_be_mapped_and_scaled(tmp_path):
  """Mapped, in memory, streamed: the same run; a loaded one undoes scales."""
  values = np.float64(1e3) + 10 * DRAWS[:, :2]
  np.save(tmp_path / "a.npy", values)
  mapped = np.load(tmp_path / "a.npy", mmap_mode="r")
  scaled = {"normalise": "standard", "test_share": 0.3}
  one = train(config(**scaled), tmp_path / "run", data={"data": values})
  other = train(config(**scaled, ram_gib=0.0), data={"data": mapped})
  for x, y in zip(*map(jax_leaves, (one.params, other.params)), strict=True):
    np.testing.assert_array_equal(x, y)
  loaded = jaxflow.load(tmp_path / "run", data={"data": values})
  samples = loaded.sample(50, nfe=1)
  assert samples.dtype == np.float64
  assert np.abs(samples.mean(axis=0) - 1e3).max() < 10
  assert loaded.evaluate(nfe=(1,))[0]["scores"]
  # Without data.normalise arrays are samples already.
  raw = train(config(), data={"data": values})
  assert raw.config.data.offset is None
  assert np.abs(raw.sample(50, nfe=1)).max() < 100
  with pytest.raises(UsageError, match=r"^data.normalise='range': data of"):
    source = jaxflow.data.from_arrays(values)
    train(config(normalise="range"), data=source)


def jax_leaves(tree):
  return [np.asarray(x) for x in jaxflow.api.jax.tree.leaves(tree)]


def test_images_are_cut_to_the_range_of_the_data(tmp_path):
  images = (200 * np.random.default_rng(1).random((40, 2, 2, 1)) - 300).astype(
    np.float32
  )
  np.save(tmp_path / "a.npy", images)
  run = train(config(file=str(tmp_path / "a.npy")), tmp_path / "run")
  low, high = run.config.data.range
  samples = run.sample(200, nfe=1)
  assert (samples.min(), samples.max()) == pytest.approx((low, high))
  free = run.sample(200, nfe=1, clip=False)
  assert free.max() > high
  np.testing.assert_array_equal(np.clip(free, low, high), samples)
  out = tmp_path / "a.png"
  made = tiny.run("sample", f"--workdir={tmp_path / 'run'}", f"--out={out}")
  assert made.code == 0, made.err
  assert out.is_file()


def test_what_is_stored_must_fit(tmp_path):
  file = tmp_path / "a.npy"
  np.save(file, DRAWS[:, :2])
  own = config(file=str(file))
  train(own, tmp_path / "run")
  np.save(file, DRAWS[:, :2] * 2)
  with pytest.raises(UsageError, match=r"made with data.(offset|range)="):
    own.train.steps = 8
    train(own, tmp_path / "run")
  student = jaxflow.preset("arrays:consistency_distillation")
  student.model.update(width=8, depth=1, time_features=8)
  student.train.update(batch_size=16, steps=2)
  student.data.file = str(file)
  student.teacher.workdir = str(tmp_path / "run")
  with pytest.raises(UsageError, match=r"^teacher.workdir.*its data.offset is"):
    train(student)
  stored = tmp_path / "run" / "config.json"
  saved = json.loads(stored.read_text())
  for field, value, words in (
    ("scale", [1.0, 0.0], "data.scale=[1.0, 0.0]: give finite numbers above 0"),
    ("dtype", "object", "data.dtype=object: give a type of numbers"),
    ("range", [2.0, 1.0], "data.range=[2.0, 1.0]: give two finite numbers"),
    ("offset", [1.0, 2.0, 3.0], "give none, or all as a run has stored them"),
    ("offset", None, "give none, or all as a run has stored them"),
  ):
    wrong = {**saved, "data": {**saved["data"], field: value}}
    stored.write_text(json.dumps(wrong))
    with pytest.raises(UsageError) as error:
      jaxflow.load(tmp_path / "run")
    assert words in str(error.value)


def plain_network(*, data_shape, num_classes=0):
  return mlp(data_shape=data_shape, num_classes=num_classes)


def test_numbers_are_a_condition_of_their_own(tmp_path, monkeypatch):
  """Points lie where their label says, in units of the data."""
  generator = np.random.default_rng(2)
  labels = generator.uniform(280, 320, 400)
  noise = 0.1 * generator.standard_normal((400, 2))
  points = np.stack([labels / 10, -labels], axis=1) + noise
  np.savez(tmp_path / "a.npz", data=points, labels=labels)
  flags = [
    *("data.name=arrays", f"data.file={tmp_path / 'a.npz'}"),
    *("data.conditional=True", "loss.label_dropout=0.1", "train.steps=300"),
    *("train.log_every=100", "checkpoint.every=300", "model.width=32"),
    *("train.steps_per_dispatch=100", "train.batch_size=64", "sample.nfe=4"),
  ]
  workdir = tiny.train(tmp_path, "run", "flow_matching", *flags)
  place, out = f"--workdir={workdir}", tmp_path / "samples.npz"
  drawn = tiny.run("sample", place, f"--out={out}", "--num=50", "--label=310")
  assert drawn.code == 0, drawn.err
  arrays = tiny.arrays(out)
  np.testing.assert_array_equal(arrays["label"], np.full((50, 1), 310.0))
  # The deviation of all points along the second axis is 12.
  assert abs(arrays["samples"][:, 1].mean() + 310) < 5
  assert tiny.run("sample", place, f"--out={out}", "--num=50").code == 0
  arrays = tiny.arrays(out)
  assert np.isin(arrays["label"], labels).mean() > 0.5 or np.allclose(
    np.abs(arrays["label"] - labels[None]).min(axis=1), 0, atol=1e-3
  )
  gap = np.corrcoef(arrays["label"][:, 0], arrays["samples"][:, 1])[0, 1]
  assert gap < -0.8
  judged = tiny.run("evaluate", place, "--nfe=4")
  assert judged.code == 0, judged.err
  (row,) = json.loads((workdir / "evaluation.json").read_text())["rows"]
  assert "recognised" not in row["scores"]
  wrong = tiny.run("sample", place, f"--out={out}", "--label=1,2")
  assert "--label=['1', '2']: give 1 number(s)" in wrong.err
  pairs = tiny.run(
    *tiny.train_command(tmp_path, "b", "reflow", *flags[:3]),
    f"--config.data.pairs={tmp_path}",
  )
  assert "labels that are numbers, and pairs have classes only" in pairs.err
  # A network that declares no `cond_size`.
  monkeypatch.setitem(registry.KINDS["model"], "plain", plain_network)
  flags = [*flags[:3], "model.name=plain"]
  plain = tiny.run(*tiny.train_command(tmp_path, "c", "flow_matching", *flags))
  assert "model.name='plain' takes no labels that are numbers" in plain.err
  assert "take one of dit, mlp, mp_unet, unet, unet2d, or set" in plain.err
