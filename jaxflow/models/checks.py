"""Checks of options and inputs that several networks share."""

from typing import Any

from jaxflow.errors import UsageError
from jaxflow.types import Array


def at_least(least: int, **values: int) -> None:
  """Raise UsageError if an option is below `least`."""
  for name, value in values.items():
    if value < least:
      raise UsageError(f"{name}={value}: give {least} or more")


def even(**values: int) -> None:
  """Raise UsageError if a number of cosines and sines is odd or below 2."""
  for name, value in values.items():
    if value < 2 or value % 2:
      raise UsageError(f"{name}={value}: give an even number, 2 or more")


def image_network(*, data_shape: tuple[int, ...], **options: Any) -> None:
  """Raise UsageError if no network of images can have these options."""
  if len(data_shape) != 3:
    raise UsageError(
      f"data_shape={tuple(data_shape)}: give (height, width, channels)"
    )
  grid_network(data_shape=data_shape, **options)


def grid_network(
  *,
  data_shape: tuple[int, ...],
  num_classes: int,
  heads: int,
  dropout: float,
  **counts: int,
) -> None:
  """Raise UsageError if no network of a grid of 1 to 3 axes can have these."""
  if not 2 <= len(data_shape) <= 4 or min(data_shape) < 1:
    raise UsageError(
      f"data_shape={tuple(data_shape)}: give one to three sizes and the "
      "channels, (height, width, channels) for instance"
    )
  at_least(0, num_classes=num_classes, **counts)
  at_least(1, heads=heads)
  if not 0 <= dropout < 1:
    raise UsageError(f"dropout={dropout}: give a share in [0, 1)")


def shape(samples: Array, data_shape: tuple[int, ...]) -> None:
  """Raise UsageError unless samples are `[B, *data_shape]`."""
  if samples.shape[1:] != data_shape:
    raise UsageError(
      f"data_shape={data_shape}: the network was given {samples.shape[1:]}"
    )
