"""Which blocks a U-Net has, and how many channels each of them is given."""

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layer:
  """What one block of the network does.

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
) -> tuple[list[Layer], list[Layer]]:
  """Returns the blocks of the encoder and those of the decoder.

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
      attends = attention and i == num_blocks
      decoder.append(
        Layer(before=before, width=width, attention=attends, joins=True)
      )
  return encoder, decoder
