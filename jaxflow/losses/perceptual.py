"""Perceptual distances: distances between features of a network.

With the features f_l(x) `[B, ..., c_l]` of layer l at every position, u_l the
same at unit length, and weights w_l >= 0 of its channels,

  u_l(x) = f_l(x) / (||f_l(x)|| + eps)                                    (1)
  LPIPS(a, b) = sum_l mean_positions sum_c w_lc (u_l(a) - u_l(b))_c^2     (2)

Parameters that are bound outside of a jitted function become constants of the
compiled program, hundreds of megabytes for VGG16. Bind them inside:
`lpips(functools.partial(vgg.apply, frozen), w)`, with `frozen` an argument of
the jitted function.

References:
  Zhang et al. 2018 (arXiv:1801.03924), eq. 1.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from jaxflow.types import Array
from jaxflow.weights import Distance, l2, sample_mean

# x [B, ...] -> an array [B, ...], or one for each layer.
FeatureFn = Callable[[Array], Array | tuple[Array, ...]]


def feature_distance(
  features: FeatureFn, *, distance: Distance = l2
) -> Distance:
  """Make a distance of features from a distance, summed over layers.

  `features`, for instance a frozen network, maps `x [B, ...]` to an array
  `[B, ...]` or to a tuple of them, one a layer; `distance` compares one layer.

  Example:
    >>> distance = feature_distance(lambda x: (x[:, :1], 2 * x[:, 1:]))
    >>> distance(jnp.array([[1.0, 5.0]]), jnp.array([[3.0, 4.0]])).tolist()
    [8.0]
  """

  def compare(a, b):
    layers = jax.tree.map(distance, features(a), features(b))
    return jnp.stack(jax.tree.leaves(layers)).sum(axis=0)

  return compare


def lpips(
  features: FeatureFn,
  weights: Sequence[Array] | None = None,
  *,
  eps: float = 1e-10,
) -> Distance:
  """Make the learned perceptual image patch similarity, eq. (2).

  Its distances `[B]` are float32 or wider.

  Args:
    features: `x [B, ...] -> [B, ..., c]`, or a tuple of them, one a layer.
    weights: Non-negative weights `[c]` of the channels, one array a layer; None
      weighs every channel by 1, the paper's uncalibrated distance.
    eps: Added to the length of a feature vector.

  Example:
    >>> distance = lpips(lambda x: x, [jnp.array([1.0, 3.0])])
    >>> a, b = jnp.array([[[2.0, 0.0]]]), jnp.array([[[0.0, 5.0]]])
    >>> distance(a, b).tolist()
    [4.0]
  """

  def unit(x):
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    square = (x**2).sum(axis=-1, keepdims=True)
    # Rectified features may all be 0, where the root has no derivative.
    positive = square > 0
    norm = jnp.where(positive, jnp.sqrt(jnp.where(positive, square, 1)), 0)
    return x / (norm + eps)

  def distance(a, b):
    layers = zip(*(jax.tree.leaves(features(x)) for x in (a, b)), strict=True)
    differences = [(unit(fa) - unit(fb)) ** 2 for fa, fb in layers]
    scales = [None] * len(differences) if weights is None else weights
    means = [
      sample_mean(d.sum(axis=-1) if w is None else d @ w)
      for d, w in zip(differences, scales, strict=True)
    ]
    return jnp.stack(means).sum(axis=0)

  return distance
