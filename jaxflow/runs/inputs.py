"""The data of a run: its data set, its pairs, and batches of them."""

import dataclasses
import json
import math
import pathlib

import jax
import numpy as np

from jaxflow import conditions, data, options, paths, rows
from jaxflow.data import transport
from jaxflow.data.devices import ResumableIterator
from jaxflow.data.folders.pairs import teacher_of
from jaxflow.data.loading import reading_threads
from jaxflow.data.looking import some
from jaxflow.data.order import count_groups
from jaxflow.errors import UsageError, named
from jaxflow.methods import Method
from jaxflow.parallel import processes, sharding
from jaxflow.parallel.hashing import parameters_hash
from jaxflow.plans import DataPlan, Model, Plan
from jaxflow.runs.drawing import check_num
from jaxflow.runs.opening import load_data
from jaxflow.types import Batch, PyTree


@dataclasses.dataclass(frozen=True)
class Inputs:
  """The data of a run.

  Attributes:
    real: The training split of `data.name`.
    paired: The pairs of `data.pairs` in memory, or None.
    pairs: Their folder, or None.
  """

  real: data.Source
  paired: data.Dataset | None
  pairs: data.Pairs | None

  def __str__(self) -> str:
    """Say how much there is: `16,384 samples of 2, 8 classes`."""
    if self.paired is None:
      scaling = data.scaling_of(self.real)
      how = f" (data.normalise={scaling.kind})" if scaling else ""
      shape = "x".join(map(str, self.real.shape))
      return f"{len(self.real):,} samples of {shape}{how}{_labels(self.real)}"
    return f"{len(self.paired):,} pairs"


def _labels(source: data.Source) -> str:
  """Return in words what labels samples have, "" for none."""
  if scales := data.conditions_of(source):
    return f", labels of {len(scales.offset)} real numbers"
  if source.num_classes:
    names = data.class_names(source) or range(source.num_classes)
    missing = [str(names[x]) for x in data.classes_without_samples(source)]
    without = f" (no sample of {some(missing)})" if missing else ""
    return f", {source.num_classes} classes{without}"
  cond = conditions.rows(source.take(np.arange(1)).get("cond"), 0)
  return "" if cond is None else f", condition {conditions.describe(cond)}"


def read_inputs(method: Method, plan: DataPlan) -> Inputs:
  """Read the data set, and the pairs if the method needs them."""
  real = load_data(plan, "train")
  if "pairs" not in method.needs or plan.synthetic_share == 0:
    return Inputs(real, None, None)
  check_classes(real)
  folder = plan.pairs
  if not folder:
    raise UsageError(
      "data.pairs='' but this method trains on pairs: add "
      "--config.data.pairs=FOLDER, made by `jaxflow pairs`"
    )
  with named(folder="data.pairs"):
    pairs = data.Pairs.open(pathlib.Path(folder))
  description, cond = pairs.description, None
  if not data.has_labels(real):
    cond = conditions.rows(real.take(np.arange(1)).get("cond"), 0)
  for field, mine, its in (
    ("data.name", plan.name, description["config"]["data"]["name"]),
    ("data.shape", list(real.shape), description["shape"]),
    ("data.num_classes", real.num_classes, description["num_classes"]),
    ("condition", conditions.layout(cond), description.get("cond", {})),
  ):
    if mine != its:
      raise UsageError(
        f"data.pairs={folder!r}: its {field} is {its!r}, this run's is "
        f"{mine!r}; they must agree"
      )
  with named(folder="data.pairs"):
    return Inputs(real, pairs.load(cond), pairs)


def check_classes(source: data.Source) -> None:
  """Raise UsageError if labels are numbers: pairs have classes only."""
  if data.conditions_of(source) is not None:
    raise UsageError(
      f"data.name={source.name!r} has labels that are numbers, and pairs have "
      "classes only: take a method without pairs, or set data.conditional=False"
    )


def check_teacher(
  pairs: data.Pairs | None, plan: Plan, params: PyTree | None
) -> None:
  """Raise UsageError if pairs are of another teacher than a run's."""
  if pairs is None or params is None or plan.teacher_plan is None:
    return
  mine, its = plan.roles.teacher_guidance, pairs.description["guidance"]
  if mine != its:
    raise UsageError(
      f"data.pairs={plan.data.pairs!r} was made with --guidance={its}, "
      f"teacher.guidance is {mine}: they must agree"
    )
  saved = plan.teacher_plan.config.to_dict()
  mine = {"parameters": parameters_hash(params), "config": saved}
  its = {k: pairs.description[k] for k in mine}
  if _plain(pairs.identity(mine)) == _plain(pairs.identity(its)):
    return
  name = teacher_of({"workdir": plan.teacher.workdir, **mine})
  raise UsageError(
    f"data.pairs={plan.data.pairs!r} was made by "
    f"{teacher_of(pairs.description)}, teacher.workdir is {name}: "
    "give pairs of this teacher, or the teacher of the pairs"
  )


