"""The names that a config may use, and how a named component is made.

A specification is a mapping with a `name` and the options of that component,
`{"name": "sorted_pair", "law": {"name": "uniform"}}`. The tables below are all
there is; an option whose annotation is a type of a kind is made first.
"""

import difflib
import functools
import inspect
import types
from collections.abc import Callable, Collection, Mapping
from typing import Any, Union, get_args, get_origin

from jaxflow import (
  couplings,
  flow_maps,
  models,
  paths,
  predictions,
  pretrained,
  sampling,
  solvers,
  times,
  weights,
)
from jaxflow.errors import UsageError
from jaxflow.losses import adversarial
from jaxflow.options import Layer, Layout, marked, parameters, unmarked
from jaxflow.times import curricula, dyadic, grids
from jaxflow.training import ema

Maker = Callable[..., Any]


def _value(value: Any) -> Maker:
  """Return a maker without options for a value."""
  return lambda: value


def _given_network(
  *, second_time: bool = False, heads: int = 1, guidance_inputs: bool = False
) -> models.Network:
  """Stand for a network that the caller passes; a method sets the options."""
  del second_time, heads, guidance_inputs
  raise UsageError(
    "name='given': the run has a network of yours: pass it again, "
    "network=jaxflow.Network(init, apply), to jaxflow.train or jaxflow.load; "
    "no other run can start from it or be taught by it"
  )


def _at_the_end(*, t_max: float) -> times.Constant:
  """Make the law of generators that start from noise alone."""
  return times.Constant(t=t_max)


def _partial(function: Callable) -> Maker:
  """Bind options and leave the positional arguments open."""

  @functools.wraps(function)
  def maker(**options):
    return functools.partial(function, **options)

  options = parameters(function).values()
  maker.__signature__ = inspect.Signature(  # pyright: ignore
    [p for p in options if p.kind is p.KEYWORD_ONLY]
  )
  return maker


_LAWS: dict[str, Maker] = {
  "uniform": times.Uniform,
  "logit_normal": times.LogitNormal,
  "log_normal": times.LogNormal,
  "arctan_log_normal": times.ArctanLogNormal,
  "karras": times.Karras,
}

# Types of values in a config.
_PLAIN = (bool, int, float, str, tuple)
# Options that only the surroundings of a component can give.
_SURROUNDINGS = {
  *("path", "sample_times", "default", "features", "network"),
  *("data_shape", "batch_size", "steps"),
}
# Those and others that they decide, unless the component says so.
_CONTEXT = {*_SURROUNDINGS, "t_min", "t_max", "num_classes", "t"}
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
  },
  "parameterization": {
    "raw": lambda: lambda model_fn: model_fn,
    "normalized": _partial(predictions.normalized),
    "trigonometric_from_edm": _partial(predictions.trigonometric_from_edm),
    "trigonometric_from_linear": _partial(
      predictions.trigonometric_from_linear
    ),
  },
  "law": _LAWS,
  "times": {
    **_LAWS,
    "constant": times.Constant,
    "sorted_pair": times.SortedPair,
    "limited_pair": times.LimitedPair,
    "adjacent_pair": times.AdjacentPair,
    "adjacent_triple": times.AdjacentTriple,
    "trajectory": times.TrajectoryTimes,
    "truncated_pair": times.TruncatedPair,
    "adaptive_pair": curricula.AdaptivePair,
    "doubling_pair": curricula.DoublingPair,
    "shrinking_pair": curricula.ShrinkingPair,
    "dyadic_pair": dyadic.DyadicPair,
  },
  "grid": {
    "uniform": _partial(times.uniform_grid),
    "karras": _partial(times.karras_grid),
    "log": _partial(times.log_grid),
    "shifted": _partial(times.shifted_grid),
    "given": _partial(grids.given_grid),
    "extended": _partial(grids.extended_grid),
    "log_snr": _partial(grids.log_snr_grid),
    "karras_ratio": _partial(grids.karras_ratio_grid),
  },
  "coupling": {
    "given": _value(couplings.noise_of),
    "annealed": couplings.Annealed,
  },
  "solver": {
    "euler": _value(solvers.euler),
    "midpoint": _value(solvers.midpoint),
    "heun": _value(solvers.heun),
  },
  "distance": {
    "l1": _value(weights.l1),
    "l2": _value(weights.l2),
    "l2_sum": _value(weights.l2_sum),
    "huber": weights.huber,
    "scaled_huber": weights.scaled_huber,
    **_FEATURE_DISTANCES,
  },
  "perceptual": {**_NONE, **_FEATURE_DISTANCES},
  "criterion": {
    "hinge": _value(adversarial.hinge),
    "logistic": _value(adversarial.logistic),
  },
  "log_weight": {**_NONE, "sinusoidal": models.log_weight},
  # Where the generator starts that a discriminator judges: as the loss draws
  # its times, at noise alone, or by a law.
  "starts": {"loss": times.StartTimes, "t_max": _at_the_end, **_LAWS},
  "weight": {
    "uniform": _value(weights.uniform),
    "snr": _value(weights.snr),
    "snr_plus_one": _value(weights.snr_plus_one),
    "truncated_snr": _value(weights.truncated_snr),
    "karras": weights.karras,
    "inverse_gap": _value(weights.inverse_gap),
    "inverse_square": _value(weights.inverse_square),
    "velocity": _value(weights.velocity),
    "likelihood": _value(weights.likelihood),
  },
  "flow_map": {
    "average_velocity": _partial(flow_maps.average_velocity),
    "dyadic_velocity": _partial(flow_maps.dyadic_velocity),
    "guided_velocity": _partial(flow_maps.guided_velocity),
    "guided_step": _partial(flow_maps.guided_step),
    "ode_step": _partial(flow_maps.ode_step),
    "ddim_step": _partial(flow_maps.ddim_step),
    "edm_skip": _partial(flow_maps.edm_skip),
    "trajectory": _partial(flow_maps.trajectory),
    "edm_denoiser": _partial(flow_maps.edm_denoiser),
    "linear_skip": _partial(flow_maps.linear_skip),
    "trigonometric": _partial(flow_maps.trigonometric),
    "rotation": _partial(flow_maps.rotation),
    "hard_boundary": _partial(flow_maps.hard_boundary),
    "free": _partial(flow_maps.free),
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
    "unet": models.unet,
  },
  "discriminator": {
    **_NONE,
    "conv": models.conv_discriminator,
    "projected": models.projected_discriminator,
  },
  "extractor": {
    **_NONE,
    "inception": pretrained.inception,
    "efficientnet_lite0": pretrained.efficientnet_lite0,
    "classifier": models.classifier,
  },
  "features": {
    **_NONE,
    "conv": models.conv_features,
    "vgg16": pretrained.vgg16,
    "run": models.hidden_features,
  },
}


