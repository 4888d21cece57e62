"""Published networks as runs."""

import dataclasses
import hashlib
import inspect
import json
import os
import pathlib
import secrets
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import jax

from jaxflow import config as config_lib
from jaxflow.errors import RunError, UsageError, named
from jaxflow.files import write_text, writing
from jaxflow.methods import METHODS
from jaxflow.parallel import memory, sharding
from jaxflow.plans import DataPlan
from jaxflow.pretrained.formats import FORMATS, Format, Imported, format_of
from jaxflow.runs.latent_notes import RECORD, latent_notes
from jaxflow.runs.opening import load_data
from jaxflow.runs.options import option
from jaxflow.runs.run import Run
from jaxflow.training.checkpoints import Checkpoints
from jaxflow.types import PyTree

# Options that not every format has, and what the others know by themselves.
_OF_FORMATS = {
  "null_label": "knows which label stands for none",
  "side": "knows how large samples are",
  "heads": "knows how many heads there are",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImportOptions:
  """What is imported; the command line has a flag for each field."""

  format: str = option("", f"how it was published: {', '.join(FORMATS)}")
  file: str = option("", "the file, or the folder, that holds the network")
  sha256: str = option(
    "", "SHA-256 that the file must have; of a folder, the one that is shown"
  )
  null_label: bool = option(
    False, "whether the last label of a diffusers U-Net stands for no label"
  )
  side: int = option(
    0,
    "height and width of samples, where they are not told by what is read: "
    "32, the default, are latents of 256 pixels",
  )
  heads: int = option(
    0,
    "heads of attention of a dit, sit or meanflow that is of no published "
    "size; 0: of 64 features each",
  )
  data: str = option(
    "given",
    "the data set that the network was trained on, a data.name of a config; "
    "evaluations read it",
  )
  data_dir: str | None = option(
    None, "its folder: of latents, the one that decodes samples"
  )


def import_network(
  out: pathlib.Path,
  options: ImportOptions,
  *,
  log: Callable[[str], None] = print,
) -> Run:
  """Write a published network as a run's folder; return the run.

  Nothing is left of a folder that could not be finished.
  """
  source = format_of(options.format)
  path = pathlib.Path(options.file)
  with named(path="file"):
    digest = _digest(path, source)
    if options.sha256 not in ("", digest):
      raise UsageError(
        f"path={path}: its sha256 is {digest}, not {options.sha256}; get the "
        "file again, or give this hash if you trust it"
      )
    log(f"{path}: sha256 {digest}")
    imported = source.read(path, **_given(options, source))
  check_new(out)
  run = Run(config_lib.make_plan(_config(imported, options)))
  for note in (*imported.notes, *_check_data(run.plan.data)):
    log(note)
  record = {
    "schema": 1,
    "format": options.format,
    "file": path.name,
    "sha256": digest,
    "notes": list(imported.notes),
    "latents": imported.latents and dataclasses.asdict(imported.latents),
  }
  averages = {
    name: imported.averages.get(name, imported.params) for name in run.plan.emas
  }
  template = jax.eval_shape(run.model.network.init, jax.random.key(0))
  _check(imported.params, template)
  write_run(out, run, imported.params, averages, record=(RECORD, record))
  count = sum(x.size for x in jax.tree.leaves(imported.params))
  log(
    f"{run.model.name} on {run.model.path}: {count:,} parameters, samples "
    f"{run.model.shape}, {run.model.num_classes} classes"
  )
  for note in latent_notes(out, run.plan.data):
    log(note)
  log(f"done: --config.teacher.workdir={out}, --config.init.workdir={out}")
  return run


def _given(options: ImportOptions, source: Format) -> dict[str, Any]:
  """Return the options that not every format has, where they are given."""
  given = {}
  for name, answer in _OF_FORMATS.items():
    value = getattr(options, name)
    if not value:
      continue
    if name not in inspect.signature(source.read).parameters:
      raise UsageError(
        f"{name}={value}: format={options.format!r} {answer}; leave it out"
      )
    given[name] = value
  for name in ("side", "heads"):
    if getattr(options, name) < 0:
      raise UsageError(f"{name}={getattr(options, name)}: give 1 or more")
  return given


def _config(imported: Imported, options: ImportOptions) -> Any:
  """Return the resolved config of an imported network."""
  method = next(
    name for name, row in METHODS.items() if row.loss is imported.loss
  )
  network = imported.sections["model"]["name"]
  config = config_lib.default_config(method, data=options.data, model=network)
  config_lib.update(config, imported.sections)
  if options.data_dir is not None:
    config_lib.update(config, {"data": {"data_dir": options.data_dir}})
  if not imported.num_classes:
    config_lib.update(config, {"data": {"conditional": False}})
  return config_lib.resolve(
    config,
    shape=imported.shape,
    num_classes=imported.num_classes,
    teacher=None,
  )


def _check_data(plan: DataPlan) -> list[str]:
  """Raise UsageError if a set that is there is of other samples or classes.

  Return a line where a set cannot be opened, for any reason.
  """
  if plan.name == ImportOptions.data:
    return []
  try:
    # Pictures stay on disk.
    source = load_data(dataclasses.replace(plan, ram_gib=0.0), "train")
  except UsageError as error:
    return [f"the network is not compared with its data: {error}"]
  seen = (source.shape, source.num_classes)
  known = (plan.shape, plan.num_classes)
  for (mine, its), text in zip(
    zip(seen, known, strict=True), ("samples {}", "{} classes"), strict=True
  ):
    if mine != its:
      raise UsageError(
        f"data.name={plan.name!r} has {text.format(mine)}, the network {its}: "
        "give the set that it was trained on"
      )
  return []


def check_new(out: pathlib.Path) -> None:
  """Raise UsageError unless a folder is new, or empty."""
  if out.exists() and not (out.is_dir() and not any(out.iterdir())):
    raise UsageError(f"out={out} is there already: give a new folder")


def write_run(
  out: pathlib.Path,
  run: Run,
  params: PyTree,
  averages: dict[str, PyTree],
  frozen: dict[str, PyTree] | None = None,
  record: tuple[str, Any] | None = None,
) -> None:
  """Write the folder of a run at step 0, whole or not at all.

  `record` are the name and the content of one more file.
  """
  draft = out.with_name(f".{out.name}.{secrets.token_hex(8)}.tmp")
  try:
    _write_checkpoint(draft, run, params, averages, frozen or {})
    if record is not None:
      text = json.dumps(record[1], indent=2) + "\n"
      write_text(draft / record[0], text)
    config_lib.save_config(run.plan.config, draft / "config.json")
    with writing(out):
      os.replace(draft, out)
  finally:
    shutil.rmtree(draft, ignore_errors=True)


def _write_checkpoint(
  folder: pathlib.Path,
  run: Run,
  params: PyTree,
  averages: dict[str, PyTree],
  frozen: dict[str, PyTree],
) -> None:
  """Write the first checkpoint of a run."""
  template = run.template(sharding.make_mesh(**run.plan.mesh))
  memory.check(template, "parameters, averages and optimizer")

  def first(params, averages, frozen):
    state = run.init(params, frozen, jax.random.key(0))
    return dataclasses.replace(state, ema=averages)

  shardings = jax.tree.map(lambda x: x.sharding, template)
  make = jax.jit(first, out_shardings=shardings)
  checkpoints = Checkpoints(folder / "checkpoints")
  checkpoints.save(0, make(params, averages, frozen), None)
  checkpoints.close()


def _check(params: PyTree, template: PyTree) -> None:
  """Raise RunError unless parameters are those of the network."""
  mine, its = (jax.tree.map(lambda x: x.shape, x) for x in (params, template))
  if mine != its:
    raise RunError(
      "format: it gives other parameters than those of the network that it "
      "names; this is a fault of the format"
    )


def _digest(path: pathlib.Path, source: Format) -> str:
  """Return the SHA-256 of a file, or of the list of a folder's files."""
  try:
    if not path.is_dir():
      return _sha256(path)
    found = {x for each in source.files for x in path.rglob(each)}
    lines = list(_list(path, sorted(x for x in found if x.is_file())))
  except OSError as error:
    raise UsageError(
      f"path={path} cannot be read ({error.strerror}): give a file, or a "
      "folder, that is there"
    ) from error
  return hashlib.sha256("".join(lines).encode()).hexdigest()


def _list(folder: pathlib.Path, files: list[pathlib.Path]) -> Iterator[str]:
  """Yield the lines that the program sha256sum prints for files."""
  for file in files:
    yield f"{_sha256(file)}  {file.relative_to(folder)}\n"


def _sha256(path: pathlib.Path) -> str:
  with open(path, "rb") as stream:
    return hashlib.file_digest(stream, "sha256").hexdigest()
