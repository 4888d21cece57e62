"""Execution counts of the computations of a compiled program, and FLOPs.

XLA counts the body of a loop once. Here a loop of n rounds counts n times, and
a loop of unknown length once. Of a conditional only the branch with the most
FLOPs counts.
"""

import collections
import dataclasses
import re

from jaxflow.compilation.hlo import Instruction, Module
from jaxflow.compilation.products import product_flops


@dataclasses.dataclass(frozen=True, kw_only=True)
class Executions:
  """Execution counts of a program.

  Attributes:
    counts: Number of executions by name of the computation.
    kernels: Names of the computations inside of kernels.
    unknown: Number of loops of unknown length.
    conditionals: Number of conditionals.
  """

  counts: dict[str, int]
  kernels: set[str]
  unknown: int
  conditionals: int

  @property
  def notes(self) -> tuple[str, ...]:
    """Limits of the counts, a line each."""
    lines = []
    if self.unknown:
      lines.append(
        f"{self.unknown} loop(s) of a length that the program computes: one "
        "round of each counts"
      )
    if self.conditionals:
      lines.append(
        f"{self.conditionals} conditional(s): of each the branch of the most "
        "FLOPs counts"
      )
    return tuple(lines)


def executions(module: Module) -> Executions:
  """Count the executions of each computation of a program."""
  counts: dict[str, int] = collections.Counter()
  kernels: set[str] = set()

  def visit(name: str, count: int, inside: bool) -> None:
    counts[name] += count
    if inside:
      kernels.add(name)
    for instruction in module.computations[name].values():
      fused = instruction.opcode == "fusion"
      for called, times in _calls(module, name, instruction):
        visit(called, count * times, inside or fused)

  visit(module.entry, 1, False)
  executed = [
    (name, instruction)
    for name in counts
    for instruction in module.computations[name].values()
  ]
  return Executions(
    counts=dict(counts),
    kernels=kernels,
    unknown=sum(
      instruction.opcode == "while"
      and trip_count(module, name, instruction) is None
      for name, instruction in executed
    ),
    conditionals=sum(x.opcode == "conditional" for _, x in executed),
  )


def matmul_flops(module: Module) -> int:
  """Count the FLOPs of all matrix products and convolutions of a program.

  Of a program for many devices this is the part of one device.
  """
  return _flops(module, module.entry)


def _flops(module: Module, name: str) -> int:
  """Count the FLOPs of a computation and of those that it runs."""
  instructions = module.computations[name]
  return product_flops(instructions) + sum(
    times * _flops(module, called)
    for instruction in instructions.values()
    for called, times in _calls(module, name, instruction)
  )


# The attributes that name what an instruction runs, without the conditions of
# loops and the functions that a reduction applies to elements.
_CALLED = {
  "fusion": "calls",
  "while": "body",
  "call": "to_apply",
  "async-start": "calls",
}


def _calls(
  module: Module, computation: str, instruction: Instruction
) -> list[tuple[str, int]]:
  """Return the computations that an instruction runs, and how many times."""
  if instruction.opcode == "conditional":
    return [(_largest_branch(module, instruction), 1)]
  times = 1
  if instruction.opcode == "while":
    rounds = trip_count(module, computation, instruction)
    times = 1 if rounds is None else rounds
  attribute = _CALLED.get(instruction.opcode)
  names = instruction.called(attribute) if attribute else []
  return [(name, times) for name in names]


def _largest_branch(module: Module, conditional: Instruction) -> str:
  """Return the branch with the most FLOPs; of equal ones the longest."""
  forms = "branch_computations", "true_computation", "false_computation"
  names = [name for form in forms for name in conditional.called(form)]
  return max(
    names, key=lambda n: (_flops(module, n), len(module.computations[n]))
  )


def trip_count(
  module: Module, computation: str, loop: Instruction
) -> int | None:
  """Return the rounds of a `while` of a computation, None if unknown.

  Either XLA states them, or the condition compares a counter with a constant,
  and the counter starts at a constant and grows by a constant.
  """
  if known := re.search(r"known_trip_count\D*(\d+)", loop.attributes):
    return int(known[1])
  name = loop.called("condition")[0]
  condition, root = module.computations[name], module.roots[name]
  compare, operands = root, root.names
  if root.opcode == "fusion":
    inner = root.called("calls")[0]
    compare = module.roots[inner]
    places = [module.computations[inner][n].operands for n in compare.names]
    operands = [root.names[int(i)] for i in places if i.isdigit()]
  is_less = compare.opcode == "compare" and "direction=LT" in compare.attributes
  if not is_less or len(operands) != 2:
    return None
  before = module.computations[computation]
  start, limit = (_value(condition, n, before, loop) for n in operands)
  if limit is None:
    return None
  step = _step(module, condition[operands[0]], loop)
  return max(-(-(limit - (start or 0)) // step), 0)


def _step(module: Module, counter: Instruction, loop: Instruction) -> int:
  """Return the increment of the counter, 1 if it is unknown."""
  name = loop.called("body")[0]
  body, root = module.computations[name], module.roots[name]
  place = re.search(r"index=(\d+)", counter.attributes)
  if place is None or root.opcode != "tuple":
    return 1
  added = body[root.names[int(place[1])]]
  if added.opcode != "add":
    return 1
  found = [_constant(body, operand) for operand in added.names]
  return next((step for step in found if step), 1)


def _value(
  condition: dict[str, Instruction],
  name: str,
  before: dict[str, Instruction],
  loop: Instruction,
) -> int | None:
  """Return a constant of the condition, or an initial value of the loop."""
  given = re.search(r"index=(\d+)", condition[name].attributes)
  if condition[name].opcode != "get-tuple-element" or given is None:
    return _constant(condition, name)
  values = before[loop.names[0]]
  if values.opcode != "tuple":
    return None
  return _constant(before, values.names[int(given[1])])


def _constant(instructions: dict[str, Instruction], name: str) -> int | None:
  """Return an integer constant, also behind copies, or None."""
  instruction = instructions[name]
  while instruction.opcode in ("copy", "bitcast", "convert"):
    instruction = instructions[instruction.names[0]]
  if instruction.opcode != "constant":
    return None
  found = re.fullmatch(r"-?\d+", instruction.operands)
  return int(found[0]) if found else None
