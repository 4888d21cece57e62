"""Reports as text."""

import math
from typing import Any

from jaxflow.compilation.chips import GIB
from jaxflow.compilation.report import Report
from jaxflow.compilation.topologies import Topology


def report_header(
  name: str, topology: Topology, mesh: dict[str, int], hosts: int
) -> str:
  """Return the line above all tables: method, devices, their figures, mesh."""
  chip = topology.chip
  devices = f"{topology.size} host devices"
  if chip is not None:
    devices = (
      f"{topology.size} chips on {hosts} host(s), a chip with "
      f"{chip.hbm / GIB:.0f} GiB, {chip.peak_flops / 1e12:.0f} TFLOP/s of "
      f"bfloat16, {chip.hbm_bandwidth / 1e9:.0f} GB/s to its memory and "
      f"{chip.link_bandwidth / 1e9:.0f} GB/s to other chips"
    )
  axes = ", ".join(f"{k} {v}" for k, v in mesh.items())
  return f"{name} on {topology.name}: {devices}; mesh {axes}"


def report_table(report: Report, topology: Topology) -> str:
  """Return the table of one program: memory, FLOPs, traffic, times."""
  lines = [
    f"{report.name} ({report.rows} samples)",
    *_memory(report),
    *_work(report, topology),
    *_collectives(report),
    f"  {'lowered in':<22}{report.lower_seconds:.1f} s, compiled in "
    f"{report.compile_seconds:.1f} s here, {report.cpu_seconds:.1f} s of its "
    "cores",
    *(f"  note: {note}" for note in report.notes),
  ]
  return "\n".join(lines)


def _memory(report: Report) -> list[str]:
  lines = [f"  {k:<22}{_size(v)}" for k, v in report.resident.items()]
  if report.arguments is not None:
    padding = report.arguments - sum(report.resident.values())
    if padding > 0.01 * report.arguments:
      lines.append(f"  {'layout and counters':<22}{_size(padding)}")
    lines.append(f"  {'temporary':<22}{_size(report.temporaries or 0)}")
  verdict = ""
  if report.limit is not None:
    fits = "fits" if report.fits else "does not fit"
    verdict = f" of {_size(report.limit).strip()}: {fits}"
  return [*lines, f"  {'memory in all':<22}{_size(report.total)}{verdict}"]


def _work(report: Report, topology: Topology) -> list[str]:
  if math.isnan(report.flops):
    return []
  chip = topology.chip
  least = ""
  if chip is not None:
    seconds = chip.compute_seconds(report.flops)
    least = f", {1e3 * seconds:.2f} ms at the chip's peak"
  lines = [f"  {'FLOPs':<22}{report.flops:10.4g}{least}"]
  if report.kernel_seconds is not None:
    estimate = f"{1e3 * report.kernel_seconds:10.2f} ms"
    lines.append(f"  {'kernels':<22}{estimate}, the compiler's estimate")
  if chip is not None and report.bytes_sent:
    links = f"{1e3 * chip.link_seconds(report.bytes_sent):10.2f} ms"
    lines.append(f"  {'links':<22}{links} at their bandwidth")
  return lines


def _collectives(report: Report) -> list[str]:
  """Return a line for each kind of collective, with the numbers of one step."""
  lines = []
  for kind, moved in _moved(report).items():
    shapes = [s for c in report.collectives if c.kind == kind for s in c.shapes]
    largest = max(shapes, key=lambda shape: shape.bytes)
    dims = ",".join(map(str, largest.dims))
    lines.append(
      f"  {kind:<22}{moved['count']:10.4g} times, {moved['bytes'] / 1e6:.4g} "
      f"MB, {moved['sent'] / 1e6:.4g} MB sent; largest {largest.dtype}[{dims}]"
    )
  return lines or [f"  {'collectives':<22}{'none':>10}"]


def _moved(report: Report) -> dict[str, dict[str, float]]:
  """Return count, bytes, and bytes sent, of one step, by kind of collective."""
  moved = {}
  for c in report.collectives:
    each = {"count": 1, "bytes": c.bytes, "sent": c.bytes_sent}
    entry = moved.setdefault(c.kind, dict.fromkeys(each, 0))
    for name, value in each.items():
      entry[name] += c.count * value / report.steps
  return moved


def report_record(report: Report) -> dict[str, Any]:
  """Return a report as JSON values."""
  return {
    "program": report.name,
    "samples": report.rows,
    "memory": report.resident,
    "temporary": report.temporaries,
    "total": report.total,
    "limit": report.limit,
    "fits": report.fits,
    "flops": None if math.isnan(report.flops) else report.flops,
    "kernel_seconds": report.kernel_seconds,
    "collectives": _moved(report),
    "sent": report.bytes_sent,
    "lower_seconds": round(report.lower_seconds, 2),
    "compile_seconds": round(report.compile_seconds, 2),
    "cpu_seconds": round(report.cpu_seconds, 2),
  }


def _size(size: float) -> str:
  if size >= 0.1 * GIB:
    return f"{size / GIB:10.2f} GiB"
  return f"{size / 2**20:10.2f} MiB"
