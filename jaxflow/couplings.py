"""How data meets noise: independently, or in the pairs that a batch carries.

References:
  Liu et al. 2022 (arXiv:2209.03003), section 2.2: rectification trains on the
  pairs (noise, ODE(noise)) of an earlier model.
"""

import jax
import jax.numpy as jnp

from jaxflow.types import Array, Batch


def noise_of(batch: Batch, key: Array) -> Array:
  """Return the noise `[B, ...]` that belongs to the data of a batch.

  Args:
    batch: `data [B, ...]`, and `noise` of the same shape where the pairs are
      given.
    key: Random key, used where they are not.

  Returns:
    The batch's own noise, or independent standard normal noise.

  Example:
    >>> noise_of({"data": jnp.zeros((2, 3))}, jax.random.key(0)).shape
    (2, 3)
  """
  if "noise" in batch:
    return batch["noise"]
  data = batch["data"]
  return jax.random.normal(key, data.shape, jnp.result_type(data))
