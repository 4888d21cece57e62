"""One network and one budget of FLOPs for all rows that a study compares.

The budget is the FLOPs in which a baseline takes its steps, counted in the
compiled programs. What a row starts from counts: of a row with a teacher, a
starting point or pairs, a share of the budget trains that run, divided again if
that run starts from another; and a pair costs its network calls, of which a
step of flow matching has three a sample. A step in which networks take turns is
counted as its dearest turn.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from experiments import runner
from jaxflow.compilation.of_config import assumed_plan
from jaxflow.compilation.programs import training_step
from jaxflow.compilation.report import compile_program
from jaxflow.config import Config, update
from jaxflow.parallel import sharding
from jaxflow.runs.pair_generation import PairOptions
from jaxflow.runs.run import Run

# What makes the pairs of a row that starts from nothing else.
_PAIRED = "flow_matching"


class Board:
  """The runs of one data set, each within the budget.

  Args:
    bench: Where to train.
    name: The data set.
    changes: What of the config is different for it.
    steps: Steps of the baseline.
  """

  def __init__(
    self, bench: runner.Bench, name: str, changes: dict[str, Any], steps: int
  ):
    self._bench, self._name, self._changes = bench, name, changes
    self._steps = steps
    self._starts: dict[tuple[str, float], runner.Fits] = {}
    self._pairs: pathlib.Path | None = None
    baseline = self._config(bench.settings["baseline"])
    self._budget = steps * flops_of_step(baseline)

  def row(
    self,
    method: str,
    judge: runner.ImageJudge,
    *,
    name: str = "",
    fields: Mapping[str, Any] | None = None,
  ) -> tuple[runner.Row, np.ndarray]:
    """Train a row and judge it; return 20 one-call samples as well.

    It has the `name` of its method, or another where `fields` change.
    """
    settings, name = self._bench.settings, name or method
    config = self._config(method)
    update(config, fields or {})
    start, others, share = self._others(config, 1.0)
    stages = settings.get("stages", {}).get(method, [({}, settings["nfe"])])
    numbers: dict[str, Any] = {}
    steps, images = 0, np.zeros(0)
    for changes, nfe in stages:
      update(config, changes)
      fits = self._fit(name, config, others, share / len(stages))
      steps += fits.steps
      for calls in filter(fits.allows, nfe):
        samples = fits.sample(judge.num, calls)
        scores = judge(samples)
        numbers |= {f"{k}_{calls}": v for k, v in scores.items()}
        if calls == 1:
          images = samples[0, :20]
      if len(stages) > 1:
        # The next stage distils this one, whose pictures are guided already.
        others["teacher"] = fits
        config.teacher.guidance = 1.0
    numbers["steps"] = steps
    labels = {"data": self._name, "method": name, "from": start}
    return runner.Row(labels, numbers), images

  def _config(self, method: str) -> Config:
    settings = self._bench.settings
    config = self._bench.config(
      f"digits:{method}", {"data": {"name": self._name}}, self._changes
    )
    update(config, settings.get("fields", {}).get(method, {}))
    size = min(config.train.batch_size, settings["batch_size"])
    config.train.update(batch_size=size, steps_per_dispatch=10)
    return config

  def start(self, method: str, share: float = 1.0) -> runner.Fits:
    """Train what others start from, with its part of their share.

    What starts from another run itself divides its part in the same way.
    """
    share *= self._bench.settings["start_share"]
    if (method, share) not in self._starts:
      config = self._config(method)
      _, others, rest = self._others(config, share)
      name = f"{method} to start from"
      self._starts[method, share] = self._fit(name, config, others, rest)
    return self._starts[method, share]

  def _others(
    self, config: Config, share: float
  ) -> tuple[str, dict[str, Any], float]:
    """Return a row's start, what it is fitted with, and the share it keeps."""
    roles, paired = runner.named_runs(config), config.data.get("pairs")
    # All of a row's roles have one run, and so have its pairs.
    (start,) = set(roles.values()) or {_PAIRED if paired else ""}
    if not start:
      return "", {}, share
    others: dict[str, Any] = dict.fromkeys(roles, self.start(start, share))
    share *= 1 - self._bench.settings["start_share"]
    if paired:
      others["pairs"] = self._made_pairs(start)
      share -= self._share_of_pairs()
    return start, others, share

  def _fit(
    self, name: str, config: Config, others: Mapping[str, Any], share: float
  ) -> runner.Fits:
    """Train a config for what a share of the budget buys."""
    for role in runner.named_runs(config):
      # What a step costs depends on the networks that it takes.
      config[role].workdir = str(others[role].workdir(0))
    chunk = config.train.steps_per_dispatch
    paid = self._budget * share / flops_of_step(config)
    config.train.steps = max(chunk, int(paid / chunk) * chunk)
    warmup = self._bench.settings["warmup_share"] * config.train.steps
    config.optimizer.warmup_steps = int(warmup)
    return self._bench.fit(f"{self._name}, {name}", config, **others)

  def _made_pairs(self, method: str) -> pathlib.Path:
    if self._pairs is None:
      options = PairOptions(**self._bench.settings["pairs"])
      self._pairs = runner.make_pairs(self.start(method), options)
    return self._pairs

  def _share_of_pairs(self) -> float:
    """Return what pairs cost, as a share of the budget."""
    pairs, settings = self._bench.settings["pairs"], self._bench.settings
    calls = pairs["num"] * pairs["nfe"] * (1 + (pairs["guidance"] != 1))
    return calls / (3 * settings["batch_size"]) / self._steps


def flops_of_step(config: Config) -> float:
  """Return the FLOPs of the matrix products of one training step."""
  run = Run(assumed_plan(config)[0])
  program = training_step(run, sharding.make_mesh(), steps=1)
  return compile_program(program).flops
