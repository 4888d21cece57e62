"""What the readers of diffusers' classes share."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from jaxflow.errors import UsageError
from jaxflow.types import PyTree

# A network is trained with as many labels dropped, by its class's default.
LABEL_DROPOUT = 0.1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Network:
  """A network of a class of diffusers, in our terms.

  Attributes:
    model: The section "model" of a config.
    shape: Shape of one sample.
    num_classes: Number of labels.
    label_dropout: The share of null labels it was shown; 0 for none.
    params: Its parameters.
    notes: Lines for the user.
  """

  model: dict[str, Any]
  shape: tuple[int, int, int]
  num_classes: int
  label_dropout: float
  params: PyTree
  notes: Sequence[str]


def check(config: Mapping[str, Any], where: str, **known: Any) -> None:
  """Raise UsageError unless fields that are there have a known value."""
  for field, values in known.items():
    value = config.get(field, values[0])
    if value not in values:
      listed = " or ".join(map(repr, values))
      raise UsageError(f"{where}: its {field} is {value!r}; known is {listed}")


def square(config: Mapping[str, Any], where: str) -> tuple[int, int]:
  """Return the height and the width of samples."""
  size = config.get("sample_size")
  match size if isinstance(size, list) else [size, size]:
    case [int(height), int(width)] if height > 0 and width > 0:
      return height, width
  raise UsageError(
    f"{where}: its sample_size is {size!r}; set it in config.json to the "
    "height and width of samples"
  )


def variance(inputs: int, outputs: int | None, where: str) -> bool:
  """Return whether a network has a learned variance, by its channels."""
  if outputs not in (None, inputs, 2 * inputs):
    raise UsageError(
      f"{where}: it has in_channels {inputs} and out_channels {outputs}; "
      "known are equal numbers, or twice as many with a learned variance"
    )
  return outputs == 2 * inputs
