"""Train, load, sample and evaluate from Python.

    config = jaxflow.preset("digits:mean_flow")
    run = jaxflow.train(config, workdir="runs/x")
    run = jaxflow.load("runs/x", step="best")
    images = run.sample(16, labels=[3] * 16, nfe=1)
    rows = run.evaluate(nfe=(1, 2))

The command line does the same through the same functions. `train` and `load`
let JAX keep compiled programs in the cache folder of the user, unless JAX was
told otherwise: `JAX_COMPILATION_CACHE_DIR`, `JAX_ENABLE_COMPILATION_CACHE`.
"""

import dataclasses
import functools
import logging
import os
import pathlib
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxflow import config as config_lib
from jaxflow import data as data_lib
from jaxflow.config.presets import preset
from jaxflow.errors import UsageError, check_range, named
from jaxflow.files import local_path
from jaxflow.models import Network
from jaxflow.options import SEED
from jaxflow.parallel import compile_cache, processes, sharding
from jaxflow.runs import decoding
from jaxflow.runs.drawing import (
  as_seen,
  check_num,
  checked_conditions,
  drawer,
)
from jaxflow.runs.latent_notes import latent_notes
from jaxflow.runs.picture_files import (
  check_finite,
  check_pictures,
  pictures_of_run,
  write_pictures,
)
from jaxflow.runs.restoring import restore
from jaxflow.runs.run import Run
from jaxflow.training.state import TrainState
from jaxflow.types import FlowMap, LossFunction, ModelFn, PyTree

__all__ = ["TrainedRun", "import_run", "load", "preset", "train"]

# Arrays {"data": [N, ...], "labels": [N]}, a source, or either by split.
Data = Mapping[str, Any] | data_lib.Source
Folder = str | os.PathLike[str]
_LOGGER = logging.getLogger(__name__)


def train(
  config: config_lib.Config,
  workdir: Folder | None = None,
  *,
  data: Data | None = None,
  network: Network | None = None,
  loss: LossFunction | None = None,
  callbacks: Iterable[Any] = (),
  log: Callable[[str], None] = print,
) -> "TrainedRun":
  """Train a config, or go on where an earlier run in the workdir stopped.

  Args:
    config: A config with every field set, as `preset` returns it.
    workdir: The folder for config, checkpoints, logs and samples; None keeps
      the run in memory.
    data: Training data in place of the set that the config names: arrays
      `{"data": [N, ...], "labels": [N]}` with images in [-1, 1] and labels
      from 0 on, or conditions `[N, K]` of real numbers; a `Source`; or
      `{"train": ..., "test": ...}` of these. Arrays may be mapped from a file;
      `data.normalise` in the config scales them.
    network: A network in place of the config's; docs/networks.md has its
      contract.
    loss: A loss in place of the method's, with the signature of those in
      `jaxflow.losses`; it gets the options that it names.
    callbacks: Objects with any of `on_start(start)`, `on_log(step, scalars)`,
      `on_checkpoint(step)`, `on_samples(step, samples)` and `close()`; the main
      process calls them. If one raises, training saves its state and ends
      with a RunError. docs/logs.md says more.
    log: Takes each line of progress.

  Returns:
    The run, to be sampled and evaluated.

  Raises:
    UsageError: If an argument or a field is wrong; nothing is written then.
    RunError: If training fails; the checkpoints stay.
  """
  from jaxflow.runs.train import train as train_config

  _check_config(config)
  compile_cache.begin(log=log)
  folder = None if workdir is None else _path(workdir)
  sources = None if data is None else _sources(data)
  trained = train_config(
    config_lib.given(
      config, data=data is not None, network=network is not None
    ),
    folder,
    sources=sources,
    network=network,
    loss=loss,
    callbacks=callbacks,
    log=log,
  )
  mesh = sharding.fitting_mesh(trained.run.plan.mesh)
  return TrainedRun(
    run=trained.run,
    state=trained.state,
    mesh=mesh,
    workdir=folder,
    finished=trained.finished,
  )


