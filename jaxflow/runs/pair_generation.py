"""Make pairs of noise and data with the ODE of a trained run.

Noise i depends on (seed, i) only, and its label is i modulo the number of
classes, or its condition that of training sample i modulo their number: neither
devices, batches nor interruptions decide what is drawn. The data are the same
to rounding on any of them, and to the bit on the same.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxflow import conditions, data, flow_maps, paths, sampling
from jaxflow import config as config_lib
from jaxflow.config import registry
from jaxflow.config.roles import teachers
from jaxflow.data.folders.writing import (
  created_and_locked,
  write_missing_shards,
)
from jaxflow.errors import RunError, UsageError, check_range, named
from jaxflow.options import FINITE, SEED
from jaxflow.parallel import processes, sharding
from jaxflow.parallel.hashing import parameters_hash
from jaxflow.plans import Model, Plan
from jaxflow.runs.drawing import check_num
from jaxflow.runs.inputs import check_condition
from jaxflow.runs.opening import load_data
from jaxflow.runs.options import option
from jaxflow.runs.restoring import restore
from jaxflow.runs.run import Run
from jaxflow.types import Array, PyTree

# (params, index [B], labels [B] or None) -> (noise, data), [B, ...] each.
Draw = Callable[[PyTree, Array, Array | None], tuple[Array, Array]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairOptions:
  """How pairs are made; the command line has a flag for each field."""

  num: int = option(50_000, "how many pairs; labels are the classes in turn")
  solver: str = option("heun", "ODE solver: euler, midpoint or heun")
  nfe: int = option(
    40, "network calls per pair; midpoint and heun take two a step"
  )
  guidance: float = option(1.0, "guidance scale of the teacher")
  grid: str | None = option(
    None, "name of the time grid (default: the teacher's sample.grid)"
  )
  ema: str = option("sampling", "the teacher's average, or online")
  seed: int = option(0, "seed of the noise")
  batch_size: int = option(1024, "pairs at a time over all devices")
  shard_size: int = option(4096, "pairs per file")

  def __post_init__(self) -> None:
    """Raise UsageError if a value is out of range."""
    for name in ("num", "batch_size", "shard_size"):
      if getattr(self, name) < 1:
        raise UsageError(f"{name}={getattr(self, name)}: give at least 1")
    if self.num > 2**32:
      raise UsageError(f"num={self.num}: give at most {2**32}, one a noise")
    check_range(SEED, seed=self.seed)
    check_range(FINITE, guidance=self.guidance)
    registry.maker_named("solver", self.solver, "solver")
    if self.grid is not None:
      registry.maker_named("grid", self.grid, "grid")


def make_pairs(
  workdir: pathlib.Path,
  out: pathlib.Path,
  options: PairOptions,
  *,
  step: int | None = None,
  log: Callable[[str], None] = print,
) -> bool:
  """Make the pairs of a run, or go on at the first shard that is missing.

  Return whether all pairs are there: False after an interruption.
  """
  plan = config_lib.load_plan(workdir)
  with named(num="shard_size"):  # A shard is written as a whole.
    at_once = min(options.shard_size, options.num)
    check_num(at_once, plan.model.shape, plan.model.null_cond)
  source = processes.together(lambda: _conditions(plan))
  mesh = sharding.fitting_mesh(plan.mesh)
  draw = sharding.with_mesh(mesh, make_draw(plan, options))
  run = Run(plan)
  ema, guidance = options.ema, options.guidance
  state = restore(
    run, workdir, mesh=mesh, step=step, ema=ema, guidance=guidance
  )
  params = run.select(state, options.ema)
  description = {
    "workdir": str(workdir),
    "step": int(state.step),
    "parameters": parameters_hash(params),
    **_describe(plan, options),
    **(_describe_conditions(plan, source) if source is not None else {}),
  }
  del state
  create = functools.partial(data.Pairs.create, out, description)
  with named(folder="out"), created_and_locked(out, create):
    pairs = data.Pairs.open(out)
    return write_missing_shards(
      pairs.files,
      functools.partial(
        _batch, pairs, functools.partial(draw, params), mesh, source
      ),
      functools.partial(_write, pairs),
      batch_size=options.batch_size,
      devices=sharding.row_shards(mesh),
      unit="pairs",
      check=pairs.check_unchanged,
      log=log,
    )


def _describe(plan: Plan, options: PairOptions) -> dict[str, Any]:
  """Return all inputs of the pairs but the teacher's weights."""
  sample = plan.sample.record["sample"]
  names = "num", "solver", "nfe", "guidance", "ema", "seed", "shard_size"
  return {
    **{name: getattr(options, name) for name in names},
    "guidance_start": sample["guidance_start"],
    "guidance_end": sample["guidance_end"],
    "grid": {"name": options.grid} if options.grid else sample["grid"],
    "shape": list(plan.model.shape),
    "num_classes": plan.model.num_classes,
    "config": plan.config.to_dict(),
  }


