"""METHODS: every method is one row; open this file first.

A row says which loss trains the method, which flow map its network stands for,
how it samples, what it needs besides a data set, and the config values that
differ from the defaults of the loss. No other file knows a method's name.
"""

import dataclasses
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Literal

import jax

from jaxflow import flow_maps, losses, sampling
from jaxflow.paths import Path
from jaxflow.types import Array, FlowMap, LossOutput, PyTree

Need = Literal["target", "teacher"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Method:
  """One row of the table.

  Attributes:
    summary: What it does, in one line.
    paper: Where it comes from.
    loss: A function of `jaxflow.losses`.
    flow_map: Makes a flow map of a network: `(model_fn, **options) -> FlowMap`.
    sampler: Applies the flow map over a grid of times.
    teaches: Whether its network at s = t is a velocity (or what the loss calls
      its prediction), so that a trained run can be a teacher.
    needs: What the loss takes besides network and batch: "target" (an EMA
      network), "teacher" (a trained workdir).
    config: Values of the config that differ from the defaults.
  """

  summary: str
  paper: str
  loss: Callable[..., LossOutput]
  flow_map: Callable[..., FlowMap]
  sampler: sampling.Sampler
  teaches: bool = True
  needs: frozenset[Need] = frozenset()
  config: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def _jump(
  flow_map: FlowMap,
  noise: Array,
  times: Array,
  cond: PyTree = None,
  *,
  path: Path,
  key: Array,
) -> Array:
  del path, key
  return sampling.sample(flow_map, noise, times, cond)


def _jump_and_renoise(
  flow_map: FlowMap,
  noise: Array,
  times: Array,
  cond: PyTree = None,
  *,
  path: Path,
  key: Array,
) -> Array:
  shape = (len(times) - 2, *noise.shape)
  return sampling.consistency_sample(
    flow_map,
    noise,
    times,
    cond,
    path=path,
    step_noise=jax.random.normal(key, shape, noise.dtype),
  )


METHODS: Mapping[str, Method] = MappingProxyType(
  {
    "flow_matching": Method(
      summary="regress the velocity; sample by solving its ODE",
      paper="Lipman et al. 2022, arXiv:2210.02747",
      loss=losses.flow_matching_loss,
      flow_map=flow_maps.ode_step,
      sampler=_jump,
      config={"times": {"name": "uniform"}},
    ),
    "mean_flow": Method(
      summary="learn the average velocity from its differential identity",
      paper="Geng et al. 2025, arXiv:2505.13447",
      loss=losses.mean_flow_loss,
      flow_map=flow_maps.average_velocity,
      sampler=_jump,
      config={
        "model": {"second_time": True},
        "times": {
          "name": "sorted_pair",
          "law": {"name": "logit_normal", "mean": -0.4, "std": 1.0},
        },
      },
    ),
    "consistency_distillation": Method(
      summary="map neighbours on a teacher's trajectory to one end",
      paper="Song et al. 2023, arXiv:2303.01469",
      loss=losses.consistency_loss,
      flow_map=flow_maps.average_velocity,
      sampler=_jump_and_renoise,
      teaches=False,
      needs=frozenset({"target", "teacher"}),
      config={
        "times": {
          "name": "adjacent_pair",
          "grid": {"name": "uniform"},
          "num_points": 18,
        },
        "ema": {"target": {"name": "constant", "decay": 0.95}},
      },
    ),
  }
)
