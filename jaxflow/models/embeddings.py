"""Embeddings of times, labels and positions.

Times and their embeddings are float32 whatever the network computes in: in
bfloat16 two times closer than 1/256 would be one time.
"""

import functools
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxflow.errors import UsageError
from jaxflow.types import Array, PyTree


def frequencies(features: int, max_period: float = 1e4) -> np.ndarray:
  """Return features / 2 geometric frequencies, 1 down towards 1 / max_period.

  They are `max_period ** (-2 k / features)`, k = 0, 1, ..., as published
  transformers have them: 1 / max_period itself is the excluded end point.
  """
  half = features // 2
  return np.power(max_period, -np.arange(half) / half)


def sinusoidal(
  t: Array,
  features: int,
  *,
  max_period: float = 1e4,
  scale: float = 1.0,
  shift: float = 0.0,
) -> Array:
  """Compute cosines, then sines, of `scale t + shift` at `frequencies`.

  Times are [B], the features [B, features], float32. With a scale of 1 and
  times in [0, 1] they bend slowly, and derivatives in time stay small.
  Diffusion models with 1,000 steps take a scale of 1000.

  Example:
    >>> sinusoidal(jnp.zeros(1), 4).tolist()
    [[1.0, 1.0, 0.0, 0.0]]
  """
  steps = jnp.asarray(frequencies(features, max_period), jnp.float32)
  scaled = scale * t.astype(jnp.float32) + shift
  angles = scaled[:, None] * steps[None, :]
  return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


class TimeEmbedder(nnx.Module):
  """Embeds times [B] as vectors [B, width]: sinusoids, then a small MLP."""

  features = 256

  def __init__(
    self,
    width: int,
    *,
    scale: float,
    shift: float = 0.0,
    max_period: float = 1e4,
    scaled: bool = False,
    rngs: nnx.Rngs,
  ):
    self.waves = functools.partial(
      sinusoidal, scale=scale, shift=shift, max_period=max_period
    )
    # In-context transformers start with outputs of unit scale.
    unit = nnx.initializers.variance_scaling(1.0, "fan_in", "normal")
    init = unit if scaled else nnx.initializers.normal(0.02)
    self.hidden: nnx.Linear = nnx.Linear(
      self.features, width, kernel_init=init, rngs=rngs
    )
    self.output: nnx.Linear = nnx.Linear(
      width, width, kernel_init=init, rngs=rngs
    )

  def __call__(self, t: Array) -> Array:
    """Return the embedding [B, width] of `t` [B], float32."""
    features = self.waves(t, self.features)
    return self.output(jax.nn.silu(self.hidden(features)))


class GuidanceEmbedder(nnx.Module):
  """Embeds the guidance in a condition as vectors [B, width], like times."""

  def __init__(self, width: int, *, rngs: nnx.Rngs, **waves: Any):
    options = {**waves, "rngs": rngs}
    self.scale: TimeEmbedder = TimeEmbedder(width, **options)
    self.start: TimeEmbedder = TimeEmbedder(width, **options)
    self.end: TimeEmbedder = TimeEmbedder(width, **options)

  def __call__(self, cond: PyTree) -> Array:
    """Return the embedding [B, width] of `guidance_of(cond)`, float32."""
    scale, start, end = self.parts(cond)
    return scale + start + end

  def parts(self, cond: PyTree) -> tuple[Array, Array, Array]:
    """Return the embeddings [B, width] of the scale and of both ends."""
    scale, start, end = guidance_of(cond)
    return self.scale(scale), self.start(start), self.end(end)


def guidance_of(cond: PyTree) -> tuple[Array, Array, Array]:
  """Return the inputs that a network has of the guidance, [B] each, float32.

  The guidance scale `omega`, 1 or more, enters as `1 - 1 / omega`, in [0, 1)
  like a time. `t_start` and `t_end` are the ends of its interval of times.
  """
  names = ("omega", "t_start", "t_end")
  for name in names:
    if not isinstance(cond, dict) or name not in cond:
      raise UsageError(
        f"cond: no key {name!r}; a network with guidance_inputs reads omega, "
        "t_start and t_end there: give them, or set guidance_inputs=False"
      )
  omega, start, end = (cond[name].astype(jnp.float32) for name in names)
  return 1 - 1 / omega, start, end


class LabelEmbedder(nnx.Module):
  """Embeds labels [B] as rows of a table; the last row is the null label."""

  def __init__(
    self, num_classes: int, width: int, *, std: float = 0.02, rngs: nnx.Rngs
  ):
    self.num_classes = num_classes
    shape = (num_classes + 1, width)
    self.table: nnx.Param[Any] = nnx.Param(
      nnx.initializers.normal(std, jnp.float32)(rngs.params(), shape)
    )

  def rows(self) -> Array:
    """Return the vectors of all labels [num_classes + 1, width]."""
    return self.table[...]

  def __call__(self, cond: PyTree, batch: int) -> Array:
    """Return the embedding [batch, width] of the labels in `cond`.

    These are `cond` itself or its entry "label"; None stands for null labels. A
    label outside [0, num_classes] gives NaN: no other label's row.
    """
    if isinstance(cond, dict):
      if "label" not in cond:
        raise UsageError(
          f'cond: no key "label" among {sorted(cond)}; a label-conditional '
          "network reads its labels there"
        )
      cond = cond["label"]
    labels = jnp.asarray(
      jnp.full((batch,), self.num_classes) if cond is None else cond
    )
    if not jnp.issubdtype(labels.dtype, jnp.integer):
      raise UsageError(f"cond: labels of type {labels.dtype}; give integers")
    if labels.shape != (batch,):
      raise UsageError(
        f"cond: labels of shape {labels.shape} for a batch of {batch}; "
        f"give one label per sample, shape ({batch},)"
      )
    known = (labels >= 0) & (labels <= self.num_classes)
    # A product, because the gradient of a look-up is a scatter: where a loss
    # calls the network twice, TPUs merge two scatters, and move rows for it.
    chosen = jax.nn.one_hot(labels, self.num_classes + 1, dtype=jnp.float32)
    rows = jnp.matmul(chosen, self.rows(), precision="highest")
    return jnp.where(known[:, None], rows, jnp.nan)


