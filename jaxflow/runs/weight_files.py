"""A folder of weights and config, as model hubs have it, read as a run."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from jaxflow.errors import RunError, UsageError
from jaxflow.pretrained import tensor_files
from jaxflow.training.state import TrainState
from jaxflow.types import PyTree

WEIGHTS = "model.safetensors"
# The number of the checkpoint, beside the parameters.
STEP = "step"


def named_tensors(params: PyTree, step: int) -> dict[str, np.ndarray]:
  """Return the step, and parameters by their paths, `output.bias` for one.

  Example:
    >>> sorted(named_tensors({"output": {"bias": np.zeros(2)}}, 3))
    ['output.bias', 'step']
  """
  leaves, _ = jax.tree_util.tree_flatten_with_path(params)
  tensors = {name_of(path): np.ascontiguousarray(x) for path, x in leaves}
  return {**tensors, STEP: np.asarray(step, np.int32)}


def name_of(path: tuple) -> str:
  """Return the name of a parameter."""
  return ".".join(str(key.key) for key in path)


def read_state(
  workdir: pathlib.Path, template: TrainState, *, step: int | str | None
) -> TrainState:
  """Return the state of a folder of weights; it has one step and one average.

  Args:
    workdir: The folder.
    template: The shapes of the state, as `Run.sampling_template` gives them.
    step: The checkpoint that is asked for, or None.

  Raises:
    UsageError: If another checkpoint is asked for, or more than one average.
    RunError: If a parameter is absent or has another shape.
  """
  if template.opt_state or len(jax.tree.leaves(template.frozen)):
    raise UsageError(
      f"workdir={str(workdir)!r} holds the weights alone: it samples, teaches "
      "and is a start, but does not go on; give --config.init.workdir"
    )
  tensors = tensor_files.read(workdir / WEIGHTS, "it again")
  found = int(tensors.pop(STEP, np.zeros(())))
  if step not in (None, found):
    raise UsageError(f"step={step!r}: the folder holds step {found} alone")

  def leaf(path, shape):
    name = name_of(path)
    x = tensors.pop(name, None)
    if x is None or x.shape != shape.shape:
      what = "no array" if x is None else f"an array of shape {x.shape}"
      raise RunError(
        f"{workdir / WEIGHTS}: {name} is {what}, and {shape.shape} is wanted; "
        "get the folder again"
      )
    return jax.device_put(x.astype(shape.dtype), shape.sharding)

  params = jax.tree_util.tree_map_with_path(leaf, template.params)
  ema = {
    name: jax.tree_util.tree_map_with_path(leaf, own)
    for name, own in template.ema.items()
  }
  if tensors:
    raise RunError(
      f"{workdir / WEIGHTS}: {min(tensors)} is no parameter of config.json's "
      "network; get the folder again"
    )
  none = jnp.zeros((), jnp.int32)
  return TrainState(
    step=jnp.asarray(found, jnp.int32),
    updates=none,
    params=params,
    opt_state=(),
    ema=ema,
    loss_params={},
    memory={},
    companions={},
    frozen={},
    skipped=none,
    skipped_in_row=none,
  )
