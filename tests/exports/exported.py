"""Small samplers of every method, with parameters that do something."""

import functools

import jax
import numpy as np

from jaxflow.config import default_config, make_plan, update
from jaxflow.config.stand_ins import resolve_alone
from jaxflow.errors import UsageError
from jaxflow.exports.sampler import exported_sampler
from jaxflow.methods import METHODS
from jaxflow.runs.run import Run

# Digits, and latents of 256 pixels.
SHAPES = ((8, 8, 1), (32, 32, 4))
CLASSES = 10
ROWS = 64


@functools.cache
def run_of(method, shape, width=32):
  """Return the run of a small transformer."""
  config = default_config(method, data="given", model="dit")
  patch = shape[0] // 4
  update(config, {"model": {"width": width, "depth": 2, "num_heads": 2}})
  update(config, {"model": {"patch_size": patch}})
  config, _ = resolve_alone(config, shape=shape, num_classes=CLASSES)
  return Run(make_plan(config))


def params_of(run):
  """Return parameters none of which is 0, as those of a new network are."""
  shapes = jax.eval_shape(run.model.network.init, jax.random.key(0))
  draw = np.random.default_rng(0)
  return jax.tree.map(
    lambda x: 0.05 * draw.standard_normal(x.shape, np.float32), shapes
  )


def exported(method, shape, *, width=32, nfe=1, noise="input"):
  """Return the sampler of a method that is exported."""
  run = run_of(method, shape, width)
  return exported_sampler(run, params_of(run), nfe=nfe, noise=noise)


@functools.cache
def one_call_methods():
  """Return the methods that sample in one call."""
  found = []
  for method in METHODS:
    run = run_of(method, SHAPES[0])
    try:
      run.model.num_steps(run.plan.sample, 1)
    except UsageError:
      continue
    found.append(method)
  return found


def arguments(sampler, rows):
  """Return arguments of a sampler, the first rows of a batch of 64."""
  draw = np.random.default_rng(0)
  made = {
    "noise": lambda shape: draw.standard_normal(shape, np.float32)[:rows],
    "label": lambda shape: np.arange(rows, dtype=np.int32) % CLASSES,
    "guidance": lambda shape: np.asarray(1.7, np.float32),
  }
  return [made[x.name](x.abstract(ROWS).shape) for x in sampler.inputs]


def drawn(sampler, given):
  """Return what JAX draws of arguments."""
  return np.asarray(jax.jit(sampler.function)(sampler.weights, *given))


@functools.cache
def one_call(method, shape):
  """Return a sampler of one call and what JAX draws of 64 rows."""
  sampler = exported(method, shape)
  return sampler, drawn(sampler, arguments(sampler, ROWS))
