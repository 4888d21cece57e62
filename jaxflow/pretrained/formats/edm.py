"""EDM's pickles: DDPM++, NCSN++ and ADM under three preconditionings.

The three make a denoiser D(x, sigma) of a raw network F:

| there | D | here |
|---|---|---|
| EDMPrecond | c_skip x + c_out F(c_in x, ln(sigma) / 4) | prediction "edm" |
| VPPrecond | x - sigma F(x / sqrt(1 + sigma^2), (M - 1) t) | noise on the path
variance_preserving, `time_scale` M - 1 |
| VEPrecond | x + sigma F(x, ln(sigma / 2)) | minus the noise on the path
variance_exploding, `time_scale` 1/2 and `log_time`; its signs are turned |

Networks over there have sines before cosines in DDPM++ and NCSN++; here it is
the other way round. Augmentation labels are zero where samples are drawn.

References:
  Karras et al., 2022, arXiv:2206.00364, tables 1 and 7.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from jaxflow import losses, paths
from jaxflow.errors import UsageError
from jaxflow.models import unet
from jaxflow.pretrained.formats import Format, Imported, edm_pickles, layouts
from jaxflow.pretrained.formats.layouts import Leaf
from jaxflow.pretrained.persistent_pickles import Module
from jaxflow.pretrained.torch_files import Tensors
from jaxflow.types import PyTree

SOURCE = (
  "a network of EDM as released, a .pkl with EDMPrecond, VPPrecond or VEPrecond"
)
_CLASSES: dict[str, str] = {
  "EDMPrecond": "model",
  "VPPrecond": "model",
  "VEPrecond": "model",
}
_SHARED = {
  "img_resolution": 0,
  "in_channels": 0,
  "out_channels": 0,
  "label_dim": 0,
  "augment_dim": 0,
  "channel_mult_emb": 4,
  "num_blocks": 4,
  "dropout": 0.1,
  "label_dropout": 0.0,
}
# Arguments and their defaults; those of the last row tell networks apart.
_DEFAULTS = {
  "SongUNet": {
    **_SHARED,
    "model_channels": 128,
    "channel_mult": (1, 2, 2, 2),
    "attn_resolutions": (16,),
    **{"embedding_type": "positional", "channel_mult_noise": 1},
    **{"encoder_type": "standard", "decoder_type": "standard"},
    "resample_filter": (1, 1),
  },
  "DhariwalUNet": {
    **_SHARED,
    "model_channels": 192,
    "channel_mult": (1, 2, 3, 4),
    "num_blocks": 3,
    "attn_resolutions": (32, 16, 8),
  },
}
_NCSN = {
  "embedding_type": "fourier",
  "channel_mult_noise": 2,
  "encoder_type": "residual",
  "decoder_type": "standard",
  "resample_filter": (1, 3, 3, 1),
}
_DDPM = {name: _DEFAULTS["SongUNet"][name] for name in _NCSN}
# How far a quotient may be from the number that it was made of, in float32.
_STEPS = 3
_BLOCK = {
  "norm_1": "norm0",
  "conv_1": "conv0",
  "embedding": "affine",
  "norm_2": "norm1",
  "conv_2": "conv1",
  "skip": "skip",
  "attention.norm": "norm2",
  "attention.qkv": "qkv",
  "attention.output": "proj",
}


def read(path: pathlib.Path) -> Imported:
  """Read the averaged network of a pickle."""
  net, inner, tensors = edm_pickles.read(path, _CLASSES, SOURCE)
  if inner.name not in _DEFAULTS:
    raise UsageError(
      f"path={path}: inside its {net.name} is a {inner.name}; known are "
      f"{', '.join(_DEFAULTS)}"
    )
  found = edm_pickles.options(path, inner, _DEFAULTS[inner.name])
  channels = found["in_channels"]
  edm_pickles.known(
    path, inner, found, channel_mult_emb=4, out_channels=channels
  )
  shape = (found["img_resolution"], found["img_resolution"], channels)
  architecture = _architecture(path, inner, found)
  options = {
    "architecture": architecture,
    "channels": found["model_channels"],
    "multipliers": found["channel_mult"],
    "num_blocks": found["num_blocks"],
    "attention_resolutions": found["attn_resolutions"],
    "second_time": False,
    "dropout": float(found["dropout"]),
  }
  if found["augment_dim"]:
    options["augment_size"] = found["augment_dim"]
  network = unet(**options, data_shape=shape, num_classes=found["label_dim"])
  tree = _tree(
    jax.eval_shape(network.init, jax.random.key(0)),
    options,
    shape[0],
    -1 if net.name == "VEPrecond" else 1,
  )
  ignored = {x for x in tensors if x.endswith(".resample_filter")}
  params = layouts.read(tensors, tree, f"path={path}", ignored=ignored)
  notes = [
    f"{net.name} of {inner.name} ({architecture}), "
    f"{sum(x.size for x in tensors.values()):,} numbers"
  ]
  if found["augment_dim"]:
    notes.append(
      f"trained with {found['augment_dim']} numbers that say how a picture was "
      "augmented; without them in cond they are zero, for none"
    )
  if found["label_dim"] and not found["label_dropout"]:
    notes.append(
      "trained without null labels: the null label is a label of zeros, and "
      "guidance by it means little"
    )
  return _preconditioned(
    path,
    net,
    model={"name": "unet", **options},
    label_dropout=float(found["label_dropout"]),
    shape=shape,
    num_classes=found["label_dim"],
    params=params,
    notes=notes,
  )


def write(model: Mapping[str, Any], params: PyTree) -> Tensors:
  """Return the tensors of a network, the filters of its resampling included."""
  edm_pickles.check_writable(model, "unet")
  params = _without_null(params) if model["architecture"] == "adm" else params
  side = model["data_shape"][0]
  tree = _tree(params, model, side, -1 if model["log_time"] else 1)
  made = layouts.write(params, tree)
  taps = _NCSN if model["architecture"] == "ncsn++" else _DDPM
  weights = np.array(taps["resample_filter"], np.float32)
  square = np.outer(weights, weights)[None, None] / weights.sum() ** 2
  encoder, decoder = edm_pickles.blocks(
    side, len(model["multipliers"]), model["num_blocks"]
  )
  for name in encoder + decoder:
    places = [f"{name}.conv0", f"{name}.skip"]
    if not name.endswith(("_down", "_up")):
      continue
    if model["architecture"] == "ncsn++" and name in encoder:
      places.append(name.replace("_down", "_aux_residual"))
    made |= {f"{place}.resample_filter": square.copy() for place in places}
  return made


def _without_null(params: PyTree) -> PyTree:
  """Return parameters with a null label of zeros, of the same function.

  Late labels are added where the embedding of the time ends.
  """
  if "label" not in params or "table" not in params["label"]:
    return params
  table, output = params["label"]["table"], params["time"]["output"]
  output = {**output, "bias": output["bias"] + table[-1]}
  return {
    **params,
    "label": {"table": table - table[-1]},
    "time": {**params["time"], "output": output},
  }


def describe(model: Mapping[str, Any]) -> dict[str, str]:
  """Return the header: preconditioning and network, with their arguments."""
  path, prediction = model["path"], model["prediction"]
  shared = {"img_resolution": model["data_shape"][0]}
  match path, prediction, model["log_time"]:
    case paths.VarianceExploding(), "edm", False:
      outer = "EDMPrecond", {"sigma_data": model["sigma_data"]}
    case paths.VariancePreserving(), "noise", False:
      beta = {
        "beta_d": path.beta_max - path.beta_min,
        "beta_min": path.beta_min,
        "M": round(model["time_scale"]) + 1,
      }
      outer = "VPPrecond", beta
    case paths.VarianceExploding(), "noise", True:
      ends = {"sigma_min": path.t_min, "sigma_max": path.t_max}
      outer = "VEPrecond", ends
    case _:
      raise UsageError(
        f"network: it predicts {prediction} on {path}, with "
        f"log_time={model['log_time']}; the format has those of EDMPrecond, "
        "VPPrecond and VEPrecond, as docs/importing.md lists them"
      )
  late = model["architecture"] == "adm"
  channels = model["data_shape"][2]
  inner = {
    **shared,
    "in_channels": channels,
    "out_channels": channels,
    "label_dim": model["num_classes"],
    "augment_dim": model["augment_size"],
    "model_channels": model["channels"],
    "channel_mult": model["multipliers"],
    "num_blocks": model["num_blocks"],
    "attn_resolutions": model["attention_resolutions"],
    "dropout": model["dropout"],
    "label_dropout": model["label_dropout"],
    **(_NCSN if model["architecture"] == "ncsn++" else {}),
  }
  return edm_pickles.describe(
    outer, ("DhariwalUNet" if late else "SongUNet", inner)
  )


def _architecture(
  path: pathlib.Path, module: Module, found: dict[str, Any]
) -> str:
  if module.name == "DhariwalUNet":
    return "adm"
  parts = {name: found[name] for name in _NCSN}
  for name, known in (("ddpm++", _DDPM), ("ncsn++", _NCSN)):
    if parts == known:
      return name
  raise UsageError(
    f"path={path}: its SongUNet has the parts {parts}; known are those of "
    f"DDPM++, {_DDPM}, and of NCSN++, {_NCSN}"
  )


def _preconditioned(
  path: pathlib.Path,
  net: Module,
  *,
  model: dict[str, Any],
  label_dropout: float,
  **rest: Any,
) -> Imported:
  """Return the network on the path of its preconditioning."""
  if net.name == "EDMPrecond":
    found = edm_pickles.options(path, net, {"sigma_data": 0.5})
    return edm_pickles.denoiser(found["sigma_data"], model=model, **rest)
  if net.name == "VPPrecond":
    found = edm_pickles.options(
      path, net, {"beta_d": 19.9, "beta_min": 0.1, "M": 1000, "epsilon_t": 1e-5}
    )
    model["time_scale"] = found["M"] - 1.0
    section = {
      "name": "variance_preserving",
      "beta_min": found["beta_min"],
      "beta_max": found["beta_min"] + found["beta_d"],
      # The first time at which such networks are sampled.
      "t_min": 1e-3,
    }
  else:
    found = edm_pickles.options(
      path, net, {"sigma_min": 0.02, "sigma_max": 100.0}
    )
    model |= {"time_scale": 0.5, "log_time": True}
    section = {
      "name": "variance_exploding",
      "t_min": float(found["sigma_min"]),
      "t_max": float(found["sigma_max"]),
    }
  return Imported(
    loss=losses.flow_matching_loss,
    sections={
      "model": model,
      "path": section,
      "loss": {"prediction": "noise", "label_dropout": label_dropout},
      "sample": {"nfe": 50},
      "evaluation": {"nfe": (50,)},
    },
    **rest,
  )


def _tree(shapes: Any, options: Mapping[str, Any], side: int, sign: int) -> Any:
  """Return the leaf of every parameter, by its place and shape."""
  late = options["architecture"] == "adm"
  encoder, decoder = edm_pickles.blocks(
    side, len(options["multipliers"]), options["num_blocks"]
  )
  first = f"{side}x{side}"
  modules = {
    "input": f"enc.{first}_conv",
    "norm": "out_norm" if late else f"dec.{first}_aux_norm",
    "output": "out_conv" if late else f"dec.{first}_aux_conv",
    "time.hidden": "map_layer0",
    "time.output": "map_layer1",
    "augment": "map_augment",
  }
  for part, names in (("encoder", encoder), ("decoder", decoder)):
    for i, name in enumerate(names):
      for ours, theirs in _BLOCK.items():
        modules[f"{part}_{i}.{ours}"] = f"{name}.{theirs}"
      aux = name.replace("_down", "_aux_residual")
      modules |= {f"input_{i}": aux} if part == "encoder" else {}

  def leaf_of(place: list[str], shape: tuple[int, ...]) -> Leaf:
    if place == ["frequencies"]:
      return layouts.same("map_noise.freqs", shape)
    if place == ["label", "table"]:
      return _labels(shape, late)
    *path, last = place
    module = ".".join(path)
    if module not in modules:
      raise edm_pickles.no_name(place)
    name = f"{modules[module]}.{'bias' if last == 'bias' else 'weight'}"
    if module == "time.hidden" and last == "kernel" and not late:
      return _swapped(layouts.linear(name, shape), 0)
    if module == "augment" and not late:
      return _swapped(layouts.linear(name, shape), 1)
    if path[-1] == "qkv":
      features = 64 if late else shape[-1] // 3
      return edm_pickles.attention(name, shape, features)
    if len(shape) == 2 and path[-1] in ("skip", "output") and len(path) > 1:
      pointwise = module != "time.output"
      return (layouts.pointwise if pointwise else layouts.linear)(name, shape)
    if len(shape) == 4 or last in ("scale", "bias"):
      leaf = layouts.convolution(name, shape)
      return layouts.negated(leaf) if (module, sign) == ("output", -1) else leaf
    return layouts.linear(name, shape)

  return layouts.leaves(shapes, leaf_of)


def _swapped(leaf: Leaf, axis: int) -> Leaf:
  """Return the leaf of a map [in, out] with the halves of an axis swapped."""

  def swapped(x: np.ndarray) -> np.ndarray:
    return np.roll(x, x.shape[axis] // 2, axis)

  return Leaf(
    leaf.names,
    leaf.shapes,
    lambda x: swapped(leaf.read(x)),
    lambda x: leaf.write(swapped(x)),
  )


def _labels(shape: tuple[int, ...], late: bool) -> Leaf:
  """Return the leaf of a table of labels, that of zeros last.

  Early labels are one-hot times the root of their number, have a bias, and meet
  sines before cosines.
  """
  rows, width = shape
  names = ("map_label.weight", "map_label.bias")[: 1 if late else 2]

  def read(tensors: Any) -> np.ndarray:
    table = np.pad(tensors[0].T, ((0, 1), (0, 0)))
    if late:
      return table
    table = table * np.float32(np.sqrt(rows - 1)) + tensors[1]
    return np.roll(table, width // 2, axis=1)

  def write(table: np.ndarray) -> tuple[np.ndarray, ...]:
    if late:
      return (table[:-1].T,)
    table = np.roll(table, -(width // 2), axis=1)
    bias, factor = table[-1], np.float32(np.sqrt(rows - 1))
    exact = (table[:-1].astype(np.float64) - bias) / np.sqrt(rows - 1)
    best = exact.astype(np.float32)
    # Of numbers next to the quotient, one that gives the sum when it is read.
    for steps in range(-_STEPS, _STEPS + 1):
      near = exact.astype(np.float32)
      toward = np.float32(np.copysign(np.inf, steps))
      for _ in range(abs(steps)):
        near = np.nextafter(near, toward)
      wrong = best * factor + bias != table[:-1]
      best = np.where(wrong, near, best)
    return best.T, bias

  shapes = ((width, rows - 1), (width,))[: len(names)]
  return Leaf(names, shapes, read, write)


FORMAT = Format(
  summary="EDM as released in PyTorch: DDPM++, NCSN++ and ADM (.pkl)",
  read=read,
  write=write,
  describe=describe,
)
