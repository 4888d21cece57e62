#!/usr/bin/env bash
# orbax-checkpoint 0.12.8: a checkpoint in a folder whose name holds brackets is
# saved without an error and cannot be restored.
#
# Names like `lr[1e-3]` are usual for sweeps. `CheckpointManager.save` returns,
# marks the step as committed and lists it, but the database of the whole
# checkpoint (`manifest.ocdbt` and `d/`) is missing: only the part of the process
# (`ocdbt.process_0/`) is there. `restore` then finds no array. The parts are
# looked up with a glob pattern that contains the folder's own name, in which
# `[...]` stands for one character.
#
# Seen with orbax-checkpoint 0.12.8 and jax 0.10.2 on Python 3.11, CPU:
#   lr_1e-3:  saved in 11 files; restored [0.0, 1.0, 2.0, 3.0]
#   lr[1e-3]: saved in 9 files; restore: ValueError
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet jax==0.10.2 jaxlib==0.10.2 \
  orbax-checkpoint==0.12.8
cd "$folder"
JAX_PLATFORMS=cpu "$folder/venv/bin/python" - <<'PYTHON' 2>/dev/null
import pathlib

import jax.numpy as jnp
import orbax.checkpoint as ocp

def round_trip(name):
  folder = pathlib.Path(name).absolute()
  folder.mkdir()
  state = {"weight": jnp.arange(4.0)}
  with ocp.CheckpointManager(folder) as manager:
    manager.save(0, args=ocp.args.StandardSave(state))
    manager.wait_until_finished()
  with ocp.CheckpointManager(folder) as manager:
    assert manager.all_steps() == [0], manager.all_steps()
    files = sum(path.is_file() for path in folder.rglob("*"))
    try:
      found = manager.restore(0, args=ocp.args.StandardRestore(state))
    except Exception as error:
      return f"saved in {files} files; restore: {type(error).__name__}"
  return f"saved in {files} files; restored {found['weight'].tolist()}"

plain, brackets = round_trip("lr_1e-3"), round_trip("lr[1e-3]")
print("lr_1e-3: ", plain)
print("lr[1e-3]:", brackets)
assert "restored [0.0, 1.0, 2.0, 3.0]" in plain
assert "restore: " in brackets, "brackets work now"
PYTHON
