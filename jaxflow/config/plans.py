"""From a config to a plan: the door of the library.

Everything behind it takes typed objects. A field is checked here, so messages
name it as the config does.
"""

import functools
import inspect
import json
from collections.abc import Mapping
from typing import Any, get_args

from jaxflow import metrics, options
from jaxflow.config import registry
from jaxflow.config.components import Config, schedule_steps
from jaxflow.config.limits import check_limits
from jaxflow.config.models import context_of, make_model
from jaxflow.config.roles import make_roles
from jaxflow.data import Scaling, Source
from jaxflow.errors import UsageError, inside
from jaxflow.files import expanded
from jaxflow.models import Network
from jaxflow.plans import (
  CheckpointPlan,
  CompanionPlan,
  CouplingPlan,
  DataPlan,
  DuringPlan,
  EvaluationPlan,
  FlowPlan,
  Model,
  Plan,
  SamplePlan,
  SourcePlan,
  TrainPlan,
)
from jaxflow.training.companions import Turns
from jaxflow.training.optimizers import OptimizerOptions
from jaxflow.types import LossFunction


def make_plan(
  config: Config,
  *,
  network: Network | None = None,
  loss: LossFunction | None = None,
  data: Mapping[str, Source] | None = None,
) -> Plan:
  """Build all that a config asks for, which `resolve` returned.

  A network, a loss or data by split that the caller passes take the place of
  the config's.

  Raises:
    UsageError: If a field is wrong, or fields do not fit one another.
  """
  check_limits(config)
  model = make_model(config, network=network, loss=loss)
  context = context_of(config, model.method, model.path)
  roles = make_roles(config, model)
  teacher = config.get("teacher", {})
  saved = teacher.get("config", None)
  with inside("teacher.config"):
    teacher_plan = None if saved is None else make_plan(saved)
  return Plan(
    model=model,
    adapter=registry.make("adapter", config.adapter, field="adapter"),
    roles=roles,
    seed=config.seed,
    data=data_plan(config, data),
    train=_plain(
      TrainPlan, config.train, schedule_steps=schedule_steps(config)
    ),
    optimizer=OptimizerOptions(**config.optimizer.to_dict()),
    emas={
      name: registry.make("ema", law, field=f"ema.{name}", **context)
      for name, law in config.ema.items()
    },
    companions={
      name: _companion(config, name, model, context)
      for name in roles.companions
    },
    last_layer=options.value(model.method.loss, options.Layer, config.loss, ""),
    **sources(config),
    init_student=bool(teacher.get("init_student", False)),
    checkpoint=_plain(CheckpointPlan, config.checkpoint),
    mesh=mesh_axes(config),
    sample=sample_plan(config, model),
    evaluation=evaluation_plan(config),
    teacher_plan=teacher_plan,
    config=config,
  )


# Of the rows of a batch.
_ORDERS: dict[str, None] = dict.fromkeys(("shuffled", "grouped"))


def seed_of(config: Config) -> int:
  """Return the seed of a config."""
  return config.seed


def sources(config: Config) -> dict[str, SourcePlan]:
  """Return the other runs that a config names; a workdir is "" without one."""
  found = {}
  for name in ("teacher", "features", "init"):
    section = config.get(name, {})
    plan = found[name] = SourcePlan(
      workdir=expanded(f"{name}.workdir", section.get("workdir", "")) or "",
      ema=section.get("ema", "sampling"),
      step=section.get("step", None),
      guidance=section.get("guidance", 1.0),
    )
    for option, unused in (("ema", "sampling"), ("step", None)):
      value = getattr(plan, option)
      # A teacher that is absent is missed elsewhere.
      if name != "teacher" and not plan.workdir and value != unused:
        raise UsageError(
          f"{name}.{option}={value!r} needs {name}.workdir: give both or none"
        )
  return found


def embedded(config: Config, role: str) -> Config | None:
  """Return the config of the teacher or the features that a run stores."""
  return config.get(role, {}).get("config", None)


