"""Compile a program from shapes; read what it needs of each device."""

import dataclasses
import math
import re
import time
from typing import Any

import jax

from jaxflow.compilation.chips import GIB, Chip
from jaxflow.compilation.collectives import Collective, collectives
from jaxflow.compilation.hlo import Module
from jaxflow.compilation.loops import executions, matmul_flops
from jaxflow.errors import option_of
from jaxflow.types import PyTree

_TOO_LARGE = re.compile(
  r"HLO temporaries \(([\d.]+[KMGT])\) exceeds available HBM"
  r"(?: \(([\d.]+[KMGT])\))?"
)
_UNITS = {"K": 2**10, "M": 2**20, "G": GIB, "T": 2**40}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Program:
  """A program that can be compiled without data or parameters.

  Attributes:
    name: Name of the program.
    function: The jitted function.
    arguments: Its positional arguments as `jax.ShapeDtypeStruct`.
    resident: The arguments that stay in memory, by description.
    steps: Steps of one execution.
    rows: Samples of a step, over all devices.
    notes: Differences from an actual run.
  """

  name: str
  function: Any
  arguments: tuple[PyTree, ...]
  resident: dict[str, PyTree]
  steps: int = 1
  rows: int
  notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
  """Resources of a program on one device; FLOPs and bytes are of one step.

  Attributes:
    name: Name of the program.
    resident: Bytes of the arguments that stay in memory, by description,
      without layout padding.
    total: Peak bytes; if the program does not fit, the bytes it requests.
    limit: Available bytes, or None if unknown.
    arguments: Bytes of all arguments with padding; None if it does not fit.
    flops: FLOPs of matrix products.
    collectives: Its collectives.
    steps: Steps of one execution.
    rows: Samples of a step, over all devices.
    lower_seconds: Time to trace and lower it on this host.
    compile_seconds: Time to compile it on this host.
    cpu_seconds: CPU time of all cores while it compiled.
    kernel_seconds: The compiler's estimate of a step's kernels on the chip,
      without waiting for collectives; None without an estimate.
    notes: Differences from an actual run, and limits of the counts.
    executable: The compiled program; None if it does not fit.
  """

  name: str
  resident: dict[str, int]
  total: int
  limit: int | None
  arguments: int | None = None
  flops: float = math.nan
  collectives: list[Collective] = dataclasses.field(default_factory=list)
  steps: int
  rows: int
  lower_seconds: float
  compile_seconds: float
  cpu_seconds: float
  kernel_seconds: float | None = None
  notes: tuple[str, ...] = ()
  executable: jax.stages.Compiled | None = dataclasses.field(
    default=None, repr=False, compare=False
  )

  @property
  def fits(self) -> bool:
    """Whether the program fits into memory."""
    compiled = self.arguments is not None
    return compiled and (self.limit is None or self.total <= self.limit)

  @property
  def temporaries(self) -> int | None:
    """Peak bytes in addition to the arguments."""
    return None if self.arguments is None else self.total - self.arguments

  @property
  def bytes_sent(self) -> float:
    """Bytes that a device sends in one step, over all collectives."""
    return sum(c.count * c.bytes_sent for c in self.collectives) / self.steps


def compile_program(
  program: Program,
  *,
  chip: Chip | None = None,
  limit: int | None = None,
  options: dict[str, Any] | None = None,
) -> Report:
  """Compile a program and read its memory, FLOPs and collectives.

  A program that does not fit has a report, too; any other error of the
  compiler is raised. The chip of the host is None. A device has `limit` bytes,
  by default those that the compiler grants on the chip.
  """
  resident = {k: _bytes_per_device(v) for k, v in program.resident.items()}
  start = time.perf_counter()
  with option_of(program.name):
    traced = program.function.trace(*program.arguments)
  platforms = {} if chip is None else {"lowering_platforms": ("tpu",)}
  lowered = traced.lower(**platforms)
  middle, busy = time.perf_counter(), time.process_time()
  compiled = refusal = None
  try:
    compiled = lowered.compile(compiler_options=options)
  except jax.errors.JaxRuntimeError as error:
    refusal = _TOO_LARGE.search(str(error))
    if refusal is None:
      raise
  granted = chip and chip.usable_hbm
  known = {
    "name": program.name,
    "resident": {k: v for k, v in resident.items() if v},
    "steps": program.steps,
    "rows": program.rows,
    "lower_seconds": middle - start,
    "compile_seconds": time.perf_counter() - middle,
    "cpu_seconds": time.process_time() - busy,
  }
  if compiled is None:
    assert refusal is not None
    return Report(
      **known,
      total=_size(refusal[1]),
      limit=_size(refusal[2]) if refusal[2] else granted,
      notes=program.notes,
    )
  text = compiled.as_text()
  assert text is not None
  module = Module.parse(text)
  total, arguments = _memory(compiled, reused=chip is not None)
  cycles = _cycles(module)
  return Report(
    **known,
    total=total,
    limit=granted if limit is None else limit,
    arguments=arguments,
    flops=matmul_flops(module) / program.steps,
    collectives=collectives(module),
    kernel_seconds=cycles / chip.clock / program.steps
    if chip and cycles
    else None,
    notes=program.notes + executions(module).notes,
    executable=compiled,
  )


def _bytes_per_device(tree: PyTree) -> int:
  """Return the bytes of sharded arrays or shapes on one device, unpadded."""
  total = 0
  for leaf in jax.tree.leaves(tree):
    where = getattr(leaf, "sharding", None)
    shape = leaf.shape if where is None else where.shard_shape(leaf.shape)
    total += math.prod(shape) * leaf.dtype.itemsize
  return total


def _size(text: str) -> int:
  """Return the bytes of a size as the compiler writes it, `15.75G`."""
  return int(float(text[:-1]) * _UNITS[text[-1]])


def _memory(compiled: jax.stages.Compiled, *, reused: bool) -> tuple[int, int]:
  """Return the peak bytes and the bytes of the arguments.

  On TPUs the size of temporaries ignores that buffers are `reused`: there the
  compiler's own peak counts. That of hosts leaves temporaries out.
  """
  memory = compiled.memory_analysis()
  assert memory is not None
  arguments = memory.argument_size_in_bytes
  total = arguments + memory.temp_size_in_bytes
  total += memory.output_size_in_bytes - memory.alias_size_in_bytes
  peak = getattr(memory, "peak_memory_in_bytes", 0)
  counts = reused and arguments <= peak < total
  return (peak if counts else total), arguments


def _cycles(module: Module) -> int:
  """Return the estimated cycles of all kernels, including rounds of loops."""
  found = executions(module)
  pattern = re.compile(r'"estimated_cycles":"(\d+)"')
  return sum(
    found.counts[name] * int(cycles[1])
    for name in found.counts.keys() - found.kernels
    for instruction in module.computations[name].values()
    if (cycles := pattern.search(instruction.attributes))
  )
