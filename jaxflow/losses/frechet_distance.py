"""The Frechet distance of samples and data as a loss.

A one-call generator is trained on further: its samples x = f(noise, t_max,
t_min, y) shall have the mean and the covariance of the data in the layers of a
feature network. A batch is too small for a covariance, so a memory keeps
moments from step to step. With mean m' and covariance S' of the features of a
batch, mean m and covariance S of the memory and decay b,

  mu = b m + (1 - b) m'
  C = b S + (1 - b) S' + b (1 - b) (m - m') (m - m')^T                    (1)

are the moments of both as one law: those of the running means of x and x x^T,
without their difference. With mean mu_r and covariance C_r of the data,

  F = |mu - mu_r|^2 + tr (C + C_r) - 2 tr (C_r^(1/2) C C_r^(1/2))^(1/2)   (2)
  L = sum_layers w F / sg (F + eps)                                       (3)

The gradient reaches the batch alone, times 1 - b: Adam scales it back, plain
descent does not. Of the last term of (2) by C it is -C_r^(1/2) Q^(-1/2)
C_r^(1/2) with Q the matrix whose root is taken; where Q is singular, its null
space has none. The eigenvalues of Q^(1/2) are the singular values of C^(1/2)
C_r^(1/2). Those of Q are their squares: in float32, directions with less than a
tenth of the largest deviation would fall below the rounding of D = 784
channels, and would lose the variance that they have.

The memory begins empty. The first `fill` samples, and as many data, fill it
while L is 0, so (1) starts from the moments of the network that training starts
from, and the data's are those of `fill` of them.

The loss trains on the number that often judges it. Judge the result by another
feature network and by another distance.

References:
  Yang et al. 2026 (arXiv:2604.28190) and their code. Dowson and Landau 1982 for
  (2).
"""

import math
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import jax
import jax.numpy as jnp

from jaxflow import couplings, paths
from jaxflow.losses.perceptual import FeatureFn
from jaxflow.options import BelowOne, Filling, Memory, Positive, Role
from jaxflow.types import (
  Array,
  FlowMap,
  LossAndMemory,
  ModelFn,
  PyTree,
  WholeBatch,
)


def empty_moments(
  data_shape: tuple[int, ...], channels: tuple[int, ...] = ()
) -> dict[str, PyTree]:
  """Return a memory of moments that nothing has filled.

  Args:
    data_shape: Shape of one sample, whose numbers are the features without a
      feature network.
    channels: Channels of every layer of a feature network.
  """
  sizes = channels or (math.prod(data_shape),)

  def of_size(d, *names):
    matrices = {name: jnp.zeros((d, d)) for name in names}
    return {"mean": jnp.zeros(d), **matrices}

  return {
    "count": jnp.zeros(()),
    "generated": [of_size(d, "covariance") for d in sizes],
    "data": [of_size(d, "covariance", "root") for d in sizes],
  }


def filled_moments(
  generated: Sequence[tuple[Array, Array]], data: Sequence[tuple[Array, Array]]
) -> dict[str, PyTree]:
  """Return a memory of moments that are known: filled, whatever `fill` is.

  Args:
    generated: Mean [D] and covariance [D, D] of samples in every layer.
    data: Those of the data.
  """
  return {
    "count": jnp.asarray(jnp.inf),
    "generated": [{"mean": m, "covariance": c} for m, c in generated],
    "data": [{"mean": m, "covariance": c, "root": _root(c)} for m, c in data],
  }


