"""A plan: all that a config asks for, typed and built."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from jaxflow.plans.model import Model
from jaxflow.plans.roles import Roles
from jaxflow.plans.sections import (
  CheckpointPlan,
  DataPlan,
  DiscriminatorPlan,
  EvaluationPlan,
  SamplePlan,
  SourcePlan,
  TrainPlan,
)
from jaxflow.training import ema
from jaxflow.training.optimizers import OptimizerOptions


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
  """All that a config asks for.

  Attributes:
    model: Method, path and network.
    roles: The other networks of the loss.
    seed: Seed of the run.
    data: The data set.
    train: Length and rhythm of training.
    optimizer: Options of the optimizer.
    emas: Laws of the averages by name.
    discriminator: When a discriminator learns, or None.
    last_layer: Regular expression of the parameter by whose gradients the loss
      weighs its terms, "" without such weights.
    teacher: The run of the teacher.
    features: The run of the feature network.
    init: The run whose weights come first.
    init_student: Whether a student starts from its teacher.
    checkpoint: When checkpoints are written.
    mesh: Devices along each axis; -1 takes all that are left.
    sample: How samples are drawn.
    evaluation: How samples are compared with data.
    teacher_plan: The teacher's own plan, or None.
    config: The config that it was made from, for `config.json` and messages;
      `jaxflow.config` alone reads it.
  """

  model: Model
  roles: Roles
  seed: int
  data: DataPlan
  train: TrainPlan
  optimizer: OptimizerOptions
  emas: Mapping[str, ema.Law]
  discriminator: DiscriminatorPlan | None
  last_layer: str
  teacher: SourcePlan
  features: SourcePlan
  init: SourcePlan
  init_student: bool
  checkpoint: CheckpointPlan
  mesh: Mapping[str, Any]
  sample: SamplePlan
  evaluation: EvaluationPlan
  teacher_plan: "Plan | None"
  config: Any