def options_of(kind: str, name: str) -> Collection[str]:
  """Return the names of the options of a component.

  Example:
    >>> list(options_of("law", "uniform"))
    ['t_min', 't_max']
  """
  return parameters(KINDS[kind][name])


# The kind of an option's component, by the option's annotation.
KIND_OF_TYPE: Mapping[Any, str] = {
  adversarial.Criterion: "criterion",
  couplings.Coupling: "coupling",
  models.Features: "features",
  solvers.Solver: "solver",
  times.Grid: "grid",
  times.Law: "law",
  times.Quantiles: "law",
  weights.Distance: "distance",
  weights.LogWeight: "log_weight",
  weights.Perceptual: "perceptual",
  weights.Weight: "weight",
}


def kinds_of(function: Callable) -> dict[str, str]:
  """Return the kinds of the options that are components.

  Example:
    >>> kinds_of(times.LimitedPair)
    {'t_law': 'law', 's_law': 'law'}
  """
  kinds = {
    p.name: _kind_of(p.annotation) for p in parameters(function).values()
  }
  return {option: kind for option, kind in kinds.items() if kind}


def _kind_of(annotation: Any) -> str | None:
  plain = unmarked(annotation)
  union = get_origin(plain) in (Union, types.UnionType)
  members = get_args(plain) if union else [plain]
  return next((KIND_OF_TYPE[x] for x in members if x in KIND_OF_TYPE), None)


def choose(field: str, name: str, choices: Mapping[str, Any]) -> Any:
  """Look a name up.

  Returns:
    The value of `choices`.

  Example:
    >>> choose("color", "red", {"red": 1})
    1
  """
  if name in choices:
    return choices[name]
  near = difflib.get_close_matches(str(name), choices, n=1)
  hint = f"did you mean {near[0]!r}? " if near else ""
  raise UsageError(
    f"{field}={name!r} is unknown: {hint}choose one of {', '.join(choices)}"
  )


