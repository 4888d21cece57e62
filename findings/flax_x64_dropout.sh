#!/usr/bin/env bash
# flax 0.12.7 with jax 0.10.2: JAX_ENABLE_X64 gives a float32 model other
# dropout masks, and other labels, from the same seed.
#
# `nnx.Dropout` on float32 input, `jax.random.bernoulli` with a Python float and
# `jax.random.randint` draw wider numbers under x64. The two masks of one seed
# agree in half of their places, as independent masks do. `jax.random.normal`
# with a float32 dtype draws the same bits with and without x64.
# A run that is repeated with x64 to see what rounding does to it follows another
# path from its first step on, although all of its arrays are float32.
#
# Seen with flax 0.12.7, jax 0.10.2 on Python 3.11, CPU, of 10,000 draws:
#   nnx.Dropout, float32: 49 % equal with and without x64
#   bernoulli of 0.5: 50 % equal with and without x64
#   randint of 0 to 9: 10 % equal with and without x64
#   normal, float32: 100 % equal with and without x64
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet flax==0.12.7 jax==0.10.2 jaxlib==0.10.2
cat > "$folder/draws.py" <<'PYTHON'
import sys

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

key, n = jax.random.key(0), 10_000
drop = nnx.Dropout(0.5, rngs=nnx.Rngs(dropout=0))
mask = drop(jnp.ones(n, jnp.float32))
assert mask.dtype == jnp.float32
np.savez(
  sys.argv[1],
  **{
    "nnx.Dropout, float32": mask != 0,
    "bernoulli of 0.5": jax.random.bernoulli(key, 0.5, (n,)),
    "randint of 0 to 9": jax.random.randint(key, (n,), 0, 10),
    "normal, float32": jax.random.normal(key, (n,), jnp.float32),
  },
)
PYTHON
export JAX_PLATFORMS=cpu
"$folder/venv/bin/python" "$folder/draws.py" "$folder/narrow.npz"
JAX_ENABLE_X64=1 "$folder/venv/bin/python" "$folder/draws.py" "$folder/wide.npz"
"$folder/venv/bin/python" - "$folder/narrow.npz" "$folder/wide.npz" <<'PYTHON'
import sys

import numpy as np

narrow, wide = (np.load(path) for path in sys.argv[1:])
equal = {name: (narrow[name] == wide[name]).mean() for name in narrow.files}
for name, share in equal.items():
  print(f"{name}: {share:.0%} equal with and without x64")
# Independent draws agree so often; one standard error is 0.005.
chances = {"nnx.Dropout, float32": 0.5, "bernoulli of 0.5": 0.5}
chances["randint of 0 to 9"] = 0.1
for name, chance in chances.items():
  assert abs(equal[name] - chance) < 0.03, f"{name}: the draws have changed"
assert equal["normal, float32"] == 1, "normal draws depend on x64 as well"
PYTHON
