"""A multilayer perceptron for points and small flattened images."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from jaxflow.errors import UsageError
from jaxflow.models import checks
from jaxflow.models.embeddings import guidance_of, label_embedder, sinusoidal
from jaxflow.models.network import Network, compute_dtype, functional
from jaxflow.options import Count, Finite, Layers, Natural
from jaxflow.types import Array, PyTree


class MLP(nnx.Module):
  """SiLU layers on the point, its times and its label, concatenated."""

  def __init__(
    self,
    *,
    data_shape: tuple[int, ...],
    inputs: int,
    width: int,
    depth: int,
    time_features: int,
    time_scale: float,
    num_classes: int,
    cond_size: int,
    second_time: bool,
    guidance_inputs: bool,
    heads: int,
    zero_output: bool,
    dtype: Any,
    rngs: nnx.Rngs,
  ):
    self.data_shape = data_shape
    self.depth = depth
    self.time_features = time_features
    self.time_scale = time_scale
    self.second_time = second_time
    self.guidance_inputs = guidance_inputs
    self.heads = heads
    self.dtype = dtype
    dimension = math.prod(data_shape)
    self.label = label_embedder(num_classes, cond_size, width, rngs=rngs)
    features = inputs
    for i in range(depth):
      layer = nnx.Linear(features, width, dtype=dtype, rngs=rngs)
      setattr(self, f"hidden_{i}", layer)
      features = width
    init = (
      nnx.initializers.zeros if zero_output else nnx.initializers.lecun_normal()
    )
    self.output: nnx.Linear = nnx.Linear(
      features, heads * dimension, kernel_init=init, rngs=rngs
    )

  def __call__(
    self, xt: Array, t: Array, s: Array, cond: PyTree, key: Array | None
  ) -> Array | tuple[Array, ...]:
    """Return the prediction at `xt`, of its shape, float32; one a head."""
    del key
    x = self.hidden(xt, t, s, cond)[-1][:, 0]
    outputs = jnp.split(self.output(x.astype(jnp.float32)), self.heads, axis=1)
    predictions = tuple(output.reshape(xt.shape) for output in outputs)
    return predictions if self.heads > 1 else predictions[0]

  def hidden(
    self, xt: Array, t: Array, s: Array, cond: PyTree
  ) -> tuple[Array, ...]:
    """Return the activations [B, 1, width] of every hidden layer."""
    checks.shape(xt, self.data_shape)
    batch = xt.shape[0]
    parts = [xt.reshape(batch, -1), self._time_features(t)]
    if self.second_time:
      gap = t.astype(jnp.float32) - s.astype(jnp.float32)
      parts.append(self._time_features(gap))
    if self.guidance_inputs:
      parts.extend(map(self._time_features, guidance_of(cond)))
    if self.label is not None:
      parts.append(self.label(cond, batch))
    x = jnp.concatenate([part.astype(self.dtype) for part in parts], axis=-1)
    layers = []
    for i in range(self.depth):
      x = jax.nn.silu(getattr(self, f"hidden_{i}")(x))
      layers.append(x[:, None])
    return tuple(layers)

  def _time_features(self, t: Array) -> Array:
    return sinusoidal(t, self.time_features, scale=self.time_scale)


def mlp(
  *,
  data_shape: tuple[int, ...] = (2,),
  width: Count = 64,
  depth: Layers = 2,
  time_features: Count = 64,
  time_scale: Finite = 1.0,
  num_classes: Natural = 0,
  cond_size: Natural = 0,
  second_time: bool = True,
  guidance_inputs: bool = False,
  heads: Layers = 1,
  zero_output: bool = False,
  dtype: str = "float32",
) -> Network:
  """Make a multilayer perceptron with SiLU units for samples [B, *data_shape].

  Args:
    data_shape: Shape of one sample: (D,) for points, (H, W, C) for images.
    width: Units of a hidden layer, and features of a label.
    depth: Number of hidden layers.
    time_features: Sinusoidal features of a time, even.
    time_scale: Factor on times before the sinusoids.
    num_classes: Number of labels; 0 makes the network ignore `cond`. The null
      label is `num_classes`.
    cond_size: Numbers of a label that is a vector, 0 without: `cond` is then
      [B, cond_size], and NaN stands for none.
    second_time: Whether the network sees t - s, or ignores `s`.
    guidance_inputs: Whether the network sees `omega`, `t_start` and `t_end` of
      `cond`, a dict then.
    heads: Number of predictions; more than one make a tuple.
    zero_output: Whether the output layer starts at zero.
    dtype: "float32" or "bfloat16", the type of the hidden layers' arithmetic.

  Raises:
    UsageError: If an option has an impossible value.

  Example:
    >>> network = mlp(data_shape=(2,), width=8)
    >>> params = network.init(jax.random.key(0))
    >>> t = jnp.ones(3)
    >>> network.apply(params, jnp.ones((3, 2)), t, t, None).shape
    (3, 2)
  """
  if not data_shape or min(data_shape) < 1:
    raise UsageError(f"data_shape={data_shape}: give positive sizes")
  checks.at_least(1, width=width, depth=depth, heads=heads)
  checks.at_least(0, num_classes=num_classes, cond_size=cond_size)
  checks.even(time_features=time_features)
  compute = compute_dtype(dtype)
  # As they are concatenated.
  inputs = {
    "data": math.prod(data_shape),
    "time": time_features,
    "interval": time_features * second_time,
    "guidance": 3 * time_features * guidance_inputs,
    "label": width if num_classes or cond_size else 0,
  }
  inputs = {name: count for name, count in inputs.items() if count}
  network = functional(
    lambda rngs: MLP(
      data_shape=tuple(data_shape),
      inputs=sum(inputs.values()),
      width=width,
      depth=depth,
      time_features=time_features,
      time_scale=time_scale,
      num_classes=num_classes,
      cond_size=cond_size,
      second_time=second_time,
      guidance_inputs=guidance_inputs,
      heads=heads,
      zero_output=zero_output,
      dtype=compute,
      rngs=rngs,
    )
  )
  return dataclasses.replace(network, rows={"hidden_0/kernel": inputs})
