"""Noise that comes with the data: the straight flow of these pairs is exact.

Where data = m + c noise, the point of a pair at a time says which pair it is,
and moves along a straight line. The network that knows this line leaves every
row nothing to learn, whatever times it draws.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_contract import (
  NUM_CLASSES,
  ROWS,
  SIZE,
  log_weights_of,
  memories_of,
  options_of,
  path_of,
)

from jaxflow import losses, paths, times
from jaxflow.options import Predicts, Unpaired, marked, predicts

CENTRE, SCALE = np.array([0.3, -0.8]), 0.4


def of_velocities(method):
  """Whether its network can be a velocity on a path of straight lines.

  Losses of a batch as a whole, and discriminators, ask for a law and no flow.
  """
  if "discriminator" in method.config:
    return False
  if marked(method.loss, Unpaired):
    return False
  if not isinstance(path_of(method), paths.Linear | paths.VarianceExploding):
    return False
  said = predicts(method.loss, method.flow_map, {})
  return bool(marked(method.loss, Predicts)) or said.endswith("velocity")


FLOWS = {name: row for name, row in ROWS.items() if of_velocities(row)}


def exact(path):
  """Return the velocity of the pair that is at x at t; x is itself there."""

  def velocity(x, t, s, cond):
    # Twin flows ask for the flow of their own samples at negative times.
    t = jnp.abs(t)
    alpha, sigma = (paths.expand(f(t), x) for f in (path.alpha, path.sigma))
    centre = jnp.asarray(CENTRE, x.dtype)[None]
    noise = (x - alpha * centre) / (alpha * SCALE + sigma)
    return paths.velocity(path, centre + SCALE * noise, noise, t)

  return velocity


def evaluate(method, change=lambda v: v):
  """Return the means of the errors of a row on coupled pairs."""
  options = options_of(method)
  options |= dict.fromkeys(marked(method.loss, Predicts), "velocity")
  if "time_floor" in options:
    options["time_floor"] = 0.0  # Nothing is bounded near the data.
  solution = exact(path_of(method))

  def network(x, t, s, cond):
    v = change(solution(x, t, s, cond))
    if options.get("scale_output"):
      v = v / paths.expand(cond["omega"], v)
    heads = method.config.get("model", {}).get("heads", 1)
    return (v,) * heads if heads > 1 else v

  options |= memories_of(method, options)
  for name in log_weights_of(options):
    options[name] = lambda t, s: jnp.zeros_like(t)
  if "teacher" in method.needs:
    options["teacher"] = solution
  if "target" in method.needs:
    options["target_fn"] = network
  if "progress" in method.needs:
    options["progress"] = jnp.asarray(0.5)
  noise = jax.random.normal(jax.random.key(1), (SIZE, 2))
  batch = {
    "data": jnp.asarray(CENTRE)[None] + SCALE * noise,
    "noise": noise,
    "cond": jnp.arange(SIZE, dtype=jnp.int32) % NUM_CLASSES,
  }
  _, metrics = method.loss(network, jax.random.key(2), batch, **options)
  return {k: float(x) for k, x in metrics.items() if k.startswith("raw")}


@pytest.mark.parametrize("name", FLOWS)
def test_exact_flow_of_the_pairs_leaves_nothing(name, x64):
  found = evaluate(FLOWS[name])
  assert found and max(found.values()) < 1e-11, found
  # The same numbers see a network that is off.
  assert max(evaluate(FLOWS[name], lambda v: 1.2 * v + 0.1).values()) > 1e-5


def test_denoiser_of_trajectories_learns_the_same_pairs(x64):
  """Its second term is of the batch's noise: data = c noise, t = 1.

  The point is (c + 1) noise, and 2 c / (c + 1) of it is twice the data: the
  raw network that says so leaves |data|^2, whatever the key.
  """
  noise = jax.random.normal(jax.random.key(1), (SIZE, 2))
  batch = {"data": SCALE * noise, "noise": noise}
  # skip, out, in of EDM for data of deviation 1 at noise level 1.
  skip, out = 1 / 2, 1 / np.sqrt(2)

  def network(x, t, s, cond):
    point = x * np.sqrt(2)
    return (2 * SCALE / (SCALE + 1) - skip) * point / out

  def zero(x, t, s, cond):
    return jnp.zeros_like(x)

  path = paths.VarianceExploding()
  _, metrics = losses.consistency_trajectory_loss(
    network,
    jax.random.key(0),
    batch,
    path=path,
    sample_times=times.TrajectoryTimes(grid=times.karras_grid, num_points=4),
    target_fn=zero,
    teacher=zero,
    sigma_data=1.0,
    denoising_times=times.Constant(t=1.0),
  )
  expected = 2 * (batch["data"] ** 2).mean()  # The weight of eq. (6) is 2.
  np.testing.assert_allclose(metrics["denoising"], expected, rtol=1e-10)
