"""The names that a config may use, and how a named component is made.

A specification is a mapping with a `name` and the options of that component,
`{"name": "sorted_pair", "law": {"name": "uniform"}}`. The tables below hold the
names, and plug-ins bring more; an option whose annotation is a type of a kind
is made first.
"""

import functools
import inspect
import types
from collections.abc import Callable, Mapping
from typing import Any, Literal, Union, get_args, get_origin

from jaxflow import (
  couplings,
  flow_maps,
  models,
  paths,
  plugins,
  predictions,
  pretrained,
  sampling,
  solvers,
  times,
  weights,
)
from jaxflow.errors import UsageError, named, unknown
from jaxflow.losses import adversarial
from jaxflow.options import (
  Count,
  Layer,
  Layout,
  Positive,
  marked,
  parameters,
  unmarked,
)
from jaxflow.times import curricula, dyadic, grids
from jaxflow.training import ema

Maker = Callable[..., Any]


def _value(value: Any) -> Maker:
  """Return a maker without options for a value."""
  return lambda: value


def _values(module: types.ModuleType, *names: str) -> dict[str, Maker]:
  """Return makers of values of a module, by their names there."""
  return {name: _value(getattr(module, name)) for name in names}


def _given_network(
  *, second_time: bool = False, heads: Count = 1, guidance_inputs: bool = False
) -> models.Network:
  """Stand for a network that the caller passes; a method sets the options."""
  del second_time, heads, guidance_inputs
  raise UsageError(
    "name='given': the run has a network of yours: pass it again, "
    "network=jaxflow.Network(init, apply), to jaxflow.train or jaxflow.load; "
    "no other run can start from it or be taught by it"
  )


def _at_the_end(*, t_max: Positive) -> times.Constant:
  """Make the law of generators that start from noise alone."""
  return times.Constant(t=t_max)


def _partial(function: Callable) -> Maker:
  """Bind options and leave the positional arguments open."""

  @functools.wraps(function)
  def maker(**options):
    return functools.partial(function, **options)

  options = parameters(function).values()
  # A function may have a signature of its own; its type does not say so.
  maker.__signature__ = inspect.Signature(  # pyright: ignore
    [p for p in options if p.kind is p.KEYWORD_ONLY]
  )
  return maker


_LAWS: dict[str, Maker] = {
  "uniform": times.Uniform,
  "uniform_steps": times.UniformSteps,
  "logit_normal": times.LogitNormal,
  "log_normal": times.LogNormal,
  "log_student": times.LogStudent,
  "arctan_log_normal": times.ArctanLogNormal,
  "karras": times.Karras,
}

# Types of values in a config.
_PLAIN = (bool, int, float, str, tuple)
# Options that only the surroundings of a component can give.
_SURROUNDINGS = {
  *("path", "sample_times", "default", "features", "network"),
  *("data_shape", "hidden_channels", "batch_size", "steps"),
  "picture_range",
}
# Those and others that they decide, unless the component says so.
_CONTEXT = {
  *_SURROUNDINGS,
  *("t_min", "t_max", "num_classes", "cond_size", "null_cond", "t"),
}
_NONE: dict[str, Maker] = {"none": _value(None)}

_FEATURE_DISTANCES: dict[str, Maker] = {
  "features": pretrained.feature_distance,
  "lpips": pretrained.lpips_distance,
}

