"""FLOPs of one matrix product or convolution of a compiled program.

A product of [n, k] and [k, m] counts 2 n k m in any form; on TPUs every product
is a convolution. Element-wise arithmetic does not count, as in the published
peaks of chips.
"""

import math
import re

from jaxflow.compilation.hlo import Instruction, Shape, shapes


def product_flops(instructions: dict[str, Instruction]) -> int:
  """Count the FLOPs of the products in one computation, without its calls.

  Args:
    instructions: Instructions of the computation by name.

  Returns:
    The FLOPs of one execution.

  Example:
    >>> contracted = ", lhs_contracting_dims={1}, rhs_contracting_dims={0}"
    >>> operands = "f32[2,3] %x, f32[3,4] %y"
    >>> dot = Instruction("dot", "f32[2,4]", "dot", operands, contracted)
    >>> product_flops({"dot": dot})
    48
  """
  total = 0
  for instruction in instructions.values():
    if instruction.opcode == "dot":
      total += _dot(instruction, _operands(instructions, instruction))
    elif instruction.opcode == "convolution":
      total += _convolution(instruction, _operands(instructions, instruction))
  return total


def _operands(
  instructions: dict[str, Instruction], instruction: Instruction
) -> list[Shape]:
  """Return the operands' shapes, as written or by their names."""
  written = shapes(instruction.operands)
  return written or [instructions[n].shapes[0] for n in instruction.names]


def _dot(instruction: Instruction, operands: list[Shape]) -> int:
  found = re.search(
    r"lhs_contracting_dims=\{([\d,]*)\}", instruction.attributes
  )
  dims = [int(d) for d in found[1].split(",") if d] if found else []
  contracted = math.prod(operands[0].dims[d] for d in dims)
  return 2 * math.prod(instruction.shapes[0].dims) * contracted


def _convolution(instruction: Instruction, operands: list[Shape]) -> int:
  """Count the products of actual values, not of padding or dilation."""
  labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", instruction.attributes)
  assert labels is not None, instruction
  image, kernel, output = (
    dict(zip(names, shape.dims, strict=True))
    for names, shape in zip(
      labels.groups(), [*operands, instruction.shapes[0]], strict=True
    )
  )
  window = _window(instruction.attributes, len(output) - 2)
  valid = 1
  for i, options in enumerate(window):
    axis = str(i)
    valid *= _valid(image[axis], kernel[axis], output[axis], **options)
  return 2 * output["b"] * output["f"] * kernel["i"] * valid


def _window(attributes: str, count: int) -> list[dict[str, int]]:
  """Return stride, padding and dilations of each spatial axis."""
  if not count:
    return []
  found = re.search(r"window=\{([^}]*)\}", attributes)
  fields = dict(re.findall(r"(\w+)=(\S+)", found[1])) if found else {}

  def values(name, default):
    return fields.get(name, "x".join([default] * count)).split("x")

  return [
    {
      "stride": int(stride),
      "low": int(pad.split("_")[0]),
      "lhs_dilation": int(lhs),
      "rhs_dilation": int(rhs),
    }
    for stride, pad, lhs, rhs in zip(
      values("stride", "1"),
      values("pad", "0_0"),
      values("lhs_dilate", "1"),
      values("rhs_dilate", "1"),
      strict=True,
    )
  ]


def _valid(
  image: int,
  kernel: int,
  output: int,
  *,
  stride: int,
  low: int,
  lhs_dilation: int,
  rhs_dilation: int,
) -> int:
  """Count the pairs of output and kernel positions that read a value."""
  count = 0
  for k in range(kernel):
    first = k * rhs_dilation - low
    for o in range(output):
      place = first + o * stride
      if (
        0 <= place < (image - 1) * lhs_dilation + 1
        and place % lhs_dilation == 0
      ):
        count += 1
  return count
