"""A run of a consistency model as the first stage of another run."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from jaxflow import flow_maps
from jaxflow.config import default_config, make_plan
from jaxflow.config.roles import teachers
from jaxflow.config.stand_ins import resolve_alone
from jaxflow.methods import METHODS

STEPS = ("train.steps=5",)
SECOND = METHODS["truncated_consistency"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """Return a folder with a first stage, and a flow on its path."""
  path = tmp_path_factory.mktemp("stages")
  tiny.train(path, "first", "easy_consistency", *STEPS)
  exploding = "path.name=variance_exploding", "path.t_min=0.0"
  tiny.train(path, "flow", "flow_matching", *STEPS, *exploding)
  learns = *STEPS, f"teacher.workdir={path / 'flow'}", "train.steps=10"
  tiny.train(path, "generator", "distribution_matching", *learns, *exploding)
  return path


def second(folder, tmp_path, name, *flags):
  flags = *STEPS, f"teacher.workdir={folder / name}", *flags
  return tiny.run(
    *tiny.train_command(tmp_path, "second", "truncated_consistency", *flags)
  )


def test_the_student_starts_as_its_first_stage(folder, tmp_path):
  result = second(folder, tmp_path, "first", "optimizer.learning_rate=1e-9")
  assert result.code == 0, result.err
  assert "warm start" not in result.out
  state = tiny.state_of(tmp_path / "second")
  average = tiny.state_of(folder / "first").ema["sampling"]
  tiny.assert_same_bits(state.frozen["teacher"], average)
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6),
    *(state.params, average),
  )


@pytest.mark.parametrize(
  ("name", "flags", "words"),
  [
    ("generator", (), ["'distribution_matching'", "no consistency function"]),
    ("flow", (), ["'flow_matching'", "no consistency function"]),
    ("first", ("path.t_max=70.0",), ["its path is", "must agree"]),
  ],
)
def test_what_is_no_first_stage(folder, tmp_path, name, flags, words):
  result = second(folder, tmp_path, name, *flags)
  assert result.code == 2 and result.err.count("\n") == 1
  assert all(word in result.err for word in words), result.err


def test_a_first_stage_is_no_velocity(folder, tmp_path):
  flags = *STEPS, f"teacher.workdir={folder / 'first'}"
  command = tiny.train_command(tmp_path, "x", "consistency_distillation")
  result = tiny.run(*command, *(f"--config.{flag}" for flag in flags))
  assert result.code == 2
  assert "'easy_consistency', whose network is no velocity" in result.err


def test_first_stages_jump_from_every_time_to_the_data():
  found = {name for name, row in METHODS.items() if row.can_teach(SECOND)}
  assert found >= {
    "consistency_distillation",
    "consistency_training",
    "improved_consistency_training",
    "easy_consistency",
  }
  assert not found & {
    "truncated_consistency",
    "flow_matching",
    "denoising",
    "mean_flow",
    "moment_matching",
    # Generators, which know noise alone.
    "distribution_matching",
    "f_distillation",
    "drifting",
    "adversarial_flow",
  }
  assert set(teachers(SECOND).split(", ")) == found


def test_the_loss_sees_its_jumps_without_dropout():
  config = default_config("truncated_consistency", data="digits", model="dit")
  config.model.update(depth=1, width=32, num_heads=2, dropout=0.5)
  config.flow_map.sigma_data = 0.7
  plan = make_plan(resolve_alone(config, shape=(8, 8, 1), num_classes=0)[0])
  teacher = plan.roles.teacher
  assert teacher is not None and teacher.name == "easy_consistency"
  key = jax.random.key(0)
  # A fresh network predicts 0, whatever it drops.
  params = jax.tree.map(
    lambda x: x + 0.2 * jnp.cos(jnp.arange(x.size)).reshape(x.shape),
    jax.jit(teacher.network.init)(key),
  )
  xt, t = jax.random.normal(key, (4, 8, 8, 1)), jnp.linspace(0.1, 2.0, 4)
  end = jnp.zeros(4)
  make = plan.roles.frozen_fns(plan.model.path)["teacher"]
  found = make({"teacher": params})(xt, t, end, None)
  raw = functools.partial(teacher.network.apply, params)
  expected = flow_maps.edm_denoiser(raw, sigma_data=0.7)(xt, t, end, None)
  np.testing.assert_array_equal(found, expected)
  dropped = functools.partial(raw, key=key)
  other = flow_maps.edm_denoiser(dropped, sigma_data=0.7)(xt, t, end, None)
  assert np.abs(found - other).max() > 0.01
