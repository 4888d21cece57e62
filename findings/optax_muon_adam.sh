#!/usr/bin/env bash
# optax 0.2.8: the Adam part of `contrib.muon` is Nadam.
#
# Arrays that are no matrices go through AdamW, says its docstring. `nesterov`,
# True by default, reaches that part too: its steps equal `optax.adamw(...,
# nesterov=True)`.
#
# Seen:
#   first step of a bias: muon -0.0144, adamw -0.0100, adamw of nesterov -0.0144
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet jax==0.10.2 jaxlib==0.10.2 optax==0.2.8
"$folder/venv/bin/python" - <<'PYTHON' 2> /dev/null
import jax.numpy as jnp
import optax
from optax import contrib

bias, gradient = jnp.zeros(1), jnp.ones(1)
b1, b2 = 0.8, 0.95


def first(optimizer):
  step, _ = optimizer.update(gradient, optimizer.init(bias), bias)
  return float(step[0])


muon = first(contrib.muon(0.01, adam_b1=b1, adam_b2=b2))
plain = first(optax.adamw(0.01, b1=b1, b2=b2, weight_decay=0.0))
nadam = first(
  optax.adamw(0.01, b1=b1, b2=b2, weight_decay=0.0, nesterov=True)
)
print(
  f"first step of a bias: muon {muon:.4f}, adamw {plain:.4f}, adamw of "
  f"nesterov {nadam:.4f}"
)
assert abs(muon - nadam) < 1e-6 < abs(muon - plain)
PYTHON