def frechet_distance_loss(
  model_fn: ModelFn,
  key: Array,
  batch: WholeBatch,
  *,
  path: paths.Path,
  flow_map: Callable[[ModelFn], FlowMap],
  moments: Annotated[Any, Memory(empty_moments)],
  features: Annotated[FeatureFn, Role("features")] | None = None,
  layer_weights: tuple[float, ...] = (),
  decay: BelowOne = 0.999,
  eps: Positive = 0.01,
  fill: Filling = 50_000,
) -> LossAndMemory:
  """Compute the loss of eq. (3), equal for all rows of a batch.

  The metrics `frechet_distance` and `frechet_distance_i`, of layer i if there
  are several, are (2) in the squared unit of the features. They are 0 while the
  memory is filled; `filled` is its share that is there.

  Args:
    batch: The data fill the memory; their conditions are those of the samples.
      Others: see `jaxflow.losses`.
    path: Its ends are the ends of the one call.
    moments: The memory, from `empty_moments` or `filled_moments`.
    features: Frozen network, `(x) -> [B, ..., D]`, or a tuple of them, one a
      layer, whose mean over positions is compared; None: the samples as they
      are.
    layer_weights: w of eq. (3) for every layer; default: 1.
    decay: b of eq. (1). 0 takes the moments of the batch alone, with the
      unbiased covariance, of two rows at least.
    eps: Added to F in eq. (3), in the squared unit of the features.
    fill: Samples that fill the memory before training begins; one that
      `filled_moments` made is full.

  Returns:
    Loss `[B]`, metrics, and the memory with the moments of eq. (1).

  Raises:
    ValueError: The number of weights is not that of the layers, the memory has
      other layers or channels than the features, or a batch of one row has to
      have a covariance of its own.

  Example:
    >>> from jaxflow import flow_maps
    >>> net = lambda xt, t, s, cond: 0 * xt
    >>> batch = {"data": jnp.zeros((2, 1)), "noise": jnp.array([[0.0], [2.0]])}
    >>> zero, one = jnp.zeros(1), jnp.ones((1, 1))
    >>> memory = filled_moments([(zero, one)], [(zero, 4 * one)])
    >>> _, metrics, _ = frechet_distance_loss(
    ...     net, jax.random.key(0), batch, path=paths.Linear(),
    ...     flow_map=flow_maps.average_velocity, moments=memory, decay=0.5)
    >>> # Mean 1/2, variance 1/2 + 1/2 + 1/4: 1/4 + (2 - sqrt(5/4))^2.
    >>> round(metrics["frechet_distance"].item(), 4)
    1.0279
  """
  data, cond = batch["data"], batch.get("cond")
  noise = couplings.noise_of(batch, key)
  t = jnp.broadcast_to(paths.as_times(path.t_max, data), data.shape[:1])
  s = jnp.full_like(t, path.t_min)
  x = flow_map(model_fn)(paths.start(path, noise), t, s, cond)

  seen = _layers(features, x)
  _check(seen, moments, decay)
  weights = layer_weights or (1.0,) * len(seen)
  if len(weights) != len(seen):
    raise ValueError(
      f"layer_weights={layer_weights}: give one for each of the {len(seen)} "
      "layers, or none"
    )
  count = moments["count"]
  filling = count < fill
  # While it is filled, all samples so far have equal weights.
  share = data.shape[0] / (count + data.shape[0])
  known = jax.lax.cond(
    filling,
    lambda: [
      _like(old, _with_root(_merged(old, _moments(y), share)))
      for old, y in zip(moments["data"], _layers(features, data), strict=True)
    ],
    lambda: moments["data"],
  )
  step = jnp.where(filling, share, 1 - decay)
  dtype = jnp.promote_types(x.dtype, jnp.float32)
  loss, generated, metrics = jnp.zeros((), dtype), [], {}
  for i, (old, y, real, weight) in enumerate(
    zip(moments["generated"], seen, known, weights, strict=True)
  ):
    new = _moments(y) if decay else _moments(y, unbiased=True)
    if decay:
      new = _merged(old, new, step)
    generated.append(_like(old, jax.lax.stop_gradient(new)))
    # Moments may be more precise than samples.
    distance = _distance(new, real).astype(dtype)
    distance = jnp.where(filling, 0, distance)
    above = jnp.maximum(distance, 0)  # Rounding may leave it below.
    loss += weight * distance / jax.lax.stop_gradient(above + eps)
    metrics["frechet_distance" + f"_{i}" * (len(seen) > 1)] = above
  memory = {
    "count": count + jnp.where(filling, data.shape[0], 0).astype(count.dtype),
    "generated": generated,
    "data": known,
  }
  rows = jnp.broadcast_to(loss, data.shape[:1])
  filled = jnp.minimum(memory["count"] / fill, 1).astype(dtype)
  metrics |= {"raw": loss, "filled": filled}
  return rows, metrics, {"moments": memory}


