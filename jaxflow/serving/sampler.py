"""Draws rows of many requests in one call; a row does not feel the others.

Sample i is a function of its seed, i and its condition, as `jaxflow sample`
draws it: the noise of each row has the key of its own request and number. Noise
may be given in its place.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxflow.exports.sampler import guidance_option
from jaxflow.parallel import sharding
from jaxflow.runs import decoding
from jaxflow.runs.run import Run
from jaxflow.sampling.steps import unit_noise
from jaxflow.types import PyTree

# (seeds [B], numbers [B], noise [B, ...] with NaN where it is that of the seed,
# conditions of B rows or None, scale or None) -> data [B, ...].
Draw = Callable[..., np.ndarray]


def default_guidance(run: Run) -> float | None:
  """Return the scale that a run samples with; None: it is no input."""
  name = guidance_option(run.model)
  if not name:
    return None
  bound = getattr(run.model.flow_map, "keywords", {})
  return float(bound.get(name, run.plan.sample.guidance))


def make_draw(
  run: Run, params: PyTree, mesh: jax.sharding.Mesh, nfe: int
) -> Draw:
  """Return a function that draws a batch; it is compiled once for each size."""
  model, plan = run.model, run.plan
  name, finish = guidance_option(model), decoding.make_data(plan.data)

  @jax.jit
  def draw_batch(params, seeds, numbers, noise, cond, scale):
    if len(seeds) % sharding.row_shards(mesh) == 0:
      rows = sharding.row_sharding(mesh)
      seeds = jax.lax.with_sharding_constraint(seeds, rows)
    used = model
    if name:
      flow_map = functools.partial(model.flow_map, **{name: scale})
      used = dataclasses.replace(model, flow_map=flow_map)
    with jax.ensure_compile_time_eval():
      sampler = used.make_sampler(plan.sample, nfe)

    def keys(seed, number):
      key = jax.random.fold_in(jax.random.key(seed), number)
      return jax.random.split(key)

    noise_keys, step_keys = jax.vmap(keys)(seeds, numbers).T
    own = unit_noise(noise_keys, noise.shape)
    noise = jnp.where(jnp.isnan(noise), own, noise)
    return sharding.with_mesh(mesh, sampler)(params, noise, step_keys, cond)

  def draw(seeds, numbers, noise, cond, scale):
    if scale is not None:
      scale = np.float32(scale)
    found = draw_batch(params, seeds, numbers, noise, cond, scale)
    return decoding.clipped(plan.data, finish(np.asarray(found)))

  return draw
