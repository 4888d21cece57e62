"""SiT as released in PyTorch: DiT's network as a velocity on the linear path.

SiT's time runs from noise, 0, to data, 1, and its velocity from noise to data.
Here the network is given 1 - t (`time_scale`, `time_shift`), and the signs of
its last layer are turned; both are exact.

References:
  Ma et al. 2024 (arXiv:2401.08740).
"""

import functools
from typing import Any

from jaxflow.pretrained.formats import Format, dit


def _sections() -> dict[str, Any]:
  return {
    "path": {"name": "linear"},
    "loss": {"prediction": "velocity", "label_dropout": 0.1},
    "flow_map": {"name": "ode_step", "solver": {"name": "heun"}},
    "sample": {"nfe": 250},
    "evaluation": {"nfe": (250,)},
  }


FORMAT = Format(
  summary="SiT as released in PyTorch, a velocity of the linear path",
  read=functools.partial(
    dit.read,
    sections=_sections,
    sign=-1,
    options={"time_scale": -1.0, "time_shift": 1.0},
  ),
  write=functools.partial(dit.write, sign=-1),
)
