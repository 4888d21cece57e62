"""Features of samples by several networks, as one function to be jitted."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import jax.numpy as jnp

from jaxflow.types import Array, PyTree


class FeatureNetwork(Protocol):
  """A network that turns images into vectors."""

  @property
  def name(self) -> str:
    """Its name, part of the names of metrics."""
    ...

  @property
  def protocol(self) -> str:
    """How samples are brought to it: resize, rounding, scale."""
    ...

  @property
  def sha256(self) -> str:
    """Hash of its weights."""
    ...

  @property
  def params(self) -> PyTree:
    """Its weights."""
    ...

  @property
  def apply(self) -> Callable[[PyTree, Array], Mapping[str, Array]]:
    """`(params, samples [B, ...]) -> "features" [B, D]` and perhaps more.

    "spatial" [B, E] are for sFID, "logits" [B, C] of classes of its own for the
    Inception score, "classes" [B, C] are logits of the data set's classes.
    """
    ...


def extraction(
  networks: Sequence[FeatureNetwork],
  decode: Callable[[PyTree, Array], Array] | None = None,
) -> Callable[[Any, Array], dict[str, Array]]:
  """Return a function from samples to all inputs of a collector.

  Args:
    networks: The feature networks.
    decode: Makes images of samples where these are latents; networks see them.

  Returns:
    `(params, samples [B, ...]) -> outputs`: "samples", "finite" [B], and of
    each network "features/NAME" [B, D], perhaps "spatial/NAME", "logits/NAME",
    "classes/NAME".
    `params` holds the networks' by name, the decoder's as "decoder".

  Example:
    >>> outputs = extraction([])({}, jnp.array([[1.0], [jnp.nan]]))
    >>> sorted(outputs), outputs["finite"].tolist()
    (['finite', 'samples'], [True, False])
  """

  def outputs_of(params, samples):
    axes = tuple(range(1, samples.ndim))
    found = {"samples": samples, "finite": jnp.isfinite(samples).all(axes)}
    seen = samples if decode is None else decode(params["decoder"], samples)
    for network in networks:
      features = network.apply(params[network.name], seen)
      found |= {f"{kind}/{network.name}": x for kind, x in features.items()}
    return found

  return outputs_of
