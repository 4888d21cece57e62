"""What attention of many tokens takes: all pairs, blocks, kernels.

Value and gradient of a loss whose target has a tangent, as MeanFlow's, by the
queries, keys and values of one layer and one sample:

  tpu  compiled for absent TPUs: temporary memory, FLOPs, times
  cpu  memory and FLOPs, and how long blocks take relative to all pairs

  python -m experiments.attention.run           # 20 minutes; needs [tpu]
  python -m experiments.attention.run --quick   # under a minute, prints only

Entries in results/ are kept: delete one to measure it anew.
"""

import argparse
import functools
import json
import pathlib
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import SingleDeviceSharding

from experiments.runner import pages
from jaxflow import compilation
from jaxflow.compilation import CHIPS, Program, Topology
from jaxflow.models.attention import attention

HERE = pathlib.Path(__file__).parent
RESULTS = HERE / "results"
MIB = 2**20
CHIP_NAMES = ("v5e:2x2", "v5p:2x2x1", "v6e:2x2")
CHIP_TOKENS = (1024, 4096, 16384)
# Attention of a DiT-XL, in the arithmetic of pods.
HEADS, FEATURES, DTYPE = 16, 72, "bfloat16"
CPU_TOKENS = (256, 512, 1024, 2048, 4096, 8192, 16384)
CPU_HEADS, CPU_FEATURES = 2, 64
# All pairs of more tokens are compiled, and not run.
MOST_RUN = 4096
REPEATS = 5


def gradient_of(kind: str) -> Callable[..., Any]:
  """Return `(q, k, v), tangents -> loss and gradients`."""

  def loss(point, direction):
    attend = functools.partial(attention, kind=kind)
    value, tangent = jax.jvp(attend, point, direction)
    target = jax.lax.stop_gradient(direction[2] - tangent)
    return ((value - target).astype(jnp.float32) ** 2).mean()

  return jax.value_and_grad(loss)


def program_of(
  kind: str, device: Any, tokens: int, heads: int, features: int, dtype: str
) -> Program:
  """Return the program of one layer and sample on a device."""
  where = SingleDeviceSharding(device)
  shape = (1, tokens, heads, features)
  x = jax.ShapeDtypeStruct(shape, jnp.dtype(dtype), sharding=where)
  return Program(
    name=f"{kind}, {tokens} tokens",
    function=jax.jit(gradient_of(kind)),
    arguments=((x, x, x), (x, x, x)),
    resident={},
    rows=1,
  )


def on_chip(name: str, kind: str, tokens: int) -> dict[str, Any]:
  """Compile for one chip."""
  topology = Topology.parse(name)
  device = topology.devices()[0]
  program = program_of(kind, device, tokens, HEADS, FEATURES, DTYPE)
  report = compilation.compile_program(program, chip=topology.chip)
  row = {"temporary": report.temporaries, "needs": report.total}
  if report.fits:
    row |= {"flops": report.flops, "seconds": report.kernel_seconds}
  return row


def on_host(kind: str, tokens: int) -> dict[str, Any]:
  """Compile for this machine."""
  shape = tokens, CPU_HEADS, CPU_FEATURES, "float32"
  program = program_of(kind, jax.devices("cpu")[0], *shape)
  report = compilation.compile_program(program)
  assert report.executable is not None
  # What a report has beyond arguments are temporaries and results.
  memory = report.executable.memory_analysis()
  assert memory is not None
  return {"temporary": memory.temp_size_in_bytes, "flops": report.flops}


def seconds(tokens: int, kinds: tuple[str, ...]) -> list[float]:
  """Return the median time of each kind, run in turns."""
  shape = (1, tokens, CPU_HEADS, CPU_FEATURES)
  keys = jax.random.split(jax.random.key(0), 6)
  arrays = [jax.random.normal(key, shape) for key in keys]
  given = tuple(arrays[:3]), tuple(arrays[3:])
  functions = [jax.jit(gradient_of(kind)) for kind in kinds]
  jax.block_until_ready([function(*given) for function in functions])
  found: list[list[float]] = [[] for _ in kinds]
  for _ in range(REPEATS):
    for function, times in zip(functions, found, strict=True):
      began = time.perf_counter()
      jax.block_until_ready(function(*given))
      times.append(time.perf_counter() - began)
  return [statistics.median(times) for times in found]


