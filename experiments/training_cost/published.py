"""Losses as they are published, row by row, to stand beside ours."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxflow import guidance, paths, times, weights
from jaxflow.types import Array, Batch, LossOutput, ModelFn

LINEAR = paths.Linear()
PAIRS = times.SortedPair(law=times.LogitNormal(mean=-0.4, std=1.0))
LABEL_DROPOUT = 0.1
# Of central differences.
STEP = 0.005


class _Drawn(NamedTuple):
  """Points on the path with their velocities, times [B] and labels [B]."""

  xt: Array
  v: Array
  t: Array
  s: Array
  cond: Array


def _drawn(key: Array, batch: Batch, num_classes: int) -> _Drawn:
  """Draw times and noise; the first three quarters of the rows have s = t."""
  time_key, noise_key, label_key = jax.random.split(key, 3)
  data = batch["data"]
  size = data.shape[0]
  noise = jax.random.normal(noise_key, data.shape)
  t, s = PAIRS(time_key, size)
  s = jnp.where(jnp.arange(size) < 3 * size // 4, t, s)
  cond = guidance.drop_labels(
    label_key, batch["cond"], rate=LABEL_DROPOUT, null_cond=num_classes
  )
  xt = paths.interpolate(LINEAR, data, noise, t)
  return _Drawn(xt, paths.velocity(LINEAR, data, noise, t), t, s, cond)


class Guided(NamedTuple):
  """What improved MeanFlow draws beside points: guidance as an input, [B]."""

  omega: Array
  t_start: Array
  t_end: Array


def draw_guided(
  key: Array, batch: Batch, *, num_classes: int, dropout: float = LABEL_DROPOUT
) -> tuple[_Drawn, Guided, Array]:
  """Draw points, guidance, and the labels [B] of which some are dropped.

  The first half of the rows has s = t and guidance at all times.
  """
  time_key, noise_key, label_key, key = jax.random.split(key, 4)
  data, label = batch["data"], batch["cond"]
  size = data.shape[0]
  noise = jax.random.normal(noise_key, data.shape, data.dtype)
  t, s = (x.astype(data.dtype) for x in PAIRS(time_key, size))
  flow = jnp.arange(size) < size // 2
  s = jnp.where(flow, t, s)
  u = jax.random.uniform(key, (3, size), data.dtype)
  given = Guided(
    8.0 ** u[0],
    jnp.where(flow, 0, u[1] / 2),
    jnp.where(flow, 1, (1 + u[2]) / 2),
  )
  kept = guidance.drop_labels(
    label_key, label, rate=dropout, null_cond=num_classes
  )
  xt = paths.interpolate(LINEAR, data, noise, t)
  v = paths.velocity(LINEAR, data, noise, t)
  return _Drawn(xt, v, t, s, label), given, kept


def _loss(prediction: Array, target: Array) -> LossOutput:
  """Return the weighted squared error `[B]`, and no metrics."""
  error = weights.l2_sum(prediction, target)
  return weights.adaptive(error, power=1.0, eps=0.01), {}


def published_mean_flow(
  model_fn: ModelFn,
  key: Array,
  batch: Batch,
  *,
  num_classes: int,
  omega: float = 1.0,
  kappa: float = 0.0,
  stop_tangent: bool = True,
) -> LossOutput:
  """Compute MeanFlow as its published code does: every row pays for all.

  The first three quarters of the batch train at s = t.

  Args:
    model_fn: The network.
    key: Random key.
    batch: `data` and `cond`.
    num_classes: The null label.
    omega: Guidance weight of the sample's velocity.
    kappa: Guidance weight of the network's conditional velocity.
    stop_tangent: Whether du/dt is a constant of the target.

  Returns:
    The loss `[B]`, and no metrics.
  """
  xt, v, t, s, cond = _drawn(key, batch, num_classes)
  v_g = v
  if (omega, kappa) != (1.0, 0.0):
    null = model_fn(xt, t, t, guidance.null(cond, num_classes))
    v_g = omega * v + (1 - omega - kappa) * null
    if kappa:
      v_g = v_g + kappa * model_fn(xt, t, t, cond)
    v_g = jnp.where(paths.expand(cond != num_classes, v), v_g, v)
  v_g = jax.lax.stop_gradient(v_g)
  u, du = jax.jvp(
    lambda xt, t, s: model_fn(xt, t, s, cond),
    (xt, t, s),
    (v_g, jnp.ones_like(t), jnp.zeros_like(s)),
  )
  if stop_tangent:
    du = jax.lax.stop_gradient(du)
  return _loss(u, v_g - paths.expand(t - s, du) * du)


def published_central_differences(
  model_fn: ModelFn, key: Array, batch: Batch, *, num_classes: int
) -> LossOutput:
  """Compute MeanFlow with a difference of two more calls in every row.

  Arguments and results are those of `published_mean_flow`.
  """
  xt, v, t, s, cond = _drawn(key, batch, num_classes)
  ahead, behind = (
    jax.lax.stop_gradient(model_fn(xt + h * v, t + h, s, cond))
    for h in (STEP, -STEP)
  )
  du = (ahead - behind) / (2 * STEP)
  return _loss(model_fn(xt, t, s, cond), v - paths.expand(t - s, du) * du)


def published_secant(
  model_fn: ModelFn,
  key: Array,
  batch: Batch,
  *,
  num_classes: int,
  alpha: float = 0.5,
) -> LossOutput:
  """Compute alpha-Flow's formula, and SoFlow's: a secant in every row.

  The step along the velocity takes the share `alpha` of the interval; other
  arguments and results are those of `published_mean_flow`.
  """
  xt, v, t, s, cond = _drawn(key, batch, num_classes)
  gap = alpha * (t - s)
  there = model_fn(xt - paths.expand(gap, v) * v, t - gap, s, cond)
  target = jax.lax.stop_gradient(alpha * v + (1 - alpha) * there)
  target = jnp.where(paths.expand(s < t, v), target, v)
  return _loss(model_fn(xt, t, s, cond), target)


def published_improved_mean_flow(
  model_fn: Callable[..., tuple[Array, Array]],
  key: Array,
  batch: Batch,
  *,
  num_classes: int,
  dropout: float = LABEL_DROPOUT,
) -> LossOutput:
  """Compute improved MeanFlow as its published code does.

  Every row pays for the derivative and for three calls that guide: with label
  and without at the drawn scale, and with label at that of the interval.

  Args:
    model_fn: A network of two heads, whose `cond` is that of `guidance.inputs`.
    key: Random key.
    batch: `data` and `cond`.
    num_classes: The null label.
    dropout: Share of the labels that are dropped.

  Returns:
    The loss `[B]`, and no metrics.
  """
  (xt, v, t, s, label), given, kept = draw_guided(
    key, batch, num_classes=num_classes, dropout=dropout
  )
  omega = given.omega

  def velocity(x, t, label, omega):
    return model_fn(x, t, t, guidance.inputs(label, t, omega=omega))[1]

  # One call of the label and of none.
  both, null = jnp.concatenate([t, t]), jnp.full_like(label, num_classes)
  joined = velocity(
    jnp.concatenate([xt, xt]),
    both,
    jnp.concatenate([label, null]),
    jnp.concatenate([omega, jnp.ones_like(omega)]),
  )
  v_c, v_u = jnp.split(joined, 2)
  v_flow = v + paths.expand(1 - 1 / omega, v) * (v_c - v_u)
  inside = (given.t_start <= t) & (t <= given.t_end)
  w = jnp.where(inside, omega, 1)
  v_c = velocity(xt, t, label, w)
  v_g = v + paths.expand(1 - 1 / w, v) * (v_c - v_u)
  flow = jnp.arange(len(t)) < len(t) // 2
  v_g = jnp.where(paths.expand(flow, v), v_flow, v_g)
  v_g = jnp.where(paths.expand(kept == num_classes, v), v, v_g)
  v_g, v_c = jax.lax.stop_gradient((v_g, v_c))
  cond = guidance.inputs(kept, t, **given._asdict())
  u, du, head = jax.jvp(
    lambda xt, t, s: model_fn(xt, t, s, cond),
    (xt, t, s),
    (v_c, jnp.ones_like(t), jnp.zeros_like(s)),
    has_aux=True,
  )
  compound = u + paths.expand(t - s, u) * jax.lax.stop_gradient(du)
  return _loss(compound, v_g)[0] + _loss(head, v_g)[0], {}
