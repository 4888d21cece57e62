"""Drifting: samples of one call are moved along a field that data exert.

Data of a class attract its samples, which repel one another; where both have
one law, attraction and repulsion cancel. A batch has C groups, each of data of
one class. A group has G samples x = F(noise, t_max, t_min, {y, omega}), P
positives, its data, and N negatives, data of any class. Its targets z_j are
the samples themselves, the negatives and the positives, with weights

  w_j = 1,   (omega - 1) (G - 1) / N,   1                                 (1)

D numbers are a sample, or a feature of it. Of all groups together,

  d_ij = ||x_i - z_j||,   scale = mean (w d) / mean w                     (2)
  A_ij = w_j sqrt(softmax_j(-e / R) softmax_i(-e / R)),  e = d / scale    (3)

where x_i is no target of its own. With S+_i and S-_i the sums of A_ij over
positives and over other targets, and x, z in units of scale / sqrt(D), the
force of a temperature R is

  F_i = S-_i sum_pos A_ij (z_j - x_i) - S+_i sum_other A_ij (z_j - x_i)   (4)
  drift_i = sum_R F_R,i / sqrt(mean F_R^2)                                (5)
  L = sum_features mean (x - sg (x + drift))^2                            (6)

The means of (2) and (5) are over the whole batch, that of (6) over a group.
Distances are at least 1e-4, the product in (3) at least 1e-6. The weights of
(4) sum to 0, so F is the sum of targets with these weights.

Features are those of a frozen network: each of its layers, [B, ..., D], has
groups of its own for every position. The sample itself is one always.

Positives and negatives may also come from a memory of recent data: so a batch
brings a few rows of many classes, and a class has many positives.

The value says little: mean F^2 = 1 in (5), and drifts of temperatures add up.
The metrics tell what F was before.

References:
  Deng et al. 2026 (arXiv:2602.04770) and their code, where distances are roots
  of Gram matrices, which in float32 lose small distances.
"""

import math
from typing import Annotated, Any

import jax
import jax.numpy as jnp

from jaxflow import guidance, paths, rows, times
from jaxflow.losses import recent as rings
from jaxflow.losses.perceptual import FeatureFn
from jaxflow.options import (
  AtLeastOne,
  Finite,
  Memory,
  Natural,
  Range,
  Role,
  Share,
)
from jaxflow.types import (
  Array,
  LossAndMemory,
  LossOutput,
  ModelFn,
  WholeBatch,
)

_TEMPERATURES = Range(
  "one or more finite numbers above 0",
  lambda x: bool(x) and all(0 < r < math.inf for r in x),
)
# Squared distances, products of two shares, and scales.
_LEAST_SQUARE, _LEAST_SHARE, _LEAST_SCALE = 1e-8, 1e-6, 1e-3
# What is added to the distance of a sample to itself, in units of the scale.
_FAR = 100.0


def no_data(
  *,
  kept_positives: int = 0,
  kept_negatives: int = 0,
  data_shape: tuple[int, ...],
  num_classes: int,
) -> dict[str, rings.Ring]:
  """Return a memory of recent data that holds none yet.

  Args:
    kept_positives: Rows of a class that are kept, 0 for no such memory.
    kept_negatives: Rows of any class, likewise.
    data_shape: Shape of one sample.
    num_classes: Number of classes, 0 without labels.
  """
  memory = {}
  if kept_positives:
    classes = max(num_classes, 1)
    memory["classes"] = rings.empty_ring(classes, kept_positives, data_shape)
  if kept_negatives:
    memory["all"] = rings.empty_ring(1, kept_negatives, data_shape)
  return memory