def tpu(quick: bool) -> Iterator[tuple[str, Callable[[], dict]]]:
  """Yield names and measurements of the first table; none in short."""
  for name in () if quick else CHIP_NAMES:
    for tokens in CHIP_TOKENS:
      for kind in ("xla", "blocks", "kernel"):
        measure = functools.partial(on_chip, name, kind, tokens)
        yield f"{name.partition(':')[0]}, {tokens}, {kind}", measure


def cpu(quick: bool) -> Iterator[tuple[str, Callable[[], dict]]]:
  """Yield names and measurements of the second table."""

  def measure(tokens: int) -> dict[str, Any]:
    kinds = "xla", "blocks"
    row = {kind: on_host(kind, tokens) for kind in kinds}
    if tokens <= MOST_RUN:
      times = seconds(tokens, kinds)
      row |= {"seconds": dict(zip(kinds, times, strict=True))}
    return row

  for tokens in CPU_TOKENS[: 2 if quick else None]:
    yield str(tokens), functools.partial(measure, tokens)


def tpu_table(rows: dict[str, dict]) -> str:
  """Return the first table."""
  lines = [
    "| chip | tokens | kind | temporary, MiB | GFLOPs | products at peak, ms "
    "| compiler's estimate, ms |",
    "|---|--:|---|--:|--:|--:|--:|",
  ]
  for name, row in rows.items():
    chip, tokens, kind = name.split(", ")
    cells = [f"does not fit: {row['needs'] / MIB:,.0f}", "", "", ""]
    if "flops" in row:
      least = 1e3 * CHIPS[chip].compute_seconds(row["flops"])
      # There is none of a kernel.
      known = kind != "kernel" and row["seconds"] is not None
      cells = [
        f"{row['temporary'] / MIB:,.1f}",
        f"{row['flops'] / 1e9:,.1f}",
        f"{least:.2f}",
        f"{1e3 * row['seconds']:.2f}" if known else "",
      ]
    line = [chip, f"{int(tokens):,}", kind, *cells]
    lines.append("| " + " | ".join(line) + " |")
  return "\n".join(lines) + "\n"


def cpu_table(rows: dict[str, dict]) -> str:
  """Return the second table."""
  lines = [
    "| tokens | temporary, MiB: all pairs | blocks | GFLOPs: all pairs "
    "| blocks | time of blocks to all pairs |",
    "|--:|--:|--:|--:|--:|--:|",
  ]
  for tokens, row in rows.items():
    pair = row["xla"], row["blocks"]
    cells = [f"{x['temporary'] / MIB:,.1f}" for x in pair]
    cells += [f"{x['flops'] / 1e9:,.2f}" for x in pair]
    times = row.get("seconds")
    cells.append(f"{times['blocks'] / times['xla']:.2f}" if times else "")
    lines.append(f"| {int(tokens):,} | " + " | ".join(cells) + " |")
  return "\n".join(lines) + "\n"


PARTS = {"tpu": (tpu, tpu_table), "cpu": (cpu, cpu_table)}


def measured(part: str, quick: bool) -> dict[str, dict]:
  """Measure what a part lacks; return all of its entries, in order."""
  file = RESULTS / f"{part}.json"
  kept = json.loads(file.read_text()) if file.exists() and not quick else {}
  rows = {}
  for name, measure in PARTS[part][0](quick):
    rows[name] = kept[name] if name in kept else measure()
    print(f"{part}: {name}: {rows[name]}", file=sys.stderr, flush=True)
    if not quick:
      RESULTS.mkdir(exist_ok=True)
      file.write_text(json.dumps(kept | rows, indent=1) + "\n")
  return rows


def main() -> int:
  """Run the study."""
  parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
  parser.add_argument(
    "--quick", action="store_true", help="few tokens on the CPU; write nothing"
  )
  parser.add_argument("--part", choices=PARTS, action="append")
  given = parser.parse_args()
  parts = given.part or list(PARTS)
  if "tpu" in parts and not given.quick:
    Topology.parse(CHIP_NAMES[0]).prepare()
  page = HERE / "README.md"
  for part in parts:
    text = PARTS[part][1](measured(part, given.quick))
    print(f"\n{text}", flush=True)
    if not given.quick:
      page.write_text(pages.filled(page.read_text(), {part: text}))
  return 0


if __name__ == "__main__":
  sys.exit(main())