class VectorEmbedder(nnx.Module):
  """Embeds vectors [B, size] by a linear layer; NaN stands for none."""

  def __init__(self, size: int, width: int, *, rngs: nnx.Rngs):
    self.size = size
    init = nnx.initializers.normal(0.02)
    self.linear: Any = nnx.Linear(size, width, rngs=rngs)
    self.null: nnx.Param[Any] = nnx.Param(init(rngs.params(), (width,)))

  def __call__(self, cond: PyTree, batch: int) -> Array:
    """Return the embedding [batch, width] of the vectors in `cond`.

    These are `cond` itself or its entry "label". None, or a vector with NaN in
    it, has an embedding of its own.
    """
    vectors = cond.get("label") if isinstance(cond, dict) else cond
    if vectors is None:
      vectors = jnp.full((batch, self.size), jnp.nan)
    if vectors.shape != (batch, self.size) or not jnp.issubdtype(
      vectors.dtype, jnp.floating
    ):
      raise UsageError(
        f"cond: {vectors.dtype} of shape {vectors.shape}; give a vector of "
        f"numbers for each sample, shape ({batch}, {self.size})"
      )
    absent = jnp.isnan(vectors).any(axis=1)[:, None]
    # Not only behind the layer: NaN times 0 is NaN in the gradient.
    there = jnp.where(absent, 0, vectors).astype(jnp.float32)
    return jnp.where(absent, self.nothing()[None], self.linear(there))

  def nothing(self) -> Array:
    """Return the embedding [width] of no vector."""
    return self.null[...]


def label_embedder(
  num_classes: int,
  cond_size: int,
  width: int,
  *,
  rngs: nnx.Rngs,
  classes: Callable[..., LabelEmbedder] = LabelEmbedder,
  vectors: Callable[..., VectorEmbedder] = VectorEmbedder,
  **options: Any,
) -> LabelEmbedder | VectorEmbedder | None:
  """Return what embeds classes or vectors, or None if there are neither.

  `classes` and `vectors` make it, the first of them with further options.
  """
  if num_classes and cond_size:
    raise UsageError(
      f"cond_size={cond_size} with num_classes={num_classes}: labels are "
      "vectors or classes; set one to 0"
    )
  if cond_size:
    return vectors(cond_size, width, rngs=rngs)
  if num_classes:
    return classes(num_classes, width, rngs=rngs, **options)
  return None


class Embedding(nnx.Module):
  """Embeds times, labels and guidance as one vector, as `condition` sums it."""

  def __init__(
    self,
    width: int,
    *,
    num_classes: int,
    cond_size: int,
    second_time: bool,
    guidance_inputs: bool,
    shift: float,
    rngs: nnx.Rngs,
    **waves: float,
  ):
    times = {"rngs": rngs, **waves}
    self.time: TimeEmbedder = TimeEmbedder(width, shift=shift, **times)
    self.interval = TimeEmbedder(width, **times) if second_time else None
    self.label = label_embedder(num_classes, cond_size, width, rngs=rngs)
    self.guidance = (
      GuidanceEmbedder(width, **times) if guidance_inputs else None
    )


def condition(module: Any, t: Array, s: Array, cond: PyTree) -> Array:
  """Return the sum [B, width] of a module's embeddings, float32.

  They are `time`, `interval`, `label` and `guidance`, where these are not None.
  """
  parts = [embedded_times(module, t, s)]
  if module.label is not None:
    parts.append(module.label(cond, t.shape[0]))
  if module.guidance is not None:
    parts.append(module.guidance(cond))
  return functools.reduce(operator.add, [x for x in parts if x is not None])


def embedded_times(module: Any, t: Array, s: Array) -> Any:
  """Return the sum [B, width] of `time` and `interval`, None without both."""
  t, s = t.astype(jnp.float32), s.astype(jnp.float32)
  parts = [module.time(t)] if module.time is not None else []
  parts += [module.interval(t - s)] if module.interval is not None else []
  return functools.reduce(operator.add, parts) if parts else None


def position_table(grid: Sequence[int], features: int) -> np.ndarray:
  """Return fixed sine-cosine positions [prod(grid), features] in a grid.

  Each axis has an equal, even share of the features, the last axis the first:
  in 2-D the first half encodes the column, the second half the row, each as
  sines, then cosines. Features that are left over are 0.

  Example:
    >>> position_table((2, 2, 2), 64).shape
    (8, 64)
  """
  share = features // (2 * len(grid)) * 2
  places = np.unravel_index(np.arange(math.prod(grid)), grid)
  angles = [place[:, None] * frequencies(share) for place in places[::-1]]
  parts = [wave(angle) for angle in angles for wave in (np.sin, np.cos)]
  table = np.concatenate(parts, axis=1)
  rest = features - table.shape[1]
  return np.pad(table, ((0, 0), (0, rest))).astype(np.float32)