def drifting_loss(
  model_fn: ModelFn,
  key: Array,
  batch: WholeBatch,
  *,
  path: paths.Path,
  group: rows.Group = 32,
  group_samples: Natural = 0,
  positives: Natural = 0,
  negatives: Natural = 8,
  temperatures: Annotated[tuple[float, ...], _TEMPERATURES] = (0.5,),
  omega_max: AtLeastOne = 4.0,
  omega_power: Finite = 3.0,
  unguided: Share = 0.5,
  kept_positives: Natural = 0,
  kept_negatives: Natural = 0,
  recent: Annotated[Any, Memory(no_data)] = None,
  features: Annotated[FeatureFn, Role("features")] | None = None,
) -> LossOutput | LossAndMemory:
  """Compute the drifting loss of each row's group, eq. (6).

  The metrics `force_R` are the means of F_R^2 of samples, and `force_R_i` those
  of layer i of the features; `scale` is that of samples, in units of the data.

  Args:
    model_fn: A network that makes samples; its `cond` is that of
      `guidance.inputs`. Others: see `jaxflow.losses`.
    batch: Rows of a group stand together; the condition of the first is that of
      its samples. Optional `noise` `[C G, ...]`, and `negative` `[C N, ...]` in
      place of rows of the batch. A `cond` like the network's gives omega.
    path: Its ends are the times of the one call.
    group: The rows of a group, its positives; it divides B.
    group_samples: G, the samples of a group; 0: as many as rows.
    positives: P, if they are drawn from a memory of at least as many; 0: as
      many as rows.
    negatives: N, rows of the batch, or of the memory, drawn for each group
      without replacement; a memory that is not full yet repeats its rows.
      Without labels there are none: they would be as the positives are.
    temperatures: The R, in units of the mean distance.
    omega_max: Largest omega of a group, drawn by `guidance.scale_law`.
    omega_power: Power of that law.
    unguided: Share of the groups with omega = 1, whose negatives have weight 0.
    kept_positives: Rows of each class in the memory; 0: positives are the
      batch's.
    kept_negatives: Rows of any class in the memory; 0: negatives are the
      batch's.
    recent: The memory, from `no_data` of these two; None is none. The batch is
      pushed into it before rows are drawn.
    features: Frozen network of eq. (6), or None: samples are compared as they
      are.

  Returns:
    Loss `[B]`, metrics, and the memory if there is one.

  Raises:
    ValueError: The group does not divide the batch, batch or memory has fewer
      rows than are drawn, an option asks for a memory and `recent` is none,
      labels of a memory are no classes, or noise has another number of rows.

  Example:
    >>> net = lambda xt, t, s, cond: 0 * xt      # Samples amid their positives.
    >>> batch = {"data": jnp.array([[1.0], [-1.0]]), "noise": jnp.ones((1, 1))}
    >>> _, metrics = drifting_loss(
    ...     net, jax.random.key(0), batch, path=paths.Linear(), group=2,
    ...     group_samples=1)
    >>> metrics["force_0.5"].item()
    0.0
  """
  data = batch["data"]
  size, shape = data.shape[0], data.shape[1:]
  rows.check_group(group, size)
  classes, samples = size // group, group_samples or group
  kinds = ("positives", "classes"), ("negatives", "all")
  asked = (positives, kept_positives), (negatives, kept_negatives)
  for (name, kind), (drawn, kept) in zip(kinds, asked, strict=True):
    ring = (recent or {}).get(kind)
    _check_ring(ring, name, drawn, kept, group if name == "positives" else 0)
  noise_key, omega_key, *data_keys = jax.random.split(key, 4)
  noise = batch.get("noise")
  if noise is not None and len(noise) != classes * samples:
    raise ValueError(
      f"noise has {len(noise)} rows: give one for each of the {samples} "
      f"samples of {classes} groups, or none"
    )
  if noise is None:
    noise = paths.standard_normal(
      noise_key, (classes * samples, *shape), data.dtype
    )
  given = jax.tree.map(lambda x: x[::group], batch.get("cond"))
  label = guidance.labels(given)
  labelled = label is not None and negatives > 0
  dtype = jnp.promote_types(data.dtype, jnp.float32)
  omega = jnp.ones(classes, dtype)
  if guidance.is_inputs(given) and "omega" in given:
    omega = given["omega"]
  elif labelled and omega_max > 1:
    u, one = times.uniform_draws(omega_key, 2, classes)
    drawn = guidance.scale_law(u, high=omega_max, power=omega_power)
    omega = jnp.where(one < unguided, 1, drawn).astype(dtype)

  # The one call.
  def each(tree):
    return jax.tree.map(lambda x: jnp.repeat(x, samples, axis=0), tree)

  t = jnp.broadcast_to(paths.as_times(path.t_max, data), noise.shape[:1])
  s = jnp.full_like(t, path.t_min)
  cond = guidance.inputs(each(label), t, omega=each(omega).astype(t.dtype))
  x = model_fn(paths.start(path, noise), t, s, cond)

  # Targets that are data, as features.
  memory = _pushed(recent or {}, data, guidance.labels(batch.get("cond")))
  positive, own_key, other_key = data, *data_keys
  if "classes" in memory:
    which = jnp.zeros(classes, int) if label is None else label
    ring = memory["classes"]
    positive = rings.draw(ring, own_key, which, positives or group)
  seen = _layers(features, positive)
  others: list[Array | None] = [None] * len(seen)
  if "negative" in batch:
    others = [*_layers(features, batch["negative"])]
  elif labelled and "all" in memory:
    zeros = jnp.zeros(classes, int)
    found = rings.draw(memory["all"], other_key, zeros, negatives)
    others = [*_layers(features, found)]
  elif labelled:
    chosen = _draw(other_key, classes, negatives, size)
    of_batch = seen if positive is data else _layers(features, data)
    others = [layer[chosen] for layer in of_batch]

  loss, metrics = jnp.zeros(classes, dtype), {}
  for i, (own, other, layer) in enumerate(
    zip(_layers(features, x), others, seen, strict=True)
  ):
    term, scale, forces = _drift(
      _groups(classes, own),
      None if other is None else _groups(classes, other),
      _groups(classes, layer),
      omega,
      temperatures,
    )
    loss = loss + term
    end = f"_{i}" if i else ""
    metrics |= {
      f"force_{r:g}{end}": f for r, f in zip(temperatures, forces, strict=True)
    }
    if not i:
      metrics["scale"] = scale
  metrics["raw"] = loss.mean()
  loss = jnp.repeat(loss, group)
  return (loss, metrics, {"recent": memory}) if memory else (loss, metrics)


