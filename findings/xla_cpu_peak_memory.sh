#!/usr/bin/env bash
# jax 0.10.2 on a CPU: the peak memory of a compiled program leaves its
# temporaries out.
#
# `memory_analysis()` has `peak_memory_in_bytes` beside the sizes of arguments,
# results and temporaries. On a CPU it is that of arguments and results. Whoever
# asks whether a program fits has to add the temporaries.
#
# Seen with jax 0.10.2 on Python 3.11, for a sort of 500 x 500 numbers:
#   peak 4,016 bytes, temporaries 1,000,000
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet jax==0.10.2 jaxlib==0.10.2
JAX_PLATFORMS=cpu "$folder/venv/bin/python" - <<'PYTHON'
import sys

import jax
import jax.numpy as jnp

x = jnp.ones(500)
program = jax.jit(lambda x: jnp.sort(jnp.outer(x, x), axis=0)[0]).lower(x)
memory = program.compile().memory_analysis()
peak, temporary = memory.peak_memory_in_bytes, memory.temp_size_in_bytes
print(f"peak {peak:,} bytes, temporaries {temporary:,}")
sys.exit(not peak < temporary)
PYTHON
