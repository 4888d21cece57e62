"""A plan: all that a config asks for, typed and built."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from jaxflow.models import Adapter
from jaxflow.plans.model import Model
from jaxflow.plans.roles import Roles
from jaxflow.plans.sections import (
  CheckpointPlan,
  CompanionPlan,
  DataPlan,
  EvaluationPlan,
  SamplePlan,
  SourcePlan,
  TrainPlan,
)
from jaxflow.training import ema
from jaxflow.training.optimizers import OptimizerOptions


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
  """All that a config asks for."""

  model: Model
  adapter: Adapter | None  # What learns in place of the network's parameters.
  roles: Roles
  seed: int
  data: DataPlan
  train: TrainPlan
  optimizer: OptimizerOptions
  emas: Mapping[str, ema.Law]
  companions: Mapping[str, CompanionPlan]  # By their sections.
  # Regular expression of the parameter by whose gradients the loss weighs its
  # terms, "" without such weights.
  last_layer: str
  teacher: SourcePlan
  features: SourcePlan
  init: SourcePlan  # Of the first weights.
  init_student: bool  # Whether a student starts from its teacher.
  checkpoint: CheckpointPlan
  mesh: Mapping[str, Any]  # Devices by axis; -1 takes all that are left.
  sample: SamplePlan
  evaluation: EvaluationPlan
  teacher_plan: "Plan | None"
  # The config that the plan was made from, for `config.json` and messages;
  # `jaxflow.config` alone reads it.
  config: Any

  @property
  def declares_condition(self) -> bool:
    """Whether the condition is what the network declares, and no label."""
    given = self.model.num_classes or self.data.conditions is not None
    return self.model.null_cond is not None and not given
