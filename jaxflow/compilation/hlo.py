"""Parse the text of compiled programs (HLO)."""

import dataclasses
import math
import re

_BITS = {
  **{"pred": 8, "s4": 4, "u4": 4, "s8": 8, "u8": 8},
  **{"s16": 16, "u16": 16, "f16": 16, "bf16": 16},
  **{"s32": 32, "u32": 32, "f32": 32},
  **{"s64": 64, "u64": 64, "f64": 64, "c64": 64, "c128": 128},
}
_ARRAY = re.compile(r"\b([a-z]+\d*\w*)\[([\d,]*)\]")
_COMPUTATION = re.compile(r"(ENTRY )?%?([^\s(]+) \(.*\{$")
# The first `)` with nothing or an attribute behind it closes the operands.
_INSTRUCTION = re.compile(
  r"\s+(ROOT )?%?(\S+) = (.*?) ([\w-]+)\((.*?)\)(, [\w-]+=.*)?$"
)
# A layout, whose tiles have parentheses too.
_LAYOUT = re.compile(r"\{[^}]*\}")
_ELEMENT = re.compile(r"\([^()]*\)|\w+\[[\d,]*\]")
_NAME = re.compile(r"%([^\s,()]+)")


@dataclasses.dataclass(frozen=True)
class Shape:
  """The type of an array."""

  dtype: str
  dims: tuple[int, ...]

  @property
  def bytes(self) -> int:
    """Its size without padding; unknown types count 8 bits an element."""
    return math.ceil(math.prod(self.dims) * _BITS.get(self.dtype, 8) / 8)


@dataclasses.dataclass(frozen=True)
class Instruction:
  """One line: `name = result opcode(operands), attributes`."""

  name: str
  result: str
  opcode: str
  operands: str
  attributes: str

  @property
  def shapes(self) -> list[Shape]:
    """The arrays of its result."""
    return shapes(self.result)

  @property
  def output(self) -> list[Shape]:
    """The arrays that it computes, without the operands of asynchronous starts.

    `all-gather-start` and `collective-permute-start` return operand and output,
    others `((operands), output, ...)` or only the output.
    """
    if not self.opcode.endswith("-start"):
      return self.shapes
    bare = _LAYOUT.sub("", self.result).removeprefix("(")
    parts = _ELEMENT.findall(bare)
    pair = self.opcode in ("all-gather-start", "collective-permute-start")
    return shapes(parts[1]) if pair or bare.startswith("(") else self.shapes

  @property
  def names(self) -> list[str]:
    """The names of its operands."""
    return _NAME.findall(self.operands)

  def called(self, attribute: str) -> list[str]:
    """Return the names of the computations in an attribute."""
    found = re.search(rf"\b{attribute}=(\{{[^}}]*\}}|%\S+)", self.attributes)
    return [n.rstrip(",}") for n in _NAME.findall(found[1])] if found else []


@dataclasses.dataclass(frozen=True)
class Module:
  """A program.

  Attributes:
    computations: Instructions by name, by the name of the computation.
    roots: The root instruction of each computation by its name.
    entry: Name of the entry computation.
    partitions: Number of devices.
  """

  computations: dict[str, dict[str, Instruction]]
  roots: dict[str, Instruction]
  entry: str
  partitions: int

  @classmethod
  def parse(cls, text: str) -> "Module":
    """Parse a program from `jax.stages.Compiled.as_text`."""
    found = re.search(r"num_partitions=(\d+)", text.partition("\n")[0])
    computations: dict[str, dict[str, Instruction]] = {}
    roots, entry, current = {}, "", ""
    for line in text.splitlines():
      if not line.startswith((" ", "}")):
        if header := _COMPUTATION.match(line):
          current = header[2]
          computations[current] = {}
          entry = current if header[1] else entry
      elif current and (match := _INSTRUCTION.match(line)):
        root, name, result, opcode, operands, attributes = match.groups("")
        instruction = Instruction(name, result, opcode, operands, attributes)
        computations[current][name] = instruction
        if root:
          roots[current] = instruction
    return cls(computations, roots, entry, int(found[1]) if found else 1)


def shapes(text: str) -> list[Shape]:
  """Return the arrays in the text of a type, also in nested tuples."""
  return [
    Shape(dtype, tuple(int(d) for d in dims.split(",") if d))
    for dtype, dims in _ARRAY.findall(text)
  ]