def load(
  workdir: Folder,
  *,
  step: int | str | None = None,
  average: str | None = None,
  dtype: Any = None,
  mesh: jax.sharding.Mesh | None = None,
  network: Network | None = None,
  data: Data | None = None,
  config: config_lib.Config = None,
) -> "TrainedRun":
  """Open a trained run.

  Args:
    workdir: The folder of a run, or one that `export` wrote as safetensors;
      "hf://OWNER/NAME" or "hf://OWNER/NAME@REVISION" downloads such a folder
      from the Hugging Face hub.
    step: The checkpoint; None for the latest, "best" for the one that was best
      while training.
    average: Name of the average of the parameters, or "online" for the
      parameters themselves; "width=0.07" makes a power average of any width
      of the checkpoints' (docs/evaluation.md). Default: the config's
      `sample.ema`.
    dtype: Type of the parameters, `jnp.bfloat16` for instance; default: as
      stored, float32.
    mesh: The devices; default: all.
    network: The network, if the run was trained with a network of yours.
    data: Data, as of `train`, if the run was trained on data of yours.
    config: The run's config with other values in `sample`, `flow_map` or
      `evaluation`; default: as stored.

  Returns:
    The run; only the average is read.

  Raises:
    UsageError: If the folder holds no run, or no such checkpoint or average.
  """
  compile_cache.begin(log=_LOGGER.warning)
  folder = _downloaded(workdir) or _path(workdir)
  if config is network is data is None:
    plan = config_lib.load_plan(folder)
  else:
    saved = config_lib.load_config(folder)
    if config is not None:
      _check_config(config)
      config_lib.check_same_run(saved, config, str(folder), sampled=True)
    plan = config_lib.make_plan(
      saved if config is None else config,
      network=network,
      data=None if data is None else _sources(data),
    )
  if average is not None:
    sample = dataclasses.replace(plan.sample, ema=average)
    plan = dataclasses.replace(plan, sample=sample)
  run = Run(plan)
  for line in latent_notes(folder, plan.data):
    _LOGGER.warning(line)
  with named(ema="sample.ema" if average is None else "average"):
    run.check_average(plan.sample.ema)
    mesh = sharding.fitting_mesh(plan.mesh) if mesh is None else mesh
    state = restore(
      *(run, folder),
      mesh=mesh,
      step=step,
      ema=plan.sample.ema,
      guidance=plan.sample.guidance,
    )
  if dtype is not None:
    state = jax.tree.map(
      lambda x: x.astype(dtype) if x.dtype == np.float32 else x, state
    )
  return TrainedRun(run=run, state=state, mesh=mesh, workdir=folder)


