"""The sections of a plan: plain values, checked where the config is read."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal

from jaxflow.data import Scaling, Source
from jaxflow.sampling import Sampler
from jaxflow.times import Grid
from jaxflow.training.companions import Turns
from jaxflow.training.optimizers import OptimizerOptions
from jaxflow.types import LossOutput


@dataclasses.dataclass(frozen=True, kw_only=True)
class CouplingPlan:
  """How data get noise."""

  rows: int  # Of a group in which noise is assigned; 0: independent noise.
  within_class: bool  # Whether noise stays with its class.


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataPlan:
  """The data set of a run, or "given" for data that the caller passes."""

  name: str
  # Of one sample; it and the classes, 0 without labels, are None before the
  # data are read.
  shape: tuple[int, ...] | None
  num_classes: int | None
  conditional: bool  # Whether the run sees labels.
  flip: bool  # Whether half of the real images of a batch are mirrored.
  raw_dir: str | None  # Of downloaded files.
  data_dir: str | None  # Of prepared data.
  dir: str | None  # Of pictures.
  hub: str | None  # Name of a set on the Hugging Face hub.
  config: str | None  # Of a set that has several.
  image: str | None  # Column of the pictures.
  file: str | None  # Of arrays.
  size: int | None  # Height and width of images, None for their own.
  channels: int | None  # Of pictures; None for those of the set.
  background: tuple[int, int, int]  # RGB behind transparent pictures.
  crop: str  # "centre" or "random".
  order: str  # "shuffled" or "grouped" by class.
  label: str | None  # Feature with the classes, "none" without.
  split: Mapping[str, str | None]  # Names of splits in the set.
  test_share: float | None  # That the training split gives, by hash.
  normalise: str | None  # How values of arrays become samples.
  max_broken: int  # Pictures that may be left out.
  ram_gib: float  # Memory that a set may take.
  threads: int  # For reading; 0 chooses.
  download: bool  # Whether a set may be downloaded.
  class_names: tuple[str, ...] | None = None
  scaling: Scaling | None = None  # Of arrays; None before they are read.
  conditions: Scaling | None = None  # Of labels that are numbers.
  stored_dir: str | None = None  # The data_dir that a config.json names.
  coupling: CouplingPlan | None = None  # None where data come with noise.
  pairs: str = ""  # Folder of noise-data pairs.
  pairs_digest: str | None = None
  synthetic_share: float = 1.0  # Share of the rows that are pairs.
  sources: Mapping[str, Source] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourcePlan:
  """Another run whose network a run takes."""

  workdir: str  # "" for none.
  ema: str  # Its average, "online" for the parameters, or "width=W".
  step: int | None = None  # Its checkpoint; None for the latest.
  guidance: float = 1.0  # At which it is guided by the null label.


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainPlan:
  """The length and the rhythm of training."""

  steps: int  # At which training ends.
  schedule_steps: int  # Length of schedules and curricula, then they hold.
  batch_size: int  # Over all devices.
  accumulate: int  # Micro-batches a step.
  steps_per_dispatch: int  # Most of one call of the compiled program.
  log_every: int
  sample_every: int  # Steps between pictures; 0: only at the end.
  only: str  # Regular expression in the paths of what learns; "": all does.
  max_skipped: int  # Non-finite steps in a row after which training stops.
  prng: str  # JAX's generator of the random numbers of a step.


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckpointPlan:
  """When checkpoints are written, and which stay."""

  every: int  # Steps between checkpoints.
  keep: int  # How many of the latest stay.
  keep_every: int  # Those at multiples of this step stay; 0: none do.


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompanionPlan:
  """When and how a network learns beside the student."""

  start: float  # Share of training after which it takes part.
  turns: Turns
  ratio: int  # Its steps to each of the student's, where they alternate.
  optimizer: OptimizerOptions
  loss: Callable[..., LossOutput]
  options: Mapping[str, Any]  # Of its loss.


@dataclasses.dataclass(frozen=True, kw_only=True)
class SamplePlan:
  """How samples are drawn."""

  nfe: int  # Network calls per sample.
  batch_size: int
  guidance: float  # 1 does not guide.
  interval: tuple[float, float] | None  # Guided times; None for all.
  # The average that is sampled, "online" for the parameters, or "width=W".
  ema: str
  grid: Grid
  sampler: Sampler
  solver: str  # Name of the sampler, solver or flow map, for tables.
  record: Mapping[str, Any]  # All that decides how samples are drawn, as JSON.
  guided_by: str  # Fields that guided training, as text.


@dataclasses.dataclass(frozen=True, kw_only=True)
class FlowPlan:
  """How likelihood and trajectories are computed."""

  num: int  # Samples of each; 0 computes neither.
  steps: int  # Of the solver.
  probes: int  # Random probes of the trace, a sample.
  levels: int  # Values that quantised data have; 0 for continuous data.


@dataclasses.dataclass(frozen=True, kw_only=True)
class DuringPlan:
  """Evaluation while training runs."""

  every: int  # Steps between evaluations; 0: none.
  num: int  # Generated samples.
  nfe: tuple[int, ...]  # Network calls per sample, one evaluation each.
  metrics: tuple[str, ...] | None  # None for all that apply.
  share: float  # Largest share of the training time.
  best: str  # Metric by which the best checkpoint is kept; "" keeps none.


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationPlan:
  """How samples are compared with data."""

  nfe: tuple[int, ...]  # Network calls per sample, one evaluation each.
  num: int  # Generated samples.
  kept: int  # Samples whose features stay in memory, for metrics of pairs.
  batch_size: int
  split: Literal["train", "test"]
  reference: str  # File of statistics in place of the split, "" for none.
  metrics: tuple[str, ...] | None  # None for all that apply.
  flow: FlowPlan
  during: DuringPlan
  network: str  # Name of the feature network, "none" for none.
  # Makes it, from the shape and the number of classes of the data where it is
  # `trained`, a classifier of the data set itself.
  extractor: Callable[..., Any]
  trained: bool
