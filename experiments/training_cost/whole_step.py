"""What a whole training step costs to compile and to run, beside a plain one.

Ours is the step of a run: MeanFlow's loss, AdamW, an average and the guard
against bad steps. The plain one is the published formula, row by row, with
unrolled layers, AdamW and an average, written as one would write them first.

  python -m experiments.training_cost.whole_step           # 10 minutes
  python -m experiments.training_cost.whole_step --quick   # prints only

CPU seconds are those of all cores, medians of rounds in which both take turns;
FLOPs are those of matrix products.
"""

import argparse
import functools
import json
import pathlib
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from experiments.runner import pages
from experiments.training_cost.steps import make_arguments
from experiments.training_cost.variants import variants
from jaxflow.compilation import Program, compile_program
from jaxflow.models import SIZES
from jaxflow.training import ema
from jaxflow.training.state import init_state
from jaxflow.training.step import make_train_step

HERE = pathlib.Path(__file__).parent
FILE = HERE / "results" / "whole_step.json"
LATENTS = {"data_shape": (32, 32, 4), "patch_size": 2, "num_classes": 1000}
NETWORKS = {
  # Of configs/digits.py, where blocks are unrolled.
  "digits": {
    **{"batch_size": 128, "depth": 2, "width": 96, "num_heads": 2},
    **{"data_shape": (8, 8, 1), "patch_size": 4, "num_classes": 10},
  },
  "DiT-S/2": {"batch_size": 16, **SIZES["S"], **LATENTS},
  "DiT-B/2": {"batch_size": 16, **SIZES["B"], **LATENTS},
}
# Networks whose steps are run, too.
RUN = {"digits"}
# Steps of our dispatch, as `train.steps_per_dispatch` has them by default.
STEPS = 25
ROUNDS = 3
# Blocks that our configs do not scan.
FEW = 4
CALLS = 25
DECAY = 0.999
OPTIMIZER = optax.adamw(1e-3, weight_decay=0.01)


def ours(network: dict[str, Any]) -> tuple[Callable, tuple]:
  """Return a run's dispatch, and its arguments."""
  scan = network["depth"] > FEW
  apply_fn, (params, _, _, batch) = make_arguments(network, scan_layers=scan)
  loss = variants(network["num_classes"])["mean_flow"]

  def loss_fn(params, state, key, batch):
    return loss(functools.partial(apply_fn, params), key, batch)

  laws = {"sampling": ema.Constant(decay=DECAY)}
  step = make_train_step(loss_fn, OPTIMIZER, laws, seed=0, packs=True)
  batch = jax.tree.map(
    lambda x: jnp.broadcast_to(x, (STEPS, 1, *x.shape)), batch
  )
  return step, (init_state(params, OPTIMIZER, laws), batch)


def plain(network: dict[str, Any]) -> tuple[Callable, tuple]:
  """Return the published formula as one step, and its arguments."""
  apply_fn, (params, _, key, batch) = make_arguments(network)
  loss = variants(network["num_classes"])["published mean_flow"]

  def step(state, batch):
    params, opt_state, average, number = state

    def mean_loss(params):
      model_fn = functools.partial(apply_fn, params)
      return loss(model_fn, jax.random.fold_in(key, number), batch)[0].mean()

    value, gradient = jax.value_and_grad(mean_loss)(params)
    updates, opt_state = OPTIMIZER.update(gradient, opt_state, params)
    params = optax.apply_updates(params, updates)
    average = optax.incremental_update(params, average, 1 - DECAY)
    return (params, opt_state, average, number + 1), value

  average = jax.tree.map(jnp.copy, params)
  return step, ((params, OPTIMIZER.init(params), average, 0), batch)


MAKERS = {"ours": ours, "plain": plain}


def compiled(name: str, who: str) -> dict[str, Any]:
  """Compile a step; return its program and what the compiler says of it."""
  steps = STEPS if who == "ours" else 1
  step, arguments = MAKERS[who](NETWORKS[name])
  function = jax.jit(step, donate_argnums=0)
  program = Program(
    name=who,
    function=function,
    arguments=arguments,
    resident={},
    steps=steps,
    rows=1,
  )
  report = compile_program(program)
  assert report.executable is not None
  return {
    "call": report.executable,
    "arguments": arguments,
    "steps": steps,
    "cpu_seconds": report.cpu_seconds,
    "flops": report.flops,
    "temporary": report.temporaries,
    "fusions": (report.executable.as_text() or "").count(" fusion("),
  }


