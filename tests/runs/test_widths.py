"""Averages of any width of a trained run, made of its checkpoints."""

import shutil

import jax
import numpy as np
import pytest
import tiny

import jaxflow
from jaxflow.errors import UsageError
from jaxflow.training import ema

FLAGS = (
  "ema.narrow.name=power",
  "ema.narrow.width=0.05",
  "checkpoint.every=1",
  "checkpoint.keep_every=1",
)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
  folder = tmp_path_factory.mktemp("widths")
  tiny.train(folder, "run", "flow_matching", *FLAGS, "train.steps=7")
  return tiny.train(folder, "run", "flow_matching", *FLAGS, "train.steps=16")


@pytest.fixture(scope="module")
def parameters(workdir):
  """Return the parameters after every update."""
  return [
    jaxflow.load(workdir, step=step, average="online").params
    for step in range(1, 17)
  ]


def by_definition(parameters, width):
  gamma, average = ema.Power(width=width).gamma, None
  for k, params in enumerate(parameters, 1):
    beta = (1 - 1 / k) ** (gamma + 1)
    params = jax.tree.map(np.float64, params)
    average = jax.tree.map(
      lambda e, p, beta=beta: beta * e + (1 - beta) * p,
      average or params,
      params,
    )
  return average


def distance(a, b):
  squares = jax.tree.map(lambda x, y: ((x - y) ** 2).sum(), a, b)
  return float(np.sqrt(sum(jax.tree.leaves(squares))))


@pytest.mark.parametrize("step", [12, 16])
@pytest.mark.parametrize("width", [0.07, 0.15])
def test_widths_are_those_of_the_definition(workdir, parameters, width, step):
  run = jaxflow.load(workdir, step=step, average=f"width={width}")
  assert run.step == step
  expected = by_definition(parameters[:step], width)
  moved = distance(expected, parameters[step - 1])
  assert distance(run.params, expected) < 0.02 * moved


def test_a_tracked_width_is_the_tracked_average(workdir):
  tracked = jaxflow.load(workdir, average="narrow").params
  made = jaxflow.load(workdir, average="width=0.05").params
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7),
    made,
    tracked,
  )


def test_commands_take_a_width(workdir, tmp_path):
  files = []
  for width in (0.07, 0.2):
    files.append(tmp_path / f"{width}.npz")
    result = tiny.run(
      *("sample", f"--workdir={workdir}", "--num=8"),
      *(f"--config.sample.ema=width={width}", f"--out={files[-1]}"),
    )
    assert result.code == 0, result.err
  narrow, wide = (tiny.arrays(file)["samples"] for file in files)
  direct = jaxflow.load(workdir, average="width=0.07").sample(8)
  np.testing.assert_allclose(narrow, direct, rtol=1e-5, atol=1e-5)
  assert np.abs(narrow - wide).max() > 1e-3
  result = tiny.run(
    *("evaluate", f"--workdir={workdir}", "--nfe=1"),
    "--config.sample.ema=width=0.07",
  )
  assert result.code == 0 and "width=0.07" in result.out


def test_a_damaged_snapshot_is_left_out(workdir, parameters, tmp_path, caplog):
  copy = tmp_path / "run"
  shutil.copytree(workdir, copy)
  (copy / "checkpoints/9/data/metadata").write_text("{}")
  run = jaxflow.load(copy, average="width=0.07")
  assert "checkpoints/9 cannot be read" in caplog.text
  expected = by_definition(parameters, 0.07)
  moved = distance(expected, parameters[-1])
  assert distance(run.params, expected) < 0.03 * moved


@pytest.mark.parametrize(
  ("average", "told"),
  [
    ("width=0.28", r"average='width=0.28': 16 checkpoints of narrow, sampling"),
    ("width=0.3", r"average='width=0.3': give a width above 0, below 0.2886"),
    ("widt=0.1", r"average='widt=0.1' is no average .* or width=W of a power"),
  ],
)
def test_averages_that_cannot_be_made(workdir, average, told):
  with pytest.raises(UsageError, match=told):
    jaxflow.load(workdir, average=average)


def test_widths_need_power_averages(tmp_path):
  flags = ["ema.sampling.name=constant", "train.steps=5"]
  folder = tiny.train(tmp_path, "constant", "flow_matching", *flags)
  with pytest.raises(UsageError, match="is made of power averages"):
    jaxflow.load(folder, average="width=0.1")


def test_training_samples_tracked_averages_only(tmp_path):
  command = tiny.train_command(
    tmp_path, "x", "flow_matching", "sample.ema=width=0.1"
  )
  result = tiny.run(*command)
  assert result.code == 2
  assert "sample.ema='width=0.1' is made of power averages" in result.err


@pytest.mark.parametrize("name", ["samplin", "online", "a.b"])
def test_new_averages_have_new_names(tmp_path, name):
  command = tiny.train_command(
    tmp_path, "x", "flow_matching", f"ema.{name}.name=power"
  )
  result = tiny.run(*command)
  assert result.code == 2
  assert f"--config.ema.{name}.name is no field" in result.err