def data_plan(
  config: Config, given: Mapping[str, Source] | None = None
) -> DataPlan:
  """Return the data set of a config, with data by split if the caller has it.

  The config need not be resolved.
  """
  known = inspect.signature(DataPlan).parameters
  values = {k: v for k, v in config.data.items() if k in known}
  for name in {"raw_dir", "data_dir", "dir", "file", "pairs"} & values.keys():
    values[name] = expanded(f"data.{name}", values[name])
  for name in {"shape", "background", "class_names"} & values.keys():
    values[name] = values[name] and tuple(values[name])
  values["split"] = values["split"].to_dict()
  registry.choose("data.order", values["order"], _ORDERS)
  if (coupling := values.get("coupling")) is not None:
    values["coupling"] = _plain(CouplingPlan, coupling)
  return DataPlan(
    **values,
    scaling=_scaling(config),
    conditions=_conditions(config),
    sources=given or {},
  )


def _conditions(config: Config) -> Scaling | None:
  """Return the scales of labels that are numbers, None without such labels."""
  offset, scale = config.data.cond_offset, config.data.cond_scale
  if offset is None and scale is None:
    return None
  if not offset or not scale or len(offset) != len(scale):
    raise UsageError(
      f"data.cond_offset={offset}, data.cond_scale={scale}: give none, or both "
      "as a run has stored them"
    )
  return Scaling.of_conditions(offset, scale)


def _scaling(config: Config) -> Scaling | None:
  """Return how values became samples, which training has stored, or None."""
  data = config.data
  found = {k: data[k] for k in ("offset", "scale", "range", "dtype")}
  absent = [k for k, value in found.items() if value is None]
  if len(absent) == len(found):
    return None
  shape = data.shape
  counts = {len(found[k] or ()) for k in ("offset", "scale")}
  if absent or len(counts) > 1 or (shape and counts - {1, shape[-1]}):
    raise UsageError(
      f"data.offset={found['offset']}, data.scale={found['scale']}, data.range="
      f"{found['range']}, data.dtype={found['dtype']}: give none, or all as a "
      "run has stored them: offset and scale one number a channel, or one"
    )
  low, high = found["range"]
  return Scaling(
    kind=data.normalise or "none",
    offset=tuple(map(float, found["offset"])),
    scale=tuple(map(float, found["scale"])),
    range=(float(low), float(high)),
    dtype=found["dtype"],
  )


def mesh_axes(config: Config) -> dict[str, Any]:
  """Return the devices along each axis; -1 takes all that are left."""
  return config.mesh.to_dict()


def _plain(kind: type[Any], section: Config, **given: Any) -> Any:
  """Return a section of a plan; what is not given stands in the config."""
  names = inspect.signature(kind).parameters.keys() - given
  return kind(**{k: section[k] for k in names}, **given)


def _companion(
  config: Config, name: str, model: Model, context: dict[str, Any]
) -> CompanionPlan:
  """Return how a network learns beside the student, which a section says.

  Its loss takes options that the student's has too from there, the others from
  the section.
  """
  section, loss = config[name], model.method.companions[name]
  turns = dict.fromkeys(get_args(Turns))
  registry.choose(f"{name}.turns", section.turns, turns)
  shared = options.parameters(loss).keys() & model.loss_options.keys()
  own = registry.make_options(
    loss, section.get("loss", {}), field=f"{name}.loss", **context
  )
  sample_times = registry.make(
    "starts",
    section.times,
    field=f"{name}.times",
    **context,
    sample_times=model.loss_options.get("sample_times"),
  )
  return _plain(
    CompanionPlan,
    section,
    start=section.get("start", 0.0),
    optimizer=OptimizerOptions(**section.optimizer.to_dict()),
    loss=loss,
    options={
      **{k: model.loss_options[k] for k in shared},
      **own,
      "sample_times": sample_times,
    },
  )


def sample_plan(config: Config, model: Model) -> SamplePlan:
  """Return how a resolved config and its model draw samples."""
  context = context_of(config, model.method, model.path)
  section = config.sample
  scale, sampler = section.guidance, section.sampler.name
  if scale != 1:
    if model.guidance_input:
      raise UsageError(
        f"sample.guidance={scale}: guidance is an input of this network; set "
        "flow_map.omega, and sample.guidance to 1"
      )
    model.check_guidance(**{"sample.guidance": scale})
  return _plain(
    SamplePlan,
    section,
    interval=_interval(config, model),
    grid=registry.make("grid", section.grid, field="sample.grid", **context),
    sampler=registry.make(
      "sampler", section.sampler, field="sample.sampler", **context
    ),
    solver=(
      (model.solver or config.flow_map.name)
      if sampler == "default"
      else sampler
    ),
    record=sampling_of(config),
    guided_by=_guided_by(config, model),
  )