def seconds(call: Callable, arguments: tuple, calls: int) -> float:
  """Return the CPU seconds of a call."""
  state, *rest = jax.tree.map(jnp.copy, arguments)
  began = time.process_time()
  for _ in range(calls):
    state, value = call(state, *rest)
  jax.block_until_ready(value)
  return (time.process_time() - began) / calls


def rate(network: dict[str, Any]) -> float:
  """Return FLOPs a CPU second of the MLP's product, as a program of its own."""
  width = network["width"]
  side = network["data_shape"][0] // network["patch_size"]
  rows = network["batch_size"] * side**2
  x, w = jnp.ones((rows, width)), jnp.ones((width, 4 * width))
  product = jax.jit(lambda x, w: (x @ w) @ w.T).lower(x, w).compile()
  times = [
    seconds(lambda x, w: (product(x, w),) * 2, (x, w), CALLS) for _ in range(5)
  ]
  return 2 * 2 * rows * 4 * width**2 / statistics.median(times)


def row(name: str, rounds: int) -> dict[str, Any]:
  """Measure the steps of a network in turns."""
  found: dict[str, dict[str, Any]] = {}
  for _ in range(rounds):
    for who in MAKERS:
      made = compiled(name, who)
      kept = found.setdefault(who, made | {"compile": [], "run": []})
      kept["compile"].append(made["cpu_seconds"])
  for kept in found.values():
    call, arguments = kept.pop("call"), kept.pop("arguments")
    steps = kept.pop("steps")
    if name in RUN:
      calls = max(CALLS // steps, 1)
      kept["run"] = [
        seconds(call, arguments, calls) / steps for _ in range(rounds)
      ]
      kept["rate"] = rate(NETWORKS[name])
    kept.pop("cpu_seconds")
  return found


def table(rows: dict[str, dict]) -> str:
  """Return the measurements as a table; ratios are of medians."""
  lines = [
    "| network | compiling, CPU seconds: ours | plain | ratio | GFLOPs: ours "
    "| plain | temporary, MiB: ours | plain | fusions: ours | plain |",
    "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
  ]
  for name, found in rows.items():
    pair = found["ours"], found["plain"]
    times = [statistics.median(x["compile"]) for x in pair]
    cells = [*(f"{x:.1f}" for x in times), f"{times[0] / times[1]:.2f}"]
    cells += [f"{x['flops'] / 1e9:,.2f}" for x in pair]
    cells += [f"{x['temporary'] / 2**20:,.0f}" for x in pair]
    cells += [f"{x['fusions']:,}" for x in pair]
    lines.append(f"| {name} | " + " | ".join(cells) + " |")
  for name in RUN:
    if name not in rows:
      continue
    for who, x in rows[name].items():
      took = statistics.median(x["run"])
      share = x["flops"] / took / x["rate"]
      lines += [
        "",
        f"A step of {name}, {who}: {1e3 * took:.0f} ms of CPU time, "
        f"{share:.0%} of the rate of its products alone.",
      ]
  return "\n".join(lines) + "\n"


def main() -> int:
  """Measure, print, and write results and page."""
  parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
  parser.add_argument("--quick", action="store_true", help="print only")
  quick = parser.parse_args().quick
  # Every round compiles anew.
  jax.config.update("jax_enable_compilation_cache", False)
  rows = {}
  for name in ("digits",) if quick else NETWORKS:
    rows[name] = row(name, 1 if quick else ROUNDS)
    print(f"{name}: {rows[name]}", file=sys.stderr, flush=True)
  text = table(rows)
  print(text)
  if not quick:
    FILE.write_text(json.dumps(rows, indent=1) + "\n")
    page = HERE / "README.md"
    page.write_text(pages.filled(page.read_text(), {"whole step": text}))
  return 0


if __name__ == "__main__":
  sys.exit(main())
