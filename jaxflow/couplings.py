"""Couplings of data and noise: independent, or given pairs.

Batches bring noise of their own where a teacher made the data of it, or where
`data.transport` assigned it.

References:
  Liu et al. 2022 (arXiv:2209.03003), section 2.2: rectification trains on the
  pairs (noise, ODE(noise)) of an earlier model.
"""

import dataclasses
from typing import Literal, Protocol

import jax.numpy as jnp

from jaxflow import paths
from jaxflow.options import PositiveShare
from jaxflow.types import Array, Batch


def noise_of(batch: Batch, key: Array) -> Array:
  """Return the batch's own noise `[B, ...]`, or else standard normal noise.

  Args:
    batch: `data [B, ...]`, and `noise` of the same shape where the pairs are
      given.
    key: Random key, used where they are not.

  Example:
    >>> import jax
    >>> noise_of({"data": jnp.zeros((2, 3))}, jax.random.key(0)).shape
    (2, 3)
  """
  if "noise" in batch:
    return batch["noise"]
  data = batch["data"]
  return paths.standard_normal(key, data.shape, jnp.result_type(data))


def second_noise_of(batch: Batch, name: str, key: Array) -> Array:
  """Return noise `[B, ...]` for a second term that regresses the same flow.

  A term of other noise than the batch's own pairs would regress another flow.

  Args:
    batch: `data [B, ...]`; the noise of this term if it has one, or else the
      noise of its pairs.
    name: The entry of the batch that is the noise of this term.
    key: Random key, used where the batch has neither.

  Example:
    >>> import jax
    >>> pairs = {"data": jnp.zeros(2), "noise": jnp.ones(2)}
    >>> second_noise_of(pairs, "noise_flow", jax.random.key(0)).tolist()
    [1.0, 1.0]
  """
  return batch[name] if name in batch else noise_of(batch, key)


class Coupling(Protocol):
  """Noise for the data of a batch, by a random key."""

  def __call__(self, batch: Batch, key: Array, /) -> Array:
    """Return the noise `[B, ...]`."""
    ...


Schedule = Literal["linear", "cosine", "exponential"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Annealed:
  """A coupling that moves from fresh noise to the noise of given pairs.

  The noise `sqrt(1 - b^2) pair + b fresh` has unit variance. b = 1 is flow
  matching on the data of the pairs, b = 0 is ReFlow. At the share u of the
  annealing, b is `max(0, 1 - u)`, `(1 + cos(pi u)) / 2` up to u = 1, or
  `exp(-u)`.

  Attributes:
    schedule: "linear", "cosine" or "exponential".
    end: Share of training at which u = 1.

  References:
    Zhu, Liu, Liu 2024 (arXiv:2407.12718), section 3.2.

  Example:
    >>> float(Annealed(end=0.5).beta(jnp.array(0.25)))
    0.5
  """

  schedule: Schedule = "linear"
  end: PositiveShare = 0.25

  def __post_init__(self) -> None:
    """Raise ValueError unless end > 0."""
    if not self.end > 0:
      raise ValueError(f"end={self.end}: give a share of training above 0")

  def beta(self, progress: Array) -> Array:
    """Return b at a share of training in [0, 1]."""
    u = progress / self.end
    match self.schedule:
      case "linear":
        return jnp.maximum(0.0, 1 - u)
      case "cosine":
        return (1 + jnp.cos(jnp.pi * jnp.minimum(u, 1.0))) / 2
      case "exponential":
        return jnp.exp(-u)
    raise ValueError(
      f"schedule={self.schedule!r}: use linear, cosine or exponential"
    )

  def at(self, progress: Array) -> Coupling:
    """Return the coupling at a share of training.

    A batch may contain the fresh noise as `fresh_noise`.
    """

    def noise_of(batch, key):
      check_pairs(batch)
      pair = batch["noise"]
      drawn = paths.standard_normal(key, pair.shape, pair.dtype)
      b = self.beta(progress).astype(pair.dtype)
      return jnp.sqrt(1 - b**2) * pair + b * batch.get("fresh_noise", drawn)

    return noise_of


def check_pairs(batch: Batch) -> None:
  """Raise ValueError unless a batch carries the noise of its data.

  Example:
    >>> check_pairs({"data": jnp.zeros((2, 3))})
    Traceback (most recent call last):
    ...
    ValueError: the batch has no 'noise': this loss trains on pairs; give the \
noise from which a teacher made each data point
  """
  if "noise" not in batch:
    raise ValueError(
      "the batch has no 'noise': this loss trains on pairs; give the noise "
      "from which a teacher made each data point"
    )


def synthetic_share(
  round: int, rounds: int, *, start: float = 0.4, end: float = 0.9
) -> float:
  """Return the share of pairs in a round of ReFlow, rising by equal steps.

  Args:
    round: 1 to `rounds`.
    rounds: Number of rounds; a single one has the share `end`.
    start: Share in the first round.
    end: Share in the last round.

  Example:
    >>> [synthetic_share(j, 3) for j in (1, 2, 3)]
    [0.4, 0.65, 0.9]
  """
  if rounds == 1:
    return end
  return start + (end - start) * (round - 1) / (rounds - 1)
