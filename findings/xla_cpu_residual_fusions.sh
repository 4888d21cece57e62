#!/usr/bin/env bash
# jax 0.10.2 on a CPU: in the gradient of a deep residual network on few rows the
# largest fusion grows with the depth, so compiling takes time of its square.
#
# What reaches a block in the backward pass is a sum over all blocks behind it.
# With 64 rows the compiler puts the whole sum into each of its readers; with
# 4,096 rows it keeps the sum, and fusions stay as they are. A transformer of 12
# blocks took 45 CPU seconds to compile on 4 of 16 samples, and 5 on all 16.
#
# Seen with jax 0.10.2 on Python 3.11, lines of the largest fusion:
#   64 rows: 31, 59, 115 for 4, 8, 16 blocks
#   4096 rows: 33, 33, 33 for 4, 8, 16 blocks
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet jax==0.10.2 jaxlib==0.10.2
JAX_PLATFORMS=cpu "$folder/venv/bin/python" - <<'PYTHON'
import re
import sys

import jax
import jax.numpy as jnp

WIDTH, DEPTHS = 64, (4, 8, 16)

def network(blocks, x):
  for first, second in blocks:
    h = x - x.mean(-1, keepdims=True)
    h = h * jax.lax.rsqrt((h * h).mean(-1, keepdims=True) + 1e-6)
    x = x + jax.nn.gelu(h @ first) @ second
  return (x**2).mean()

def largest(rows, depth):
  block = (
    jax.ShapeDtypeStruct((WIDTH, 4 * WIDTH), jnp.float32),
    jax.ShapeDtypeStruct((4 * WIDTH, WIDTH), jnp.float32),
  )
  x = jax.ShapeDtypeStruct((rows, WIDTH), jnp.float32)
  lowered = jax.jit(jax.grad(network)).lower([block] * depth, x)
  parts = re.split(r"\n(?=%|ENTRY)", lowered.compile().as_text())
  return max(part.count("\n") for part in parts if "fused" in part.split()[0])

sizes = {rows: [largest(rows, d) for d in DEPTHS] for rows in (64, 4096)}
for rows, found in sizes.items():
  listed = ", ".join(map(str, found))
  print(f"{rows} rows: {listed} for {', '.join(map(str, DEPTHS))} blocks")
few, many = sizes.values()
sys.exit(not (few[2] > 3 * few[0] and many[2] < 1.5 * many[0]))
PYTHON