KINDS: Mapping[str, Mapping[str, Maker]] = {
  "path": {
    "linear": paths.Linear,
    "trigonometric": paths.Trigonometric,
    "variance_preserving": paths.VariancePreserving,
    "variance_exploding": paths.VarianceExploding,
    "discrete": paths.Discrete,
  },
  "parameterization": {
    "raw": lambda: lambda model_fn: model_fn,
    "from_data": _partial(predictions.from_data),
    "from_path": _partial(predictions.from_path),
    "normalized": _partial(predictions.normalized),
    "trigonometric_from_edm": _partial(predictions.trigonometric_from_edm),
    "trigonometric_from_linear": _partial(
      predictions.trigonometric_from_linear
    ),
  },
  # None where a loss can do without.
  "law": {**_NONE, **_LAWS},
  "times": {
    **_LAWS,
    "constant": times.Constant,
    "sorted_pair": times.SortedPair,
    "sorted_laws": times.SortedLaws,
    "limited_pair": times.LimitedPair,
    "adjacent_pair": times.AdjacentPair,
    "adjacent_triple": times.AdjacentTriple,
    "trajectory": times.TrajectoryTimes,
    "truncated_pair": times.TruncatedPair,
    "separate_pair": times.SeparatePair,
    "rectified_pair": times.RectifiedPair,
    "gap_pair": times.GapPair,
    "adaptive_pair": curricula.AdaptivePair,
    "doubling_pair": curricula.DoublingPair,
    "shrinking_pair": curricula.ShrinkingPair,
    "transition_pair": times.TransitionPair,
    "dyadic_pair": dyadic.DyadicPair,
  },
  "grid": {
    name: _partial(getattr(grids, f"{name}_grid"))
    for name in (
      *("uniform", "karras", "log", "shifted", "given", "extended"),
      *("log_snr", "karras_ratio"),
    )
  },
  "ratio": {
    "constant": times.ConstantRatio,
    "sigmoid": times.SigmoidRatio,
    "exponential": times.ExponentialRatio,
  },
  "coupling": {
    "given": _value(couplings.noise_of),
    "annealed": couplings.Annealed,
  },
  "solver": _values(solvers, "euler", "midpoint", "heun"),
  "distance": {
    **_values(weights, "l1", "l2", "l2_sum"),
    "huber": weights.huber,
    "scaled_huber": weights.scaled_huber,
    **_FEATURE_DISTANCES,
  },
  "perceptual": {**_NONE, **_FEATURE_DISTANCES},
  "criterion": _values(adversarial, "hinge", "logistic", "relativistic"),
  "log_weight": {**_NONE, "sinusoidal": models.log_weight},
  "pair_log_weight": {**_NONE, "sinusoidal": models.pair_log_weight},
  # Where the generator starts that a discriminator judges: as the loss draws
  # its times, with their ends or without, at noise alone, or by a law.
  "starts": {
    "loss": times.StartTimes,
    "loss_pairs": times.EndTimes,
    "t_max": _at_the_end,
    **_LAWS,
  },
  "weight": {
    **_values(weights, "uniform", "snr", "snr_plus_one", "truncated_snr"),
    "karras": weights.karras,
    **_values(weights, "inverse_gap", "inverse_square", "velocity"),
    **_values(weights, "likelihood"),
  },
  "flow_map": {
    name: _partial(getattr(flow_maps, name)) for name in flow_maps.__all__
  },
  "sampler": {
    # The method's own, from the caller's context.
    "default": lambda *, default: default,
    "jumps": sampling.Jumps,
    "consistency": sampling.Consistency,
    "gamma": sampling.Gamma,
    "ddim": sampling.DDIM,
    "dpm_solver": sampling.DPMSolver,
    "edm_heun": sampling.EDMHeun,
  },
  "ema": {
    "constant": ema.Constant,
    "count_ramp": ema.CountRamp,
    "half_life": ema.HalfLife,
    "power": ema.Power,
    "adaptive": ema.Adaptive,
  },
  "model": {
    "dit": models.dit,
    "given": _given_network,
    "mlp": models.mlp,
    "mp_unet": models.mp_unet,
    "unet": models.unet,
    "unet2d": models.unet2d,
  },
  "adapter": {**_NONE, "lora": models.lora},
  "discriminator": {
    **_NONE,
    "conv": models.conv_discriminator,
    "projected": models.projected_discriminator,
  },
  "critic": {**_NONE, "heads": models.feature_heads},
  "extractor": {
    **_NONE,
    "inception": pretrained.inception,
    "efficientnet_lite0": pretrained.efficientnet_lite0,
    "classifier": models.classifier,
  },
  "features": {
    **_NONE,
    "conv": models.conv_features,
    "pixels": models.pixel_features,
    "vgg16": pretrained.vgg16,
    "run": models.hidden_features,
  },
}


