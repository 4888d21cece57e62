"""Networks that see images as vectors, for evaluation.

A distance between sets of images is measured between their features, and says
as much about the network, its weights and how an image is brought to it as
about the images. An extractor holds all three, and their names go with every
number.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import jax
import numpy as np

from jaxflow.types import Array, PyTree


@dataclass(frozen=True, kw_only=True)
class Extractor:
  """A frozen network, and how images are brought to it.

  Attributes:
    name: Prefix of the names of its scores: "inception" for the weights with
      which published scores are made, and for no others.
    protocol: How images become its input; a key of `preprocessing.PROTOCOLS`
      for the networks here.
    sha256: Hash of the weights.
    params: The weights, as host arrays; an argument of `apply`, so that a
      jitted function takes them as inputs and not as constants.
    apply: `apply(params, images) -> {"features": [B, D], ...}` of images
      [B, H, W, C] in [-1, 1], a pure function; no image sees another. Some have
      "spatial" [B, E], "logits" [B, K] of classes of their own, or "classes"
      [B, K], the logits of those of the data set.

  Example:
    >>> import jax.numpy as jnp
    >>> def colours(params, images):
    ...   return {"features": images.mean(axis=(1, 2))}
    >>> extractor = Extractor(
    ...     name="colours", protocol="none", sha256=digest({}), params={},
    ...     apply=colours)
    >>> images = jnp.ones((2, 8, 8, 3))
    >>> extractor.apply(extractor.params, images)["features"].shape
    (2, 3)
  """

  name: str
  protocol: str
  sha256: str
  params: PyTree
  apply: Callable[[PyTree, Array], Mapping[str, Array]]


def digest(params: PyTree) -> str:
  """Return a hash of names, shapes and values, 64 hexadecimal digits.

  Example:
    >>> a, b = {"w": np.zeros(2)}, {"w": np.ones(2)}
    >>> digest(a) == digest(b), len(digest(a))
    (False, 64)
  """
  found = hashlib.sha256()
  for path, leaf in jax.tree_util.tree_leaves_with_path(params):
    value = np.asarray(leaf)
    name = jax.tree_util.keystr(path)
    found.update(f"{name} {value.dtype} {value.shape}".encode())
    found.update(value.tobytes())
  return found.hexdigest()
