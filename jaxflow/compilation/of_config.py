"""Compile a config for devices that need not be there."""

import pathlib
from collections.abc import Callable

from jaxflow import compilation
from jaxflow import config as config_lib
from jaxflow.compilation.chips import GIB
from jaxflow.config.stand_ins import resolve_alone
from jaxflow.errors import UsageError
from jaxflow.evaluation.networks import make_extractor
from jaxflow.models import Extractor
from jaxflow.parallel import sharding
from jaxflow.plans import Plan
from jaxflow.runs import decoding, inputs
from jaxflow.runs.run import Run
from jaxflow.runs.train import steps_per_dispatch

# Of the memory of a device that --hbm gives: more is none that exists.
_MOST_GIB = 1_000_000


def compile_config(
  config: config_lib.Config,
  topology: compilation.Topology,
  *,
  hbm: float | None = None,
  log: Callable[[str], None] = print,
) -> bool:
  """Compile training step, sampler and evaluation step of a config.

  Returns whether all of them fit. With `data.shape` and `data.num_classes` a
  config needs no data.
  """
  config_lib.check_limits(config)
  if hbm is not None and not 0 < hbm <= _MOST_GIB:
    raise UsageError(
      f"hbm={hbm}: give the memory of a device in GiB, above 0 and at most "
      f"{_MOST_GIB:,}"
    )
  plan, notes = assumed_plan(config)
  devices = topology.devices()
  mesh = sharding.make_mesh(**plan.mesh, devices=devices)
  inputs.check_mesh(plan, mesh)
  run = Run(plan)
  whole = sharding.undivided(run.template(mesh).params, mesh)
  notes += [
    f"mesh does not divide {line}: replicated along it" for line in whole
  ]
  notes += _straddling_blocks(plan, sharding.row_shards(mesh))
  name = f"{plan.model.name} on {plan.data.name}"
  hosts = len({device.process_index for device in devices})
  log(compilation.report_header(name, topology, dict(mesh.shape), hosts))
  for note in notes:
    log(f"note: {note}")
  limit = None if hbm is None else int(hbm * GIB)
  networks, decoder = _observers(plan, log)
  programs = compilation.programs(
    run,
    mesh,
    steps=steps_per_dispatch(plan, 0),
    networks=networks,
    decoder=decoder,
  )
  fit = True
  for program in programs:
    report = compilation.compile_program(
      program, chip=topology.chip, limit=limit
    )
    fit &= report.fits
    log("\n" + compilation.report_table(report, topology))
  return fit


def assumed_plan(config: config_lib.Config) -> tuple[Plan, list[str]]:
  """Return the plan of a config whose other runs need not be there.

  Each run that is taken to be like the student has a line beside the plan.
  Without `data.shape` or `data.num_classes` the data are read.
  """
  data = config_lib.data_plan(config)
  shape, num_classes = data.shape, data.num_classes
  if shape is None or num_classes is None:
    source = inputs.load_data(data, "train")
    shape, num_classes = source.shape, source.num_classes
  elif not data.conditional:
    num_classes = 0
    config = config_lib.changed(config, {"data": {"num_classes": 0}})
  config, notes = resolve_alone(config, shape=shape, num_classes=num_classes)
  return config_lib.make_plan(config), notes


def _straddling_blocks(plan: Plan, count: int) -> list[str]:
  """Return a line if a part of the rows, of `count`, splits a block."""
  block, accumulate = plan.model.block, plan.train.accumulate
  rows, rest = divmod(plan.train.batch_size, count * accumulate)
  if block is None or rest or rows % block[0] == 0:
    return []
  better = count * accumulate * block[0]
  return [
    f"loss.block={block} with {rows} row(s) a device: a block lies on several "
    f"devices, so its rows move between them; train.batch_size={better} or "
    "fewer devices would keep them in place"
  ]


def _observers(
  plan: Plan, log: Callable[[str], None]
) -> tuple[tuple[Extractor, ...], compilation.Decoder | None]:
  """Return the networks of an evaluation, and the decoder of its latents.

  A classifier, which is yet to be trained, is left out; so are all where
  samples are latents whose decoder cannot be read.
  """
  if plan.evaluation.trained:
    log("note: evaluation step without its classifier, which is not trained")
    return (), None
  network = make_extractor(plan.evaluation, plan.data, pathlib.Path(), log=log)
  if network is None:
    return (), None
  try:
    return (network,), decoding.make_decoder(plan.data)
  except UsageError as error:
    log(f"note: evaluation step without networks, which see images: {error}")
    return (), None
