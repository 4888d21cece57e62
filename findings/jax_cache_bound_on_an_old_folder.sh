#!/usr/bin/env bash
# jax 0.10.2: a folder of compiled programs that was filled without a bound
# takes no new program once a bound is set.
#
# With `jax_compilation_cache_max_size` every program has a file beside it with
# the time of its last use. Programs that were kept without a bound have none,
# the search for the oldest fails at the first of them, and each program that is
# compiled from then on ends in a warning and is not kept. jax 0.12.0 keeps it.
#
# Seen with jax 0.10.2 on Python 3.11:
#   without a bound: 1 program; with one: still 1
#   Error writing persistent compilation cache entry ... FileNotFoundError
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet jax==0.10.2 jaxlib==0.10.2 filelock==4.3.1
JAX_PLATFORMS=cpu "$folder/venv/bin/python" - "$folder/programs" <<'PYTHON'
import pathlib
import sys
import warnings

import jax
from jax.experimental.compilation_cache import compilation_cache

folder = pathlib.Path(sys.argv[1])
jax.config.update("jax_compilation_cache_dir", str(folder))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)

def kept():
  return len(list(folder.glob("*-cache")))

jax.jit(lambda x: 3 * x + 1)(2.0)
before = kept()
compilation_cache.reset_cache()
jax.config.update("jax_compilation_cache_max_size", 2**30)
with warnings.catch_warnings(record=True) as caught:
  warnings.simplefilter("always")
  jax.jit(lambda x: 5 * x + 7)(2.0)
print(f"without a bound: {before} program; with one: still {kept()}")
message = str(caught[0].message)
print(message.split(" for ")[0], "...", message.split(": ")[1])
assert before == kept() == 1
assert "FileNotFoundError" in message
PYTHON
