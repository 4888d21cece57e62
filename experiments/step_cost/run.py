"""What one training step of every method costs, relative to flow matching.

Compiles value and gradient of each loss on one small DiT with unrolled layers
(XLA counts the body of a scan once) and reads the compiled program's FLOPs and
temporary memory; wall time is the median of interleaved rounds. MeanFlow as
published stands beside ours, written as its formula.

  python experiments/step_cost/run.py            # a few minutes, writes results
  python experiments/step_cost/run.py --quick    # under a minute, prints only
"""

import argparse
import functools
import json
import math
import os
import pathlib
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from jaxflow import (
  curricula,
  dyadic,
  flow_maps,
  guidance,
  losses,
  models,
  paths,
  solvers,
  times,
  weights,
)
from jaxflow.methods import METHODS
from jaxflow.types import Array, Batch, LossOutput, ModelFn

# Wide enough for matrix products to dominate, as in a network of real size.
CONFIG = {
  "batch_size": 16,
  "depth": 4,
  "width": 256,
  "num_heads": 4,
  "data_shape": (32, 32, 4),
  "patch_size": 4,
  "num_classes": 1000,
}
# Halved steps need 16 rows.
QUICK = CONFIG | {"batch_size": 16, "depth": 1}
RESULTS = pathlib.Path(__file__).parent / "results"

BASELINE = "flow_matching"
# Largest FLOPs relative to the baseline.
GOALS = {
  "mean_flow": 1.12,
  "mean_flow, omega 1, kappa 0.5": 1.55,
  "improved_mean_flow": 2.45,
  "shortcut": 1.12,
  "easy_consistency": 1.36,
  "improved_consistency_training": 1.36,
  "continuous_consistency": 1.42,
  "continuous_consistency_distillation": 1.77,
}
# Those of a published formula that stands beside ours.
PUBLISHED = ["mean_flow", "mean_flow, omega 1, kappa 0.5"]
# Two heads share no block of a network of one.
HEADS = "improved_mean_flow"
QUICK_NAMES = [
  BASELINE,
  *(name for name in GOALS if name != HEADS),
  *(f"published {name}" for name in PUBLISHED),
]

LINEAR = paths.Linear()
PAIRS = times.SortedPair(law=times.LogitNormal(mean=-0.4, std=1.0))
ANGULAR = paths.Trigonometric(t_max=math.pi / 2, noise_std=0.5)
LABEL_DROPOUT = 0.1
# The networks that a loss takes, by what its row of METHODS needs.
FROZEN = {"target": "target_fn", "teacher": "teacher"}