# The kind of an option's component, by the option's annotation.
KIND_OF_TYPE: Mapping[Any, str] = {
  adversarial.Criterion: "criterion",
  couplings.Coupling: "coupling",
  models.Features: "features",
  predictions.SourcePath: "path",
  solvers.Solver: "solver",
  times.Grid: "grid",
  times.Law: "law",
  times.Quantiles: "law",
  times.Ratio: "ratio",
  weights.Distance: "distance",
  weights.LogWeight: "log_weight",
  weights.PairLogWeight: "pair_log_weight",
  weights.Perceptual: "perceptual",
  weights.Weight: "weight",
}


def kinds_of(function: Callable) -> dict[str, str]:
  """Return the kinds of the options that are components."""
  kinds = {}
  for p in parameters(function).values():
    plain = unmarked(p.annotation)
    union = get_origin(plain) in (Union, types.UnionType)
    for member in get_args(plain) if union else [plain]:
      if member in KIND_OF_TYPE:
        kinds[p.name] = KIND_OF_TYPE[member]
  return kinds


# What the makers of plug-ins must return, where there is a class for it.
_MADE: Mapping[str, type] = {
  "adapter": models.Adapter,
  "critic": models.Heads,
  "criterion": adversarial.Criterion,
  "discriminator": models.Discriminator,
  "extractor": models.Extractor,
  "features": models.Features,
  "model": models.Network,
}


def choose(
  field: str, name: str, choices: Mapping[str, Any], *, kind: str = ""
) -> Any:
  """Return the choice of a name; raise UsageError if it is unknown.

  If it is of a `kind`, plug-ins are choices as well.
  """
  if name in choices:
    return choices[name]
  own = {}
  # A config.json may hold anything as a name; that of an object has no space.
  if kind and len(str(name).split()) == 1:
    with named(name=field):
      if (found := plugins.find(kind, str(name))) is not None:
        return found
      own = plugins.registered(kind)
  raise unknown(field, name, [*choices, *own])


def maker_of(kind: str, name: str, *, field: str) -> Maker:
  """Return the maker that `field.name` of a config names."""
  return maker_named(kind, name, f"{field}.name")


def maker_named(kind: str, name: str, place: str) -> Maker:
  """Return the maker that a field or a flag names."""
  found = choose(place, name, KINDS[kind], kind=kind)
  return found if name in KINDS[kind] else _maker_of_own(found)


def _maker_of_own(value: Any) -> Maker:
  """Return the maker of a plug-in.

  A class is one, and so is a function that takes options only, by keyword. One
  with positional arguments is the component itself, and so is any other object.
  """
  if inspect.isclass(value):
    return value
  if not inspect.isroutine(value) and not isinstance(value, functools.partial):
    return _value(value)
  given = parameters(value).values()
  positional = [p for p in given if p.kind is not p.KEYWORD_ONLY]
  return _partial(value) if positional else value


def solver_calls(name: str) -> int:
  """Return the network calls of a step of a solver without options."""
  if name in solvers.EVALUATIONS:
    return solvers.EVALUATIONS[name]
  solver = make("solver", {"name": name}, field="solver")
  return solvers.count_evaluations(solver)


def name_of_function(kind: str, function: Callable) -> str:
  """Return the name by which a config finds a function that is a component."""
  for name, maker in KINDS[kind].items():
    if inspect.unwrap(maker) is function:
      return name
  for name, own in plugins.registered(kind).items():
    if own is function:
      return name
  return f"{function.__module__}:{function.__qualname__}"


def make(
  kind: str, specification: Mapping[str, Any], *, field: str, **context: Any
) -> Any:
  """Make the component that a specification names.

  `field` is its place in the config, for messages. A value of `context` is
  passed on where the component takes an argument of that name and the
  specification does not give it.

  Raises:
    UsageError: If the name, or an option, is unknown.
  """
  options = {k: v for k, v in specification.items() if v is not None}
  name = options.pop("name", None)
  if name is None:
    raise UsageError(
      f"{field} is missing: choose {field}.name among {', '.join(KINDS[kind])}"
    )
  maker = maker_of(kind, name, field=field)
  accepted = parameters(maker)
  for option in options:
    if option not in accepted:
      raise UsageError(
        f"{field}.{option}: {name!r} has no such option; it takes "
        f"{', '.join(accepted) or 'none'}"
      )
  given = {k: v for k, v in context.items() if k in accepted}
  options = given | make_options(maker, options, field=field, **context)
  for p in accepted.values():
    if p.default is p.empty and p.name not in options:
      raise UsageError(f"{field}.{p.name} is missing: {name!r} needs it")
  try:
    made = maker(**options)
  except ValueError as error:  # A UsageError names the option only.
    raise UsageError(f"{field}: {error}") from error
  except Exception as error:
    if name in KINDS[kind]:
      raise
    raise UsageError(
      f"{field}.name={name!r} raises {type(error).__name__} ({error}): correct "
      "the plug-in; --debug shows where"
    ) from error
  wanted = _MADE.get(kind, object)
  if name not in KINDS[kind] and not isinstance(made, wanted):
    raise UsageError(
      f"{field}.name={name!r} makes {type(made).__name__}: it must make "
      f"{wanted.__module__.partition('.')[0]}'s {wanted.__name__}"
    )
  return made


