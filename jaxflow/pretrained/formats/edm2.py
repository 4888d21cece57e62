"""EDM2's pickles: the U-Net that preserves magnitudes, XS to XXL.

The network is that of `mp_unet`, under EDM's preconditioning. Its estimate of
the loss at each noise level (logvar) weighs the loss where it is trained, and
has no part in its samples: it is left out.

References:
  Karras et al., 2024, arXiv:2312.02696.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

import jax

from jaxflow import paths
from jaxflow.errors import UsageError
from jaxflow.models import mp_unet
from jaxflow.pretrained.formats import Format, Imported, edm_pickles, layouts
from jaxflow.pretrained.formats.layouts import Leaf
from jaxflow.pretrained.torch_files import Tensors
from jaxflow.types import PyTree

SOURCE = "a network of EDM2 as released, a .pkl with Precond"
_DEFAULTS = {
  "img_resolution": 0,
  "img_channels": 0,
  "label_dim": 0,
  "model_channels": 192,
  "channel_mult": (1, 2, 3, 4),
  "channel_mult_noise": None,
  "channel_mult_emb": None,
  "num_blocks": 3,
  "attn_resolutions": (16, 8),
  "label_balance": 0.5,
  "concat_balance": 0.5,
  "resample_filter": (1, 1),
  "channels_per_head": 64,
  "dropout": 0.0,
  "res_balance": 0.3,
  "attn_balance": 0.3,
  "clip_act": 256.0,
}
_MODULES = {
  "conv_1": "conv_res0",
  "embedding": "emb_linear",
  "conv_2": "conv_res1",
  "skip": "conv_skip",
  "qkv": "attn_qkv",
  "output": "attn_proj",
}
_PLACES = {
  "waves.frequencies": "emb_fourier.freqs",
  "waves.phases": "emb_fourier.phases",
  "time.kernel": "emb_noise.weight",
  "label.table": "emb_label.weight",
  "output.kernel": "out_conv.weight",
  "gain": "out_gain",
}


def read(path: pathlib.Path) -> Imported:
  """Read the averaged network of a pickle."""
  net, inner, tensors = edm_pickles.read(path, {"Precond": "unet"}, SOURCE)
  found = edm_pickles.options(path, inner, _DEFAULTS)
  fixed = ("label_balance", "concat_balance", "resample_filter")
  fixed += ("channels_per_head", "res_balance", "attn_balance", "clip_act")
  edm_pickles.known(path, inner, found, **{x: _DEFAULTS[x] for x in fixed})
  side = found["img_resolution"]
  shape = (side, side, found["img_channels"])
  options = {
    "channels": found["model_channels"],
    "multipliers": found["channel_mult"],
    "num_blocks": found["num_blocks"],
    "attention_resolutions": tuple(
      x
      for x in found["attn_resolutions"]
      if x in [side >> i for i in range(len(found["channel_mult"]))]
    ),
    "second_time": False,
    "dropout": float(found["dropout"]),
  }
  num_classes = found["label_dim"]
  network = mp_unet(**options, data_shape=shape, num_classes=num_classes)
  shapes = jax.eval_shape(network.init, jax.random.key(0))
  return edm_pickles.denoiser(
    edm_pickles.options(path, net, {"sigma_data": 0.5})["sigma_data"],
    model={"name": "mp_unet", **options},
    shape=shape,
    num_classes=num_classes,
    params=layouts.read(tensors, _tree(shapes, options, side), f"path={path}"),
    notes=[
      f"{net.name}, {sum(x.size for x in tensors.values()):,} numbers",
      "its estimate of the loss at each noise level is left out",
    ],
  )


def write(model: Mapping[str, Any], params: PyTree) -> Tensors:
  """Return the tensors of a network."""
  edm_pickles.check_writable(model, "mp_unet")
  return layouts.write(params, _tree(params, model, model["data_shape"][0]))


def describe(model: Mapping[str, Any]) -> dict[str, str]:
  """Return the header: preconditioning and network, with their arguments."""
  path, prediction = model["path"], model["prediction"]
  if not isinstance(path, paths.VarianceExploding) or prediction != "edm":
    raise UsageError(
      f"network: it predicts {prediction} on {path}; networks of the format "
      "predict edm on variance_exploding"
    )
  side, _, channels = model["data_shape"]
  inner = {
    "img_resolution": side,
    "img_channels": channels,
    "label_dim": model["num_classes"],
    "model_channels": model["channels"],
    "channel_mult": model["multipliers"],
    "num_blocks": model["num_blocks"],
    "attn_resolutions": model["attention_resolutions"],
    "dropout": model["dropout"],
  }
  outer = {"sigma_data": model["sigma_data"]}
  return edm_pickles.describe(("Precond", outer), ("UNet", inner))


def _tree(shapes: Any, options: Mapping[str, Any], side: int) -> Any:
  """Return the leaf of every parameter, by its place and shape."""
  encoder, decoder = edm_pickles.blocks(
    side, len(options["multipliers"]), options["num_blocks"]
  )
  names = {f"encoder_{i}": name for i, name in enumerate(encoder)}
  names |= {f"decoder_{i}": name for i, name in enumerate(decoder)}
  places = {**_PLACES, "input.kernel": f"enc.{side}x{side}_conv.weight"}

  def leaf_of(place: list[str], shape: tuple[int, ...]) -> Leaf:
    if place[0] not in names:
      if ".".join(place) not in places:
        raise edm_pickles.no_name(place)
      name = places[".".join(place)]
      linear = len(shape) == 2
      return (
        (layouts.linear if linear else layouts.convolution)(name, shape)
        if len(shape) > 1
        else layouts.same(name, shape)
      )
    block = names[place[0]]
    if place[1] == "gain":
      return layouts.same(f"{block}.emb_gain", shape)
    module = place[-2]
    name = f"{block}.{_MODULES[module]}.weight"
    if module == "qkv":
      return edm_pickles.attention(name, shape, 64)
    if module == "embedding":
      return layouts.linear(name, shape)
    if len(shape) == 2:
      return layouts.pointwise(name, shape)
    return layouts.convolution(name, shape)

  return layouts.leaves(shapes, leaf_of)


FORMAT = Format(
  summary="EDM2 as released in PyTorch: sizes XS to XXL (.pkl)",
  read=read,
  write=write,
  describe=describe,
)
