"""Trained networks of several seeds, and what can be made of them."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np

from jaxflow.config import Config, update
from jaxflow.parallel import sharding
from jaxflow.runs.drawing import class_labels, drawer
from jaxflow.runs.run import Run
from jaxflow.training.state import TrainState
from jaxflow.types import ModelFn, PyTree


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fits:
  """Trained networks, one a seed.

  Attributes:
    run: The run of their resolved config.
    seeds: Their seeds [S].
    states: Their last states; parameters, averages, frozen networks and
      counters.
    log: Metrics [S, dispatches] by name, NaN where not measured.
    seconds: What training took, compilation left out.
    key: Digest of all that decides them.
    earlier: States after fewer steps, by their number.
    draws: Samplers that are compiled, by network calls.
  """

  run: Run
  seeds: tuple[int, ...]
  states: Sequence[TrainState]
  log: Mapping[str, np.ndarray]
  seconds: float
  key: str
  earlier: Mapping[int, Sequence[TrainState]] = dataclasses.field(
    default_factory=dict
  )
  draws: dict[int, Callable] = dataclasses.field(default_factory=dict)

  @property
  def config(self) -> Config:
    """The resolved config."""
    return self.run.model.config

  @property
  def diverged(self) -> np.ndarray:
    """Whether parameters are not finite, or every tenth step was skipped."""
    return np.array([_broken(state) for state in self.states])

  def at(self, steps: int) -> Self:
    """Return the networks as they were after so many steps.

    Args:
      steps: The number of all steps, or one of `fit`'s `snapshots`.
    """
    if steps == self.config.train.steps:
      return self
    return dataclasses.replace(
      self,
      states=self.earlier[steps],
      key=f"{self.key}-{steps}",
      earlier={},
    )

  def changed(self, fields: Mapping[str, Any]) -> Self:
    """Return the same networks, sampled in another way.

    Args:
      fields: Fields of the config to change, as nested mappings.
    """
    config = self.config.copy_and_resolve_references()
    with config.unlocked():
      update(config, fields)
    return dataclasses.replace(
      self, run=Run.of(config), key=f"{self.key}, {fields}", draws={}
    )

  def mapped(self, function: Callable[[PyTree], PyTree]) -> Self:
    """Return networks with other parameters: rounded, for instance.

    Args:
      function: Makes parameters of parameters, of the same shapes and types.
    """
    states = [
      dataclasses.replace(
        state,
        params=function(state.params),
        ema={name: function(value) for name, value in state.ema.items()},
      )
      for state in self.states
    ]
    # Nothing can be kept under a name that does not say what was done.
    return dataclasses.replace(self, states=states, key="")

  def params(self, average: str | None = None) -> list[PyTree]:
    """Return the parameters of every seed.

    Args:
      average: Name of an EMA, or "online"; default: the one that is sampled.
    """
    name = average or self.config.sample.ema
    return [self.run.select(x, name, "average") for x in self.states]

  def sample(
    self, num: int, nfe: int, *, label: int | None = None, seed: int = 0
  ) -> np.ndarray:
    """Draw samples of every seed, [S, num, ...], each from its own noise.

    Args:
      num: Samples a seed.
      nfe: Network calls a sample.
      label: The class of all; default: classes in turn.
      seed: Of the noise, beside the seed of the network.
    """
    if nfe not in self.draws:
      self.draws[nfe] = drawer(self.run, nfe, "nfe", sharding.make_mesh())
    draw = self.draws[nfe]
    labels = class_labels(self.run.model.num_classes, num, label)
    keys = [
      jax.random.fold_in(jax.random.key(seed), number) for number in self.seeds
    ]
    found = [
      draw(state, key, num, labels)
      for state, key in zip(self.states, keys, strict=True)
    ]
    return np.stack(found)

  def networks(self, average: str | None = None) -> list[ModelFn]:
    """Return the network of every seed, its parameters as arguments."""
    apply = self.run.model.network.apply
    return [
      jax.tree_util.Partial(apply, params) for params in self.params(average)
    ]

  def velocities(self) -> list[ModelFn]:
    """Return the velocity of every seed, as the run is sampled."""
    velocity_of = self.run.model.sampled()

    def velocity(params, *inputs):
      return velocity_of(params)(*inputs)

    return [jax.tree_util.Partial(velocity, x) for x in self.params()]


def _broken(state: TrainState) -> bool:
  finite = all(
    bool(jnp.isfinite(x).all()) for x in jax.tree.leaves(state.params)
  )
  return not finite or int(state.skipped) * 10 > int(state.step)
