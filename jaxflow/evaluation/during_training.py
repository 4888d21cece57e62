"""Evaluate a run while it trains, in a stated share of the time."""

import pathlib
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax

from jaxflow.errors import RunError, UsageError, named
from jaxflow.evaluation.best_checkpoint import Best
from jaxflow.evaluation.evaluator import Evaluator
from jaxflow.evaluation.streams import remove_partials
from jaxflow.parallel import processes
from jaxflow.reading import read_table
from jaxflow.runs.drawing import streamer
from jaxflow.runs.run import Run
from jaxflow.training.callbacks import Callbacks
from jaxflow.training.csv_log import CsvLog
from jaxflow.training.state import TrainState
from jaxflow.training.tensorboard_log import TensorBoardLog

LOG = "evaluations"


class Watch:
  """Evaluate averages and parameters; keep the best checkpoint.

  An evaluation is due every `evaluation.during.every` steps. It waits while the
  time of all evaluations, with one more as long as the last, exceeds
  `evaluation.during.share` of the time since training began. The last step of a
  run is always evaluated. `begin` is the step at which training starts or
  resumes.

  Statistics of real data that took long stay on disk until the last step, so a
  resumed run reuses them.
  """

  def __init__(
    self,
    evaluator: Evaluator,
    workdir: pathlib.Path,
    *,
    begin: int,
    interrupted: Callable[[], bool],
    log: Callable[[str], None],
  ):
    plan = evaluator.run.plan
    self._evaluator, self._workdir = evaluator, workdir
    self._options = plan.evaluation.during
    self._steps = plan.train.steps
    self._interrupted = interrupted
    self._log = log
    self._best = Best(workdir, self._options.best)
    logs = []
    if processes.is_main():
      logs.append(CsvLog(workdir, start=begin, name=LOG))
      logs.append(TensorBoardLog(workdir, start=begin, prefix="eval/"))
    self._writers = Callbacks(logs)
    self._due = begin - begin % self._options.every + self._options.every
    self._began = time.perf_counter()
    self._spent = 0.0
    # Nothing has been evaluated yet: real data took this long.
    emas = {evaluator.ema, "online"}
    self._last = evaluator.floor_seconds * len(emas) * len(self._options.nfe)

  def __call__(self, state: TrainState, step: int, position: Any) -> None:
    """Evaluate if it is due and there is time for it."""
    if step < min(self._due, self._steps):
      return
    elapsed = time.perf_counter() - self._began + self._last
    early = self._spent + self._last > self._options.share * elapsed
    if step < self._steps and processes.of_main(early):
      return
    began = time.perf_counter()
    scalars = self._evaluate(state, step)
    self._last = time.perf_counter() - began
    self._spent += self._last
    self._due = step - step % self._options.every + self._options.every
    if scalars is None:
      return
    elapsed = time.perf_counter() - self._began
    times = {"seconds": self._last, "share": self._spent / elapsed}
    self._writers.on_log(step, scalars | times)
    self._log(self._line(step, scalars))
    if self._options.best:
      nfe, best = self._options.nfe[0], self._options.best
      value = scalars.get(_column(self._evaluator.ema, nfe, best))
      self._best.offer(value, step, state, position)
    if step >= self._steps:
      processes.once(lambda: remove_partials(self._workdir / "evaluation"))

  def close(self) -> None:
    """Close the logs."""
    self._writers.close()
    self._writers.check()

  def _line(self, step: int, scalars: Mapping[str, float]) -> str:
    """Return a line with the scores of the average at the fewest calls."""
    prefix = _column(self._evaluator.ema, self._options.nfe[0], "")
    values = "  ".join(
      f"{k.removeprefix(prefix)} {v:.4g}"
      for k, v in scalars.items()
      if k.startswith(prefix)
    )
    return f"step {step} evaluated in {self._last:.1f} s ({prefix}): {values}"

  def _evaluate(self, state: TrainState, step: int) -> dict[str, float] | None:
    """Return all scores by column, or None after an interruption."""
    scalars = {}
    for ema in dict.fromkeys([self._evaluator.ema, "online"]):
      for nfe in self._options.nfe:
        try:
          drawn = self._evaluator.draw(
            state, nfe, ema=ema, interrupted=self._interrupted
          )
          if drawn is None:
            return None
          scores = self._evaluator.judge(drawn)
        except RunError as error:
          self._log(f"step {step}: {ema}, nfe={nfe}: {error}; training goes on")
          scores = {}
        scalars |= {
          _column(ema, nfe, name): score.value for name, score in scores.items()
        }
    return scalars


class NoWatch:
  """Evaluate nothing."""

  def __call__(self, state: TrainState, step: int, position: Any) -> None:
    """Do nothing."""

  def close(self) -> None:
    """Close nothing."""


def missing_last(run: Run, workdir: pathlib.Path) -> bool:
  """Return whether a run that is trained lacks its last evaluation."""
  plan = run.plan
  if not plan.evaluation.during.every:
    return False
  path = workdir / f"{LOG}.csv"

  def last() -> int:
    rows = read_table(path)[0] if path.exists() else []
    return max((int(row["step"]) for row in rows), default=-1)

  return processes.of_main(last() < plan.train.steps)


def watcher(
  run: Run,
  mesh: jax.sharding.Mesh,
  workdir: pathlib.Path | None,
  state: TrainState,
  *,
  interrupted: Callable[[], bool],
  log: Callable[[str], None],
) -> Watch | NoWatch:
  """Return the evaluation of a run that begins or resumes from a state.

  Without a workdir nothing is evaluated.
  """
  options = run.plan.evaluation.during
  if not options.every or workdir is None:
    return NoWatch()
  with named(nfe="evaluation.during.nfe"):
    samplers = {nfe: streamer(run, nfe, mesh) for nfe in options.nfe}
  evaluator = Evaluator(
    run,
    mesh,
    workdir / "evaluation",
    num=options.num,
    kept=options.num,
    names=options.metrics,
    samplers=samplers,
    log=log,
  )
  names = evaluator.judge.names
  evaluator.check_any(names)
  if options.best and options.best not in names:
    raise UsageError(
      f"evaluation.during.best={options.best!r} cannot be computed of this "
      f"data and network; choose one of {', '.join(names)}"
    )
  # Compile now, so that later evaluations take the time that is expected.
  for nfe in options.nfe:
    evaluator.draw(state, nfe, interrupted=lambda: True)
  begin = int(state.step)
  return Watch(
    evaluator, workdir, begin=begin, interrupted=interrupted, log=log
  )


def _column(ema: str, nfe: int, metric: str) -> str:
  return f"{ema}/nfe{nfe}/{metric}"