def published_mean_flow(
  model_fn: ModelFn,
  key: Array,
  batch: Batch,
  *,
  num_classes: int,
  omega: float = 1.0,
  kappa: float = 0.0,
  stop_tangent: bool = True,
) -> LossOutput:
  """Compute MeanFlow as its published code does: every row pays for all.

  The first three quarters of the batch train at s = t.

  Args:
    model_fn: The network.
    key: Random key.
    batch: `data` and `cond`.
    num_classes: The null label.
    omega: Guidance weight of the sample's velocity.
    kappa: Guidance weight of the network's conditional velocity.
    stop_tangent: Whether du/dt is a constant of the target.

  Returns:
    The loss `[B]`, and no metrics.
  """
  time_key, noise_key, label_key = jax.random.split(key, 3)
  data = batch["data"]
  size = data.shape[0]
  noise = jax.random.normal(noise_key, data.shape)
  t, s = PAIRS(time_key, size)
  s = jnp.where(jnp.arange(size) < 3 * size // 4, t, s)
  xt = paths.interpolate(LINEAR, data, noise, t)
  v = v_g = paths.velocity(LINEAR, data, noise, t)
  cond = guidance.drop_labels(
    label_key, batch["cond"], rate=LABEL_DROPOUT, num_classes=num_classes
  )
  if (omega, kappa) != (1.0, 0.0):
    null = model_fn(xt, t, t, guidance.null(cond, num_classes))
    v_g = omega * v + (1 - omega - kappa) * null
    if kappa:
      v_g = v_g + kappa * model_fn(xt, t, t, cond)
    v_g = jnp.where(paths.over(cond != num_classes, v), v_g, v)
  v_g = jax.lax.stop_gradient(v_g)
  u, du = jax.jvp(
    lambda xt, t, s: model_fn(xt, t, s, cond),
    (xt, t, s),
    (v_g, jnp.ones_like(t), jnp.zeros_like(s)),
  )
  if stop_tangent:
    du = jax.lax.stop_gradient(du)
  error = weights.l2_sum(u, v_g - paths.over(t - s, du) * du)
  return weights.adaptive(error, power=1.0, eps=0.01), {}


def variants(num_classes: int) -> dict[str, Callable]:
  """Return the losses by name; the first word is the row of METHODS.

  Args:
    num_classes: The null label.

  Returns:
    Functions `(model_fn, key, batch, **roles) -> (loss [B], metrics)`, which
    take the frozen networks that their rows need.
  """
  labels = {"num_classes": num_classes, "label_dropout": LABEL_DROPOUT}
  mean_flow = functools.partial(
    losses.mean_flow_loss, path=LINEAR, sample_times=PAIRS, **labels
  )
  distillation = functools.partial(
    losses.consistency_loss,
    path=LINEAR,
    sample_times=times.AdjacentPair(grid=times.uniform_grid, num_points=18),
    flow_map=flow_maps.average_velocity,
  )
  continuous = functools.partial(
    losses.continuous_consistency_loss,
    path=ANGULAR,
    sample_times=times.ArctanLogNormal(mean=-1.0, std=1.4),
  )
  moments = functools.partial(
    losses.moment_matching_loss,
    path=paths.Linear(t_min=0.006, t_max=0.994),
    flow_map=flow_maps.average_velocity,
    sample_times=times.TruncatedPair(
      law=times.Uniform(), t_min=0.006, t_max=0.994
    ),
    **labels,
  )
  training = functools.partial(
    losses.consistency_loss,
    path=paths.VarianceExploding(),
    progress=jnp.asarray(0.5),
  )
  flow_matching = functools.partial(
    losses.flow_matching_loss,
    path=LINEAR,
    sample_times=times.Uniform(),
    **labels,
  )

  def paired(key, batch):
    return batch | {"noise": jax.random.normal(key, batch["data"].shape)}

  def one_step(model_fn, key, batch):
    return losses.distillation_loss(
      model_fn,
      key,
      paired(key, batch),
      path=LINEAR,
      flow_map=flow_maps.average_velocity,
    )

  def guidance_distillation(model_fn, key, batch, *, teacher):
    # A teacher has no guidance inputs: it is told a constant.
    return losses.guidance_distillation_loss(
      model_fn,
      key,
      batch,
      path=LINEAR,
      sample_times=times.Uniform(),
      teacher=guidance.told(teacher, omega=1.0),
      num_classes=num_classes,
    )

  def slim_flow(model_fn, key, batch, *, teacher):
    return losses.flow_guided_distillation_loss(
      model_fn,
      key,
      paired(key, batch),
      path=LINEAR,
      sample_times=times.Uniform(t_min=0.2, t_max=0.8),
      teacher=teacher,
    )

  published = functools.partial(published_mean_flow, num_classes=num_classes)
  return {
    "flow_matching": flow_matching,
    "denoising": functools.partial(
      losses.denoising_loss,
      path=paths.VarianceExploding(),
      sample_times=times.LogNormal(mean=-1.2, std=1.2),
      **labels,
    ),
    "score_matching": functools.partial(
      losses.flow_matching_loss,
      path=paths.VarianceExploding(t_min=0.05, t_max=3.0),
      sample_times=times.Uniform(t_min=0.05, t_max=3.0),
      prediction="score",
      weight=weights.inverse_square,
      **labels,
    ),
    "reflow": flow_matching,
    "knowledge_distillation": one_step,
    "insta_flow": one_step,
    "annealed_reflow": flow_matching,
    "slim_flow": slim_flow,
    "progressive_distillation": functools.partial(
      losses.progressive_distillation_loss,
      path=LINEAR,
      sample_times=times.AdjacentTriple(grid=times.uniform_grid, num_steps=8),
      weight=weights.inverse_square,
      **labels,
    ),
    # The teacher's steps are a scan, of which XLA counts one.
    "mid_training": functools.partial(
      losses.mid_training_loss,
      path=paths.VarianceExploding(),
      flow_map=flow_maps.edm_denoiser,
      grid=functools.partial(times.log_grid, t_min=0.002, t_max=80.0),
    ),
    "guidance_distillation": guidance_distillation,
    "mean_flow": mean_flow,
    "mean_flow, omega 2, kappa 0": functools.partial(mean_flow, omega=2.0),
    "mean_flow, omega 1, kappa 0.5": functools.partial(mean_flow, kappa=0.5),
    "consistency_distillation, euler": functools.partial(
      distillation, solver=solvers.euler
    ),
    "consistency_distillation, heun": functools.partial(
      distillation, solver=solvers.heun
    ),
    "consistency_trajectory, 1 Heun step": functools.partial(
      losses.consistency_trajectory_loss,
      path=paths.VarianceExploding(),
      sample_times=times.TrajectoryTimes(
        grid=times.karras_grid, num_points=18, solver_steps=1
      ),
    ),
    "continuous_consistency": continuous,
    "continuous_consistency_distillation": continuous,
    "moment_matching": moments,
    "consistency_training": functools.partial(
      training,
      sample_times=curricula.AdaptivePair(),
      flow_map=flow_maps.edm_skip,
    ),
    "improved_consistency_training": functools.partial(
      training,
      sample_times=curricula.DoublingPair(),
      flow_map=flow_maps.edm_skip,
      distance=weights.scaled_huber(),
      weight=weights.inverse_gap,
    ),
    "easy_consistency": functools.partial(
      training,
      sample_times=curricula.ShrinkingPair(),
      flow_map=flow_maps.edm_denoiser,
      distance=weights.huber(0.0),
      weight=weights.inverse_gap,
    ),
    "improved_mean_flow": functools.partial(
      losses.improved_mean_flow_loss,
      path=LINEAR,
      sample_times=PAIRS,
      **labels,
    ),
    "shortcut": functools.partial(
      losses.shortcut_loss,
      path=LINEAR,
      sample_times=dyadic.DyadicPair(num_steps=4),
      num_steps=4,
      **labels,
    ),
    "published mean_flow": published,
    "published mean_flow, omega 2, kappa 0": functools.partial(
      published, omega=2.0
    ),
    "published mean_flow, omega 1, kappa 0.5": functools.partial(
      published, kappa=0.5
    ),
    "published mean_flow, gradient through du/dt": functools.partial(
      published, stop_tangent=False
    ),
  }


def roles_of(name: str) -> list[str]:
  """Return the frozen networks that a variant takes.

  Args:
    name: A key of `variants`.
  """
  row = METHODS.get(name.split(",")[0])
  return [FROZEN[k] for k in FROZEN if row is not None and k in row.needs]


def network_options(name: str, depth: int) -> dict:
  """Return what the network of a variant has beyond the others'.

  Args:
    name: A key of `variants`.
    depth: Number of blocks.
  """
  row = METHODS.get(name.split(",")[0])
  options = dict(row.config.get("model", {})) if row else {}
  options.pop("second_time", None)  # All have one.
  if "heads" in options:
    # Published: 8 of 12 blocks belong to a head.
    options["head_depth"] = max(1, round(2 * depth / 3))
  return options


def make_arguments(config: dict, **options) -> tuple[Callable, tuple]:
  """Make the network and what a step takes.

  Args:
    config: As `CONFIG`.
    **options: More options of the network.

  Returns:
    The network's `apply`, and `(params, frozen, key, batch)` with the
    parameters of the frozen target and teacher networks.
  """
  config = dict(config)
  size = config.pop("batch_size")
  network = models.dit(**config, **options, second_time=True, scan_layers=False)
  init = jax.jit(network.init)
  params, target, teacher = map(init, jax.random.split(jax.random.key(0), 3))
  data_key, key = jax.random.split(jax.random.key(1))
  batch = {
    "data": jax.random.normal(data_key, (size, *config["data_shape"])),
    "cond": jnp.arange(size) % config["num_classes"],
  }
  frozen = {"target_fn": target, "teacher": teacher}
  return network.apply, (params, frozen, key, batch)


def compile_step(
  loss: Callable,
  apply_fn: Callable,
  arguments: tuple,
  *,
  roles: Sequence[str] = (),
  options: dict | None = None,
) -> jax.stages.Compiled:
  """Compile value and gradient of a loss.

  Args:
    loss: One of `variants`.
    apply_fn: The network.
    arguments: As `make_arguments` makes them.
    roles: Names of the frozen networks that the loss takes.
    options: Options of the compiler.

  Returns:
    The compiled function of `arguments`.
  """

  def mean_loss(params, frozen, key, batch):
    others = {k: functools.partial(apply_fn, frozen[k]) for k in roles}
    model_fn = functools.partial(apply_fn, params)
    return loss(model_fn, key, batch, **others)[0].mean()

  lowered = jax.jit(jax.value_and_grad(mean_loss)).lower(*arguments)
  return lowered.compile(compiler_options=options)


def compile_all(
  config: dict, names: list[str] | None = None, options: dict | None = None
) -> tuple[dict[str, jax.stages.Compiled], dict[str, tuple]]:
  """Compile the steps of all variants, or of those named.

  Args:
    config: As `CONFIG`.
    names: Keys of `variants`.
    options: Options of the compiler.

  Returns:
    The compiled steps, and their arguments, by name.
  """
  plain = make_arguments(config)
  table = variants(config["num_classes"])
  steps, arguments_of = {}, {}
  for name in names or table:
    print(f"compiling {name}", file=sys.stderr)
    more = network_options(name, config["depth"])
    apply_fn, arguments = make_arguments(config, **more) if more else plain
    arguments_of[name] = arguments
    steps[name] = compile_step(
      table[name],
      apply_fn,
      arguments,
      roles=roles_of(name),
      options=options,
    )
  return steps, arguments_of


def flops(step: jax.stages.Compiled) -> float:
  """Return XLA's count of a compiled step."""
  analysis = step.cost_analysis()
  return analysis["flops"]


def time_ratios(
  steps: dict[str, jax.stages.Compiled],
  arguments: dict[str, tuple],
  rounds: int,
) -> dict[str, float]:
  """Time the steps in turn and compare within a round.

  Args:
    steps: Compiled steps by name, the baseline among them.
    arguments: What they take, by name.
    rounds: How often each is timed, after one run to warm up.

  Returns:
    The median over rounds of the time relative to the baseline's.
  """

  def seconds(name):
    start = time.perf_counter()
    jax.block_until_ready(steps[name](*arguments[name]))
    return time.perf_counter() - start

  laps = []
  for index in range(rounds + 1):
    print(f"timing round {index} of {rounds}", file=sys.stderr)
    laps.append({name: seconds(name) for name in steps})
  return {
    name: statistics.median(lap[name] / lap[BASELINE] for lap in laps[1:])
    for name in steps
  }


def measure(config: dict, rounds: int, names: list[str] | None = None) -> dict:
  """Measure all variants, or those named.

  Args:
    config: As `CONFIG`.
    rounds: Rounds of timing; 0 leaves the time out.
    names: Keys of `variants`, the baseline first.

  Returns:
    The content of the result file.
  """
  steps, arguments = compile_all(config, names)
  memory = {k: v.memory_analysis().temp_size_in_bytes for k, v in steps.items()}
  ratios = time_ratios(steps, arguments, rounds) if rounds else {}
  base = flops(steps[BASELINE])
  rows = [
    {
      "variant": name,
      "flops": flops(step),
      "flops_ratio": round(flops(step) / base, 3),
      "goal": GOALS.get(name),
      "temporary_bytes": memory[name],
      "temporary_ratio": round(memory[name] / memory[BASELINE], 3),
      "time_ratio": round(ratios[name], 2) if ratios else None,
    }
    for name, step in steps.items()
  ]
  return {
    "config": config,
    "parameters": sum(x.size for x in jax.tree.leaves(arguments[BASELINE][0])),
    "timing_rounds": rounds,
    "hardware": f"{os.cpu_count()}-core {platform.machine()} "
    f"{jax.default_backend().upper()}",
    "jax": jax.__version__,
    "rows": rows,
  }


def markdown(results: dict) -> str:
  """Format results as a table."""
  lines = [
    "| variant | FLOPs | goal | temporary memory | time |",
    "|---|---|---|---|---|",
  ]
  for row in results["rows"]:
    goal = "" if row["goal"] is None else f"<= {row['goal']:.2f}"
    took = "" if row["time_ratio"] is None else f"{row['time_ratio']:.2f}"
    lines.append(
      f"| {row['variant']} | {row['flops_ratio']:.3f} | {goal} "
      f"| {row['temporary_ratio']:.2f} | {took} |"
    )
  return "\n".join(lines) + "\n"


def main() -> int:
  """Run the experiment; 1 if a goal is missed."""
  parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
  parser.add_argument(
    "--quick",
    action="store_true",
    help="a smaller network, fewer variants; write nothing",
  )
  parser.add_argument(
    "--no-timing", action="store_true", help="FLOPs and memory only"
  )
  given = parser.parse_args()
  config, rounds, names = (
    (QUICK, 5, QUICK_NAMES) if given.quick else (CONFIG, 9, None)
  )
  results = measure(config, 0 if given.no_timing else rounds, names)
  print(json.dumps(results, indent=2))
  print(markdown(results))
  if not given.quick:
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps(results, indent=2) + "\n"
    (RESULTS / "step_cost.json").write_text(text)
    (RESULTS / "step_cost.md").write_text(markdown(results))
  missed = [
    f"{row['variant']}: {row['flops_ratio']} > {row['goal']}"
    for row in results["rows"]
    if row["goal"] is not None and row["flops_ratio"] > row["goal"]
  ]
  for line in missed:
    print(f"goal missed: {line}", file=sys.stderr)
  return 1 if missed else 0


if __name__ == "__main__":
  sys.exit(main())