def _conditions(plan: Plan) -> data.Source | None:
  """Return the data whose conditions pairs have; None where classes do."""
  if not plan.declares_condition:
    return None
  source = load_data(plan.data, "train")
  check_condition(plan.model, source)
  return source


def _describe_conditions(plan: Plan, source: data.Source) -> dict[str, Any]:
  """Return what decides the conditions of pairs."""
  cond = conditions.layout(plan.model.null_cond)
  return {"cond": cond, "conditions": data.digest([source])}


def solving(plan: Plan, options: PairOptions) -> Plan:
  """Return the plan of a run that samples by solving its ODE."""
  model, grid = plan.model, plan.sample.grid
  if not model.method.teaches:
    raise UsageError(
      f"workdir is a run of {model.name!r}, whose network is no velocity: give "
      f"one of {teachers()}"
    )
  if options.guidance != 1:
    model.check_guidance(guidance=options.guidance)
  if options.grid is not None:
    grid = _grid(model, options.grid)
  solver = registry.make("solver", {"name": options.solver}, field="solver")
  return dataclasses.replace(
    plan,
    model=dataclasses.replace(
      model,
      flow_map=functools.partial(flow_maps.ode_step, solver=solver),
      solver=options.solver,
      calls=registry.solver_calls(options.solver),
    ),
    sample=dataclasses.replace(
      plan.sample,
      guidance=options.guidance,
      grid=grid,
      sampler=sampling.Jumps(),
      solver=options.solver,
    ),
  )


def _grid(model: Model, name: str) -> Callable[[int], Array]:
  """Return a time grid of the model's path."""
  path = model.path
  ends = {"t_min": path.t_min, "t_max": path.t_max}
  return registry.make("grid", {"name": name}, field="grid", path=path, **ends)


def make_draw(plan: Plan, options: PairOptions) -> Draw:
  """Return a function from numbers to pairs, compiled once."""
  plan = solving(plan, options)
  model = plan.model
  sampler = model.make_sampler(plan.sample, options.nfe)

  def noise_of(index):
    key = jax.random.fold_in(jax.random.key(options.seed), index)
    return paths.standard_normal(key, model.shape, jax.numpy.float32)

  @jax.jit
  def draw_pairs(params, index, labels):
    noise = jax.vmap(noise_of)(index)
    # A solver's steps draw nothing.
    return noise, sampler(params, noise, jax.random.key(0), labels)

  return draw_pairs


def _batch(
  pairs: data.Pairs,
  draw: Callable,
  mesh: Any,
  source: data.Source | None,
  first: int,
  size: int,
) -> list[np.ndarray]:
  """Return noise, data and the arrays of the condition from a number on.

  Always of one size, whatever is asked for: one program serves all batches.
  """
  index = np.arange(first, first + size, dtype=np.uint32)
  classes = pairs.description["num_classes"]
  label: PyTree = (index % classes).astype(np.int32) if classes else None
  if source is not None:
    label = source.take(index % len(source))["cond"]
  mine = sharding.local_rows(mesh, size)
  given = jax.tree.map(lambda x: x[mine], (index, label))
  drawn = draw(*data.to_devices(given, sharding.row_sharding(mesh)))
  return [*processes.gather(drawn), *jax.tree.leaves(label)]


def _write(pairs: data.Pairs, shard: int, arrays: list[np.ndarray]) -> None:
  """Check and write a shard."""
  if not np.isfinite(arrays[1]).all():
    raise RunError(
      f"shard {shard + 1} of {pairs.folder} is not finite: the teacher "
      "diverged, or a solver step is too long; raise nfe, or train again"
    )
  pairs.write(shard, arrays)
