"""A run that goes on: lengths of dispatches, schedules, rates, averages."""

import csv
import json
import logging
import math

import jax
import numpy as np
import pytest
import tiny

import jaxflow
from jaxflow.data import Batches, from_arrays
from jaxflow.errors import RunError, UsageError
from jaxflow.training import ema
from jaxflow.training.loop import steps_per_dispatch

LENGTHS = (
  # wanted, every, ends: the largest divisor of `every` up to `wanted`, or one
  # that divides all if that is at least half of `wanted`.
  (5, (50, 1000, 0), (0, 23), 5),
  (25, (100, 1000), (0, 2000), 25),
  (25, (33, 66), (0, 66), 11),
  (25, (100,), (0, 40), 20),
  (25, (7, 1000), (0, 40), 1),
  (4, (4,), (4, 8), 4),
)


@pytest.mark.parametrize(("wanted", "every", "ends", "length"), LENGTHS)
def test_longest_dispatch(wanted, every, ends, length):
  assert steps_per_dispatch(wanted, every, ends) == length


@pytest.mark.parametrize("threads", [0, 2])
@pytest.mark.parametrize(
  ("begin", "lengths"),
  [(0, [5, 5, 5, 5, 3]), (13, [2, 5, 3]), (22, [1]), (23, [])],
)
def test_remainders_are_dispatches_of_their_own(begin, lengths, threads):
  rows = np.arange(40, dtype=np.float32)[:, None]
  options = {"batch_size": 8, "seed": 3}
  whole = Batches(from_arrays(rows), **options)
  expected = [next(whole)["data"] for _ in range(23)]
  batches = Batches(
    from_arrays(rows), stack=(5, 2), end=23, threads=threads, **options
  )
  batches.set_state({"position": begin})
  parts = [batch["data"] for batch in batches]
  batches.close()
  assert [len(part) for part in parts] == lengths
  assert batches.get_state() == {"position": 23}
  if parts:
    taken = np.concatenate(parts).reshape(-1, 8, 1)
    np.testing.assert_array_equal(taken, expected[begin:])


def lines_of(folder, name, *flags, method="flow_matching"):
  result = tiny.run(*tiny.train_command(folder, name, method, *flags))
  assert result.code == 0, result.err
  return (result.out + result.err).splitlines()


def rates(workdir):
  with open(workdir / "metrics.csv") as file:
    return {
      int(row["step"]): float(row["learning_rate"])
      for row in csv.DictReader(file)
    }


@pytest.mark.parametrize("method", ["flow_matching", "mean_flow"])
def test_steps_that_the_dispatch_does_not_divide(method, tmp_path):
  """23 steps, then 60: two programs each, and the bits of an even run."""
  flags = "train.log_every=50", "checkpoint.every=50"
  first = lines_of(tmp_path, "a", "train.steps=23", *flags, method=method)
  assert "5 steps per dispatch" in first[0]
  assert sum(line.startswith("compiling") for line in first) == 2
  second = lines_of(tmp_path, "a", "train.steps=60", *flags, method=method)
  assert any("5 steps per dispatch, resumed at step 23" in x for x in second)
  assert sum(line.startswith("compiling") for line in second) == 2
  even = tiny.train(tmp_path, "b", method, "train.steps=60", *flags)
  tiny.assert_same_bits(tiny.state_of(tmp_path / "a"), tiny.state_of(even))


def test_a_last_turn_of_the_discriminator_has_no_loss(tmp_path):
  """Step 5 is the discriminator's, and a dispatch of its own."""
  path = "path.name=variance_exploding"
  teacher = tiny.train(
    tmp_path, "teacher", "flow_matching", path, "train.steps=5"
  )
  lines = lines_of(
    tmp_path,
    "a",
    f"teacher.workdir={teacher}",
    "teacher.init_student=False",
    "discriminator.network.name=conv",
    "discriminator.start=0.0",
    "train.steps=6",
    "train.log_every=5",
    "checkpoint.every=5",
    method="consistency_trajectory",
  )
  assert lines[-1].startswith(f"done: {tmp_path / 'a'} at step 6. Next")
  assert not any("nan" in line for line in lines)


def cosine(step, length, peak=1e-2):
  return peak * (1 + math.cos(math.pi * min(step / length, 1))) / 2


