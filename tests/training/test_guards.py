"""What keeps a run from harm: clipped tangents, refused and failing folders."""

import math
import os

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny

from jaxflow import losses, paths
from jaxflow.errors import RunError, UsageError
from jaxflow.training.checkpoints import Checkpoints
from jaxflow.training.state import init_state

T, S, SLOPE = 0.8, 0.3, 4.0
# Velocity 1 everywhere; the network's u is SLOPE t, so du is SLOPE, of norm
# SLOPE sqrt(3).
BATCH = {"data": jnp.zeros((2, 3)), "noise": jnp.ones((2, 3))}
OPTIONS = {
  "path": paths.Linear(),
  "sample_times": lambda key, n: (jnp.full(n, T), jnp.full(n, S)),
  "block": (1, 1),
  "norm_power": 0.0,
}


def u_of(xt, t, s, cond):
  return SLOPE * t[:, None] + 0 * xt


@pytest.mark.parametrize(
  ("clip", "du"),
  [(0.0, SLOPE), (100.0, SLOPE), (0.5, 0.5 / math.sqrt(3))],
)
def test_a_clipped_tangent(clip, du):
  loss, metrics = losses.mean_flow_loss(
    u_of, jax.random.key(0), BATCH, **OPTIONS, tangent_clip=clip
  )
  expected = 3 * (SLOPE * T - (1 - (T - S) * du)) ** 2
  np.testing.assert_allclose(loss, [expected] * 2, rtol=1e-6)
  assert float(metrics["tangent_norm"]) == pytest.approx(SLOPE * math.sqrt(3))

  loss, metrics = losses.improved_mean_flow_loss(
    lambda *args: (u_of(*args), jnp.zeros((2, 3))),
    jax.random.key(0),
    BATCH,
    **OPTIONS,
    tangent_clip=clip,
  )
  # The second head says 0, where the velocity is 1.
  expected = 3 * (SLOPE * T + (T - S) * du - 1) ** 2 + 3
  np.testing.assert_allclose(loss, [expected] * 2, rtol=1e-6)
  assert float(metrics["tangent_norm"]) == pytest.approx(SLOPE * math.sqrt(3))


def state_of(**params):
  return init_state(params, optax.sgd(0.1), {})


def test_a_checkpoint_of_another_network_is_listed(tmp_path):
  checkpoints = Checkpoints(tmp_path / "checkpoints")
  checkpoints.save(1, state_of(a=jnp.ones(2), b=jnp.ones(3)), {"position": 1})
  checkpoints.wait()
  other = state_of(a=jnp.ones(4), c=jnp.ones(5))
  with pytest.raises(UsageError) as error:
    checkpoints.restore(jax.eval_shape(lambda: other))
  checkpoints.close()
  text = str(error.value)
  for words in (
    "3 arrays differ",
    "params/a is (2,) there, (4,) here",
    "params/b is (3,) there, absent here",
    "params/c is absent there, (5,) here",
  ):
    assert words in text


@pytest.mark.parametrize("when", ["save", "wait_until_finished", "close"])
def test_a_checkpoint_that_cannot_be_written_is_one_line(
  tmp_path, monkeypatch, when
):
  folder = tmp_path / "checkpoints"
  checkpoints = Checkpoints(folder)
  checkpoints.save(1, state_of(a=jnp.ones(2)), {"position": 1})
  checkpoints.wait()

  def full(*args, **options):
    raise ValueError(f"tensorstore: {os.strerror(28)} [source]\nat 0x7f")

  monkeypatch.setattr(checkpoints._manager, when, full)
  with pytest.raises(RunError) as error:
    checkpoints.save(2, state_of(a=jnp.ones(2)), {"position": 2})
    checkpoints.wait()
    checkpoints.close()
  text = str(error.value)
  assert "\n" not in text
  assert "cannot be written (No space left on device)" in text
  assert f"last good one: {folder}/" in text


def test_changed_fields_of_a_run_are_listed(tmp_path):
  tiny.train(tmp_path, "run", "flow_matching", "train.steps=5")
  result = tiny.run(
    *tiny.train_command(
      tmp_path,
      "run",
      "flow_matching",
      "train.steps=5",
      "model.depth=2",
      "optimizer.b1=0.5",
    )
  )
  assert result.code == 2
  for words in ("model.depth=1, not 2", "optimizer.b1=0.9, not 0.5"):
    assert words in result.err
