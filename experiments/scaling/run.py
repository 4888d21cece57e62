"""What training on TPU pods would take, read from programs compiled for them.

Four tables, one entry a compiled training step:

  published  MeanFlow's config of ImageNet's latents, DiT-XL/2, batch 1024: does
             it fit, what does it move
  pods       the same in bfloat16 without guidance and recomputation: how long
             does it compile with scanned and with unrolled layers
  methods    FLOPs of a chip for every row of METHODS, relative to flow matching
  weak       8 to 2,048 chips with as many samples each: compute time against
             the time of the collectives

  python experiments/scaling/run.py            # hours on two cores; needs [tpu]
  python experiments/scaling/run.py --quick    # under a minute, host devices

Entries in results/ are kept: a run that is stopped goes on with the next. The
tables are written into docs/scaling.md too; --saved writes those of the entries
that there are.
"""

import argparse
import json
import pathlib
import sys
from collections.abc import Iterator

from jaxflow import compilation
from jaxflow.compilation import CHIPS, Chip, Topology
from jaxflow.compilation.chips import GIB
from jaxflow.compilation.of_config import assumed_plan
from jaxflow.config import default_config
from jaxflow.config.presets import load_file
from jaxflow.methods import METHODS
from jaxflow.models.dit import SIZES
from jaxflow.parallel import sharding
from jaxflow.plans import Plan
from jaxflow.runs.run import Run

RESULTS = pathlib.Path(__file__).parent / "results"
ROOT = pathlib.Path(__file__).parents[2]
CONFIG = ROOT / "configs/imagenet256_latent.py"
PAGE = ROOT / "docs/scaling.md"
BASELINE = "flow_matching"
METHOD = "mean_flow"
BATCH = 1024
FSDP = 8
# Pod, chips that share a copy of the parameters, layers, rows of a block: on
# 512 chips there are two rows a chip.
PODS = [
  ("v5e:16x16", 1, "scanned", 4),
  ("v5e:16x16", 16, "scanned", 4),
  ("v5p:8x8x8", 1, "scanned", 4),
  ("v5p:8x8x8", 1, "scanned", 2),
  ("v5p:8x8x8", 8, "scanned", 2),
  ("v5p:8x8x8", 1, "unrolled", 2),
]
PUBLISHED = [
  ("v5e:16x16", 16, 4),
  ("v5p:8x8x8", 1, 2),
  ("v5e:16x16", 1, 4),
  ("v5p:8x8x8", 8, 2),
]
QUICK_PUBLISHED = [("host:8", 2, 4)]
QUICK_PODS = [("host:8", 1, "unrolled", 4)]

NETWORK = {**SIZES["XL"], "patch_size": 2, "dtype": "bfloat16"}
SMALLER = {**SIZES["B"], "patch_size": 2, "dtype": "bfloat16"}
TINY = {**SIZES["tiny"], "depth": 1, "patch_size": 8, "dtype": "bfloat16"}
# Counts of FLOPs and bytes do not depend on how hard the compiler tries.
QUICKLY = {"exec_time_optimization_effort": -1.0}
ON_HOST = {
  "xla_backend_optimization_level": 0,
  "xla_llvm_disable_expensive_passes": True,
}


def plan_of(
  method: str, network: dict, batch_size: int, *, pairs: bool = False
) -> Plan:
  """Return the plan of a method on ImageNet's latents.

  Args:
    method: A row of METHODS.
    network: Options of the network.
    batch_size: Samples of a step.
    pairs: Whether every second row has an interval, a random half of which are
      of length 0, instead of every fourth: the same law on two rows a chip.
  """
  config = default_config(method, data="latents", model="dit")
  if pairs:
    config.loss.block, config.times.equal = (2, 1), 0.5
  config.data.shape, config.data.num_classes = (32, 32, 4), 1000
  config.model.update(**{"scan_layers": True, **network})
  config.train.update(batch_size=batch_size, steps_per_dispatch=1)
  return assumed_plan(config)[0]


def entry(
  plan: Plan, topology: Topology, mesh: dict, options: dict | None = None
) -> dict:
  """Compile the training step of a plan; return its report and the mesh."""
  arranged = sharding.make_mesh(**mesh, devices=topology.devices())
  step = compilation.programs(Run(plan), arranged, steps=1)[0]
  report = compilation.compile_program(
    step, chip=topology.chip, options=options
  )
  row = compilation.report_record(report)
  return {"topology": topology.name, "mesh": dict(arranged.shape), **row}