def _guided_by(config: Config, model: Model) -> str:
  """Return the fields with which a network was trained to be guided."""
  own = options.switched_on(model.method.loss, options.Guides, config.loss)
  fields = {f"loss.{k}": v for k, v in own.items()}
  scale = config.get("teacher", {}).get("guidance", 1)
  fields |= {"teacher.guidance": scale} if scale != 1 else {}
  return ", ".join(f"{k}={v}" for k, v in fields.items())


def _interval(config: Config, model: Model) -> tuple[float, float] | None:
  """Return the times inside of which sampling is guided, None for all."""
  sample = config.sample
  low, high = sample.guidance_start, sample.guidance_end
  if low is None and high is None:
    return None
  for name, time in (("start", low), ("end", high)):
    if time is not None and not 0 <= time <= model.path.t_max:
      raise UsageError(
        f"sample.guidance_{name}={time}: give a time of {model.path}, 0 to "
        f"{model.path.t_max:g}"
      )
  low = model.path.t_min if low is None else low
  high = model.path.t_max if high is None else high
  if low > high or high < model.path.t_min:
    raise UsageError(
      f"sample.guidance_start={low}, sample.guidance_end={high}: no time of "
      f"{model.path} is between them; change one, or set sample.guidance to 1"
    )
  return low, high


def sampling_of(config: Config) -> dict[str, Any]:
  """Return how samples are drawn, whatever their number and the average.

  These are the sections `sample`, without `nfe`, `batch_size` and `ema`, and
  `flow_map`, as JSON gives them back.
  """
  sections = {k: config[k].to_dict() for k in ("sample", "flow_map")}
  for name in ("nfe", "batch_size", "ema"):
    del sections["sample"][name]
  return json.loads(json.dumps(sections))


def evaluation_plan(config: Config) -> EvaluationPlan:
  """Return how samples are compared with data; `resolve` is not needed."""
  section, during = config.evaluation, config.evaluation.during
  if section.split not in ("train", "test"):
    raise UsageError(f"evaluation.split={section.split!r}: give train or test")
  network = section.network.name
  chosen = {
    field: _metrics(f"evaluation.{field}", text, network)
    for field, text in (
      ("metrics", section.metrics),
      ("during.metrics", during.metrics),
      ("during.best", during.best),
    )
  }
  if len(chosen["during.best"] or ()) > 1:
    raise UsageError(f"evaluation.during.best={during.best!r}: give one metric")
  if during.best and during.best not in (
    chosen["during.metrics"] or (during.best,)
  ):
    raise UsageError(
      f"evaluation.during.best={during.best!r} is none of "
      f"evaluation.during.metrics={during.metrics!r}: add it there"
    )
  maker = registry.maker_of("extractor", network, field="evaluation.network")
  return _plain(
    EvaluationPlan,
    section,
    nfe=tuple(section.nfe),
    reference=expanded("evaluation.reference", section.reference) or "",
    metrics=chosen["metrics"],
    flow=_plain(FlowPlan, section.flow),
    during=_plain(
      DuringPlan,
      during,
      nfe=tuple(during.nfe),
      metrics=chosen["during.metrics"],
    ),
    network=network,
    extractor=functools.partial(
      registry.make,
      "extractor",
      section.network.to_dict(),
      field="evaluation.network",
    ),
    trained="num_classes" in inspect.signature(maker).parameters,
  )


def _metrics(field: str, text: str, network: str) -> tuple[str, ...] | None:
  """Return the names of a comma-separated list, None for an empty one."""
  names = tuple(name.strip() for name in text.split(",") if name.strip())
  for name in names:
    try:
      metrics.direction(name)
    except UsageError as error:
      raise type(error)(f"{field}: {error}") from error
    if network == "none" and metrics.sees_images(name):
      raise UsageError(
        f"{field}: {name!r} compares what a network sees; give "
        "evaluation.network.name"
      )
  return names or None
