"""jaxflow: generative models that need one network call, or a few, in JAX.

    import jaxflow

    config = jaxflow.preset("digits:mean_flow")
    run = jaxflow.train(config, workdir="runs/x")
    images = run.sample(16, labels=[3] * 16, nfe=1)

A name is imported when it is first used, so `import jaxflow` loads nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

# The module of every public name; a module stands for itself.
_HOME = {
  **dict.fromkeys(("Network",), "models"),
  **dict.fromkeys(("METHODS",), "methods"),
  **dict.fromkeys(("register",), "config.registration"),
  **dict.fromkeys(
    ("TrainedRun", "import_run", "load", "preset", "train"), "api"
  ),
  **{
    name: name
    for name in (
      "figures",
      "flow_maps",
      "guidance",
      "losses",
      "metrics",
      "models",
      "paths",
      "predictions",
      "sampling",
      "solvers",
      "times",
      "weights",
    )
  },
}

__all__ = [
  "METHODS",
  "Network",
  "TrainedRun",
  "__version__",
  "figures",
  "flow_maps",
  "guidance",
  "import_run",
  "load",
  "losses",
  "metrics",
  "models",
  "paths",
  "predictions",
  "preset",
  "register",
  "sampling",
  "solvers",
  "times",
  "train",
  "weights",
]

if TYPE_CHECKING:
  from jaxflow import (
    figures,
    flow_maps,
    guidance,
    losses,
    metrics,
    models,
    paths,
    predictions,
    sampling,
    solvers,
    times,
    weights,
  )
  from jaxflow.api import TrainedRun, import_run, load, preset, train
  from jaxflow.config.registration import register
  from jaxflow.methods import METHODS
  from jaxflow.models import Network


def __getattr__(name: str) -> Any:
  """Import a public name when it is first used."""
  if name not in _HOME:
    raise AttributeError(f"module 'jaxflow' has no attribute {name!r}")
  module = importlib.import_module(f"jaxflow.{_HOME[name]}")
  value = module if _HOME[name] == name else getattr(module, name)
  globals()[name] = value
  return value


def __dir__() -> list[str]:
  """List the public names."""
  return sorted(__all__)
