"""Optimizers and learning-rate schedules, all from optax."""

from collections.abc import Mapping
from typing import Any

import optax

from jaxflow.errors import UsageError

OPTIMIZERS = {"adam": optax.adam, "adamw": optax.adamw, "radam": optax.radam}
SCHEDULES = ("constant", "cosine", "linear")


def make_schedule(
  name: str,
  *,
  peak: float,
  steps: int,
  warmup_steps: int = 0,
  field: str = "optimizer",
) -> optax.Schedule:
  """Make a schedule: linear warm-up to `peak`, then constant or down to 0.

  Args:
    name: "constant", "cosine" or "linear".
    peak: Learning rate after the warm-up.
    steps: Number of updates, warm-up included.
    warmup_steps: Updates over which the rate grows linearly from 0.
    field: The config section it comes from, for messages.

  Returns:
    A function of the update's number.

  Raises:
    UsageError: If the name is unknown or the warm-up fills the training.

  Example:
    >>> rate = make_schedule("linear", peak=1.0, steps=10)
    >>> float(rate(0)), float(rate(5)), float(rate(10))
    (1.0, 0.5, 0.0)
  """
  if name not in SCHEDULES:
    raise UsageError(
      f"{field}.schedule={name!r} is unknown: use one of {SCHEDULES}"
    )
  if warmup_steps and warmup_steps >= steps:
    raise UsageError(
      f"{field}.warmup_steps={warmup_steps} leaves nothing of "
      f"{steps} updates: warm up for fewer, or raise train.steps"
    )
  rest = max(steps - warmup_steps, 1)
  after = {
    "constant": optax.constant_schedule(peak),
    "cosine": optax.cosine_decay_schedule(peak, rest),
    "linear": optax.linear_schedule(peak, 0.0, rest),
  }[name]
  if not warmup_steps:
    return after
  warmup = optax.linear_schedule(0.0, peak, warmup_steps)
  return optax.join_schedules([warmup, after], [warmup_steps])


def make_optimizer(
  name: str,
  schedule: optax.Schedule,
  *,
  b1: float = 0.9,
  b2: float = 0.999,
  eps: float = 1e-8,
  weight_decay: float = 0.0,
  clip_norm: float = 0.0,
  field: str = "optimizer",
) -> optax.GradientTransformation:
  """Make an optimizer with optional clipping of the gradient's global norm.

  Args:
    name: "adam", "adamw" or "radam".
    schedule: The learning rate.
    b1: Decay of the first moment.
    b2: Decay of the second moment.
    eps: Added to the root of the second moment.
    weight_decay: Decoupled weight decay; "adamw" only.
    clip_norm: Largest global norm of the gradient; 0 does not clip.
    field: The config section it comes from, for messages.

  Returns:
    An optax transformation.

  Raises:
    UsageError: If the name is unknown, or weight decay meets another optimizer.

  Example:
    >>> adam = make_optimizer("adam", optax.constant_schedule(1e-3))
    >>> isinstance(adam, optax.GradientTransformation)
    True
  """
  if name not in OPTIMIZERS:
    raise UsageError(
      f"{field}.name={name!r} is unknown: use one of {tuple(OPTIMIZERS)}"
    )
  options = {"b1": b1, "b2": b2, "eps": eps}
  if name == "adamw":
    options["weight_decay"] = weight_decay
  elif weight_decay:
    raise UsageError(
      f"{field}.weight_decay={weight_decay} has no effect with "
      f"{field}.name={name!r}: use 'adamw' or set it to 0"
    )
  steps = [OPTIMIZERS[name](schedule, **options)]
  if clip_norm:
    steps.insert(0, optax.clip_by_global_norm(clip_norm))
  return optax.chain(*steps)


def from_section(
  section: Mapping[str, Any], *, steps: int, field: str
) -> tuple[optax.Schedule, optax.GradientTransformation]:
  """Make the schedule and the optimizer that a config section describes.

  Args:
    section: The arguments of `make_schedule` and `make_optimizer`, with the
      peak as "learning_rate" and the schedule's name as "schedule".
    steps: Number of updates.
    field: Name of the section, for messages.

  Returns:
    The schedule, and the optimizer with it.
  """
  options = dict(section)
  schedule = make_schedule(
    options.pop("schedule"),
    peak=options.pop("learning_rate"),
    steps=steps,
    warmup_steps=options.pop("warmup_steps"),
    field=field,
  )
  name = options.pop("name")
  return schedule, make_optimizer(name, schedule, field=field, **options)