def check_scale(model: Model, plan: DataPlan) -> None:
  """Raise UsageError if latents have another deviation than a network's path.

  Where points are normalised, data are taken to have the deviation of the
  path's noise; that of latents is known.
  """
  space = data.latent_space(plan.name, plan.data_dir)
  if space is None or model.parameterization != "normalized":
    return
  expected = paths.noise_std(model.path)
  if space.scale != expected:
    raise UsageError(
      f"data.data_dir={plan.data_dir!r}: its latents have the deviation "
      f"{space.scale}, parameterization.name='normalized' takes the path's, "
      f"{expected}: give a folder made with --scale={expected}, or set "
      f"path.noise_std={space.scale}"
    )


def check_second_time(plan: Plan) -> None:
  """Raise UsageError unless the network sees the times that the loss asks for.

  Networks without the option are those of the caller, who knows.
  """
  model = plan.model
  loss, sees = model.method.loss, model.options.get("second_time")
  if sees is None:
    return
  one = options.values(loss, options.OneTime, model.loss_options)
  for name, alone in one.items():
    if bool(alone) == bool(sees):
      raise UsageError(
        f"model.second_time={sees} with loss.{name}={alone}: a network of two "
        f"times has loss.{name}=False, one of one time True; change one"
      )
  if options.marked(loss, options.Jumps) and not sees:
    raise UsageError(
      f"model.second_time={sees}: {model.name!r} learns jumps from t to any s, "
      "which the network then cannot tell apart; set it to True"
    )


def check_order(plan: Plan) -> None:
  """Raise UsageError unless rows come in the order that the loss takes."""
  model, order, group = plan.model, plan.data.order, plan.model.group
  if order == "grouped" and group is None:
    raise UsageError(
      f"data.order='grouped': the loss of {model.name!r} has no groups; set it "
      "to 'shuffled'"
    )
  if group is None:
    return
  if model.null_cond is not None and not model.num_classes:
    raise UsageError(
      f"method={model.name!r} compares data of one class, and their labels are "
      "no whole numbers: give such labels, or set data.conditional=False and "
      "data.order='shuffled'"
    )
  if order == "grouped" and not model.num_classes:
    raise UsageError(
      "data.order='grouped': the run sees no classes; set it to 'shuffled', or "
      "take labelled data with data.conditional=True"
    )
  if order == "shuffled" and model.null_cond is not None:
    raise UsageError(
      f"data.order='shuffled': {model.name!r} compares data of one class; set "
      "it to 'grouped', or data.conditional=False"
    )
  if order == "grouped":
    with named(batch_size="train.batch_size"):
      count_groups(plan.train.batch_size, group, model.num_classes)


