"""Plans: typed, frozen descriptions of a run, which `jaxflow.config` makes."""

from jaxflow.plans.model import Model
from jaxflow.plans.plan import Plan
from jaxflow.plans.roles import Roles
from jaxflow.plans.sections import (
  CheckpointPlan,
  CompanionPlan,
  CouplingPlan,
  DataPlan,
  DuringPlan,
  EvaluationPlan,
  FlowPlan,
  SamplePlan,
  SourcePlan,
  TrainPlan,
)

__all__ = [
  "CheckpointPlan",
  "CompanionPlan",
  "CouplingPlan",
  "DataPlan",
  "DuringPlan",
  "EvaluationPlan",
  "FlowPlan",
  "Model",
  "Plan",
  "Roles",
  "SamplePlan",
  "SourcePlan",
  "TrainPlan",
]