def import_run(
  format: str,
  file: Folder,
  workdir: Folder,
  *,
  sha256: str = "",
  data: str = "given",
  data_dir: Folder | None = None,
  null_label: bool = False,
  side: int = 0,
  heads: int = 0,
  log: Callable[[str], None] = print,
) -> "TrainedRun":
  """Write a published network as a run's folder, and open it.

  The run samples, evaluates, teaches and is a start like any other.

  Args:
    format: How it was published: "diffusers", "dit", "meanflow" or another of
      `jaxflow.pretrained.formats.FORMATS`.
    file: The file, or the folder, that holds the network; nothing in it is run.
    workdir: A new folder for the run.
    sha256: The hash that the file must have; default: any. It is shown.
    data: The name of the data set that the network was trained on, for
      evaluations.
    data_dir: The folder of that data set: of latents, the one that decodes.
    null_label: Whether the last label of a diffusers U-Net stands for none.
    side: Height and width of samples where the file does not say them; 0: 32.
    heads: Attention heads of a transformer whose file does not say them; 0:
      those of the published size, else of 64 features each.
    log: Takes each line on what was read and assumed.

  Returns:
    The run.

  Raises:
    UsageError: If the file is damaged, of another architecture or asks for a
      foreign class, or the folder is there already; nothing is written then.
  """
  from jaxflow.runs.importing import ImportOptions, import_network

  options = ImportOptions(
    format=format,
    file=str(_path(file)),
    sha256=sha256,
    data=data,
    data_dir=None if data_dir is None else str(_path(data_dir)),
    null_label=null_label,
    side=side,
    heads=heads,
  )
  with named(out="workdir"):
    import_network(_path(workdir), options, log=log)
  return load(workdir)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainedRun:
  """A trained run: it samples, evaluates, and gives its network away.

  Attributes:
    run: The plan and all that follows from it.
    state: The state, or only the average that is sampled.
    mesh: The devices.
    workdir: The folder of the run, or None for a run in memory.
    finished: Whether training reached its end.
  """

  run: Run
  state: TrainState
  mesh: jax.sharding.Mesh
  workdir: pathlib.Path | None
  finished: bool = True

  @property
  def config(self) -> config_lib.Config:
    """The config, with every field set."""
    return self.run.plan.config

  @property
  def step(self) -> int:
    """The step of the checkpoint."""
    return int(self.state.step)

  @property
  def params(self) -> PyTree:
    """The parameters that are sampled, a nested dict of arrays."""
    return self.run.select(self.state, self.run.plan.sample.ema)

  def velocity(self) -> ModelFn:
    """Return the velocity `(xt, t, s, cond) -> [B, ...]`, without guidance.

    Raises:
      UsageError: If the run's network is no velocity at s = t.
    """
    model = self.run.model
    if not model.method.teaches:
      raise UsageError(
        f"velocity: the network of a {model.name!r} run is no velocity; take "
        "flow_map()"
      )
    return model.network_fn(self.params)

  def flow_map(self) -> FlowMap:
    """Return the flow map `(xt, t, s, cond) -> xs`, guided as sampled."""
    model = self.run.model
    network_of = model.sampled(self.run.plan.sample)
    return model.flow_map(network_of(self.params))

  def sample(
    self,
    num: int,
    *,
    labels: ArrayLike | None = None,
    cond: PyTree = None,
    nfe: int | None = None,
    seed: int = 0,
    clip: bool = True,
    latents: bool = False,
  ) -> NDArray[Any]:
    """Draw samples; sample i depends on the seed, i and its condition.

    The sampler is compiled once for each batch size and `nfe`.

    Args:
      num: Number of samples.
      labels: Classes `[num]`, or one for all, as numbers or by the names of
        the data; default: the classes in turn. Of data whose labels are numbers
        these, `[num, K]` or `[K]`, NaN for none; default: those of random
        training data.
      cond: Where the network declares its condition, such a pytree: of arrays
        `[N, ...]`, whose rows are taken in turn, or of the condition of all
        samples; default: those of the test split in turn.
      nfe: Network calls per sample; default: the config's `sample.nfe`.
      seed: Seed of the noise, 0 to 4294967295.
      clip: Whether images are clipped to [-1, 1], or to the range of the
        training data where these were normalised.
      latents: Whether a run on latents returns them, in the units of their
        autoencoder, in place of decoded images.

    Returns:
      Samples `[num, ...]`; images are `[num, H, W, C]` in [-1, 1]. Where
      arrays were normalised, that is undone: samples are in units of the data,
      and whole numbers if the data are.

    Raises:
      UsageError: If an argument is out of range.
      RunError: If samples are not finite.
    """
    check_range(SEED, seed=seed)
    plan = self.run.plan
    check_num(num, plan.model.shape, plan.model.null_cond)
    given = checked_conditions(plan, num, labels, cond, seed=seed)
    seen = as_seen(plan, given)
    nfe = plan.sample.nfe if nfe is None else nfe
    finish = self._finish(latents)
    samples = self._drawer(nfe)(self.state, jax.random.key(seed), num, seen)
    check_finite(samples, self.step)
    samples = finish(samples)
    if not clip or latents:
      return samples
    return decoding.clipped(plan.data, samples)

  def save_pictures(
    self,
    out: Folder,
    num: int,
    *,
    labels: ArrayLike | None = None,
    cond: PyTree = None,
    nfe: int | None = None,
    seed: int = 0,
    log: Callable[[str], None] = lambda line: None,
  ) -> None:
    """Write samples as pictures, as evaluators of others read them.

    They are those of `sample`, each value x as the byte floor(127.5 x + 128),
    gray ones as RGB. They are drawn and written batch by batch.

    Args:
      out: A file that ends in ".npz", which gets `arr_0`, uint8
        `[num, H, W, 3]`, and the labels `arr_1`; or a folder, which gets a PNG
        file for each. A folder that the same call has begun is gone on with.
      num: Number of samples.
      labels: As of `sample`.
      cond: As of `sample`.
      nfe: As of `sample`.
      seed: As of `sample`.
      log: Takes a line if a folder is gone on with.

    Raises:
      UsageError: If an argument is out of range, samples are no pictures, or
        the folder holds other files or samples.
      RunError: If samples are not finite, or cannot be written.
    """
    check_range(SEED, seed=seed)
    plan, path = self.run.plan, local_path(out)
    check_pictures(plan.data, path)
    if not 1 <= num <= 2**32:  # Each has noise of its own.
      raise UsageError(f"num={num}: give 1 to {2**32}")
    pictures = pictures_of_run(
      *(self.run, self.state, self.mesh),
      num=num,
      conditions=checked_conditions(plan, num, labels, cond, seed=seed),
      nfe=plan.sample.nfe if nfe is None else nfe,
      seed=seed,
    )
    write_pictures(path, pictures, log)

  def evaluate(
    self,
    *,
    nfe: Sequence[int] = (),
    log: Callable[[str], None] = lambda line: None,
  ) -> list[dict[str, Any]]:
    """Compare samples with held-out data, beside the real-data floor.

    Args:
      nfe: Network calls per sample, one evaluation each; default: the
        config's `evaluation.nfe`.
      log: Takes each line of progress.

    Returns:
      A row for each: `nfe`, `step`, `scores` (name -> Score) and more, as
      `evaluation.of_run.evaluate_state` describes them. A run with a workdir
      writes them to `evaluation.json` as well.

    Raises:
      UsageError: If an argument is wrong or data are missing.
      RunError: If samples are not finite.
    """
    from jaxflow.evaluation import of_run

    sampled = self.run, self.state, self.mesh
    given: dict[str, Any] = {"nfe": tuple(nfe), "log": log}
    if self.workdir is not None:
      return of_run.evaluate_in(*sampled, self.workdir, **given)
    with tempfile.TemporaryDirectory() as folder:
      return of_run.evaluate_state(*sampled, pathlib.Path(folder), **given)

  def export(
    self,
    format: str,
    out: Folder,
    *,
    log: Callable[[str], None] = lambda line: None,
    **options: Any,
  ) -> None:
    """Write the run, or its sampler, as files for other programs.

    Args:
      format: One of `jaxflow.exports.FORMATS`: "onnx", "stablehlo",
        "web", "safetensors", or the name of a published format.
      out: A new folder; of a published format, a .safetensors file.
      log: Takes a line that says what was written.
      **options: Options of the format, as docs/exporting.md lists them: `nfe`,
        `noise`, `dtype`, `onnxruntime_web`, `licence`.

    Raises:
      UsageError: If the format is unknown, has no such option, cannot hold the
        run, or needs a package that is absent.
    """
    from jaxflow import exports

    trained = exports.Trained(
      run=self.run, params=self.params, step=self.step, workdir=self.workdir
    )
    with named(path="out"):
      folder = local_path(out)
    log(exports.export(trained, format, folder, options))

  @functools.cached_property
  def _finish(self) -> Callable[[bool], decoding.Picture]:
    """Reads a decoder once; every process makes the images of all samples."""

    @functools.cache
    def read(latents: bool) -> decoding.Picture:
      make = decoding.make_latents if latents else decoding.make_data
      return processes.together(lambda: make(self.run.plan.data))

    return read

  @functools.cached_property
  def _drawer(self) -> Callable[[int], Callable[..., np.ndarray]]:
    """Makes the sampler of a number of calls once."""
    return functools.cache(lambda nfe: drawer(self.run, nfe, self.mesh))


