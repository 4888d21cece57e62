"""Evaluate a run: real data are seen once, its samples as often as asked."""

import dataclasses
import functools
import pathlib
import time
from collections.abc import Callable, Mapping
from typing import Any, Self

import jax
import numpy as np

from jaxflow import data, evaluation, metrics
from jaxflow.config import Config
from jaxflow.errors import UsageError
from jaxflow.evaluation.networks import make_extractor
from jaxflow.evaluation.references import read_reference
from jaxflow.evaluation.streams import (
  Look,
  Partial,
  Progress,
  choose,
  collect,
  labels_of,
  make_look,
  real_batches,
)
from jaxflow.metrics import SampleSummary
from jaxflow.parallel import processes
from jaxflow.runs import decoding
from jaxflow.runs.drawing import streamer
from jaxflow.runs.run import Run, load_data
from jaxflow.training.state import TrainState

# The split of fresh real samples, beside the one that is compared with.
_OTHER = {"test": "train", "train": "test"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluator:
  """What judges samples of a run.

  Attributes:
    run: The run.
    mesh: The devices.
    num: How many samples are generated.
    kept: Of how many of them everything is kept.
    look: What feature networks make of a batch.
    judge: Compares what is drawn with real data.
    floor_seconds: How many seconds it took to judge fresh real data.
    labels: Classes of generated samples [num], or None.
    about: What is to be known of the numbers, for JSON.
    say: Prints a line.
  """

  run: Run
  mesh: jax.sharding.Mesh
  num: int
  kept: int
  look: Look
  judge: evaluation.Judge
  floor_seconds: float
  labels: np.ndarray | None
  about: Mapping[str, Any]
  say: Callable[[str], None]

  @classmethod
  def of(
    cls,
    run: Run,
    mesh: jax.sharding.Mesh,
    folder: pathlib.Path,
    *,
    num: int,
    kept: int,
    metrics: str,
    field: str,
    say: Callable[[str], None] = lambda line: None,
  ) -> Self:
    """Look at real data, and check that all metrics can be computed.

    Args:
      run: The run.
      mesh: The devices.
      folder: Where trained classifiers are kept.
      num: How many samples to generate.
      kept: Of how many, real and generated, everything is kept.
      metrics: Names with commas between; "" for all that apply.
      field: The config field that names them, for messages.
      say: Prints a line.

    Raises:
      UsageError: If a field is wrong, data are missing, or a metric is unknown
        or cannot be computed.
    """
    config = run.model.config
    options = config.evaluation
    check_fields(config)
    names = _names(metrics)
    network = None
    if names is None or any(map(evaluation.sees_images, names)):
      network = make_extractor(options.network, config, folder, say=say)
    networks = () if network is None else (network,)
    stored = read_reference(config, network)
    look = make_look(networks, decoding.make_decoder(config), mesh)
    see = functools.partial(
      _see,
      config,
      folder,
      kept=kept,
      look=look,
      weights=[x.sha256 for x in networks],
      mesh=mesh,
    )
    # Of what a file stands for, rows alone are looked at.
    reference, real_labels = see(options.split, kept if stored else None)
    if stored is not None:
      reference = stored.replace_in(reference)
    fresh, _ = see(_OTHER[options.split], num)
    began = time.perf_counter()
    try:
      judge = evaluation.Judge(
        reference,
        fresh,
        names=names,
        mixture=data.known_mixture(config.data.name),
        seed=config.seed,
      )
    except UsageError as error:
      raise UsageError(f"{field}: {error}") from error
    return cls(
      run=run,
      mesh=mesh,
      num=num,
      kept=kept,
      look=look,
      judge=judge,
      floor_seconds=time.perf_counter() - began,
      labels=_like(real_labels, num, run.model.num_classes, config.seed),
      say=say,
      about={
        "seed": config.seed,
        "num": num,
        "reference": {
          "split": options.split,
          "num": reference.num,
          **(stored.describe() if stored else {}),
        },
        "networks": {
          x.name: {
            "protocol": x.protocol,
            "sha256": x.sha256,
            "size": len(fresh.moments[x.name].mean),
          }
          for x in networks
        },
      },
    )

  @property
  def ema(self) -> str:
    """The average that samples come from."""
    return self.run.model.config.sample.ema

  def draw(
    self,
    state: TrainState,
    nfe: int,
    field: str,
    *,
    ema: str | None = None,
    partial: Partial | None = None,
    interrupted: Callable[[], bool] = lambda: False,
  ) -> SampleSummary | None:
    """Generate samples and look at them.

    Args:
      state: The run's state.
      nfe: Network calls per sample.
      field: The flag or config field that asks for so many, for messages.
      ema: The average, "online" for the parameters; default: `sample.ema`.
      partial: Where to keep what is done.
      interrupted: Whether to stop; asked after every batch.

    Returns:
      What is kept of them, or None after an interruption.
    """
    config = self.run.model.config
    stream = self._stream(nfe, field)
    return collect(
      lambda first: stream(
        state,
        jax.random.key(config.seed),
        self.num,
        self.labels,
        first=first,
        size=config.evaluation.batch_size,
        ema=ema,
      ),
      self.look,
      kept=self.kept,
      labels=self.labels,
      partial=partial,
      progress=Progress(self.say, f"NFE {nfe}", self.num),
      interrupted=interrupted,
    )

  @functools.cached_property
  def _stream(self) -> Callable[..., Any]:
    """Make each sampler once."""
    return functools.cache(
      lambda nfe, field: streamer(self.run, nfe, field, self.mesh)
    )


def check_fields(config: Config) -> None:
  """Raise UsageError if a field is wrong that needs no data to be judged."""
  options, during = config.evaluation, config.evaluation.during
  if options.split not in _OTHER:
    raise UsageError(f"evaluation.split={options.split!r}: give train or test")
  fields = {
    "evaluation.metrics": _names(options.metrics) or (),
    "evaluation.during.metrics": _names(during.metrics) or (),
    "evaluation.during.best": _names(during.best) or (),
  }
  for field, names in fields.items():
    for name in names:
      try:
        evaluation.direction(name)
      except UsageError as error:
        raise UsageError(f"{field}: {error}") from error
      if options.network.name == "none" and evaluation.sees_images(name):
        raise UsageError(
          f"{field}: {name!r} is of what a network sees; give "
          "evaluation.network.name"
        )
  if len(fields["evaluation.during.best"]) > 1:
    raise UsageError(f"evaluation.during.best={during.best!r}: give one metric")
  chosen = fields["evaluation.during.metrics"]
  if during.best and chosen and during.best not in chosen:
    raise UsageError(
      f"evaluation.during.best={during.best!r} is none of "
      f"evaluation.during.metrics={during.metrics!r}: add it there"
    )


def _see(
  config: Config,
  folder: pathlib.Path,
  split: str,
  num: int | None,
  *,
  kept: int,
  look: Look,
  weights: list[str],
  mesh: jax.sharding.Mesh,
) -> tuple[SampleSummary, np.ndarray | None]:
  """Look at `num` samples of a split, or at all; return their labels too."""
  options = config.evaluation
  source = processes.together(lambda: load_data(config, split))
  index = choose(source, num or len(source), config.seed)
  labels = processes.together(lambda: labels_of(source, index))
  stream = real_batches(source, index, options.batch_size, mesh)
  work = {"split": split, "num": num, "kept": kept, "config": config.to_dict()}
  partial = Partial(folder, {**work, "weights": weights})
  drawn = collect(stream, look, kept=kept, labels=labels, partial=partial)
  if drawn is None:
    raise AssertionError("nothing interrupts looking at real data")
  return drawn, labels


def _names(metrics: str) -> tuple[str, ...] | None:
  """Return the names of a list with commas, None for an empty one.

  What is of a velocity, not of samples, is left out.
  """
  names = tuple(name.strip() for name in metrics.split(",") if name.strip())
  of_samples = tuple(x for x in names if not evaluation.of_velocity(x))
  return of_samples if names else None


def _like(
  labels: np.ndarray | None, num: int, num_classes: int, seed: int
) -> np.ndarray | None:
  """Return labels [num] with the shares that classes have in the reference."""
  if not num_classes or labels is None:
    return None
  generator = np.random.default_rng(seed)
  return metrics.repeated_labels(generator, labels, num).astype(np.int32)
