"""The noise of a seed by integer operations, bit for bit that of JAX.

Random keys are no arrays of other libraries, so the generator is written out.
Threefry-2x32 turns two words by two words of a key, in 20 rounds; JAX counts
through it (`jax_threefry_partitionable`, the default since 0.5):

  fold_in(key, i) = threefry(key, (0, i))
  split(key)[j]   = threefry(key, (0, j))
  bits(key)[n]    = the two words of threefry(key, (0, n)), xored

References:
  Salmon et al. 2011, Parallel random numbers: as easy as 1, 2, 3, section 3.
  Giles 2012, Approximating the erfinv function: the polynomials of XLA.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from jaxflow.types import Array

Key = tuple[Array, Array]

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = np.uint32(0x1BD11BDA)


def unit_noise(
  seed: Array, index: Array, shape: tuple[int, ...], steps: int = 0
) -> tuple[Array, Array | None]:
  """Return the unit noise at which samples start, and that of their steps.

  Args:
    seed: The seed, a scalar of 32 bits.
    index: The numbers of the samples `[B]`.
    shape: Shape of one sample.
    steps: How many arrays of noise the steps draw.

  Returns:
    Noise `[B, *shape]`, and `[B, steps, *shape]` or None without steps, as
    `jaxflow sample` draws them for these numbers of the seed.
  """
  zero = jnp.zeros((), jnp.uint32)
  key = zero, seed.astype(jnp.uint32)
  rows = threefry(key, zero, index.astype(jnp.uint32))
  noise = _drawn(threefry(rows, zero, zero), shape)
  if not steps:
    return noise, None
  key = threefry(rows, zero, zero + 1)
  parts = [_drawn(threefry(key, zero, zero + i), shape) for i in range(steps)]
  return noise, jnp.stack(parts, axis=1)


def _drawn(keys: Key, shape: tuple[int, ...]) -> Array:
  """Return an array of unit noise for each key, `[B, *shape]`."""
  count = jnp.arange(math.prod(shape), dtype=jnp.uint32)[None]
  words = keys[0][:, None], keys[1][:, None]
  high, low = threefry(words, jnp.zeros_like(count), count)
  return normal(high ^ low).reshape(keys[0].shape[0], *shape)


def threefry(key: Key, high: Array, low: Array) -> Key:
  """Return the two words that a key makes of two words, all of 32 bits."""
  words = key[0], key[1], key[0] ^ key[1] ^ _PARITY
  x, y = high + words[0], low + words[1]
  for round_ in range(5):
    for turn in _ROTATIONS[round_ % 2]:
      x = x + y
      y = ((y << np.uint32(turn)) | (y >> np.uint32(32 - turn))) ^ x
    x = x + words[(round_ + 1) % 3]
    y = y + words[(round_ + 2) % 3] + np.uint32(round_ + 1)
  return x, y


def normal(bits: Array) -> Array:
  """Return normal numbers of random words, as `jax.random.normal` does."""
  # 23 bits are a float in [1, 2) there; here the same share of 1 by division.
  share = (bits >> np.uint32(9)).astype(jnp.float32) * np.float32(2.0**-23)
  low = np.nextafter(np.float32(-1), np.float32(0))
  uniform = jnp.maximum(low, share * (np.float32(1) - low) + low)
  return np.float32(np.sqrt(2)) * jax.lax.erf_inv(uniform)
