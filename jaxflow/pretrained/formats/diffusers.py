"""Folders of the diffusers library: network, schedule and prediction.

A folder is a pipeline, with `model_index.json` and sub-folders, or that of a
network alone, `config.json` beside its weights; its schedule is then DDPM's
default, or in `scheduler_config.json` there. The file `diffusers_unet2d.py` or
`diffusers_dit.py` reads the network.

A scheduler of diffusion has 1,000 steps, or as many as it says. They become the
path `discrete`, whose time is the step, so the network is given the step that
it was trained with; its alpha and sigma are the scheduler's at whole steps.
A scheduler of flow matching becomes the path `linear`, and the network is given
its time in 1,000 parts, as it was trained. How a scheduler chooses steps, or
clips and thresholds samples, is left behind.

References:
  Nichol, Dhariwal 2021 (arXiv:2102.09672); Salimans, Ho 2022
  (arXiv:2202.00512) for v; von Platen et al. 2022, the diffusers library.
"""

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from jaxflow import losses
from jaxflow.errors import UsageError
from jaxflow.pretrained import tensor_files
from jaxflow.pretrained.formats import (
  Format,
  Imported,
  diffusers_dit,
  diffusers_unet2d,
)
from jaxflow.pretrained.torch_files import Tensors
from jaxflow.types import PyTree

SOURCE = (
  "a folder that diffusers' save_pretrained has written, with config.json and "
  "diffusion_pytorch_model.safetensors (or .bin)"
)
_NETWORKS = {
  "UNet2DModel": diffusers_unet2d,
  "DiTTransformer2DModel": diffusers_dit,
}
# Folders of a pipeline that hold its network.
_FOLDERS = ("unet", "transformer")
_FILES = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
_PREDICTIONS = {"epsilon": "noise", "v_prediction": "v", "sample": "data"}
_SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2")
# Networks are given 1,000 times the time of the linear path.
_FLOW_STEPS = 1000


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Schedule:
  """What a scheduler says, in sections of a config."""

  path: dict[str, Any]
  prediction: str
  time_scale: float
  note: str


def read(path: pathlib.Path, *, null_label: bool = False) -> Imported:
  """Read a folder; with `null_label` its last label stands for none."""
  if not path.is_dir():
    raise UsageError(f"path={path}: this is no folder; get {SOURCE}")
  folder = next(
    (path / x for x in _FOLDERS if (path / x / "config.json").is_file()), path
  )
  config = _json(folder / "config.json", SOURCE)
  name = config.get("_class_name")
  if name not in _NETWORKS:
    raise UsageError(
      f"path={path}: its network is {name!r}; there are "
      f"{' and '.join(_NETWORKS)}"
    )
  schedule = _schedule(path, folder)
  file = next((folder / x for x in _FILES if (folder / x).is_file()), None)
  if file is None:
    raise UsageError(f"path={folder}: no {' or '.join(_FILES)}; get {SOURCE}")
  tensors = {
    name: tensor_files.as_float32(file, name, tensor, SOURCE)
    for name, tensor in tensor_files.read(file, SOURCE).items()
  }
  reader = _NETWORKS[name]
  network = reader.read(config, tensors, f"path={folder}", null_label)
  model = {**network.model, "time_scale": schedule.time_scale}
  denoises = schedule.path["name"] == "discrete"
  sampler = {"sampler": {"name": "ddim"}} if denoises else {}
  return Imported(
    loss=losses.flow_matching_loss,
    sections={
      "model": model,
      "path": schedule.path,
      "loss": {
        "prediction": schedule.prediction,
        "label_dropout": network.label_dropout,
      },
      "sample": {"nfe": 50, **sampler},
      "evaluation": {"nfe": (50,)},
    },
    shape=network.shape,
    num_classes=network.num_classes,
    params=network.params,
    notes=[
      f"{name}, {sum(x.size for x in tensors.values()):,} numbers",
      schedule.note,
      *network.notes,
    ],
  )


def write(model: Mapping[str, Any], params: PyTree) -> Tensors:
  """Return the tensors of a network by the names of its class."""
  for reader in _NETWORKS.values():
    if reader.NETWORK == model["name"]:
      return reader.write(model, params)
  raise UsageError(
    f"format='diffusers' has no class for model.name={model['name']!r}: it has "
    f"those of {', '.join(x.NETWORK for x in _NETWORKS.values())}"
  )


def _schedule(path: pathlib.Path, folder: pathlib.Path) -> _Schedule:
  """Return what the scheduler of a folder says."""
  name = "scheduler_config.json"
  places = (path / "scheduler", path, folder, folder.parent / "scheduler")
  file = next((x / name for x in places if (x / name).is_file()), None)
  if file is None:
    config, where = {}, f"path={path}"
    note = f"no {name}: DDPM's default schedule is assumed"
  else:
    config, where = _json(file, SOURCE), f"path={file}"
    note = f"{config.get('_class_name')} of {file.parent.name}/{name}"
  kind = str(config.get("_class_name", "DDPMScheduler"))
  steps = config.get("num_train_timesteps", _FLOW_STEPS)
  if kind.startswith("FlowMatch"):
    return _Schedule(
      path={"name": "linear"},
      prediction="velocity",
      time_scale=float(steps),
      note=f"{note}: the linear path, the network is given {steps} t",
    )
  if config.get("trained_betas") is not None:
    raise UsageError(
      f"{where}: its trained_betas are a table; there are the schedules "
      f"{', '.join(_SCHEDULES)}"
    )
  found = {
    "beta_schedule": (config.get("beta_schedule", "linear"), _SCHEDULES),
    "prediction_type": (
      config.get("prediction_type", "epsilon"),
      tuple(_PREDICTIONS),
    ),
  }
  for field, (value, known) in found.items():
    if value not in known:
      raise UsageError(
        f"{where}: its {field} is {value!r}; there are {', '.join(known)}"
      )
  prediction = config.get("prediction_type", "epsilon")
  schedule = {
    "name": "discrete",
    "schedule": config.get("beta_schedule", "linear"),
    "num_steps": int(steps),
    "beta_start": float(config.get("beta_start", 1e-4)),
    "beta_end": float(config.get("beta_end", 0.02)),
    "zero_terminal_snr": bool(config.get("rescale_betas_zero_snr", False)),
  }
  return _Schedule(
    path=schedule,
    prediction=_PREDICTIONS[prediction],
    time_scale=1.0,
    note=f"{note}: {schedule['schedule']} betas, {prediction}; t is the step, "
    f"0 to {int(steps) - 1}, which the network is given",
  )


def _json(path: pathlib.Path, source: str) -> dict[str, Any]:
  try:
    values = json.loads(path.read_text())
    if isinstance(values, dict):
      return values
    reason = "it holds no named values"
  except (OSError, ValueError) as error:
    reason = " ".join(str(error).split())
  raise UsageError(f"path={path}: cannot be read ({reason}); get {source}")


FORMAT = Format(
  summary="folders of the diffusers library: UNet2DModel, "
  "DiTTransformer2DModel",
  read=read,
  write=write,
)
