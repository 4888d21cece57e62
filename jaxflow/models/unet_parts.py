"""What published U-Nets of one design differ in: DDPM++, NCSN++ and ADM.

References:
  Song et al., 2021, arXiv:2011.13456, appendix H: DDPM++ and NCSN++.
  Dhariwal, Nichol, 2021, arXiv:2105.05233: ADM.
  Karras et al., 2022, arXiv:2206.00364, table 7: the three side by side.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from flax import nnx

from jaxflow.errors import UsageError, did_you_mean

_xavier = nnx.initializers.xavier_uniform()
_fifth = nnx.initializers.variance_scaling(0.2, "fan_avg", "uniform")
_third = nnx.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parts:
  """The parts of one network.

  Attributes:
    random_waves: Whether times become waves of random frequencies, which are
      drawn once and not trained, or of geometric ones.
    wave_factor: Features of a time, in `channels`.
    end_point: Whether the lowest geometric frequency is 1e-4 itself.
    late_label: Whether labels are added behind the embedding of the time, or
      to its waves.
    smooth: Whether images are resampled by the filter 1, 3, 3, 1, or 1, 1.
    residual_input: Whether the encoder sees the image at every level.
    scale_shift: Whether the embedding scales and shifts, or is added.
    rescale: Whether sums of two branches are divided by sqrt2.
    project: Whether a branch whose sides change has a linear map always, or
      only where its channels change too.
    attends_late: Whether the decoder attends behind the last block of a level
      only, or behind all.
    head_features: Features of an attention head; 0 for one head.
    epsilon: Added to the variance in norms.
    init, attention_init: Initial values of kernels.
  """

  random_waves: bool = False
  wave_factor: int = 1
  end_point: bool = True
  late_label: bool = False
  smooth: bool = False
  residual_input: bool = False
  scale_shift: bool = False
  rescale: bool = True
  project: bool = True
  attends_late: bool = True
  head_features: int = 0
  epsilon: float = 1e-6
  init: Callable[..., Any] = _xavier
  attention_init: Callable[..., Any] = _fifth


PARTS: Mapping[str, Parts] = {
  "ddpm++": Parts(),
  "ncsn++": Parts(
    random_waves=True, wave_factor=2, smooth=True, residual_input=True
  ),
  "adm": Parts(
    end_point=False,
    late_label=True,
    scale_shift=True,
    rescale=False,
    project=False,
    attends_late=False,
    head_features=64,
    epsilon=1e-5,
    init=_third,
    attention_init=_third,
  ),
}


def parts_of(architecture: str) -> Parts:
  """Return the parts of a network; raise UsageError if it is unknown.

  Example:
    >>> parts_of("adm").head_features
    64
  """
  if architecture not in PARTS:
    raise UsageError(
      f"architecture={architecture!r} is unknown: "
      f"{did_you_mean(architecture, tuple(PARTS))}give one of "
      f"{', '.join(PARTS)}"
    )
  return PARTS[architecture]