def _check_config(config: Any) -> None:
  if not hasattr(config, "copy_and_resolve_references"):
    raise UsageError(
      f"config={config!r}: give a ConfigDict, "
      'jaxflow.preset("digits:mean_flow") for instance'
    )


def _downloaded(workdir: Folder) -> pathlib.Path | None:
  """Return the folder that a name of a hub stands for, None for a path."""
  from jaxflow.runs import hub

  return hub.download(str(workdir)) if hub.is_name(str(workdir)) else None


def _path(workdir: Folder) -> pathlib.Path:
  with named(path="workdir"):
    return local_path(workdir)


def _sources(data: Data) -> dict[str, data_lib.Source]:
  """Return data by split."""
  if not isinstance(data, Mapping):
    return {"train": _source(data, "train", 0)}
  parts = {"train": data} if "data" in data else dict(data)
  wrong = parts.keys() - {"train", "test"}
  if wrong or "train" not in parts:
    raise UsageError(
      f"data has the keys {sorted(data)}: give 'data' and 'labels', or 'train' "
      "and 'test'"
    )
  classes = max(map(_num_classes, parts.values()))
  return {split: _source(part, split, classes) for split, part in parts.items()}


def _num_classes(part: Any) -> int:
  """Return the number of classes of arrays by their largest label."""
  labels = part.get("labels") if isinstance(part, Mapping) else None
  if labels is None or np.asarray(labels).dtype.kind not in "iu":
    return 0
  return int(np.max(labels, initial=-1)) + 1


def _source(part: Any, split: str, num_classes: int) -> data_lib.Source:
  """Return arrays as a data set; a source stays as it is."""
  if not isinstance(part, Mapping):
    if not all(hasattr(part, name) for name in ("take", "num_classes")):
      raise UsageError(
        f"data of type {type(part).__name__}: give arrays "
        "{'data': ..., 'labels': ...}, or a jaxflow.data.Source"
      )
    return part
  wrong = part.keys() - {"data", "labels", "cond"}
  if wrong or "data" not in part:
    raise UsageError(
      f"data has the keys {sorted(part)}: give 'data' and, with classes, "
      "'labels', or 'cond', the condition that the network declares"
    )
  if part.get("cond") is not None:
    return data_lib.from_arrays(
      part["data"],
      part.get("labels"),
      cond=part["cond"],
      num_classes=num_classes,
      name="given",
      split=split,
    )
  labels = part.get("labels")
  return data_lib.arrays_of(
    np.asanyarray(part["data"]),
    None if labels is None else np.asarray(labels),
    num_classes=0 if labels is None else num_classes,
    name="given",
    split=split,
  )
