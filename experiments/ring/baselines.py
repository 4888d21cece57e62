"""The classical generators in one call: a VAE and a normalizing flow.

Both are sized as the other networks of the experiment and trained with the same
optimizer, batches and steps, all seeds side by side.

References:
  Kingma, Welling 2013 (arXiv:1312.6114); Dinh, Sohl-Dickstein, Bengio 2016
  (arXiv:1605.08803), affine couplings.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxflow.types import Array, PyTree


@dataclasses.dataclass(frozen=True, kw_only=True)
class Baseline:
  """A generator of points in the plane.

  Attributes:
    init: `key -> parameters`.
    loss: `(parameters, key, points [B, 2]) -> nats per point`, to minimise.
    sample: `(parameters, key, num) -> points [num, 2]`.
  """

  init: Callable[[Array], PyTree]
  loss: Callable[[PyTree, Array, Array], Array]
  sample: Callable[[PyTree, Array, int], Array]


def vae(*, width: int = 64, latents: int = 2) -> Baseline:
  """Make a VAE: two hidden layers a side, one learned noise of its output.

  Args:
    width: Units of a hidden layer.
    latents: Dimensions of the latent space.
  """

  def init(key):
    encoder, decoder = jax.random.split(key)
    return {
      "encoder": _init_mlp(encoder, (2, width, width, 2 * latents)),
      "decoder": _init_mlp(decoder, (latents, width, width, 2)),
      # The noise of the points: from a wider one the latents are never used.
      "log_std": jnp.log(0.1),
    }

  def loss(params, key, points):
    mean, log_std = jnp.split(_mlp(params["encoder"], points), 2, axis=1)
    noise = jax.random.normal(key, mean.shape)
    decoded = _mlp(params["decoder"], mean + jnp.exp(log_std) * noise)
    divergence = (mean**2 + jnp.exp(2 * log_std) - 1) / 2 - log_std
    errors = _nats((points - decoded) / jnp.exp(params["log_std"]))
    return (
      errors + points.shape[1] * params["log_std"] + divergence.sum(1)
    ).mean()

  def sample(params, key, num):
    latent, output = jax.random.split(key)
    mean = _mlp(params["decoder"], jax.random.normal(latent, (num, latents)))
    noise = jax.random.normal(output, mean.shape)
    return mean + jnp.exp(params["log_std"]) * noise

  return Baseline(init=init, loss=loss, sample=sample)


def coupling_flow(*, width: int = 32, couplings: int = 8) -> Baseline:
  """Make a flow of affine couplings (RealNVP), which swap coordinates.

  Args:
    width: Units of the two hidden layers of each coupling.
    couplings: How many.
  """

  def init(key):
    keys = jax.random.split(key, couplings)
    return [_init_mlp(k, (1, width, width, 2)) for k in keys]

  def scale_shift(params, kept):
    scale, shift = jnp.split(_mlp(params, kept), 2, axis=1)
    # A bounded exponent keeps early steps from overflowing.
    return 3 * jnp.tanh(scale / 3), shift

  def loss(params, key, points):
    del key
    kept, other = jnp.split(points, 2, axis=1)
    volume = 0.0
    for layer in params:
      scale, shift = scale_shift(layer, kept)
      kept, other = other * jnp.exp(scale) + shift, kept
      volume += scale[:, 0]
    return (_nats(jnp.concatenate([kept, other], axis=1)) - volume).mean()

  def sample(params, key, num):
    kept, other = jnp.split(jax.random.normal(key, (num, 2)), 2, axis=1)
    for layer in reversed(params):
      scale, shift = scale_shift(layer, other)
      kept, other = other, (kept - shift) * jnp.exp(-scale)
    return jnp.concatenate([kept, other], axis=1)

  return Baseline(init=init, loss=loss, sample=sample)


def train(
  baseline: Baseline,
  points: np.ndarray,
  seeds: Sequence[int],
  optimizer: optax.GradientTransformation,
  *,
  steps: int,
  batch_size: int,
) -> PyTree:
  """Train a baseline on several seeds at once; return their parameters.

  Args:
    baseline: What to train.
    points: All data, [N, 2].
    seeds: The seeds [S].
    optimizer: The optimizer.
    steps: Updates.
    batch_size: Points of an update.
  """
  every = jnp.asarray(points)

  def run(seed):
    key, init_key = jax.random.split(jax.random.key(seed))
    params = baseline.init(init_key)

    def step(carry, number):
      params, state = carry
      row_key, loss_key = jax.random.split(jax.random.fold_in(key, number))
      rows = jax.random.randint(row_key, (batch_size,), 0, len(every))
      gradient = jax.grad(baseline.loss)(params, loss_key, every[rows])
      updates, state = optimizer.update(gradient, state, params)
      return (optax.apply_updates(params, updates), state), None

    start = params, optimizer.init(params)
    (params, _), _ = jax.lax.scan(step, start, jnp.arange(steps))
    return params

  return jax.jit(jax.vmap(run))(jnp.asarray(seeds))


def draw(
  baseline: Baseline, params: PyTree, seeds: Sequence[int], num: int
) -> np.ndarray:
  """Draw points of every seed, [S, num, 2]."""

  def one(params, seed):
    return baseline.sample(params, jax.random.key(10_000 + seed), num)

  return np.asarray(jax.jit(jax.vmap(one))(params, jnp.asarray(seeds)))


def _nats(points: Array) -> Array:
  """Negative log density of the standard normal law, `[B]`."""
  return (points**2).sum(1) / 2 + points.shape[1] * jnp.log(2 * jnp.pi) / 2


def _init_mlp(key: Array, widths: Sequence[int]) -> list[dict[str, Any]]:
  """Draw weights of variance 1 / inputs, zero biases."""
  keys = jax.random.split(key, len(widths) - 1)
  return [
    {
      "kernel": jax.random.normal(k, (a, b)) / jnp.sqrt(a),
      "bias": jnp.zeros(b),
    }
    for k, a, b in zip(keys, widths[:-1], widths[1:], strict=True)
  ]


def _mlp(layers: list[dict[str, Any]], x: Array) -> Array:
  """Apply SiLU layers, the last one linear."""
  for number, layer in enumerate(layers):
    x = x @ layer["kernel"] + layer["bias"]
    if number < len(layers) - 1:
      x = jax.nn.silu(x)
  return x