def test_going_on_keeps_the_schedule(tmp_path):
  flags = ["optimizer.schedule=cosine"]
  lines_of(tmp_path, "a", "train.steps=20", *flags)
  lines = lines_of(tmp_path, "a", "train.steps=40", *flags)
  (line,) = [x for x in lines if "schedule_steps" in x]
  assert "hold their last values (learning rate 0)" in line
  assert "--config.train.schedule_steps=40 stretches them" in line
  for step, rate in rates(tmp_path / "a").items():
    np.testing.assert_allclose(rate, cosine(step - 1, 20), rtol=1e-5, atol=1e-9)
  # A run that goes on once more still has the length with which it began.
  lines_of(tmp_path, "a", "train.steps=50", *flags)
  assert rates(tmp_path / "a")[50] == 0


def test_schedules_are_stretched_when_asked(tmp_path):
  flags = ["optimizer.schedule=cosine"]
  lines_of(tmp_path, "a", "train.steps=20", *flags)
  flags.append("train.schedule_steps=40")
  lines = lines_of(tmp_path, "a", "train.steps=40", *flags)
  assert (
    "train.schedule_steps=40 in place of 20: schedules and curricula have this "
    "length from here on"
  ) in lines
  found = rates(tmp_path / "a")
  np.testing.assert_allclose(found[20], cosine(19, 20), rtol=1e-5)
  np.testing.assert_allclose(found[30], cosine(29, 40), rtol=1e-5)


def test_curricula_keep_their_length(tmp_path):
  """All that is a share of training reads the same number of steps."""
  plans = []
  for fields in (
    ("train.steps=40",),
    (
      "train.steps=80",
      "train.schedule_steps=40",
    ),
  ):
    config = jaxflow.preset("ring:consistency_training")
    config.ema.target = {"name": "adaptive"}
    for field in fields:
      name, value = field.split("=")
      config.train[name.removeprefix("train.")] = int(value)
    config = jaxflow.config.resolve(
      config, shape=(2,), num_classes=0, teacher=None
    )
    plans.append(tiny.run_of(config).plan)
  short, long = plans
  assert short.emas["target"] == long.emas["target"]
  assert long.emas["target"].steps == 40
  assert repr(short.model.loss_options) == repr(long.model.loss_options)


def test_another_rate_keeps_the_state_of_the_optimizer(tmp_path):
  lines_of(tmp_path, "a", "train.steps=20")
  before = tiny.state_of(tmp_path / "a")
  flag = "optimizer.learning_rate=1e-3"
  lines = lines_of(tmp_path, "a", "train.steps=25", flag)
  assert "optimizer.learning_rate=0.001 from here on, in place of 0.01" in lines
  assert rates(tmp_path / "a")[25] == 1e-3
  after = tiny.state_of(tmp_path / "a")
  counts = [
    {int(x) for x in jax.tree.leaves(state.opt_state) if x.ndim == 0}
    for state in (before, after)
  ]
  assert counts == [{20}, {25}]


def test_another_batch_size_goes_on(tmp_path):
  lines_of(tmp_path, "a", "train.steps=20")
  lines = lines_of(tmp_path, "a", "train.steps=30", "train.batch_size=24")
  assert "train.batch_size=24 from here on, in place of 16" in lines
  assert int(tiny.state_of(tmp_path / "a").step) == 30


def test_another_optimizer_is_refused(tmp_path):
  lines_of(tmp_path, "a", "train.steps=5")
  command = tiny.train_command(
    tmp_path, "a", "flow_matching", "train.steps=10", "optimizer.b1=0.5"
  )
  result = tiny.run(*command)
  assert result.code == 2
  assert "optimizer.b1=0.9, not 0.5" in result.err


@pytest.mark.parametrize(
  ("law", "share"),
  [
    (ema.Constant(decay=0.9999), 0.9999**1000),
    (ema.Constant(decay=0.9), 0.9**1000),
    # The products of (1 + k) / (10 + k): 10! 1001! / 1010!.
    (ema.CountRamp(), math.prod((1 + k) / (10 + k) for k in range(1, 1001))),
    (ema.Power(width=0.1), 0.0),
    (ema.HalfLife(images=1000, batch_size=10), 0.0),
  ],
)
def test_share_of_the_first_weights(law, share):
  np.testing.assert_allclose(
    ema.share_of_start(law, 1000), share, rtol=1e-4, atol=1e-30
  )


def test_an_average_of_first_weights_is_said(tmp_path, caplog):
  flags = ["ema.sampling.name=constant", "ema.sampling.decay=0.9999"]
  lines = lines_of(tmp_path, "a", "train.steps=20", *flags)
  text = "100% of the average 'sampling' are still the weights with which"
  assert sum(text in line for line in lines) == 1
  with caplog.at_level(logging.WARNING, logger="jaxflow"):
    jaxflow.load(tmp_path / "a")
  assert text in caplog.text
  caplog.clear()
  lines = lines_of(tmp_path, "b", "train.steps=20")
  with caplog.at_level(logging.WARNING, logger="jaxflow"):
    jaxflow.load(tmp_path / "b")
  assert "the average" not in caplog.text + "\n".join(lines)


