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
  """The published figures of one chip, all of its cores together.

  Attributes:
    hbm: Memory in bytes.
    usable_hbm: The bytes that the compiler grants a program, according to its
      out-of-memory message.
    peak_flops: Peak bfloat16 arithmetic in FLOP/s.
    hbm_bandwidth: Memory bandwidth in bytes/s.
    link_bandwidth: Bytes/s that a chip can send over all of its links, while it
      receives as many: half the published bidirectional figure.
    dimensions: Number of dimensions of the torus of links.
    clock: Cycles/s.
    core_config: The compiler's name for the arrangement of the chip's cores;
      "megacore" runs them as one.
  """

  hbm: int
  usable_hbm: int
  peak_flops: float
  hbm_bandwidth: float
  link_bandwidth: float
  dimensions: int
  clock: float
  core_config: str = "default"

  def compute_seconds(self, flops: float) -> float:
    """Return the time of FLOPs at the chip's peak, in seconds."""
    return flops / self.peak_flops

  def link_seconds(self, sent: float) -> float:
    """Return the time to send bytes at the links' bandwidth, in seconds."""
    return sent / self.link_bandwidth


# The clock is the peak over what all matrix units do in a cycle: 8 units of
# 128 x 128 multiply-adds on v4 and v5p, 4 on v5e. On v6e it is the peak over
# 4 x 256 x 256: the compiler counts a large product in fewer cycles than its
# two documented units would need.
CHIPS = {
  "v4": Chip(
    hbm=32 * GIB,
    usable_hbm=int(30.75 * GIB),
    peak_flops=275e12,
    hbm_bandwidth=1200e9,
    link_bandwidth=300e9,
    dimensions=3,
    clock=1.05e9,
    core_config="megacore",
  ),
  "v5e": Chip(
    hbm=16 * GIB,
    usable_hbm=int(15.75 * GIB),
    peak_flops=197e12,
    hbm_bandwidth=819e9,
    link_bandwidth=200e9,
    dimensions=2,
    clock=1.5e9,
  ),
  "v5p": Chip(
    hbm=96 * GIB,
    usable_hbm=int(95.74 * GIB),
    peak_flops=459e12,
    hbm_bandwidth=2765e9,
    link_bandwidth=600e9,
    dimensions=3,
    clock=1.75e9,
  ),
  "v6e": Chip(
    hbm=32 * GIB,
    usable_hbm=int(31.25 * GIB),
    peak_flops=918e12,
    hbm_bandwidth=1638e9,
    link_bandwidth=400e9,
    dimensions=2,
    clock=1.75e9,
  ),
}
"""Chips by the name that begins a topology's name."""
