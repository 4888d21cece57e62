"""Compile a config for devices that need not be there."""

import pathlib
from collections.abc import Callable

from jaxflow import compilation
from jaxflow.commands.train import steps_per_dispatch
from jaxflow.compilation.chips import GIB
from jaxflow.config import Config, default_config, resolve
from jaxflow.config.files import load_config
from jaxflow.config.limits import check_limits
from jaxflow.errors import UsageError
from jaxflow.evaluation.networks import make_extractor
from jaxflow.methods import METHODS
from jaxflow.models import Extractor
from jaxflow.parallel import sharding
from jaxflow.runs import decoding, inputs
from jaxflow.runs.run import Run, load_data

# What a teacher's network has of its own, whatever the student's is like.
_STUDENT_ONLY = ("second_time", "guidance_inputs", "heads", "head_depth")


def compile_config(
  config: Config,
  topology: compilation.Topology,
  *,
  hbm: float | None = None,
  say: Callable[[str], None] = print,
) -> bool:
  """Compile training step, sampler and evaluation step of a config.

  Args:
    config: A config as `config.default_config` makes it. With `data.shape` and
      `data.num_classes` it needs no data.
    topology: The devices; `prepare` has been called.
    hbm: Memory of a device in GiB; default: the chip's.
    say: Prints a line.

  Returns:
    Whether all programs fit.

  Raises:
    UsageError: If a field is wrong.
  """
  check_limits(config)
  if hbm is not None and not hbm > 0:
    raise UsageError(f"--hbm={hbm}: give the memory of a device in GiB")
  config, notes = resolved(config)
  devices = topology.devices()
  mesh = sharding.make_mesh(**config.mesh, devices=devices)
  inputs.check_mesh(config, mesh)
  run = Run.of(config)
  whole = sharding.undivided(run.template(mesh).params, mesh)
  notes += [
    f"mesh does not divide {line}: replicated along it" for line in whole
  ]
  notes += straddling(config, sharding.row_shards(mesh))
  name = f"{config.method} on {config.data.name}"
  hosts = len({device.process_index for device in devices})
  say(compilation.report_header(name, topology, dict(mesh.shape), hosts))
  for note in notes:
    say(f"note: {note}")
  limit = None if hbm is None else int(hbm * GIB)
  fit = True
  steps = steps_per_dispatch(config, 0)
  networks, decoder = _observers(config, say)
  programs = compilation.programs(
    run, mesh, steps=steps, networks=networks, decoder=decoder
  )
  for program in programs:
    report = compilation.compile_program(
      program, chip=topology.chip, limit=limit
    )
    fit &= report.fits
    say("\n" + compilation.report_table(report, topology))
  return fit


def resolved(config: Config) -> tuple[Config, list[str]]:
  """Return a config whose networks can be built, from what it says alone.

  Args:
    config: A config.

  Returns:
    The config, and what had to be assumed.

  Raises:
    UsageError: If the data that it names, or a run of its `teacher.workdir` or
      `features.workdir`, cannot be read, or a field does not fit the others.
  """
  notes = []
  shape, num_classes = config.data.shape, config.data.num_classes
  if shape is None or num_classes is None:
    dataset = load_data(config, "train")
    shape, num_classes = dataset.shape, dataset.num_classes
  elif not config.data.conditional:
    num_classes = 0
  found = {}
  wanted = {
    "teacher": "teacher" in METHODS[config.method].needs,
    "features": _of_run(config),
  }
  for name, needed in wanted.items():
    if not needed or config[name].get("config", None) is not None:
      continue
    workdir = config[name].workdir
    if workdir and (pathlib.Path(workdir) / "config.json").is_file():
      found[name] = load_config(pathlib.Path(workdir), field=f"{name}.workdir")
      continue
    found[name] = _stand_in(config, tuple(shape), num_classes)
    of = f"{name}.workdir={workdir!r} holds no run: "
    notes.append(
      f"{of}its network is taken to be the student's, trained with "
      f"{found[name].method}"
    )
  found.setdefault("teacher", None)
  config = resolve(config, shape=tuple(shape), num_classes=num_classes, **found)
  if "features" in found:
    with config.unlocked(), config.ignore_type():
      config.features.workdir = config.features.workdir or "assumed"
  return config, notes


def straddling(config: Config, count: int) -> list[str]:
  """Say if the rows of a device are no whole number of the loss's blocks.

  Args:
    config: A config.
    count: Among how many devices rows are shared.

  Returns:
    No line, or one.
  """
  block = config.loss.get("block", None)
  rows, rest = divmod(config.train.batch_size, count * config.train.accumulate)
  if block is None or rest or rows % block[0] == 0:
    return []
  better = count * config.train.accumulate * block[0]
  return [
    f"loss.block={tuple(block)} with {rows} row(s) a device: a block lies on "
    f"several devices, so its rows move between them; train.batch_size={better}"
    " or fewer devices would keep them in place"
  ]


def _networks(
  config: Config, say: Callable[[str], None]
) -> tuple[Extractor, ...]:
  """Return what sees samples; a classifier, yet to be trained, is left out."""
  name = config.evaluation.network.name
  if name == "classifier":
    say("note: evaluation step without its classifier, which is not trained")
    return ()
  network = make_extractor(
    config.evaluation.network, config, pathlib.Path(), say=say
  )
  return () if network is None else (network,)


def _observers(
  config: Config, say: Callable[[str], None]
) -> tuple[tuple[Extractor, ...], compilation.Decoder | None]:
  """Return what sees samples, and what makes images of them for it.

  Both are left out where samples are latents whose decoder cannot be read.
  """
  networks = _networks(config, say)
  try:
    return networks, decoding.make_decoder(config) if networks else None
  except UsageError as error:
    say(f"note: evaluation step without networks, which see images: {error}")
    return (), None


def _of_run(config: Config) -> bool:
  section = config.get("features", None)
  return section is not None and section.network.name == "run"


def _stand_in(
  config: Config, shape: tuple[int, ...], num_classes: int
) -> Config:
  """Return the config of a run that could be the teacher of another."""
  method = next(k for k, row in METHODS.items() if row.teaches)
  other = default_config(method, data=config.data.name, model=config.model.name)
  for name, value in config.model.items():
    if name not in _STUDENT_ONLY:
      other.model[name] = value
  if num_classes:
    # Its student may guide it.
    other.loss.label_dropout = 0.1
  return resolve(other, shape=shape, num_classes=num_classes, teacher=None)
