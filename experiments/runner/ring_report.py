"""The ring of the 2-D report: its teacher, its student, its network.

Score network with 64 sinusoidal features of time and two hidden layers of 64,
denoising score matching on the noise levels 0.05 to 3, Adam 1e-3, batch 512,
300 epochs. Its consistency model: 32 uniform points, one Euler
step of the teacher, linear skip, summed squares, EMA 0.999.
"""

from typing import Any

from experiments.runner.bench import Bench
from jaxflow.config import Config

# An epoch of the 16,384 points has 32 batches.
STEPS = 300 * 32
_SHARED = {
  "model": {"width": 64, "depth": 2, "time_features": 64},
  "optimizer": {"learning_rate": 1e-3, "schedule": "constant"},
  "train": {"batch_size": 512, "steps_per_dispatch": 100},
}


def teacher_config(bench: Bench, *, steps: int = STEPS) -> Config:
  """Return the config of the score network."""
  return bench.config(
    "ring:score_matching", _SHARED, {"train": {"steps": steps}}
  )


def student_config(
  bench: Bench, *changes: dict[str, Any], steps: int = STEPS
) -> Config:
  """Return the config of the consistency model, with changes."""
  teacher = teacher_config(bench)
  return bench.config(
    "ring:consistency_distillation",
    _SHARED,
    {
      "path": teacher.path.to_dict(),
      "teacher": {"init_student": False, "workdir": ""},
      "times": {"num_points": 32},
      "loss": {
        "solver": {"name": "euler"},
        "distance": {"name": "l2_sum"},
        "boundary_weight": 1.0,
      },
      "flow_map": {"name": "linear_skip"},
      "ema": {"target": {"name": "constant", "decay": 0.999}},
      "sample": {"ema": "target"},
      "train": {"steps": steps},
    },
    *changes,
  )
