#!/usr/bin/env bash
# jax 0.10.2: `jax.random.normal` in bfloat16 is no standard normal.
#
# A million draws have 128 values and a mean of -0.012, and none lies beyond 2.6
# deviations. In float16 they have 1,024 values and a mean of -0.002. A float32
# draw that is cast to bfloat16 has thousands of values and the mean 0.
# A flow or diffusion model that draws its noise in the dtype of its data, for
# instance of bfloat16 latents, trains on noise that is shifted and cut.
#
# Seen with jax 0.10.2 on Python 3.11, CPU:
#   bfloat16: 128 values, mean -0.0121, largest 2.516
#   float16: 1024 values, mean -0.0019, largest 3.182
#   float32 to bfloat16: 3598 values, mean 0.0002, largest 4.531
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet jax==0.10.2 jaxlib==0.10.2
JAX_PLATFORMS=cpu "$folder/venv/bin/python" - <<'PYTHON'
import jax
import jax.numpy as jnp

def describe(name, x):
  x = x.astype(jnp.float32)
  values, mean = len(jnp.unique(x)), float(x.mean())
  print(f"{name}: {values} values, mean {mean:.4f}, largest {x.max():.3f}")
  return values, mean

key, n = jax.random.key(0), 1_000_000
values, mean = describe("bfloat16", jax.random.normal(key, (n,), jnp.bfloat16))
assert values == 128 and mean < -0.009, "bfloat16 draws have changed"
values, mean = describe("float16", jax.random.normal(key, (n,), jnp.float16))
assert values == 1024 and mean < -0.001, "float16 draws have changed"
cast = jax.random.normal(key, (n,)).astype(jnp.bfloat16)
values, mean = describe("float32 to bfloat16", cast)
# One standard error of the mean of so many is 0.001.
assert values > 1024 and abs(mean) < 0.004, "a cast draw is no normal either"
PYTHON
