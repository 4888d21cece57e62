"""How fast a training step runs on an accelerator.

MeanFlow's step of a DiT-B/2 in bfloat16 on ImageNet's latents, with scanned and
with unrolled layers, with and without recomputation. Model FLOPs are 3.25
forward passes a sample, recomputation not counted: forward, backward, and the
derivative of a quarter of the rows.

  python experiments/accelerator/run.py            # an accelerator; minutes
  python experiments/accelerator/run.py --quick    # any device; prints only
"""

import argparse
import itertools
import json
import pathlib
import statistics
import sys
import time

import jax
import jax.numpy as jnp

from jaxflow import compilation
from jaxflow.compilation import CHIPS, Topology
from jaxflow.compilation.of_config import assumed_plan
from jaxflow.config import default_config
from jaxflow.models.dit import SIZES
from jaxflow.parallel import sharding
from jaxflow.plans import Plan
from jaxflow.runs import start
from jaxflow.runs.run import Run

RESULTS = pathlib.Path(__file__).parent / "results"
FULL = {**SIZES["B"], "patch_size": 2}
TINY = {**SIZES["tiny"], "depth": 1, "patch_size": 8}
# Forward 1, backward 2, derivative of 1 row in 4.
FORWARDS = 3.25

# Peaks of dense bfloat16 arithmetic, FLOP/s, by the name that JAX gives the
# device, or whole words of it; NVIDIA's from the data sheets of the products.
PEAKS = {
  "NVIDIA A100": 312e12,
  "NVIDIA H100 80GB HBM3": 989e12,
  "NVIDIA H100 NVL": 835e12,
  "NVIDIA H100 PCIe": 756e12,
  "NVIDIA H200": 989e12,
  "NVIDIA H200 NVL": 835e12,
  "NVIDIA L4": 121e12,
  "NVIDIA L40": 181e12,
  "NVIDIA L40S": 362e12,
  "TPU v4": CHIPS["v4"].peak_flops,
  "TPU v5 lite": CHIPS["v5e"].peak_flops,
  "TPU v5": CHIPS["v5p"].peak_flops,
  "TPU v6 lite": CHIPS["v6e"].peak_flops,
}


def plan_of(network: dict, batch_size: int, **options) -> Plan:
  """Return MeanFlow's plan on ImageNet's latents."""
  config = default_config("mean_flow", data="latents", model="dit")
  config.data.shape, config.data.num_classes = (32, 32, 4), 1000
  config.model.update(dtype="bfloat16", **network, **options)
  config.train.update(batch_size=batch_size, steps_per_dispatch=1)
  config.sample.batch_size = batch_size
  return assumed_plan(config)[0]


def peak_of(kind: str) -> float | None:
  """Return the peak of a device by its `device_kind`, None if it is not known.

  Of the names whose words it has, the longest counts. A part of a GPU (MIG) has
  a part of its peak, so none is told.
  """
  words = f" {kind.replace('-', ' ')} "
  found = [name for name in PEAKS if f" {name} " in words]
  if not found or " MIG " in words:
    return None
  return PEAKS[max(found, key=len)]


def forward_flops(network: dict) -> float:
  """Count the FLOPs of one network call of one sample, on a host device."""
  (host,) = Topology.parse("host:1").devices()
  mesh = sharding.make_mesh(devices=[host])
  run = Run(plan_of(network, 4))
  sampler = compilation.programs(run, mesh, steps=1)[1]
  return compilation.compile_program(sampler).flops / sampler.rows


def seconds(plan: Plan, steps: int) -> float:
  """Time training steps from a fresh state; return the median of one."""
  run, mesh = Run(plan), sharding.make_mesh()
  template = run.template(mesh)
  step = run.jitted_step(template, mesh)
  state = start.first_state(run, template, {})
  batch = jax.tree.map(
    lambda x: jnp.ones(x.shape, x.dtype, device=x.sharding),
    run.batch_shapes(mesh, steps=1),
  )
  laps = []
  for _ in range(steps + 2):
    began = time.perf_counter()
    state, metrics = step(jnp.uint32(0), state, batch)
    jax.block_until_ready(metrics)
    laps.append(time.perf_counter() - began)
  return statistics.median(laps[2:])


def main() -> int:
  """Run the experiment."""
  parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
  parser.add_argument(
    "--quick", action="store_true", help="tiny, one variant; write nothing"
  )
  parser.add_argument("--batch_size", type=int, default=256)
  given = parser.parse_args()
  network, steps = (TINY, 2) if given.quick else (FULL, 20)
  batch_size = 8 * jax.device_count() if given.quick else given.batch_size
  kind = jax.devices()[0].device_kind
  each = peak_of(kind)
  peak = None if each is None else each * jax.device_count()
  model = FORWARDS * forward_flops(network)
  rows = []
  variants = list(itertools.product((True, False), repeat=2))
  for scan, remat in variants[:1] if given.quick else variants:
    options = {"scan_layers": scan, "remat": remat}
    took = seconds(plan_of(network, batch_size, **options), steps)
    speed = batch_size / took
    used = None if peak is None else speed * model / peak
    rows.append({**options, "samples_per_second": speed, "mfu": used})
    print(f"{rows[-1]}", file=sys.stderr)
  results = {
    "device": f"{jax.device_count()} x {kind}",
    "jax": jax.__version__,
    "batch_size": batch_size,
    "model_flops_per_sample": model,
    "rows": rows,
  }
  text = markdown(results)
  print(f"{results['device']}, batch {batch_size}\n\n{text}")
  if not given.quick:
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "step.json").write_text(json.dumps(results, indent=2) + "\n")
    (RESULTS / "step.md").write_text(text)
  return 0


def markdown(results: dict) -> str:
  """Format results as a table."""
  lines = ["| layers | recomputed | samples/s | MFU |", "|---|---|---|---|"]
  for row in results["rows"]:
    mfu = "" if row["mfu"] is None else f"{100 * row['mfu']:.1f} %"
    lines.append(
      f"| {'scanned' if row['scan_layers'] else 'unrolled'} "
      f"| {'yes' if row['remat'] else 'no'} "
      f"| {row['samples_per_second']:.4g} | {mfu} |"
    )
  return "\n".join(lines) + "\n"


if __name__ == "__main__":
  sys.exit(main())
