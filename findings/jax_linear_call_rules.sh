#!/usr/bin/env bash
# jax 0.10.2: `jax.custom_derivatives.linear_call` cannot be vmapped, and its
# residuals cannot be differentiated.
#
# It is the one public way to give a linear function a transpose of its own, a
# backward kernel for instance. Its documentation speaks of residuals in which
# the function need not be linear. The derivative by them ends in an assertion
# without a message, where another rule of JAX would name the function; vmap has
# no rule for it at all. jax 0.12.0 does the same.
#
# Seen with jax 0.10.2 on Python 3.11:
#   vmap: NotImplementedError Batching rule for 'linear_call' not implemented
#   derivative by a residual: AssertionError
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet jax==0.10.2 jaxlib==0.10.2
JAX_PLATFORMS=cpu "$folder/venv/bin/python" - <<'PYTHON'
import jax
import jax.numpy as jnp
from jax.custom_derivatives import linear_call

def scaled(factor, x):
  return factor * x

def call(factor, x):
  return linear_call(scaled, scaled, factor, x)

# It works where nothing but the linear argument has a derivative.
assert jax.grad(lambda x: call(2.0, x))(3.0) == 2.0
try:
  jax.vmap(lambda x: call(2.0, x))(jnp.arange(3.0))
except NotImplementedError as error:
  print("vmap: NotImplementedError", error)
else:
  raise SystemExit("vmap works now")
try:
  jax.grad(lambda factor: call(factor, 3.0))(2.0)
except AssertionError as error:
  assert not str(error)
  print("derivative by a residual: AssertionError")
else:
  raise SystemExit("residuals have a derivative now")
PYTHON
