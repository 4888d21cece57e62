#!/usr/bin/env bash
# jax2onnx 0.17.1: a function with a jitted part does not convert on jax 0.12.
#
# It requires jax 0.8.1 or newer, without an upper bound. Beside jax 0.12.0.1
# `to_onnx` converts a sine, and fails at the same sine under `jax.jit`. It also
# requires orbax-checkpoint below 0.11.37, so a newer Orbax goes when it comes.
#
# Seen on Python 3.13:
#   requires: jax (>=0.8.1), orbax-checkpoint (>=0.11.6,<0.11.37)
#   sin: converted
#   jit(sin): AttributeError module 'jax._src.core' has no attribute 'ClosedJaxpr'
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3.13 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet \
  jax==0.12.0.1 jaxlib==0.12.0.1 jax2onnx==0.17.1
"$folder/venv/bin/python" - <<'PYTHON' 2> /dev/null
import importlib.metadata

import jax
import jax.numpy as jnp
from jax2onnx import to_onnx

asked = importlib.metadata.requires("jax2onnx") or []
pins = [x for x in asked if x.startswith(("jax ", "orbax-checkpoint "))]
print("requires:", ", ".join(sorted(pins)))
assert any("<0.11.37" in x for x in pins) and "jax (>=0.8.1)" in pins, pins

to_onnx(jnp.sin, [(2,)])
print("sin: converted")
try:
  to_onnx(lambda x: jax.jit(jnp.sin)(x), [(2,)])
except AttributeError as error:
  print(f"jit(sin): AttributeError {error}")
  assert "ClosedJaxpr" in str(error)
else:
  raise AssertionError("it converts now")
PYTHON
