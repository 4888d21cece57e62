"""How often the parts of a compiled program run.

XLA counts the body of a loop once; here a loop of n rounds counts n times. Of
the branches of a conditional each counts, although one runs.
"""

import collections
import re

from jaxflow.compilation.hlo import Instruction, Module


def executions(module: Module) -> tuple[dict[str, int], set[str]]:
  """Return how often each computation runs, and which are parts of kernels.

  A loop whose length the program does not tell counts once.

  Example:
    >>> module = Module.parse("ENTRY %main () -> f32[] {")
    >>> executions(module)
    ({'main': 1}, set())
  """
  counts: dict[str, int] = collections.Counter()
  kernels: set[str] = set()

  def visit(name: str, count: int, inside: bool) -> None:
    counts[name] += count
    if inside:
      kernels.add(name)
    for instruction in module.computations[name].values():
      for called, times, fused in _calls(module, name, instruction):
        visit(called, count * times, inside or fused)

  visit(module.entry, 1, False)
  return dict(counts), kernels


def _calls(
  module: Module, computation: str, instruction: Instruction
) -> list[tuple[str, int, bool]]:
  """Return what an instruction runs: name, how often, in a kernel or not."""
  opcode, called = instruction.opcode, instruction.called
  if opcode == "fusion":
    return [(name, 1, True) for name in called("calls")]
  if opcode == "while":
    rounds = trip_count(module, computation, instruction)
    times = 1 if rounds is None else rounds
    return [(name, times, False) for name in called("body")]
  attributes = {
    "call": ("to_apply",),
    "async-start": ("calls",),
    "conditional": (
      "branch_computations",
      "true_computation",
      "false_computation",
    ),
  }
  names = [n for a in attributes.get(opcode, ()) for n in called(a)]
  return [(name, 1, False) for name in names]


def trip_count(
  module: Module, computation: str, loop: Instruction
) -> int | None:
  """Return the number of rounds of a `while`, None where it is not told.

  Either XLA says it, or the condition compares a counter that starts at a
  constant with a constant, and rounds count it up by a constant.

  Args:
    module: The program.
    computation: Where the loop stands.
    loop: The instruction.
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
  """Return how far a round counts, 1 where it is not told."""
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
  """Return a constant of a condition, or one with which the loop starts."""
  given = re.search(r"index=(\d+)", condition[name].attributes)
  if condition[name].opcode != "get-tuple-element" or given is None:
    return _constant(condition, name)
  values = before[loop.names[0]]
  if values.opcode != "tuple":
    return None
  return _constant(before, values.names[int(given[1])])


def _constant(instructions: dict[str, Instruction], name: str) -> int | None:
  """Return an integer constant, seen through copies."""
  instruction = instructions[name]
  while instruction.opcode in ("copy", "bitcast", "convert"):
    instruction = instructions[instruction.names[0]]
  if instruction.opcode != "constant":
    return None
  found = re.fullmatch(r"-?\d+", instruction.operands)
  return int(found[0]) if found else None
