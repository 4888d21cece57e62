#!/usr/bin/env bash
# jax 0.10.2 on CPU: normal numbers of four axes take several times as long to
# compile as the same numbers drawn as a vector.
#
# With JAX's default generator, the bits of an array depend on the place of a
# number alone, so `normal(key, (n,))` reshaped is equal to `normal(key, shape)`.
# Only the ratio of two compile times in one process is compared, and with a wide
# margin.
#
# Seen with jax 0.10.2 on Python 3.11, 2 cores, shape [16, 32, 32, 4]:
#   four axes: 1.07 CPU s, a vector: 0.22 CPU s, ratio 4.8
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet jax==0.10.2 jaxlib==0.10.2
JAX_PLATFORMS=cpu "$folder/venv/bin/python" - <<'PYTHON'
import math
import time

import jax
import jax.numpy as jnp

SHAPE = (16, 32, 32, 4)
key = jax.random.key(0)

def axes(key):
  return jax.random.normal(key, SHAPE)

def vector(key):
  return jax.random.normal(key, (math.prod(SHAPE),)).reshape(SHAPE)

def seconds(function):
  lowered = jax.jit(function).lower(key)
  began = time.process_time()
  compiled = lowered.compile()
  return time.process_time() - began, compiled(key)

seconds(lambda key: jax.random.normal(key, (2,)))
(four, a), (one, b) = seconds(axes), seconds(vector)
assert jnp.array_equal(a, b), "the numbers are no longer equal"
print(f"four axes: {four:.2f} CPU s, a vector: {one:.2f} CPU s, ratio {four / one:.1f}")
assert four > 2 * one, "four axes no longer take longer"
PYTHON