def _check_ring(
  ring: rings.Ring | None, name: str, drawn: int, kept: int, group: int
) -> None:
  """Raise ValueError unless a memory is there if asked for, and is enough.

  Args:
    ring: The memory, or None.
    name: What is drawn from it.
    drawn: Rows that are drawn at once; of positives 0 is `group`.
    kept: Rows of a class that an option says it holds.
    group: Rows of a group if `name` are positives, or 0.
  """
  held = 0 if ring is None else ring["rows"].shape[1]
  if kept and held != kept:
    raise ValueError(
      f"kept_{name}={kept}, and the memory `recent` holds {held} rows of a "
      f"class: give no_data(kept_{name}={kept}, ...), or set kept_{name}=0"
    )
  if group and drawn and not held:
    raise ValueError(
      f"{name}={drawn} are drawn from a memory of each class: give "
      f"kept_{name}, its rows, or set {name}=0"
    )
  if 0 < held < (drawn or group):
    least = f"{name}={drawn}" if drawn else f"group={group}"
    raise ValueError(
      f"kept_{name}={held}: the memory holds fewer than {least}; keep more, or "
      "draw fewer"
    )


def _pushed(
  memory: dict[str, rings.Ring], data: Array, label: Any
) -> dict[str, rings.Ring]:
  """Return the memory with the rows of a batch."""
  is_array = hasattr(label, "dtype")
  integers = is_array and jnp.issubdtype(label.dtype, jnp.integer)
  classes = integers and label.ndim == 1
  if "classes" in memory and label is not None and not classes:
    given = f"{label.dtype}{[*label.shape]}" if is_array else type(label)
    raise ValueError(
      f"kept_positives keeps rows of each class, and the labels are {given}: "
      "give integers [B], or set kept_positives=0"
    )
  none = jnp.zeros(data.shape[0], int)
  labels = {"classes": none if label is None else label, "all": none}
  return {k: rings.push(ring, data, labels[k]) for k, ring in memory.items()}


