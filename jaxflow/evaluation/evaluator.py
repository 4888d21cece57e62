"""Evaluate a run: real data are seen once, its samples as often as asked."""

import dataclasses
import functools
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import jax
import numpy as np

from jaxflow import data, metrics
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
from jaxflow.plans import Plan
from jaxflow.runs import decoding
from jaxflow.runs.drawing import streamer
from jaxflow.runs.inputs import load_data
from jaxflow.runs.run import Run
from jaxflow.training.state import TrainState

# The split of fresh real samples, beside the one that is compared with.
_OTHER = {"test": "train", "train": "test"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluator:
  """Judge the samples of a run.

  Attributes:
    run: The run.
    mesh: The devices.
    num: How many samples are generated.
    kept: Of how many of them everything is kept.
    look: Computes the features of a batch.
    judge: Compares samples with real data.
    floor_seconds: How many seconds it took to judge fresh real data.
    labels: Classes of generated samples [num], or None.
    about: Seed, sizes, reference and networks, for JSON.
    say: Prints a line.
  """

  run: Run
  mesh: jax.sharding.Mesh
  num: int
  kept: int
  look: Look
  judge: metrics.Judge
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
    names: Sequence[str] | None,
    say: Callable[[str], None] = lambda line: None,
  ) -> Self:
    """Look at real data, and check that all metrics can be computed.

    Args:
      run: The run.
      mesh: The devices.
      folder: Where trained classifiers are kept.
      num: How many samples to generate.
      kept: Of how many, real and generated, everything is kept.
      names: Names of the metrics; None for all that apply.
      say: Prints a line.

    Raises:
      UsageError: If a field is wrong, data are missing, or a metric is unknown
        or cannot be computed.
    """
    plan, options = run.plan, run.plan.evaluation
    if names is not None:
      names = [x for x in names if not metrics.of_velocity(x)]
    network = None
    if names is None or any(map(metrics.sees_images, names)):
      network = make_extractor(options, plan.data, folder, say=say)
    networks = () if network is None else (network,)
    stored = read_reference(plan, network)
    look = make_look(networks, decoding.make_decoder(plan.data), mesh)
    see = functools.partial(
      _see,
      plan,
      folder,
      kept=kept,
      look=look,
      weights=[x.sha256 for x in networks],
      mesh=mesh,
    )
    # A file of statistics holds the moments: only rows are computed here.
    reference, real_labels = see(options.split, kept if stored else None)
    if stored is not None:
      reference = stored.replace_in(reference)
    fresh, _ = see(_OTHER[options.split], num)
    began = time.perf_counter()
    judge = metrics.Judge(
      reference,
      fresh,
      names=names,
      mixture=data.known_mixture(plan.data.name),
      seed=plan.seed,
    )
    return cls(
      run=run,
      mesh=mesh,
      num=num,
      kept=kept,
      look=look,
      judge=judge,
      floor_seconds=time.perf_counter() - began,
      labels=_like(real_labels, num, run.model.num_classes, plan.seed),
      say=say,
      about={
        "seed": plan.seed,
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
    return self.run.plan.sample.ema

  def draw(
    self,
    state: TrainState,
    nfe: int,
    *,
    ema: str | None = None,
    partial: Partial | None = None,
    interrupted: Callable[[], bool] = lambda: False,
  ) -> SampleSummary | None:
    """Generate samples and look at them.

    Args:
      state: The run's state.
      nfe: Network calls per sample.
      ema: The average, "online" for the parameters; default: `sample.ema`.
      partial: Where unfinished work is kept.
      interrupted: Whether to stop; asked after every batch.

    Returns:
      Their summary, or None after an interruption.
    """
    plan = self.run.plan
    stream = self._stream(nfe)
    return collect(
      lambda first: stream(
        state,
        jax.random.key(plan.seed),
        self.num,
        self.labels,
        first=first,
        size=plan.evaluation.batch_size,
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
    """The samplers by number of calls, each made once."""
    return functools.cache(lambda nfe: streamer(self.run, nfe, self.mesh))


def _see(
  plan: Plan,
  folder: pathlib.Path,
  split: str,
  num: int | None,
  *,
  kept: int,
  look: Look,
  weights: list[str],
  mesh: jax.sharding.Mesh,
) -> tuple[SampleSummary, np.ndarray | None]:
  """Return a summary of samples of a split, and their labels."""
  source = processes.together(lambda: load_data(plan.data, split))
  index = choose(source, num or len(source), plan.seed)
  labels = processes.together(lambda: labels_of(source, index))
  size = plan.evaluation.batch_size
  stream = real_batches(source, index, size, mesh)
  work = {"split": split, "num": num, "kept": kept}
  work["config"] = plan.config.to_dict()
  partial = Partial(folder, {**work, "weights": weights})
  drawn = collect(stream, look, kept=kept, labels=labels, partial=partial)
  if drawn is None:
    raise AssertionError("nothing interrupts looking at real data")
  return drawn, labels


def _like(
  labels: np.ndarray | None, num: int, num_classes: int, seed: int
) -> np.ndarray | None:
  """Return labels [num] with the shares that classes have in the reference."""
  if not num_classes or labels is None:
    return None
  generator = np.random.default_rng(seed)
  return metrics.repeated_labels(generator, labels, num).astype(np.int32)