def make(
  kind: str, specification: Mapping[str, Any], *, field: str, **context: Any
) -> Any:
  """Make the component that a specification names.

  Args:
    kind: A key of `KINDS`.
    specification: `name` and options.
    field: Where in the config it stands, for messages.
    **context: Values that are passed on where the component takes an argument
      of that name and the specification does not give it.

  Example:
    >>> make("times", {"name": "uniform", "t_max": 2.0}, field="times")
    Uniform(t_min=0.0, t_max=2.0)
  """
  options = {k: v for k, v in dict(specification).items() if v is not None}
  name = options.pop("name", None)
  if name is None:
    raise UsageError(
      f"{field} is missing: choose {field}.name among {', '.join(KINDS[kind])}"
    )
  maker = choose(f"{field}.name", name, KINDS[kind])
  accepted = parameters(maker)
  for option in options:
    if option not in accepted:
      raise UsageError(
        f"{field}.{option}: {name!r} has no such option; it takes "
        f"{', '.join(accepted) or 'none'}"
      )
  given = {k: v for k, v in context.items() if k in accepted}
  options = given | make_options(maker, options, field=field, **context)
  missing = [
    p.name
    for p in accepted.values()
    if p.default is p.empty and p.name not in options
  ]
  if missing:
    raise UsageError(f"{field}.{missing[0]} is missing: {name!r} needs it")
  try:
    return maker(**options)
  except ValueError as error:  # A UsageError names the option only.
    raise UsageError(f"{field}: {error}") from error


def make_options(
  function: Callable, given: Mapping[str, Any], *, field: str, **context: Any
) -> dict[str, Any]:
  """Return the options of a function, the components among them made.

  Args:
    function: The function that takes the options.
    given: Options; a component's value is its specification.
    field: Where in the config they stand, for messages.
    **context: As of `make`.

  Example:
    >>> given = {"solver": {"name": "heun"}}
    >>> made = make_options(flow_maps.ode_step, given, field="flow_map")
    >>> made["solver"] is solvers.heun
    True
  """
  kinds = kinds_of(function)
  return {
    k: make(kinds[k], v, field=f"{field}.{k}", **context) if k in kinds else v
    for k, v in given.items()
  }


def complete(
  kind: str, specification: Mapping[str, Any], *, field: str
) -> dict[str, Any]:
  """Return a specification with the defaults of the options it leaves out.

  An option without a value, required or None, is given by its type.

  Args:
    kind: A key of `KINDS`.
    specification: `name` and options.
    field: Where in the config it stands, for messages.

  Example:
    >>> complete("grid", {"name": "karras"}, field="sample.grid")
    {'name': 'karras', 'rho': 7.0}
  """
  given = {k: v for k, v in specification.items() if v is not None}
  if "name" not in given:
    return {"name": str}
  maker = choose(f"{field}.name", given["name"], KINDS[kind])
  own = default_options(maker)
  if kind != "path":
    told = _CONTEXT | marked(maker, Layout).keys()
    own = {k: v for k, v in own.items() if k not in told}
  own |= _required_options(maker)
  for option, kind_inside in kinds_of(maker).items():
    if isinstance(value := given.get(option), Mapping):
      given[option] = complete(kind_inside, value, field=f"{field}.{option}")
  return given | own | given


def _required_options(maker: Maker) -> dict[str, Any]:
  """Return places for the options that have no default."""
  options, kinds = {}, kinds_of(maker)
  for p in parameters(maker).values():
    if p.default is not p.empty or p.name in _SURROUNDINGS:
      continue
    if p.name in kinds:
      options[p.name] = {"name": str}
    elif unmarked(p.annotation) in _PLAIN:
      options[p.name] = unmarked(p.annotation)
  return options


def default_options(function: Callable) -> dict[str, Any]:
  """Return the options of a function with their defaults, as config values.

  A default that is a component is described by its name, a layer by its
  pattern; one that is no plain value is left to the caller. For None there
  stands the plain type that the annotation has beside it.

  Example:
    >>> default_options(flow_maps.ode_step)
    {'solver': {'name': 'euler'}}
  """
  options, kinds = {}, kinds_of(function)
  layers = marked(function, Layer)
  for p in parameters(function).values():
    if p.default is p.empty:
      continue
    if p.name in kinds:
      if name := _name_of(kinds[p.name], p.default):
        options[p.name] = {"name": name}
    elif p.name in layers:
      options[p.name] = layers[p.name].pattern
    elif type(p.default) in _PLAIN:
      options[p.name] = p.default
    elif p.default is None and (plain := _plain_types(p.annotation)):
      options[p.name] = plain[0]
  return options


def _plain_types(annotation: Any) -> list[type]:
  """Return the plain types of an annotation such as `int | None`."""
  return [x for x in map(unmarked, get_args(annotation)) if x in _PLAIN]


def _name_of(kind: str, value: Any) -> str | None:
  """Return the name of a component that needs no options, None for others."""
  for name, maker in KINDS[kind].items():
    if not parameters(maker) and maker() is value:
      return name
  return None
