"""What a run trains on: its data set, its pairs, and batches of them."""

import dataclasses
import json
import pathlib

import jax

from jaxflow import data, paths, rows
from jaxflow.commands.pairs import parameters_hash
from jaxflow.config import Config
from jaxflow.data.devices import ResumableIterator
from jaxflow.data.folders import pairs as pairs_lib
from jaxflow.data.loading import reading_threads
from jaxflow.errors import UsageError
from jaxflow.methods import METHODS
from jaxflow.parallel import sharding
from jaxflow.runs.model import Model
from jaxflow.types import PyTree


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
    """Say how much there is: `16,384 samples`."""
    if self.paired is None:
      return f"{len(self.real):,} samples"
    return f"{len(self.paired):,} pairs"


def read_inputs(config: Config, real: data.Source) -> Inputs:
  """Read the pairs that a config names, if its method needs them.

  Args:
    config: A config, resolved or not.
    real: Its data set.

  Raises:
    UsageError: If there are no pairs, too few, or pairs of other data.
  """
  row = METHODS.get(config.method)
  if row is None or "pairs" not in row.needs:
    return Inputs(real, None, None)
  folder = config.data.pairs
  if config.data.get("synthetic_share", 1.0) == 0:
    return Inputs(real, None, None)
  if not folder:
    raise UsageError(
      f"data.pairs='' but method={config.method!r} trains on pairs: add "
      "--config.data.pairs=FOLDER, made by `jaxflow pairs`"
    )
  pairs = data.Pairs.open(pathlib.Path(folder), field="data.pairs")
  description = pairs.description
  for field, mine, its in (
    ("data.name", config.data.name, description["config"]["data"]["name"]),
    ("data.shape", list(real.shape), description["shape"]),
    ("data.num_classes", real.num_classes, description["num_classes"]),
  ):
    if mine != its:
      raise UsageError(
        f"data.pairs={folder!r}: its {field} is {its!r}, this run's is "
        f"{mine!r}; they must agree"
      )
  return Inputs(real, pairs.load(field="data.pairs"), pairs)


def check_teacher(
  pairs: data.Pairs | None, config: Config, params: PyTree | None
) -> None:
  """Raise UsageError if pairs are of another teacher than a run's.

  Args:
    pairs: The pairs, or None.
    config: The run's resolved config.
    params: The teacher's parameters, or None where they need no check.
  """
  if pairs is None or params is None:
    return
  teacher, scale = config.teacher, pairs.description["guidance"]
  if scale != teacher.guidance:
    raise UsageError(
      f"data.pairs={config.data.pairs!r} was made with --guidance={scale}, "
      f"teacher.guidance is {teacher.guidance}: they must agree"
    )
  saved, found = teacher.config.to_dict(), parameters_hash(params)
  mine = {"parameters": found, "config": saved}
  its = {k: pairs.description[k] for k in mine}
  if _plain(pairs_lib.identity(mine)) == _plain(pairs_lib.identity(its)):
    return
  name = pairs_lib.teacher_of({"workdir": teacher.workdir, **mine})
  raise UsageError(
    f"data.pairs={config.data.pairs!r} was made by "
    f"{pairs_lib.teacher_of(pairs.description)}, teacher.workdir is {name}: "
    "give pairs of this teacher, or the teacher of the pairs"
  )


def check_scale(model: Model) -> None:
  """Raise UsageError if latents have another deviation than a network's path.

  Where points are normalised, data are taken to have the deviation of the
  path's noise; what latents have is known.

  Args:
    model: What the run's config stands for.
  """
  config = model.config
  space = data.latent_space(config.data.name, config.data.data_dir)
  if space is None or config.parameterization.name != "normalized":
    return
  expected = paths.noise_std(model.path)
  if space.scale != expected:
    raise UsageError(
      f"data.data_dir={config.data.data_dir!r}: its latents have the deviation "
      f"{space.scale}, parameterization.name='normalized' takes the path's, "
      f"{expected}: give a folder made with --scale={expected}, or set "
      f"path.noise_std={space.scale}"
    )


def make_batches(
  config: Config,
  inputs: Inputs,
  *,
  steps: int,
  mesh: jax.sharding.Mesh | None = None,
) -> ResumableIterator:
  """Return the stream of batches, for so many steps at a time.

  Args:
    config: The run's resolved config.
    inputs: Its arrays.
    steps: Batches of one `next`.
    mesh: Where they go: only rows of this process's devices; default: all.

  Raises:
    UsageError: If the batch does not divide.
  """
  batch_size, accumulate = config.train.batch_size, config.train.accumulate
  rows = None
  if mesh is not None:
    rows = sharding.local_rows(mesh, batch_size // accumulate)

  def make(
    source: data.Source, *, flip: bool = False, threads: int = 0
  ) -> data.Drawn:
    return data.Drawn(
      data.Batches(
        source,
        batch_size=batch_size,
        seed=config.seed,
        stack=(steps, accumulate),
        rows=rows,
        flip=flip,
        threads=threads,
      )
    )

  share = config.data.get("synthetic_share", 1.0)
  # What is in memory is read faster than threads could hand it over.
  slow = not isinstance(inputs.real, data.Dataset)
  threads = (config.data.threads or reading_threads()) if slow else 0
  # A pair keeps its sides: its noise is that of the image as it is.

  def make_real() -> data.Drawn:
    return make(inputs.real, flip=config.data.flip, threads=threads)

  if inputs.paired is None:
    real = make_real()
    # The rows that train on pairs can do without, but not without noise.
    return data.FreshNoise(real) if share == 0 else real
  if share == 1:
    return make(inputs.paired)
  return data.Mixed(make(inputs.paired), make_real(), share=share)


def check_mesh(config: Config, mesh: jax.sharding.Mesh) -> None:
  """Raise UsageError unless devices and blocks divide the batch, and heads."""
  heads, tensor = config.model.get("num_heads", 0), mesh.shape["tensor"]
  if heads % tensor:
    raise UsageError(
      f"mesh.tensor={tensor} does not divide model.num_heads={heads}: a head "
      "stays on one device; give a divisor"
    )
  batch_size, accumulate = config.train.batch_size, config.train.accumulate
  shards = sharding.row_shards(mesh)
  count = shards * accumulate
  if batch_size % count:
    raise UsageError(
      f"train.batch_size={batch_size} is no multiple of {count} "
      f"({shards} devices x train.accumulate={accumulate}): "
      f"use {-(-batch_size // count) * count}"
    )
  if "block" in config.loss:
    try:
      rows.check_block(config.loss.block, batch_size // accumulate)
    except ValueError as error:
      raise UsageError(
        f"loss.block={config.loss.block} with train.batch_size={batch_size}, "
        f"train.accumulate={accumulate}: {error}"
      ) from error


def _plain(values: PyTree) -> PyTree:
  """Return values as JSON gives them back."""
  return json.loads(json.dumps(values))
