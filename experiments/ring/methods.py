"""Every row of METHODS on the ring: the same network, the same steps.

`configs/ring.py` says what a method builds on: the folder that it names as
teacher, starting point or pairs is the name of other networks here.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from experiments.runner import Bench, Fits, make_pairs, named_runs
from jaxflow.config import Config
from jaxflow.runs.pair_generation import PairOptions


@dataclasses.dataclass(kw_only=True)
class Methods:
  """Trains methods, and once only what several of them build on.

  Attributes:
    bench: Its settings have "methods_steps", "network", "starts", "stages",
      "calls" and "pairs".
    starts: Networks that others build on, by name.
  """

  bench: Bench
  starts: dict[str, Fits] = dataclasses.field(default_factory=dict)

  def train(self, method: str) -> list[tuple[Fits, Sequence[int], str]]:
    """Train a method; return networks, for which calls, and on what built.

    A method of stages has several networks: each teaches the next.
    """
    settings = self.bench.settings
    calls = settings["calls"].get(method, settings["calls"]["others"])
    stages = settings["stages"].get(method, [({}, calls)])
    steps = settings["methods_steps"] // len(stages)
    found, last = [], None
    for changes, calls in stages:
      config = self._config(method, steps, changes)
      others = self._others(config)
      if last is not None:
        others["teacher"] = last
      last = self.bench.fit(method, config, **others)
      found.append((last, calls, ", ".join(others)))
    return found

  def _config(self, method: str, steps: int, changes: dict[str, Any]) -> Config:
    """Return a method's config with the network of this experiment."""
    settings = self.bench.settings
    return self.bench.config(
      f"ring:{method}",
      settings["network"],
      {"train": {"steps": steps}},
      changes,
    )

  def _others(self, config: Config) -> dict[str, Any]:
    """Return what a config builds on, as arguments of `fit`."""
    others: dict[str, Any] = {
      role: self._start(name) for role, name in named_runs(config).items()
    }
    if config.data.get("pairs"):
      options = self.bench.settings["pairs"]
      others["pairs"] = make_pairs(
        self._start(options["of"]),
        PairOptions(num=options["num"], nfe=options["nfe"]),
      )
    return others

  def _start(self, name: str) -> Fits:
    """Return networks that others build on."""
    if name not in self.starts:
      settings = self.bench.settings
      method, changes = settings["starts"][name]
      config = self._config(method, settings["methods_steps"], changes)
      self.starts[name] = self.bench.fit(name, config)
    return self.starts[name]
