"""Make pairs of noise and data with the ODE of a trained run.

Noise i depends on (seed, i) only, and its label is i modulo the number of
classes: neither devices, batches nor interruptions decide what is drawn. The
data are the same to rounding on any of them, and to the bit on the same.
"""

import dataclasses
import functools
import hashlib
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxflow import data
from jaxflow.config import Config, registry, update
from jaxflow.config.files import load_config
from jaxflow.data.folders.writing import (
  created_and_locked,
  write_missing_shards,
)
from jaxflow.errors import RunError, UsageError, named
from jaxflow.parallel import processes, sharding
from jaxflow.runs import model as build
from jaxflow.runs.roles import teachers
from jaxflow.runs.run import load
from jaxflow.types import Array, PyTree

# (params, index [B], labels [B] or None) -> (noise, data), [B, ...] each.
Draw = Callable[[PyTree, Array, Array | None], tuple[Array, Array]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
  """How pairs are made; each field is a flag of the command line.

  Attributes:
    num: How many pairs.
    solver: The ODE solver, a name of the registry.
    nfe: Network calls a pair; heun and midpoint take two a step.
    guidance: Guidance scale of the teacher.
    grid: Name of the time grid; default: the teacher's `sample.grid`.
    ema: The teacher's average, or "online".
    seed: Seed of the noise.
    batch_size: Pairs at a time over all devices.
    shard_size: Pairs of one file.
  """

  num: int = 50_000
  solver: str = "heun"
  nfe: int = 40
  guidance: float = 1.0
  grid: str | None = None
  ema: str = "sampling"
  seed: int = 0
  batch_size: int = 1024
  shard_size: int = 4096

  def __post_init__(self):
    """Raise UsageError if a number is out of range."""
    for name in ("num", "batch_size", "shard_size"):
      if getattr(self, name) < 1:
        raise UsageError(f"--{name}={getattr(self, name)}: give at least 1")
    if not 0 <= self.seed < 2**31:
      raise UsageError(f"--seed={self.seed}: give 0 to 2147483647")
    registry.choose("--solver", self.solver, registry.KINDS["solver"])
    if self.grid is not None:
      registry.choose("--grid", self.grid, registry.KINDS["grid"])


def make_pairs(
  workdir: pathlib.Path,
  out: pathlib.Path,
  options: Options,
  *,
  step: int | None = None,
  say: Callable[[str], None] = print,
) -> bool:
  """Make the pairs of a run, or go on at the first shard that is missing.

  Args:
    workdir: The teacher's folder.
    out: The folder of the pairs.
    options: How to make them.
    step: The teacher's checkpoint; default: the latest.
    say: Prints a line.

  Returns:
    Whether all pairs are there; False after an interruption.

  Raises:
    UsageError: If an option is wrong, the run cannot teach, or `out` holds
      other pairs.
    RunError: If pairs are not finite, or cannot be written.
  """
  config = solving(load_config(workdir, field="--workdir"), options)
  draw = make_draw(config, options)
  mesh = sharding.fitting_mesh(config.mesh)
  draw = sharding.with_mesh(mesh, draw)
  run, state = load(
    workdir, field="--workdir", mesh=mesh, step=step, ema=options.ema
  )
  params = run.select(state, options.ema, "--ema")
  description = {
    "workdir": str(workdir),
    "step": int(state.step),
    "ema": options.ema,
    "parameters": parameters_hash(params),
    **{k: getattr(options, k) for k in ("num", "solver", "nfe", "guidance")},
    "guidance_start": config.sample.guidance_start,
    "guidance_end": config.sample.guidance_end,
    "grid": config.sample.grid.to_dict(),
    "seed": options.seed,
    "shape": list(run.model.shape),
    "num_classes": run.model.num_classes,
    "shard_size": options.shard_size,
    "config": run.model.config.to_dict(),
  }
  del state
  create = functools.partial(data.Pairs.create, out, description)
  with named(folder="--out"), created_and_locked(out, create):
    pairs = data.Pairs.open(out)
    return write_missing_shards(
      pairs.files,
      functools.partial(_batch, pairs, functools.partial(draw, params), mesh),
      functools.partial(_write, pairs),
      batch_size=options.batch_size,
      devices=sharding.row_shards(mesh),
      unit="pairs",
      print_line=say,
    )


def solving(config: Config, options: Options) -> Config:
  """Return the config of a run that samples by solving its ODE.

  Raises:
    UsageError: If its network is no velocity.
  """
  changed = config.copy_and_resolve_references()
  with changed.unlocked(), changed.ignore_type():
    changed.flow_map = {"name": "ode_step", "solver": {"name": options.solver}}
    sample = {"guidance": options.guidance, "sampler": {"name": "jumps"}}
    if options.grid is not None:
      sample["grid"] = {"name": options.grid}
    update(changed, {"sample": sample})
  return changed.lock()


def make_draw(config: Config, options: Options) -> Draw:
  """Return what makes pairs by their numbers, compiled once.

  Args:
    config: The teacher's resolved config, as `solving` returns it.
    options: How to make them.

  Raises:
    UsageError: If an option does not fit the teacher; nothing compiles.
  """
  model = build.make_model(config)
  if not model.method.teaches:
    raise UsageError(
      f"--workdir is a run of {config.method!r}, whose network is no velocity: "
      f"give one of {teachers()}"
    )
  if options.guidance != 1:
    model.check_guidance(options.guidance, "--guidance")
  sampler = model.make_sampler(options.nfe, "--nfe")

  def noise_of(index):
    key = jax.random.fold_in(jax.random.key(options.seed), index)
    return jax.random.normal(key, model.shape)

  @jax.jit
  def draw_pairs(params, index, labels):
    noise = jax.vmap(noise_of)(index)
    # A solver's steps draw nothing.
    return noise, sampler(params, noise, jax.random.key(0), labels)

  return draw_pairs


def parameters_hash(params: PyTree) -> str:
  """Return a hash of names, shapes and values, 16 hexadecimal digits.

  Example:
    >>> import jax.numpy as jnp
    >>> a, b = {"w": jnp.zeros(2)}, {"w": jnp.ones(2)}
    >>> parameters_hash(a) == parameters_hash(b), len(parameters_hash(a))
    (False, 16)
  """
  found = hashlib.sha256()
  for path, leaf in jax.tree_util.tree_leaves_with_path(params):
    value = processes.gather(leaf)
    name = jax.tree_util.keystr(path)
    found.update(f"{name} {value.dtype} {value.shape}".encode())
    found.update(value.tobytes())
  return found.hexdigest()[:16]


def _batch(
  pairs: data.Pairs, draw: Callable, mesh: Any, first: int, size: int
) -> list[np.ndarray]:
  """Return noise, data and, where there are classes, labels from a number on.

  Always of one size, whatever is asked for: one program serves all batches.
  """
  index = np.arange(first, first + size, dtype=np.uint32)
  classes = pairs.description["num_classes"]
  label = (index % classes).astype(np.int32) if classes else None
  mine = sharding.local_rows(mesh, size)
  given = jax.tree.map(lambda x: x[mine], (index, label))
  drawn = draw(*data.to_devices(given, sharding.row_sharding(mesh)))
  batch = list(processes.gather(drawn))
  return batch if label is None else [*batch, label]


def _write(pairs: data.Pairs, shard: int, arrays: list[np.ndarray]) -> None:
  """Check and write a shard."""
  noise, made, *label = arrays
  if not np.isfinite(made).all():
    raise RunError(
      f"shard {shard + 1} of {pairs.folder} is not finite: the teacher "
      "diverged, or a solver step is too long; raise --nfe, or train again"
    )
  pairs.write(shard, noise, made, label[0] if label else None)
