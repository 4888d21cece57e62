"""The sections of a plan: plain values, checked where the config is read."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal

from jaxflow.data import Source
from jaxflow.sampling import Sampler
from jaxflow.times import Grid, TimeSampler
from jaxflow.training.adversary import Turns
from jaxflow.training.optimizers import OptimizerOptions


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataPlan:
  """The data set of a run.

  Attributes:
    name: Its name, or "given" for data that the caller passes.
    shape: Shape of one sample; None before the data are read.
    num_classes: Number of classes the run sees, 0 without labels; None before
      the data are read.
    conditional: Whether the run sees labels.
    flip: Whether half of the real images of a batch are mirrored.
    raw_dir: Folder of downloaded files, or None.
    data_dir: Folder of prepared data, or None.
    size: Height and width of images, or None for their own.
    ram_gib: Memory that a set may take, in GiB.
    threads: Reading threads; 0 chooses.
    download: Whether a set may be downloaded.
    pairs: Folder of noise-data pairs, "" for none.
    pairs_digest: Digest of the pairs, or None.
    synthetic_share: Share of the rows that are pairs.
    sources: Data that the caller passes, by split.
  """

  name: str
  shape: tuple[int, ...] | None
  num_classes: int | None
  conditional: bool
  flip: bool
  raw_dir: str | None
  data_dir: str | None
  size: int | None
  ram_gib: float
  threads: int
  download: bool
  pairs: str = ""
  pairs_digest: str | None = None
  synthetic_share: float = 1.0
  sources: Mapping[str, Source] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourcePlan:
  """Another run whose network a run takes.

  Attributes:
    workdir: Its folder, "" for none.
    ema: Its average, or "online" for the parameters.
    step: Its checkpoint; None for the latest.
  """

  workdir: str
  ema: str
  step: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainPlan:
  """The length and the rhythm of training.

  Attributes:
    steps: Step at which training ends.
    batch_size: Samples a step, over all devices.
    accumulate: Micro-batches a step.
    steps_per_dispatch: Steps that one call of the compiled program takes.
    log_every: Steps between log lines.
    sample_every: Steps between pictures; 0: only at the end.
    max_skipped: Non-finite steps in a row after which training stops.
  """

  steps: int
  batch_size: int
  accumulate: int
  steps_per_dispatch: int
  log_every: int
  sample_every: int
  max_skipped: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckpointPlan:
  """When checkpoints are written, and which stay.

  Attributes:
    every: Steps between checkpoints.
    keep: How many of the latest stay.
    keep_every: Checkpoints at multiples of this step stay; 0: none do.
  """

  every: int
  keep: int
  keep_every: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiscriminatorPlan:
  """When and how a discriminator learns.

  Attributes:
    start: Share of training after which it takes part.
    turns: "alternate" or "joint".
    optimizer: Its optimizer.
    sample_times: Where the generator that it judges starts.
  """

  start: float
  turns: Turns
  optimizer: OptimizerOptions
  sample_times: TimeSampler


@dataclasses.dataclass(frozen=True, kw_only=True)
class SamplePlan:
  """How samples are drawn.

  Attributes:
    nfe: Network calls per sample.
    batch_size: Samples at a time.
    guidance: Guidance scale; 1 does not guide.
    interval: Times inside of which samples are guided; None for all.
    ema: The average that is sampled, or "online" for the parameters.
    grid: Makes the times, `(num_points) -> [num_points]`.
    sampler: Applies the flow map, or the denoiser, over the times.
    solver: Name of the sampler, solver or flow map, for tables.
    record: All that decides how samples are drawn, as JSON.
  """

  nfe: int
  batch_size: int
  guidance: float
  interval: tuple[float, float] | None
  ema: str
  grid: Grid
  sampler: Sampler
  solver: str
  record: Mapping[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class FlowPlan:
  """How likelihood and trajectories are computed.

  Attributes:
    num: Samples of each; 0 computes neither.
    steps: Steps of the solver.
    probes: Random probes of the trace, a sample.
    levels: Values that quantised data have; 0 for continuous data.
  """

  num: int
  steps: int
  probes: int
  levels: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class DuringPlan:
  """Evaluation while training runs.

  Attributes:
    every: Steps between evaluations; 0: none.
    num: Generated samples.
    nfe: Network calls per sample, one evaluation each.
    metrics: Names of the metrics; None for all that apply.
    share: Largest share of the training time.
    best: Metric by which the best checkpoint is kept; "" keeps none.
  """

  every: int
  num: int
  nfe: tuple[int, ...]
  metrics: tuple[str, ...] | None
  share: float
  best: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationPlan:
  """How samples are compared with data.

  Attributes:
    nfe: Network calls per sample, one evaluation each.
    num: Generated samples.
    kept: Samples whose features stay in memory, for metrics of pairs.
    batch_size: Samples at a time.
    split: The split to compare with.
    reference: File of reference statistics in its place, "" for none.
    metrics: Names of the metrics; None for all that apply.
    flow: Likelihood and trajectories.
    during: Evaluation while training runs.
    network: Name of the feature network, "none" for none.
    extractor: Makes the feature network, from the shape and the number of
      classes of the data where it is `trained`.
    trained: Whether the network is a classifier of the data set itself.
  """

  nfe: tuple[int, ...]
  num: int
  kept: int
  batch_size: int
  split: Literal["train", "test"]
  reference: str
  metrics: tuple[str, ...] | None
  flow: FlowPlan
  during: DuringPlan
  network: str
  extractor: Callable[..., Any]
  trained: bool
