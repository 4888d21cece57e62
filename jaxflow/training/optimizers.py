"""Optimizers and learning-rate schedules, all from optax."""

import dataclasses

import optax

from jaxflow.errors import UsageError

OPTIMIZERS = {"adam": optax.adam, "adamw": optax.adamw, "radam": optax.radam}
SCHEDULES = ("constant", "cosine", "linear")


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerOptions:
  """Options of an optimizer and its learning rate.

  Attributes:
    name: "adam", "adamw" or "radam".
    learning_rate: Learning rate after the warm-up.
    schedule: "constant", "cosine" or "linear".
    warmup_steps: Updates over which the rate grows linearly from 0.
    b1: Decay of the first moment.
    b2: Decay of the second moment.
    eps: Added to the root of the second moment.
    weight_decay: Decoupled weight decay; "adamw" only.
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
    for field, names in (("name", OPTIMIZERS), ("schedule", SCHEDULES)):
      value = getattr(self, field)
      if value not in names:
        raise UsageError(
          f"{field}={value!r} is unknown: use one of {', '.join(names)}"
        )
    if self.weight_decay and self.name != "adamw":
      raise UsageError(
        f"weight_decay={self.weight_decay} has no effect with "
        f"name={self.name!r}: use 'adamw' or set it to 0"
      )


def make_optimizer(
  options: OptimizerOptions, *, steps: int
) -> tuple[optax.Schedule, optax.GradientTransformation]:
  """Make a learning-rate schedule and an optimizer that follows it."""
  arguments = {"b1": options.b1, "b2": options.b2, "eps": options.eps}
  if options.name == "adamw":
    arguments["weight_decay"] = options.weight_decay
  schedule = make_schedule(options, steps=steps)
  optimizer = OPTIMIZERS[options.name](schedule, **arguments)
  if options.clip_norm:
    clip = optax.clip_by_global_norm(options.clip_norm)
    return schedule, optax.chain(clip, optimizer)
  return schedule, optax.chain(optimizer)


def make_schedule(options: OptimizerOptions, *, steps: int) -> optax.Schedule:
  """Make a schedule: linear warm-up, then constant or down to 0."""
  peak, warmup_steps = options.learning_rate, options.warmup_steps
  if warmup_steps and warmup_steps >= steps:
    raise UsageError(
      f"warmup_steps={warmup_steps} leaves nothing of {steps} updates: warm up "
      "for fewer, or raise train.steps"
    )
  rest = max(steps - warmup_steps, 1)
  after = {
    "constant": optax.constant_schedule(peak),
    "cosine": optax.cosine_decay_schedule(peak, rest),
    "linear": optax.linear_schedule(peak, 0.0, rest),
  }[options.schedule]
  if not warmup_steps:
    return after
  warmup = optax.linear_schedule(0.0, peak, warmup_steps)
  return optax.join_schedules([warmup, after], [warmup_steps])