def _layers(features: FeatureFn | None, x: Array) -> list[Array]:
  """Return a sample itself and its layers of features, each `[B, T, D]`."""
  layers = [x.reshape(x.shape[0], 1, -1)]
  if features is not None:
    layers += [
      layer.reshape(layer.shape[0], -1, layer.shape[-1])
      for layer in jax.tree.leaves(features(x))
    ]
  # Distances of half precision would lose their differences.
  return [y.astype(jnp.promote_types(y.dtype, jnp.float32)) for y in layers]


def _groups(classes: int, x: Array) -> Array:
  """Return features of rows `[C n, T, D]` as groups `[C, T, n, D]`."""
  return x.reshape(classes, -1, *x.shape[1:]).swapaxes(1, 2)


def _draw(key: Array, classes: int, count: int, size: int) -> Array:
  """Draw rows of a batch for each group, without replacement: `[C count]`."""
  if count > size:
    raise ValueError(
      f"negatives={count}: a batch of {size} rows has no more; give fewer"
    )
  draws = times.uniform_draws(key, classes, size)
  return jax.lax.top_k(draws, count)[1].reshape(-1)


def _drift(
  x: Array,
  negative: Array | None,
  positive: Array,
  omega: Array,
  temperatures: tuple[float, ...],
) -> tuple[Array, Array, list[Array]]:
  """Return eq. (6) of a feature `[C]`, its scale, and the means of F_R^2.

  Features are `[C, T, G or N or P, D]`, omega is `[C]`.
  """
  fixed = jax.lax.stop_gradient(x)
  number, num_samples = x.shape[0], x.shape[2]
  parts = [fixed, positive] if negative is None else [fixed, negative, positive]
  z = jax.lax.stop_gradient(jnp.concatenate(parts, axis=2))
  others = z.shape[2] - positive.shape[2]
  w = jnp.ones((number, z.shape[2]), z.dtype)
  if negative is not None and (count := negative.shape[2]):
    weight = (omega - 1) * (num_samples - 1) / count
    w = w.at[:, num_samples:others].set(weight[:, None].astype(w.dtype))
  w = w[:, None, None]

  squares = ((fixed[:, :, :, None] - z[:, :, None]) ** 2).sum(-1)
  distance = jnp.sqrt(jnp.maximum(squares, _LEAST_SQUARE))
  scale = (distance * w).mean() / w.mean()
  unit = jnp.maximum(scale / math.sqrt(x.shape[-1]), _LEAST_SCALE)
  itself = jnp.eye(num_samples, z.shape[2], dtype=z.dtype)[None, None]
  e = distance / jnp.maximum(scale, _LEAST_SCALE) + _FAR * itself

  drift, sizes = jnp.zeros_like(z[:, :, :num_samples]), []
  for temperature in temperatures:
    rate = -e / temperature
    shares = jax.nn.softmax(rate, axis=3) * jax.nn.softmax(rate, axis=2)
    a = w * jnp.sqrt(jnp.maximum(shares, _LEAST_SHARE))
    plus = a[..., others:].sum(-1, keepdims=True)
    minus = a[..., :others].sum(-1, keepdims=True)
    push, pull = -plus * a[..., :others], minus * a[..., others:]
    pull = jnp.concatenate([push, pull], axis=3)
    force = jnp.einsum("ctij,ctjd->ctid", pull, z, precision="highest") / unit
    size = (force**2).mean()
    sizes.append(size)
    drift = drift + force / jnp.sqrt(jnp.maximum(size, 1e-8))
  goal = jax.lax.stop_gradient(fixed / unit + drift)
  return ((x / unit - goal) ** 2).mean((1, 2, 3)), scale, sizes
