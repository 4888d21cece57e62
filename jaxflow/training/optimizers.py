"""Optimizers and learning-rate schedules, all from optax."""

import dataclasses
import inspect
from typing import Any

import jax
import optax
from optax import contrib

from jaxflow import plugins
from jaxflow.errors import UsageError, named
from jaxflow.types import PyTree


def _muon(
  learning_rate: optax.Schedule,
  *,
  b1: float,
  b2: float,
  eps: float,
  weight_decay: float,
) -> optax.GradientTransformation:
  """Make Muon for matrices, and Adam for all other arrays.

  Layers that are scanned have stacked matrices (`model.scan_layers`). Adam has
  the same learning rate, Nesterov momentum as Muon has, and no weight decay.
  """
  return contrib.muon(
    learning_rate,
    eps=eps,
    weight_decay=weight_decay,
    adam_b1=b1,
    adam_b2=b2,
    muon_weight_dimension_numbers=_matrices,
  )


def _matrices(params: PyTree) -> PyTree:
  """Return the axes of the matrices among parameters, None for others."""

  def axes(path, x):
    stacked = any(getattr(key, "key", None) == "stacked" for key in path)
    if x.ndim - stacked != 2:
      return None
    return contrib.MuonDimensionNumbers(
      reduction_axis=x.ndim - 2, output_axis=x.ndim - 1
    )

  return jax.tree_util.tree_map_with_path(axes, params)


OPTIMIZERS = {
  "adam": optax.adam,
  "adamw": optax.adamw,
  "muon": _muon,
  "radam": optax.radam,
}
# Those that treat every number by itself, whatever array it is in.
_ALONE = ("adam", "adamw", "radam")
SCHEDULES = ("constant", "cosine", "linear")


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerOptions:
  """Options of an optimizer and its learning rate.

  Attributes:
    name: "adam", "adamw", "muon" or "radam", or a plug-in: a function of the
      schedule that takes those of `b1`, `b2`, `eps` and `weight_decay` that it
      names.
    learning_rate: Learning rate after the warm-up.
    schedule: "constant", "cosine" or "linear", or a plug-in: a function
      `(peak, steps)` that returns the schedule after the warm-up.
    warmup_steps: Updates over which the rate grows linearly from 0.
    b1: Decay of the first moment.
    b2: Decay of the second moment.
    eps: Added to the root of the second moment.
    weight_decay: Decoupled weight decay; "adamw" and "muon" only.
    clip_norm: Largest global norm of the gradient; 0 does not clip.
  """

  name: str = "adam"
  learning_rate: float = 1e-3
  schedule: str = "constant"
  warmup_steps: int = 0
  b1: float = 0.9
  b2: float = 0.999
  eps: float = 1e-8
  weight_decay: float = 0.0
  clip_norm: float = 0.0

  def __post_init__(self) -> None:
    """Raise UsageError if a name is unknown, or an option has no effect."""
    for field, kind, names in (
      ("name", "optimizer", OPTIMIZERS),
      ("schedule", "schedule", SCHEDULES),
    ):
      value, known = getattr(self, field), (*names, *plugins.registered(kind))
      # Whoever trains finds out what a plug-in is: it may not be allowed here.
      if value not in known and not plugins.is_dotted(value):
        raise UsageError(
          f"{field}={value!r} is unknown: use one of {', '.join(known)}"
        )
    if self.weight_decay and self.name in ("adam", "radam"):
      raise UsageError(
        f"weight_decay={self.weight_decay} has no effect with "
        f"name={self.name!r}: use 'adamw' or set it to 0"
      )


def make_optimizer(
  options: OptimizerOptions, *, steps: int, learns: PyTree = True
) -> tuple[optax.Schedule, optax.GradientTransformation]:
  """Make a learning-rate schedule and an optimizer that follows it.

  `learns` is a tree of bools, or a prefix of one: other arrays stay, and the
  optimizer has no state for them.
  """
  make = OPTIMIZERS.get(options.name) or plugins.find("optimizer", options.name)
  assert make is not None
  takes = inspect.signature(make).parameters
  arguments: dict[str, Any] = {
    name: getattr(options, name)
    for name in ("b1", "b2", "eps", "weight_decay")
    if name in takes
  }
  if "weight_decay" not in takes and options.weight_decay:
    raise UsageError(
      f"weight_decay={options.weight_decay} has no effect with "
      f"name={options.name!r}: use 'adamw' or set it to 0"
    )
  schedule = make_schedule(options, steps=steps)
  optimizer = make(schedule, **arguments)
  clip = [optax.clip_by_global_norm(options.clip_norm)]
  optimizer = optax.chain(*(clip if options.clip_norm else ()), optimizer)
  if learns is not True:
    # What is masked keeps its gradient as the update: it must be 0.
    optimizer = optax.masked(optimizer, learns)
  return schedule, optimizer


def treats_numbers_alone(options: OptimizerOptions) -> bool:
  """Return whether an update of a number needs no other of its array.

  The global norm, by which gradients are clipped, is the same for any arrays.
  """
  return options.name in _ALONE


def make_schedule(options: OptimizerOptions, *, steps: int) -> optax.Schedule:
  """Make a schedule: linear warm-up, then constant or down to 0."""
  peak, warmup_steps = options.learning_rate, options.warmup_steps
  own = None
  if options.schedule not in SCHEDULES:
    with named(name="schedule"):
      own = plugins.find("schedule", options.schedule)
  if warmup_steps and warmup_steps >= steps:
    raise UsageError(
      f"warmup_steps={warmup_steps} leaves nothing of {steps} updates: warm up "
      "for fewer, or raise train.schedule_steps, or train.steps where it is 0"
    )
  rest = max(steps - warmup_steps, 1)
  known = {
    "constant": optax.constant_schedule(peak),
    "cosine": optax.cosine_decay_schedule(peak, rest),
    "linear": optax.linear_schedule(peak, 0.0, rest),
  }
  after = known[options.schedule] if own is None else own(peak, rest)
  if not warmup_steps:
    return after
  warmup = optax.linear_schedule(0.0, peak, warmup_steps)
  return optax.join_schedules([warmup, after], [warmup_steps])
