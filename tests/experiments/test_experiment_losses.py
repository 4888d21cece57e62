"""Losses of experiments: in place of the method's, kept apart from it."""

import functools

import jax
import numpy as np
import tiny

import jaxflow
from experiments.runner import fit
from jaxflow.losses import flow_matching_loss


@functools.wraps(flow_matching_loss)
def still(*arguments, **options):
  """Return the method's loss without its gradient."""
  loss, metrics = flow_matching_loss(*arguments, **options)
  return jax.lax.stop_gradient(loss), metrics


def distance(fits, params):
  """Return the largest change of a parameter of the first seed."""
  changes = jax.tree.map(
    lambda a, b: np.abs(a - b).max(), fits.runs[0].state.params, params
  )
  return max(jax.tree.leaves(changes))


def test_a_loss_takes_the_place_of_the_methods(tmp_path):
  config = jaxflow.preset(f"{tiny.config_file(tmp_path)}:flow_matching")
  config.train.steps = 2
  moved = fit(config, (0,), tmp_path)
  stayed = fit(config, (0,), tmp_path, loss=still)
  assert moved.folder != stayed.folder
  first = stayed.run.model.network.init(jax.random.key(0))
  assert distance(stayed, first) == 0
  assert distance(moved, first) > 0
