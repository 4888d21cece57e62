"""FLOPs of one matrix product or convolution of a compiled program.

A product of [n, k] and [k, m] counts 2 n k m in any form; on TPUs every product
is a convolution. Element-wise arithmetic does not count, as in the published
peaks of chips. A Pallas kernel counts what it says itself.
"""

import math
import re

import numpy as np

from jaxflow.compilation.hlo import Instruction, Shape, shapes


def product_flops(instructions: dict[str, Instruction]) -> int:
  """Count the FLOPs of the products in one computation, without its calls."""
  count = {"dot": _dot, "convolution": _convolution}
  total = 0
  for instruction in instructions.values():
    if instruction.opcode in count:
      # Shapes of operands are written, or found by the operands' names.
      operands = shapes(instruction.operands) or [
        instructions[name].shapes[0] for name in instruction.names
      ]
      total += count[instruction.opcode](instruction, operands)
    elif instruction.opcode == "custom-call":
      total += _stated(instruction)
  return total


def _stated(instruction: Instruction) -> int:
  stated = r'"cost_estimate":\{"flops":"?(\d+)'
  found = re.search(stated, instruction.attributes)
  return int(found[1]) if found else 0


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
  arrays = [*operands, instruction.shapes[0]]
  image, kernel, output = (
    dict(zip(names, array.dims, strict=True))
    for names, array in zip(labels.groups(), arrays, strict=True)
  )
  window = re.search(r"window=\{([^}]*)\}", instruction.attributes)
  options = dict(re.findall(r"(\w+)=(\S+)", window[1])) if window else {}
  valid = 1
  for axis in range(len(output) - 2):
    own = {name: text.split("x")[axis] for name, text in options.items()}
    place = str(axis)
    valid *= _valid(image[place], kernel[place], output[place], own)
  return 2 * output["b"] * output["f"] * kernel["i"] * valid


def _valid(image: int, kernel: int, output: int, window: dict[str, str]) -> int:
  """Count the pairs of output and kernel positions that read a value.

  The sizes and the options of the window are those of one axis of space.
  """
  low = int(window.get("pad", "0_0").split("_")[0])
  stride = int(window.get("stride", 1))
  dilation = int(window.get("lhs_dilate", 1))
  step = int(window.get("rhs_dilate", 1))
  place = np.arange(kernel)[:, None] * step - low + np.arange(output) * stride
  inside = (place >= 0) & (place <= (image - 1) * dilation)
  return int(np.sum(inside & (place % dilation == 0)))
