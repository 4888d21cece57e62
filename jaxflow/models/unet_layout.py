"""Layout of a U-Net: its blocks, and the channels of each."""

import dataclasses

from jaxflow.errors import UsageError
from jaxflow.models.unet_walk import Step


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layer:
  """Layout of one block of the network.

  Attributes:
    before: Channels that it is given, those of `joins` included.
    width: Channels that it returns.
    resample: "keep", "halve" or "double".
    attention: Whether it attends.
    joins: Whether it sees the output of a layer of the encoder.
  """

  before: int
  width: int
  resample: str = "keep"
  attention: bool = False
  joins: bool = False


def layers(
  height: int,
  channels: int,
  multipliers: tuple[int, ...],
  num_blocks: int,
  attention_resolutions: tuple[int, ...],
  attends_late: bool = True,
) -> tuple[list[Layer], list[Layer]]:
  """Return the blocks of the encoder and those of the decoder.

  The last block of a level of the decoder attends, or all of them do.

  Example:
    >>> encoder, decoder = layers(8, 4, (1, 2), 1, (8,))
    >>> [layer.width for layer in encoder], [x.before for x in decoder]
    ([4, 4, 8], [8, 8, 16, 12, 8, 12, 8])
  """
  encoder, width = [], channels
  skips = [channels]
  for level, multiplier in enumerate(multipliers):
    if level:
      encoder.append(Layer(before=width, width=width, resample="halve"))
      skips.append(width)
    attention = height >> level in attention_resolutions
    for _ in range(num_blocks):
      before, width = width, channels * multiplier
      encoder.append(Layer(before=before, width=width, attention=attention))
      skips.append(width)
  decoder = [
    Layer(before=width, width=width, attention=True),
    Layer(before=width, width=width),
  ]
  for level, multiplier in reversed(list(enumerate(multipliers))):
    if level < len(multipliers) - 1:
      decoder.append(Layer(before=width, width=width, resample="double"))
    attention = height >> level in attention_resolutions
    for i in range(num_blocks + 1):
      before, width = width + skips.pop(), channels * multiplier
      attends = attention and (i == num_blocks or not attends_late)
      decoder.append(
        Layer(before=before, width=width, attention=attends, joins=True)
      )
  return encoder, decoder


def steps(
  encoder: list[Layer], decoder: list[Layer]
) -> tuple[list[Step], list[Step]]:
  """Return the steps over modules `encoder_<i>` and `decoder_<i>`."""
  return (
    [Step(f"encoder_{i}") for i in range(len(encoder))],
    [Step(f"decoder_{i}", joins=x.joins) for i, x in enumerate(decoder)],
  )


def check_levels(
  data_shape: tuple[int, ...],
  channels: int,
  multipliers: tuple[int, ...],
  attention_resolutions: tuple[int, ...],
) -> None:
  """Raise UsageError unless images (H, W, C) can be halved to these levels."""
  if channels < 4 or channels % 2:
    raise UsageError(
      f"channels={channels}: sinusoidal features come in pairs; give an even "
      "number, 4 or more"
    )
  if not multipliers or min(multipliers) < 1:
    raise UsageError(
      f"multipliers={tuple(multipliers)}: give 1 or more, for each level"
    )
  halvings = len(multipliers) - 1
  if any(side % 2**halvings for side in data_shape[:2]):
    raise UsageError(
      f"multipliers={tuple(multipliers)}: {len(multipliers)} levels halve the "
      f"sides of data_shape={tuple(data_shape)} {halvings} times, which "
      f"{2**halvings} must divide; give fewer"
    )
  heights = [data_shape[0] >> level for level in range(len(multipliers))]
  if set(attention_resolutions) - set(heights):
    raise UsageError(
      f"attention_resolutions={tuple(attention_resolutions)}: the levels of "
      f"data_shape={tuple(data_shape)} have the heights "
      f"{', '.join(map(str, heights))}; give some of them, or ()"
    )
