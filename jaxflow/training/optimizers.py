"""Optimizers and learning-rate schedules, all from optax."""

import optax

from jaxflow.errors import UsageError

OPTIMIZERS = {"adam": optax.adam, "adamw": optax.adamw, "radam": optax.radam}
SCHEDULES = ("constant", "cosine", "linear")


def make_schedule(
  name: str, *, peak: float, steps: int, warmup_steps: int = 0
) -> optax.Schedule:
  """Make a schedule: linear warm-up to `peak`, then constant or down to 0.

  Args:
    name: "constant", "cosine" or "linear".
    peak: Learning rate after the warm-up.
    steps: Number of updates, warm-up included.
    warmup_steps: Updates over which the rate grows linearly from 0.

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
      f"optimizer.schedule={name!r} is unknown: use one of {SCHEDULES}"
    )
  if warmup_steps and warmup_steps >= steps:
    raise UsageError(
      f"optimizer.warmup_steps={warmup_steps} leaves nothing of "
      f"train.steps={steps}: warm up for fewer steps"
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
      f"optimizer.name={name!r} is unknown: use one of {tuple(OPTIMIZERS)}"
    )
  options = {"b1": b1, "b2": b2, "eps": eps}
  if name == "adamw":
    options["weight_decay"] = weight_decay
  elif weight_decay:
    raise UsageError(
      f"optimizer.weight_decay={weight_decay} has no effect with "
      f"optimizer.name={name!r}: use 'adamw' or set it to 0"
    )
  steps = [OPTIMIZERS[name](schedule, **options)]
  if clip_norm:
    steps.insert(0, optax.clip_by_global_norm(clip_norm))
  return optax.chain(*steps)