def make_batches(
  plan: Plan,
  inputs: Inputs,
  *,
  steps: int,
  mesh: jax.sharding.Mesh | None = None,
) -> ResumableIterator:
  """Return the stream of batches up to the end of training."""
  batch_size, accumulate = plan.train.batch_size, plan.train.accumulate
  rows = None
  if mesh is not None:
    rows = sharding.local_rows(mesh, batch_size // accumulate)

  def make(
    source: data.Source, *, threads: int = 0, **changes: bool
  ) -> data.SampledBatches:
    return data.SampledBatches(
      data.Batches(
        source,
        batch_size=batch_size,
        seed=plan.seed,
        stack=(steps, accumulate),
        rows=rows,
        threads=threads,
        end=plan.train.steps,
        group=plan.model.group if plan.data.order == "grouped" else None,
        **changes,
      )
    )

  share = plan.data.synthetic_share
  # Memory is read faster than threads could hand samples over.
  slow = not isinstance(inputs.real, data.Dataset)
  threads = (plan.data.threads or reading_threads()) if slow else 0
  # A pair keeps its sides: its noise is that of the image as it is.

  def make_real() -> data.SampledBatches:
    changes = {"flip": plan.data.flip, "cut": plan.data.crop == "random"}
    return make(inputs.real, threads=threads, **changes)

  coupling = plan.data.coupling
  if coupling is not None and coupling.rows:
    return data.Transported(
      make_real(), rows=coupling.rows, within_class=coupling.within_class
    )
  if inputs.paired is None:
    real = make_real()
    # The rows that train on pairs can do without, but not without noise.
    return data.FreshNoise(real) if share == 0 else real
  if share == 1:
    return make(inputs.paired)
  return data.Mixed(make(inputs.paired), make_real(), share=share)


def check_coupling(
  plan: Plan, source: data.Source, mesh: jax.sharding.Mesh
) -> None:
  """Raise UsageError unless noise can be assigned within groups of rows."""
  coupling = plan.data.coupling
  if coupling is None or not coupling.rows:
    return
  if options.marked(plan.model.method.loss, options.Unpaired):
    raise UsageError(
      f"data.coupling.rows={coupling.rows}: {plan.model.name!r} compares a "
      "batch with samples of any noise: noise belongs to no row; set it to 0"
    )
  whole = plan.train.batch_size // plan.train.accumulate
  local = sharding.local_rows(mesh, whole)
  transport.check_groups(local, whole, coupling.rows)
  one = source.take(np.arange(1))
  if coupling.within_class and "cond" in one:
    transport.check_classes(one["cond"], (1,))


def check_filling(plan: Plan) -> None:
  """Raise UsageError if training ends before a memory of the loss is full."""
  model, train = plan.model, plan.train
  first = options.values(
    model.method.loss, options.FirstSamples, model.loss_options
  )
  samples = train.steps * train.batch_size
  for name, count in first.items():
    if count >= samples:
      raise UsageError(
        f"loss.{name}={count} leaves nothing of {samples} samples (train.steps="
        f"{train.steps}, train.batch_size={train.batch_size}): train longer, "
        "or fill with fewer"
      )


def fault(plan: Plan, batch: Batch) -> str:
  """Return what is wrong with the data of a batch, "" if nothing is."""
  source = plan.data.data_dir or plan.data.dir or plan.data.file
  source = source or f"data.name={plan.data.name!r}"
  for name, x in processes.gather(dict(batch)).items():
    if name == "cond":
      continue
    if not np.isfinite(x).all():
      return f"the data are not finite: look for NaN in {name!r} of {source}"
  cond, count = processes.gather(batch.get("cond")), plan.model.num_classes
  if count and not ((cond >= 0) & (cond <= count)).all():
    return f"labels of {source} are not in 0 to {count - 1}: mend the data"
  try:
    conditions.check_values(cond, plan.model.null_cond)
  except ValueError as error:
    return f"conditions of {source}: {error}: mend the data"
  return ""


def check_condition(model: Model, source: data.Source) -> None:
  """Raise UsageError unless a source has the conditions of the network."""
  cond = conditions.rows(source.take(np.arange(1)).get("cond"), 0)
  text = conditions.difference(cond, model.null_cond)
  if not text:
    return
  where = f"data.name={source.name!r} ({source.split})"
  if model.null_cond is None:
    raise UsageError(
      f"{where} has conditions, and the network declares none: take one that "
      f"declares null_cond, {conditions.describe(cond)}, or set "
      "data.conditional=False"
    )
  if cond is None:
    raise UsageError(
      f"{where} has no conditions, and the network declares "
      f"{conditions.describe(model.null_cond)}: take data with them, or set "
      "data.conditional=False"
    )
  raise UsageError(
    f"{where} has other conditions than the network declares: {text}; correct "
    "the data, or null_cond"
  )


def check_mesh(plan: Plan, mesh: jax.sharding.Mesh) -> None:
  """Raise UsageError unless devices and blocks divide the batch, and heads."""
  model, tensor = plan.model, mesh.shape["tensor"]
  heads = model.options.get("num_heads", 0)
  if heads % tensor:
    raise UsageError(
      f"mesh.tensor={tensor} does not divide model.num_heads={heads}: a head "
      "stays on one device; give a divisor"
    )
  batch_size, accumulate = plan.train.batch_size, plan.train.accumulate
  with named(num="train.batch_size"):
    check_num(batch_size, model.shape, model.null_cond)
  shards = sharding.row_shards(mesh)
  m, _ = block = model.block or (1, 1)
  try:
    rows.check_block(block, m)
  except ValueError as error:
    raise UsageError(f"loss.block={block}: {error}") from error
  group = model.group or 1
  unit = accumulate * math.lcm(shards, m, group)
  if batch_size % unit == 0:
    return
  fewer = [
    n
    for n in range(1, mesh.shape["data"])
    if not batch_size
    % (accumulate * math.lcm(n * mesh.shape["fsdp"], m, group))
  ]
  below = batch_size // unit * unit
  near = [below, below + unit] if below else [unit]
  by_block = f", loss.block={model.block}" if m > 1 else ""
  by_block += f", loss.group={group}" if group > 1 else ""
  raise UsageError(
    f"train.batch_size={batch_size} is no multiple of {unit} ({shards} "
    f"devices, train.accumulate={accumulate}{by_block}): use "
    f"{' or '.join(map(str, near))}"
    + (f", or mesh.data={max(fewer)}" if fewer else "")
  )


def _plain(values: PyTree) -> PyTree:
  """Return values as JSON gives them back."""
  return json.loads(json.dumps(values))