@pytest.mark.parametrize(
  ("method", "field", "value"),
  [("mean_flow", "omega", 2.0), ("mean_flow", "kappa", 0.5)],
)
def test_guidance_on_top_of_guidance_is_said(
  method, field, value, tmp_path, caplog
):
  labels = "data.conditional=True", "loss.label_dropout=0.1"
  flags = "train.steps=5", *labels, f"loss.{field}={value}"
  lines_of(tmp_path, "a", *flags, method=method)
  config = jaxflow.config.load_config(tmp_path / "a")
  for scale, count in (1.0, 0), (3.0, 1):
    caplog.clear()
    with config.unlocked():
      config.sample.guidance = scale
    with caplog.at_level(logging.WARNING, logger="jaxflow"):
      run = jaxflow.load(tmp_path / "a", config=config)
      run.sample(2), run.sample(2)
    said = caplog.text.count("it is guided twice")
    assert said == count
  assert f"trained with loss.{field}={value}" in caplog.text


def test_a_guided_teacher_that_is_guided_again_is_said(tmp_path, caplog):
  labels = "data.conditional=True", "loss.label_dropout=0.1"
  steps = "train.steps=5"
  lines_of(tmp_path, "a", steps, *labels, "loss.omega=2", method="mean_flow")
  # How the teacher itself samples does not matter.
  config = json.loads((tmp_path / "a" / "config.json").read_text())
  config["sample"]["guidance"] = 3.0
  (tmp_path / "a" / "config.json").write_text(json.dumps(config))
  own = labels[0], "teacher.init_student=False"
  flags = steps, *own, f"teacher.workdir={tmp_path / 'a'}"
  for scale, count in (1.0, 0), (2.0, 1):
    caplog.clear()
    with caplog.at_level(logging.WARNING, logger="jaxflow"):
      name, guided = f"b{scale}", f"teacher.guidance={scale}"
      method = "consistency_distillation"
      lines_of(tmp_path, name, *flags, guided, method=method)
    assert caplog.text.count("it is guided twice") == count
  assert "guidance=2.0 guides a network" in caplog.text


def test_default_average_fits_short_runs():
  law = jaxflow.preset("ring:flow_matching").ema.sampling
  assert law.to_dict() == {"name": "power", "width": 0.1}


def test_schedule_of_a_negative_length():
  config = jaxflow.preset("ring:flow_matching")
  config.train.schedule_steps = -1
  with pytest.raises(UsageError, match=r"schedule_steps=-1: give"):
    jaxflow.train(config)


class Spoilt:
  """A source on a disk, whose samples are known when they are read."""

  def __init__(self, field, value):
    rows, labels = np.zeros((64, 2), np.float32), np.arange(64) % 8
    self._sound = from_arrays(rows, labels, num_classes=8)
    self._spoil = field, value
    self.name, self.split, self.shape = "disk", "train", (2,)
    self.num_classes = 8

  def __len__(self):
    return 64

  def take(self, index):
    field, value = self._spoil
    rows = self._sound.take(index)
    rows[field] = np.full_like(rows[field], value)
    return rows


@pytest.mark.parametrize(
  ("field", "value", "words"),
  [
    ("data", math.nan, "the data are not finite: look for NaN in 'data' of"),
    ("data", math.inf, "the data are not finite"),
    ("cond", 9, "labels of data.name='given' are not in 0 to 7"),
    ("cond", -1, "labels of data.name='given' are not in 0 to 7"),
  ],
)
def test_a_failure_of_the_data_names_the_data(field, value, words):
  config = jaxflow.preset("ring:flow_matching")
  config.data.conditional = True
  config.train.update(steps=20, batch_size=8, max_skipped=4, log_every=4)

  def loss(model_fn, key, batch, **options):
    # As embeddings do that fill what is out of range.
    wrong = (batch["cond"] < 0) | (batch["cond"] > 7)
    value = model_fn(batch["data"], *[batch["data"][:, 0]] * 2, None)
    value = (value**2).mean(1)
    return value + jax.numpy.where(wrong, math.nan, 0.0), {"raw": value.mean()}

  network = jaxflow.Network(
    lambda key: {"a": jax.numpy.ones(())},
    lambda params, xt, t, s, cond, key=None: params["a"] * xt,
  )
  with pytest.raises(RunError) as caught:
    jaxflow.train(
      config, None, data=Spoilt(field, value), network=network, loss=loss
    )
  assert words in str(caught.value)
  assert "learning_rate" not in str(caught.value)