def pods(quick: bool) -> Iterator[tuple[str, tuple]]:
  """Yield names and arguments of `entry`."""
  network, batch_size = (TINY, 64) if quick else (NETWORK, BATCH)
  for name, fsdp, layers, block in QUICK_PODS if quick else PODS:
    options = {**network, "scan_layers": layers == "scanned"}
    plan = plan_of(METHOD, options, batch_size, pairs=block == 2)
    kind = f"fsdp {fsdp}" if fsdp > 1 else "replicated"
    title = f"{name}, {kind}, {layers}, 1 interval in {block} rows"
    options = ON_HOST if quick else None
    yield title, (plan, Topology.parse(name), {"fsdp": fsdp}, options)


def published(quick: bool) -> Iterator[tuple[str, tuple]]:
  """Yield names and arguments of `entry`: the config as it is."""
  for name, fsdp, block in QUICK_PUBLISHED if quick else PUBLISHED:
    config = load_file(f"{CONFIG}:{METHOD}{'-S/4' if quick else ''}")
    config.train.update(steps_per_dispatch=1)
    if quick:
      config.model.update(TINY, dtype="float32")
      config.train.batch_size = 64
    if block == 2:
      config.loss.block, config.times.equal = (2, 1), 0.5
    kind = f"fsdp {fsdp}" if fsdp > 1 else "replicated"
    title = f"{name}, {kind}, 1 interval in {block} rows"
    options = ON_HOST if quick else None
    topology = Topology.parse(name)
    yield title, (assumed_plan(config)[0], topology, {"fsdp": fsdp}, options)


def methods(quick: bool) -> Iterator[tuple[str, tuple]]:
  """Yield rows of METHODS and arguments of `entry`."""
  topology = Topology.parse("host:8" if quick else "v5e:4x4")
  # Enough for the largest block of rows, 16.
  batch_size = 16 * topology.size
  for name in [BASELINE, METHOD] if quick else METHODS:
    plan = plan_of(name, TINY if quick else SMALLER, batch_size)
    yield name, (plan, topology, {}, ON_HOST if quick else QUICKLY)


def weak(quick: bool) -> Iterator[tuple[str, tuple]]:
  """Yield names and arguments of `entry`; 8 samples a chip."""
  names = ["v5p:2x2x2", "v5p:4x4x4", "v5p:8x8x8", "v5p:8x16x16"]
  for name in ["host:8"] if quick else names:
    topology = Topology.parse(name)
    network, fsdp = (TINY, 2) if quick else (NETWORK, FSDP)
    plan = plan_of(METHOD, network, 8 * topology.size)
    for kind, axes in (("replicated", {}), (f"fsdp {fsdp}", {"fsdp": fsdp})):
      options = ON_HOST if quick else QUICKLY
      yield f"{name}, {kind}", (plan, topology, axes, options)


PARTS = {"published": published, "pods": pods, "methods": methods, "weak": weak}


def pods_table(entries: dict[str, dict]) -> list[str]:
  """Return the lines of the first table."""
  lines = [
    "| pod, parameters, rows | state | temporary | memory | TFLOPs "
    "| sums | gathers | scattered sums | others | compile |",
    "|---|---|---|---|---|---|---|---|---|---|",
  ]
  for name, row in entries.items():
    state = sum(row["memory"].values())
    fits = "fits" if row["fits"] else "**does not fit**"
    limit = f" of {_gib(row['limit'])}" if row["limit"] else ""
    memory = f"{_gib(row['total'])}{limit} GiB, {fits}"
    # Unrolled layers are there for their compile time.
    shown = row["fits"] and "unrolled" not in name
    moved = dict(row["collectives"])
    kinds = ("all-reduce", "all-gather", "reduce-scatter")
    known = [moved.pop(kind, {"bytes": 0})["bytes"] for kind in kinds]
    rest = sum(kind["bytes"] for kind in moved.values())
    sizes = [_mb(size) for size in (*known, rest)]
    flops = row["flops"]
    cells = [
      name,
      _gib(state),
      _gib(row["temporary"]),
      memory,
      "" if flops is None else f"{flops / 1e12:.3g}",
      *(sizes if shown else [""] * 4),
      f"{row['compile_seconds']:.0f} s, {row['cpu_seconds']:.0f} s of cores",
    ]
    lines.append("| " + " | ".join(cells) + " |")
  return lines


def methods_table(entries: dict[str, dict]) -> list[str]:
  """Return the lines of the second table."""
  base = entries[BASELINE]

  def relative(row, key, form):
    known = row[key] is not None and base[key]
    return format(row[key] / base[key], form) if known else ""

  lines = [
    "| row | GFLOPs a sample | relative | temporary | sums |",
    "|---|---|---|---|---|",
  ]
  for name, row in entries.items():
    if not row["fits"]:
      total, limit = _gib(row["total"]), _gib(row["limit"])
      lines.append(f"| `{name}` | | | {total} of {limit} GiB: no fit | |")
      continue
    chips = Topology.parse(row["topology"]).size
    sums = row["collectives"].get("all-reduce", {"bytes": 0})["bytes"]
    cells = [
      f"`{name}`",
      f"{row['flops'] * chips / row['samples'] / 1e9:.1f}",
      relative(row, "flops", ".3f"),
      relative(row, "temporary", ".2f"),
      _mb(sums),
    ]
    lines.append("| " + " | ".join(cells) + " |")
  return lines


