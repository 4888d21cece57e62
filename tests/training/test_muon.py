"""Muon moves matrices by orthogonal steps, and Adam moves all other arrays."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny

from jaxflow.errors import UsageError
from jaxflow.training.optimizers import OptimizerOptions, make_optimizer

RATE = 0.01


def updates(params, gradient, **options):
  options = OptimizerOptions(name="muon", learning_rate=RATE, **options)
  _, optimizer = make_optimizer(options, steps=10)
  found, _ = optimizer.update(gradient, optimizer.init(params), params)
  return found


def random(key, *shape):
  return jax.random.normal(jax.random.key(key), shape)


def test_a_matrix_moves_by_an_orthogonal_step():
  gradient = {"kernel": random(0, 16, 8)}
  found = updates({"kernel": random(1, 16, 8)}, gradient)["kernel"]
  u, values, v = np.linalg.svd(gradient["kernel"], full_matrices=False)
  # Newton-Schulz brings all singular values near 1; their ratio was above 3.
  assert values.max() / values.min() > 3
  inside = -(u.T @ np.asarray(found) @ v.T)
  scale = np.diag(inside).mean()
  assert (np.abs(np.diag(inside) / scale - 1) < 0.4).all()
  others = inside - np.diag(np.diag(inside))
  np.testing.assert_allclose(others / scale, 0, atol=1e-3)


def test_other_arrays_move_by_adam():
  params = {"bias": random(0, 8), "conv": random(1, 3, 3, 4, 4)}
  gradient = {"bias": random(2, 8), "conv": random(3, 3, 3, 4, 4)}
  found = updates(params, gradient, b1=0.8, b2=0.95, eps=1e-6)
  adam = optax.adam(RATE, b1=0.8, b2=0.95, eps=1e-6, nesterov=True)
  expected, _ = adam.update(gradient, adam.init(params))
  for name in params:
    np.testing.assert_allclose(found[name], expected[name], rtol=1e-6)


def test_stacked_layers_are_matrices_of_their_own():
  kernel, gradient = random(0, 3, 16, 8), random(1, 3, 16, 8)
  # A bias of a stacked layer has two axes, and is no matrix.
  bias, slope = random(2, 3, 8), random(3, 3, 8)
  found = updates(
    {"stacked": {"kernel": kernel, "bias": bias}},
    {"stacked": {"kernel": gradient, "bias": slope}},
  )["stacked"]
  for layer in range(3):
    alone = updates(
      {"kernel": kernel[layer], "bias": bias[layer]},
      {"kernel": gradient[layer], "bias": slope[layer]},
    )
    for name in alone:
      # Rounding of a product of matrices is that of its largest elements.
      np.testing.assert_allclose(
        found[name][layer], alone[name], rtol=1e-4, atol=1e-5 * RATE
      )


def test_weight_decay_is_that_of_matrices():
  params = {"kernel": jnp.ones((4, 4)), "bias": jnp.ones(4)}
  zero = jax.tree.map(jnp.zeros_like, params)
  found = updates(params, zero, weight_decay=0.5)
  np.testing.assert_allclose(found["kernel"], -RATE * 0.5, rtol=1e-6)
  np.testing.assert_allclose(found["bias"], 0, atol=1e-9)


def test_a_run_trains_and_resumes(tmp_path):
  name = "optimizer.name=muon"
  whole = tiny.train(tmp_path, "whole", "flow_matching", name)
  tiny.train(tmp_path, "half", "flow_matching", name, "train.steps=20")
  half = tiny.train(tmp_path, "half", "flow_matching", name)
  tiny.assert_same_bits(tiny.state_of(half, 40), tiny.state_of(whole, 40))


def test_an_unknown_name_lists_it():
  with pytest.raises(UsageError, match=r"use one of adam, adamw, muon, radam"):
    OptimizerOptions(name="lion")
