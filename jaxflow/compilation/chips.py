"""Published figures of TPU chips.

References:
  Google Cloud, TPU documentation, "TPU v4", "TPU v5e", "TPU v5p", "TPU v6e"
  (docs.cloud.google.com/tpu/docs/v4, /v5e, /v5p, /v6e), tables of key
  specifications; beneath that of v5p, its memory: 96 GiB, listed as 95 because
  the runtime keeps the rest.
  Jouppi et al. 2023, TPU v4 (arXiv:2304.01433), table 4, for v4's links and
  clock.
"""

import dataclasses

GIB = 2**30


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chip:
  """One chip, all of its cores together.

  Attributes:
    hbm: Bytes of memory.
    usable: Bytes of it that the compiler lets a program have, as it says when
      it refuses one.
    flops: Peak of bfloat16 arithmetic, FLOP/s.
    hbm_bandwidth: Bytes/s.
    link_bandwidth: Bytes/s that it can send over all of its links to other
      chips, and as many at the same time receive: half the published
      bidirectional figure.
    dimensions: Dimensions of the torus of its links.
    clock: Cycles/s.
    cores: How the compiler is told that the cores of a chip work as one.
  """

  hbm: int
  usable: int
  flops: float
  hbm_bandwidth: float
  link_bandwidth: float
  dimensions: int
  clock: float
  cores: str = "default"

  def compute_seconds(self, flops: float) -> float:
    """Return the least time of so many FLOPs.

    Args:
      flops: Of this chip.

    Example:
      >>> CHIPS["v5e"].compute_seconds(197e12)
      1.0
    """
    return flops / self.flops

  def link_seconds(self, sent: float) -> float:
    """Return the least time in which so many bytes leave the chip.

    Args:
      sent: Bytes.

    Example:
      >>> CHIPS["v5e"].link_seconds(400e9)
      2.0
    """
    return sent / self.link_bandwidth


# The clock is the peak over what all matrix units do in a cycle: 8 units of
# 128 x 128 multiply-adds on v4 and v5p, 4 on v5e. On v6e it is the peak over
# 4 x 256 x 256: the compiler counts a large product in fewer cycles than its
# two documented units would need.
CHIPS = {
  "v4": Chip(
    hbm=32 * GIB,
    usable=int(30.75 * GIB),
    flops=275e12,
    hbm_bandwidth=1200e9,
    link_bandwidth=300e9,
    dimensions=3,
    clock=1.05e9,
    cores="megacore",
  ),
  "v5e": Chip(
    hbm=16 * GIB,
    usable=int(15.75 * GIB),
    flops=197e12,
    hbm_bandwidth=819e9,
    link_bandwidth=200e9,
    dimensions=2,
    clock=1.5e9,
  ),
  "v5p": Chip(
    hbm=96 * GIB,
    usable=int(95.74 * GIB),
    flops=459e12,
    hbm_bandwidth=2765e9,
    link_bandwidth=600e9,
    dimensions=3,
    clock=1.75e9,
  ),
  "v6e": Chip(
    hbm=32 * GIB,
    usable=int(31.25 * GIB),
    flops=918e12,
    hbm_bandwidth=1638e9,
    link_bandwidth=400e9,
    dimensions=2,
    clock=1.75e9,
  ),
}
"""By the name that a topology starts with."""
