"""A network of one time as a network of two that computes the same.

Transformers and U-Nets add an embedding of t - s to that of t, once or in every
block: its last layer starts at zero. The perceptron reads features of t - s
between those of t and the rest: their rows of the first kernel start at zero.
Either way the prediction does not depend on s, and gradients reach the new
parameters.
"""

import math

import jax
import jax.numpy as jnp

from jaxflow.types import PyTree


def with_second_time(
  params: PyTree, fresh: PyTree, *, data_shape: tuple[int, ...]
) -> PyTree:
  """Return the parameters of the network of two times.

  Args:
    params: Parameters of a network of jaxflow with `second_time=False`.
    fresh: Parameters of the same network with `second_time=True`.
    data_shape: Shape of one sample.

  Example:
    >>> import jax
    >>> from jaxflow.models import mlp
    >>> one, two = mlp(width=8, second_time=False), mlp(width=8)
    >>> params = one.init(jax.random.key(0))
    >>> grown = with_second_time(
    ...     params, two.init(jax.random.key(1)), data_shape=(2,))
    >>> x, t = jnp.ones((1, 2)), jnp.ones(1)
    >>> same = two.apply(grown, x, t, 0 * t, None)
    >>> bool(jnp.allclose(same, one.apply(params, x, t, t, None)))
    True
  """
  if "hidden_0" not in params:
    return _with_intervals(params, fresh)
  first = params["hidden_0"]
  kernel = first["kernel"]
  new = fresh["hidden_0"]["kernel"].shape[0] - kernel.shape[0]
  behind = math.prod(data_shape) + new
  zeros = jnp.zeros((new, kernel.shape[1]), kernel.dtype)
  grown = jnp.concatenate([kernel[:behind], zeros, kernel[behind:]])
  return {**params, "hidden_0": {**first, "kernel": grown}}


def _with_intervals(params: PyTree, fresh: PyTree) -> PyTree:
  """Return parameters with the embedders of t - s of others, at zero."""
  grown = dict(params)
  for name, layer in fresh.items():
    if name == "interval":
      zeros = jax.tree.map(jnp.zeros_like, layer["output"])
      grown[name] = {**layer, "output": zeros}
    elif isinstance(layer, dict):
      grown[name] = _with_intervals(params[name], layer)
  return grown