def make_options(
  function: Callable, given: Mapping[str, Any], *, field: str, **context: Any
) -> dict[str, Any]:
  """Return the options of a function; specifications become components."""
  kinds, made = kinds_of(function), {}
  for name, value in given.items():
    if name in kinds:
      place = f"{field}.{name}"
      value = make(kinds[name], value, field=place, **context)
      if value is None and not _may_be_none(function, name):
        raise UsageError(f"{place}.name='none': give one, here it is needed")
    made[name] = value
  return made


def _may_be_none(function: Callable, name: str) -> bool:
  """Return whether None is a value of an option."""
  return type(None) in get_args(unmarked(parameters(function)[name].annotation))


def left_out(function: Callable) -> dict[str, str]:
  """Return the kinds of optional laws, which no config has until it names them.

  Example:
    >>> from jaxflow import losses
    >>> left_out(losses.twin_flow_loss)
    {'rectify_times': 'law'}
  """
  return {
    name: kind
    for name, kind in kinds_of(function).items()
    if kind == "law" and parameters(function)[name].default is None
  }


def complete(
  kind: str, specification: Mapping[str, Any], *, field: str
) -> dict[str, Any]:
  """Return a specification with the defaults of the options it leaves out.

  The type of an option stands for the value that it has not, because it is
  required or None.
  """
  given = {k: v for k, v in specification.items() if v is not None}
  if "name" not in given:
    return {"name": str}
  maker = maker_of(kind, given["name"], field=field)
  kinds, own = kinds_of(maker), default_options(maker)
  if kind != "path":
    told = _CONTEXT | marked(maker, Layout).keys()
    own = {k: v for k, v in own.items() if k not in told}
  for p in parameters(maker).values():
    if p.default is not p.empty or p.name in _SURROUNDINGS:
      continue
    if p.name in kinds:
      own[p.name] = {"name": str}
    elif unmarked(p.annotation) in _PLAIN:
      own[p.name] = unmarked(p.annotation)
  for option, kind_inside in kinds.items():
    if isinstance(value := given.get(option), Mapping):
      given[option] = complete(kind_inside, value, field=f"{field}.{option}")
  return given | own | given


def default_options(function: Callable) -> dict[str, Any]:
  """Return the options of a function with their defaults, as config values.

  A default that is a component is described by its name, a layer by its
  pattern; one that is no plain value, or `left_out`, is left to the caller.
  None becomes the plain type that the annotation has beside it.
  """
  options, kinds = {}, kinds_of(function)
  layers, absent = marked(function, Layer), left_out(function)
  for p in parameters(function).values():
    if p.default is p.empty or p.name in absent:
      continue
    kinds_of_value = map(unmarked, get_args(p.annotation))
    # A choice of names is a string.
    plain = [str if get_origin(x) is Literal else x for x in kinds_of_value]
    plain = [x for x in plain if x in _PLAIN]
    if p.name in kinds:
      if name := _name_of(kinds[p.name], p.default):
        options[p.name] = {"name": name}
    elif p.name in layers:
      options[p.name] = layers[p.name].pattern
    elif type(p.default) in _PLAIN:
      options[p.name] = p.default
    elif p.default is None and plain:
      options[p.name] = plain[0]
  return options


def _name_of(kind: str, value: Any) -> str | None:
  """Return the name of a component that needs no options, None for others."""
  for name, maker in KINDS[kind].items():
    if not parameters(maker) and maker() is value:
      return name
  return None
