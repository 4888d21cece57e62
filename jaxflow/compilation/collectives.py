"""Collective communication of a compiled program."""

import dataclasses
import math
import re

from jaxflow.compilation.hlo import Module, Shape
from jaxflow.compilation.loops import executions

KINDS = (
  "all-reduce",
  "all-gather",
  "reduce-scatter",
  "all-to-all",
  "collective-permute",
  "collective-broadcast",
  "ragged-all-to-all",
)
_OPCODES = {kind + end: kind for kind in KINDS for end in ("", "-start")}
# The TPU's kernel for a reduce-scatter has this name.
_SCATTERED = "all-reduce-scatter"


@dataclasses.dataclass(frozen=True)
class Collective:
  """One collective of a program.

  Attributes:
    kind: One of `KINDS`.
    shapes: Its arrays. A reduce-scatter has the shapes of its inputs, any other
      collective those of its outputs.
    group: Number of devices in a group.
    count: Number of executions.
    source: The operation of the traced program that caused it.
  """

  kind: str
  shapes: tuple[Shape, ...]
  group: int
  count: int
  source: str

  @property
  def bytes(self) -> int:
    """Bytes of the arrays of one execution."""
    return sum(shape.bytes for shape in self.shapes)

  @property
  def bytes_sent(self) -> float:
    """Bytes that a device sends in one execution, n devices in a ring.

    An all-reduce sends 2 (n - 1) / n of its bytes: a reduce-scatter and an
    all-gather. A permutation or broadcast sends all, any other (n - 1) / n.
    """
    if self.kind in ("collective-permute", "collective-broadcast"):
      return float(self.bytes)
    turns = 2 if self.kind == "all-reduce" else 1
    return turns * (self.group - 1) / self.group * self.bytes


def collectives(module: Module) -> list[Collective]:
  """Return the collectives of a program that involve several devices.

  Counts include the rounds of loops.
  """
  found: dict[tuple[str, str], Collective] = {}
  for name, count in executions(module).counts.items():
    for instruction in module.computations[name].values():
      kind = _OPCODES.get(instruction.opcode)
      if kind is None:
        continue
      attributes, shapes = instruction.attributes, instruction.output
      group = _group(module, attributes, kind)
      if group == 1:
        continue
      if kind == "reduce-scatter":
        shapes = [Shape(s.dtype, (group, *s.dims)) for s in shapes]
      if kind == "all-reduce" and name.startswith(_SCATTERED):
        kind = "reduce-scatter"
      op_name = re.search(r'op_name="([^"]*)"', attributes)
      source = op_name[1] if op_name else ""
      key = (name, instruction.name)
      chain = re.search(r'chain_id="?(\d+)', attributes)
      channel = re.search(r"channel_id=(\d+)", attributes)
      if chain and channel:
        # A collective that spans several kernels appears in each of them.
        key = (channel[1], chain[1])
      collective = Collective(kind, tuple(shapes), group, count, source)
      found.setdefault(key, collective)
  return list(found.values())


def _group(module: Module, attributes: str, kind: str) -> int:
  """Return the size of a collective's groups.

  XLA writes groups as lists, `{{0,1},{2,3}}`, as an iota, `[2,4]<=[8]`, or by
  the axes of a mesh, `mesh['a'=2,'b'=4] {'b'}`.
  """
  if kind == "collective-permute":
    return module.partitions
  if found := re.search(
    r"replica_groups=mesh\[([^\]]*)\][^{]*\{([^}]*)\}", attributes
  ):
    sizes = dict(re.findall(r"'([^']+)'=(\d+)", found[1]))
    axes = re.findall(r"'([^']+)'(?::\(\d+\)(\d+))?", found[2])
    return math.prod(int(part or sizes[axis]) for axis, part in axes)
  if found := re.search(r"replica_groups=\{\{([\d,]+)\}", attributes):
    return found[1].count(",") + 1
  if found := re.search(r"replica_groups=\[\d+,(\d+)\]", attributes):
    return int(found[1])
  return module.partitions