def _layers(features: FeatureFn | None, x: Array) -> list[Array]:
  """Return the features of every layer, [B, D], means over positions."""
  if features is None:
    layers = [x.reshape(len(x), 1, -1)]
  else:
    layers = jax.tree.leaves(features(x))
  # Means and roots of half precision are none.
  layers = [y.astype(jnp.promote_types(y.dtype, jnp.float32)) for y in layers]
  return [y.reshape(len(y), -1, y.shape[-1]).mean(axis=1) for y in layers]


def _check(seen: list[Array], moments: dict[str, PyTree], decay: float) -> None:
  """Raise ValueError unless the memory is of these features."""
  found = [y.shape[-1] for y in seen]
  for name in ("generated", "data"):
    kept = [len(old["mean"]) for old in moments[name]]
    if kept != found:
      raise ValueError(
        f"moments[{name!r}] is of layers of {kept} channels, the features have "
        f"{found}: make the memory of these, empty_moments(shape, channels)"
      )
  if not decay and len(seen[0]) < 2:
    raise ValueError(
      f"decay={decay} takes the covariance of the batch alone, and that of "
      "1 row is none: give 2 rows or more, or a decay above 0"
    )


def _moments(y: Array, *, unbiased: bool = False) -> dict[str, Array]:
  """Return mean and covariance of rows [B, D]."""
  mean = y.mean(axis=0)
  centred = y - mean[None]
  scatter = _product(centred.T, centred)
  return {"mean": mean, "covariance": scatter / (len(y) - unbiased)}


def _merged(old: dict, new: dict, share: Array) -> dict[str, Array]:
  """Return the moments of both laws as one, eq. (1); the new has a share."""
  apart = old["mean"] - new["mean"]
  between = share * (1 - share) * jnp.outer(apart, apart)
  mixed = {
    k: (1 - share) * old[k] + share * new[k] for k in ("mean", "covariance")
  }
  return mixed | {"covariance": mixed["covariance"] + between}


def _distance(new: dict, real: dict) -> Array:
  """Return the Frechet distance of moments, eq. (2), up to rounding."""
  root, covariance = real["root"], new["covariance"]
  both = _product(_root(jax.lax.stop_gradient(covariance)), root)
  _, roots, right = jnp.linalg.svd(both)
  # Rounding turns a zero into up to about sqrt(D) eps of the largest.
  least = len(roots) ** 0.5 * jnp.finfo(roots.dtype).eps * roots[0]
  counts = roots > least
  roots = jnp.where(counts, roots, 1)
  # Its value without gradient, and the gradient by the covariance.
  turned = _product(root, right.T)
  slope = _product(turned * jnp.where(counts, 1 / roots, 0)[None], turned.T)
  linear = (slope * covariance).sum() / 2
  overlap = jnp.where(counts, roots, 0).sum()
  overlap += linear - jax.lax.stop_gradient(linear)
  apart = new["mean"] - real["mean"]
  traces = jnp.trace(covariance) + jnp.trace(real["covariance"])
  return (apart**2).sum() + traces - 2 * overlap


def _like(old: dict, new: dict) -> dict[str, Array]:
  """Return what a memory keeps, of its own type."""
  return {k: new[k].astype(x.dtype) for k, x in old.items()}


def _with_root(moments: dict) -> dict[str, Array]:
  return moments | {"root": _root(moments["covariance"])}


def _root(covariance: Array) -> Array:
  """Return the symmetric square root of a covariance."""
  values, vectors = jnp.linalg.eigh(covariance)
  roots = jnp.sqrt(jnp.maximum(values, 0))
  return _product(vectors * roots[None], vectors.T)


def _product(*matrices: Array) -> Array:
  """Multiply matrices; accelerators would round their elements."""
  return jnp.linalg.multi_dot(matrices, precision="highest")
