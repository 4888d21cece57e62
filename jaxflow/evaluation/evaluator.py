"""Evaluate a run: real data are seen once, its samples as often as asked."""

import functools
import pathlib
import statistics
import time
from collections.abc import (
  Callable,
  Collection,
  Iterator,
  Mapping,
  Sequence,
)

import jax
import numpy as np

from jaxflow import data, metrics
from jaxflow.errors import UsageError
from jaxflow.evaluation import streams
from jaxflow.evaluation.networks import make_extractor
from jaxflow.evaluation.statistics import read_reference
from jaxflow.metrics import SampleSummary
from jaxflow.parallel import processes
from jaxflow.runs import decoding
from jaxflow.runs.drawing import Batch, Stream
from jaxflow.runs.run import Run
from jaxflow.training.state import TrainState
from jaxflow.types import PyTree


class Evaluator:
  """Looks at real data at once, then judges `num` samples as often as asked.

  The folder keeps trained classifiers and unfinished work. Of `kept` samples,
  real and generated, everything is kept. `names` None takes all metrics that
  apply. `samplers` draw samples, by the network calls of one.

  `judge` compares samples with real data; fresh real ones took `floor_seconds`.
  `labels` are the conditions of generated samples, or None. `about` holds seed,
  sizes, reference and networks, for JSON; `left_out` says why numbers are
  missing that nobody named.
  """

  def __init__(
    self,
    run: Run,
    mesh: jax.sharding.Mesh,
    folder: pathlib.Path,
    *,
    num: int,
    kept: int,
    names: Sequence[str] | None,
    samplers: Mapping[int, Stream],
    log: Callable[[str], None] = lambda line: None,
  ):
    self._samplers = samplers
    self._seconds: dict[int, list[float]] = {}
    self.run, self.mesh, self.num, self.kept = run, mesh, num, kept
    self._folder, self._log = folder, log
    self.left_out: dict[str, str] = {}
    plan, options = run.plan, run.plan.evaluation
    if names is not None:
      names = [x for x in names if not metrics.of_velocity(x)]
    network = None
    if names is None or any(map(metrics.sees_images, names)):
      network = make_extractor(options, plan.data, folder, log=log)
    networks = () if network is None else (network,)
    stored = read_reference(plan, network)
    decoder = decoding.make_decoder(plan.data)
    self.look = streams.make_look(networks, decoder, mesh)
    weights = [x.sha256 for x in networks]
    # A file of statistics holds the moments: only rows are computed here.
    held, others = processes.together(lambda: streams.real_parts(plan))
    reference, labels = self._see(held, kept if stored else None, weights)
    if stored is not None:
      reference = stored.replace_in(reference)
    halved = len(held.rows) < len(held.source)
    if halved:
      log(
        f"note: {plan.data.name} has one split: real data are one half of it, "
        f"{'all of it' if stored else 'the other half'} is the reference"
      )
    fresh, _ = self._see(others, num, weights)
    self.num_fresh = fresh.num
    log(
      f"the floor is of {fresh.num:,} other real samples: "
      f"{'the other half' if halved else 'of the split'} "
      f"{others.source.split} of {plan.data.name}"
    )
    began = time.perf_counter()
    self.judge: metrics.Judge = metrics.Judge(
      reference,
      fresh,
      names=names,
      mixture=data.known_mixture(plan.data.name),
      seed=plan.seed,
      left_out=self.leave_out,
    )
    self.floor_seconds = time.perf_counter() - began
    self.labels: PyTree = None
    if labels is not None:
      # With the shares that classes have in the reference.
      generator = np.random.default_rng(plan.seed)
      self.labels = metrics.repeated_labels(generator, labels, num)
    self.about = {
      "seed": plan.seed,
      "num": num,
      "reference": {
        "split": options.split,
        "num": reference.num,
        **(stored.describe() if stored else {}),
      },
      "floor": {
        "split": others.source.split,
        "num": fresh.num,
        "half": halved,
      },
      "networks": {
        x.name: {
          "protocol": x.protocol,
          "sha256": x.sha256,
          "size": len(fresh.moments[x.name].mean),
        }
        for x in networks
      },
    }

  def leave_out(self, name: str, reason: str) -> None:
    """Note, and say once, why a number is missing."""
    if self.left_out.get(name) != reason:
      self._log(f"{name} is left out: {reason}")
    self.left_out[name] = reason

  def check_any(self, found: Collection[str]) -> None:
    """Raise UsageError if there is no number to give."""
    if found:
      return
    split = self.run.plan.evaluation.split
    raise UsageError(
      f"evaluation.split={split!r}: {self.about['reference']['num']} samples "
      f"there and {self.num_fresh} fresh ones allow no metric ({self.reason}); "
      "give more data"
    )

  @property
  def reason(self) -> str:
    """Why the first number is missing, without the remedy."""
    return next(iter(self.left_out.values()), "none applies").split(";")[0]

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
    partial: streams.Partial | None = None,
    interrupted: Callable[[], bool] = lambda: False,
  ) -> SampleSummary | None:
    """Generate samples and look at them; None after an interruption.

    They are of the average `ema`, default `sample.ema`. `partial` keeps
    unfinished work; whether to stop is asked after every batch.
    """
    seconds = self._seconds[nfe] = []
    stream = self._stream(state, nfe, ema)
    return streams.collect(
      lambda first: _timed(stream(first=first), seconds),
      self.look,
      kept=self.kept,
      labels=self._known(self.labels),
      partial=partial,
      progress=streams.Progress(self._log, f"NFE {nfe}", self.num),
      interrupted=interrupted,
    )

  def speed(self, state: TrainState, nfe: int) -> float:
    """Return samples per second of the last `draw`, the median of batches.

    The first batch compiled. Where it was the only one, another is drawn.
    """
    seconds, stream = self._seconds[nfe], self._stream(state, nfe)
    while len(seconds) < 2:
      next(_timed(stream(), seconds))
    size = min(self.num, self.run.plan.evaluation.batch_size)
    return size / statistics.median(seconds[1:])

  def _stream(
    self, state: TrainState, nfe: int, ema: str | None = None
  ) -> Callable[..., Iterator[Batch]]:
    """Return the stream of samples from the number `first` on."""
    plan = self.run.plan
    return functools.partial(
      self._samplers[nfe],
      state,
      jax.random.key(plan.seed),
      self.num,
      self.labels,
      size=plan.evaluation.batch_size,
      ema=ema,
    )

  def _known(self, labels: PyTree) -> np.ndarray | None:
    """Return classes with -1 for none; None where labels are no classes."""
    classes = self.run.model.num_classes
    if labels is None or not classes:
      return None
    return data.known_labels(labels, classes)

  def _see(
    self, part: streams.Part, num: int | None, weights: Sequence[str]
  ) -> tuple[SampleSummary, PyTree]:
    """Return a summary of samples of a part, and their conditions.

    `weights` are hashes of the networks' weights.
    """
    plan, source = self.run.plan, part.source

    def choose():
      index = streams.choose(part, num or len(part.rows), plan.seed)
      labels = streams.labels_of(source, index)
      return index, labels, streams.identity(source)

    index, labels, identity = processes.together(choose)
    which = source.split, part.rows[:1].tolist(), len(part.rows)
    work = {"split": which, "num": num, "kept": self.kept, "weights": weights}
    # The config does not tell data that the caller gives from others.
    work |= {"config": plan.config.to_dict(), "identity": identity}
    drawn = streams.collect(
      streams.real_batches(
        source, index, plan.evaluation.batch_size, self.mesh
      ),
      self.look,
      kept=self.kept,
      labels=self._known(labels),
      partial=streams.Partial(self._folder, work),
    )
    assert drawn is not None, "nothing interrupts looking at real data"
    return drawn, labels


def _timed(batches: Iterator[Batch], seconds: list[float]) -> Iterator[Batch]:
  """Yield batches, and note in a list how long each took to be drawn."""
  while True:
    began = time.perf_counter()
    batch = next(batches, None)
    if batch is None:
      return
    jax.block_until_ready(batch[-1])
    seconds.append(time.perf_counter() - began)
    yield batch
