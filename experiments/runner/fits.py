"""Trained runs of several seeds, and what can be made of them."""

import contextlib
import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, Self

import jax
import numpy as np

import jaxflow
from jaxflow.api import TrainedRun
from jaxflow.config import changed
from jaxflow.errors import RunError
from jaxflow.figures import read_log
from jaxflow.runs.run import Run
from jaxflow.types import ModelFn, PyTree


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fits:
  """Runs of one config, one a seed.

  Attributes:
    folder: Where they are kept: seed i in `seed_i`.
    runs: The runs by their seed; None where training broke off.
  """

  folder: pathlib.Path
  runs: Mapping[int, TrainedRun | None]

  @property
  def seeds(self) -> tuple[int, ...]:
    """The seeds [S]."""
    return tuple(self.runs)

  @property
  def trained(self) -> list[TrainedRun]:
    """The runs that are trained to the end."""
    return [run for run in self.runs.values() if run is not None]

  @property
  def run(self) -> Run:
    """The plan of the runs, with the first one's seed."""
    return self.trained[0].run

  @property
  def steps(self) -> int:
    """After how many steps of training the runs are taken."""
    return self.trained[0].step

  def workdir(self, seed: int) -> pathlib.Path:
    """Return the folder of a seed's run."""
    return self.folder / f"seed_{seed}"

  @property
  def log(self) -> dict[str, np.ndarray]:
    """What was logged, [S, lines] by name, NaN where not measured."""
    files = [self.workdir(seed) / "metrics.csv" for seed in self.seeds]
    # What broke off at once has none.
    logs = [read_log(file) if file.exists() else {} for file in files]
    names = dict.fromkeys(name for log in logs for name in log)
    lines = max(len(log.get("step", ())) for log in logs)
    found = {name: np.full((len(logs), lines), np.nan) for name in names}
    for i, log in enumerate(logs):
      for name, values in log.items():
        found[name][i, : len(values)] = values
    return found

  @property
  def seconds(self) -> float:
    """What training took, of all seeds together."""
    return float(np.nan_to_num(self.log["seconds"]).max(axis=1).sum())

  @property
  def diverged(self) -> np.ndarray:
    """Whether training broke off, or skipped more than a tenth of its steps."""
    return np.array(
      [
        run is None or int(run.state.skipped) * 10 > run.step
        for run in self.runs.values()
      ]
    )

  def each(self, function: Callable[[TrainedRun], TrainedRun]) -> Self:
    """Return other runs, each made of one of these."""
    runs = {k: run and function(run) for k, run in self.runs.items()}
    return dataclasses.replace(self, runs=runs)

  def at(self, steps: int) -> Self:
    """Return the runs as they were after so many steps.

    Args:
      steps: The number of all steps, or one of `fit`'s `snapshots`.
    """
    if steps == self.steps:
      return self

    def earlier(run):
      return jaxflow.load(run.workdir, step=steps, config=run.config)

    return self.each(earlier)

  def changed(self, fields: Mapping[str, Any]) -> Self:
    """Return the same runs, sampled in another way.

    Args:
      fields: Fields of the config to change, as nested mappings.
    """

    def otherwise(run):
      config = changed(run.config, fields)
      return jaxflow.load(run.workdir, step=run.step, config=config)

    return self.each(otherwise)

  def mapped(self, function: Callable[[PyTree], PyTree]) -> Self:
    """Return runs with other parameters: rounded, for instance.

    Args:
      function: Makes parameters of parameters, of the same shapes and types.
    """

    def other(run):
      params = function(run.state.params)
      ema = {name: function(value) for name, value in run.state.ema.items()}
      state = dataclasses.replace(run.state, params=params, ema=ema)
      # No folder holds it.
      return dataclasses.replace(run, state=state, workdir=None)

    return self.each(other)

  def params(self) -> list[PyTree]:
    """Return the parameters of every seed, of the average that is sampled."""
    return [run.params for run in self.trained]

  def allows(self, nfe: int) -> bool:
    """Return whether the sampler can make `nfe` network calls a sample."""
    return self.run.model.allows(self.run.plan.sample, nfe)

  def sample(self, num: int, nfe: int, *, seed: int = 0) -> np.ndarray:
    """Draw samples of every seed, [S, num, ...], each from its own noise.

    Classes come in turn. A seed whose samples are not finite has NaN.

    Args:
      num: Samples a seed.
      nfe: Network calls a sample.
      seed: Of the noise, beside the seed of the run.
    """
    found = np.full((len(self.seeds), num, *self.run.model.shape), np.nan)
    for samples, (number, run) in zip(found, self.runs.items(), strict=True):
      own = 1000 * seed + number
      with contextlib.suppress(RunError):
        if run is not None:
          samples[:] = run.sample(num, nfe=nfe, seed=own, clip=False)
    return found.astype(np.float32)

  def velocities(self) -> list[ModelFn]:
    """Return the velocity of every seed, its parameters as arguments."""
    network_of = self.run.model.sampled(self.run.plan.sample)

    def velocity(params, *inputs):
      return network_of(params)(*inputs)

    return [jax.tree_util.Partial(velocity, x) for x in self.params()]