def weak_row(row: dict, chip: Chip) -> dict | None:
  """Compute times from FLOPs and bytes, and where they are equal.

  Parameters are all that is moved, so the time of it does not depend on the
  samples of a chip, and the time to compute is proportional to them.

  Args:
    row: What `entry` returns.
    chip: The chip.

  Returns:
    Seconds of the matrix products at the chip's peak, of what is sent over its
    links, and of reading and writing that in its memory; the samples a chip at
    which links and products take equally long; and the chips among which a
    batch of `BATCH` then is shared. None of a program that was refused.
  """
  if row["flops"] is None:
    return None
  per_chip = row["samples"] / Topology.parse(row["topology"]).size
  compute = chip.compute_seconds(row["flops"])
  links = chip.link_seconds(row["sent"])
  samples = per_chip * links / compute
  return {
    "compute": compute,
    "links": links,
    "memory": 2 * row["sent"] / chip.hbm_bandwidth,
    "samples": samples,
    "chips": BATCH / samples if samples else float("inf"),
  }


def weak_table(entries: dict[str, dict]) -> list[str]:
  """Return the lines of the third table."""
  lines = [
    "| pod, parameters | chips | products | sent by a chip | links | memory "
    f"| equal at samples a chip | equal at chips, batch {BATCH} |",
    "|---|---|---|---|---|---|---|---|",
  ]
  for name, row in entries.items():
    topology = Topology.parse(row["topology"])
    # Host devices have no published figures; any chip's show the arithmetic.
    times = weak_row(row, topology.chip or CHIPS["v5p"])
    cells = [""] * 6
    if times is not None:
      cells = [
        *(f"{1e3 * times['compute']:.3g} ms", f"{row['sent'] / 1e9:.3g} GB"),
        *(f"{1e3 * times[k]:.3g} ms" for k in ("links", "memory")),
        *(f"{times['samples']:.2g}", f"{times['chips']:,.0f}"),
      ]
    lines.append("| " + " | ".join([name, f"{topology.size:,}", *cells]) + " |")
  return lines


TABLES = {
  "published": pods_table,
  "pods": pods_table,
  "methods": methods_table,
  "weak": weak_table,
}


def insert(part: str, text: str) -> None:
  """Put a table in its place on the page."""
  page = PAGE.read_text()
  before, mark, rest = page.partition(f"<!-- {part} -->\n")
  _, end, after = rest.partition("<!-- end -->\n")
  assert mark and end, part
  PAGE.write_text(f"{before}{mark}\n{text}\n{end}{after}")


def measure(part: str, quick: bool, only_saved: bool) -> dict[str, dict]:
  """Compile what a part lacks; return all of its entries, in order."""
  file = RESULTS / f"{part}.json"
  saved = {}
  if not quick and file.exists():
    saved = json.loads(file.read_text())
  entries = {}
  for name, arguments in PARTS[part](quick):
    if name not in saved and only_saved:
      continue
    if name not in saved:
      print(f"{part}: compiling {name}", file=sys.stderr, flush=True)
      saved[name] = entry(*arguments)
      if not quick:
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(saved, indent=2) + "\n")
    entries[name] = saved[name]
  return entries


def main() -> int:
  """Run the experiment."""
  parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
  parser.add_argument(
    "--quick", action="store_true", help="host devices; write nothing"
  )
  parser.add_argument("--saved", action="store_true", help="compile nothing")
  parser.add_argument("--part", choices=PARTS, action="append")
  given = parser.parse_args()
  if not given.saved:
    Topology.parse("host:8" if given.quick else "v5e:2x2").prepare()
  for part in given.part or PARTS:
    lines = TABLES[part](measure(part, given.quick, given.saved))
    text = "\n".join(lines) + "\n"
    print(f"\n{text}", flush=True)
    if not given.quick:
      (RESULTS / f"{part}.md").write_text(text)
      insert(part, text)
  return 0


def _gib(size: float | None) -> str:
  return "" if size is None else f"{size / GIB:.2f}"


def _mb(size: float) -> str:
  return f"{size / 1e6:.3g} MB" if size < 1e9 else f"{size / 1e9:.3g} GB"


if __name__ == "__main__":
  sys.exit(main())
