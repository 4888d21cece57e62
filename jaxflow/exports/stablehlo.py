"""The sampler as StableHLO, which JAX alone reads, weights beside it."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from jaxflow.exports import ExportFormat, Trained
from jaxflow.exports.onnx_graph import round_to_int8
from jaxflow.exports.sampler import (
  Dtype,
  Exported,
  Noise,
  check_dtype,
  exported_sampler,
)
from jaxflow.exports.writing import needed, new_folder, size_of, write_json
from jaxflow.files import write_text
from jaxflow.types import Array

PLATFORMS = ("cpu", "cuda", "tpu")
# Numbers from which an array is rounded.
_LARGE = 256
_SCALE = ":scale"

# Shipped as text: what a folder needs is JAX and NumPy.
LOADER = '''\
"""Load the sampler of this folder: needs jax, numpy and flatbuffers alone.

    from load import load
    sample, note = load()
    samples = sample(noise, label)  # The arguments that note["inputs"] lists.
"""
import json, math, pathlib
import jax, numpy as np
from jax import export

def load(folder=pathlib.Path(__file__).parent):
  folder = pathlib.Path(folder)
  note = json.loads((folder / "sampler.json").read_text())
  version, known = note["calling_convention_version"], (
    export.minimum_supported_calling_convention_version,
    export.maximum_supported_calling_convention_version)
  if not known[0] <= version <= known[1]:
    raise RuntimeError(f"calling convention {version}: this jax reads "
                       f"{known[0]} to {known[1]}; install another version")
  raw = (folder / "weights.safetensors").read_bytes()
  start = 8 + int.from_bytes(raw[:8], "little")
  types, weights = {"F32": "f4", "F16": "f2", "I8": "i1"}, {}
  for name, x in json.loads(raw[8:start]).items():
    flat = np.frombuffer(raw, types[x["dtype"]], math.prod(x["shape"]),
                         start + x["data_offsets"][0])
    weights[name] = jax.device_put(flat.reshape(x["shape"]))
  call = export.deserialize(
    bytearray((folder / "sampler.stablehlo").read_bytes())).call
  return (lambda *inputs: call(weights, *inputs)), note
'''


def write(
  trained: Trained,
  out: pathlib.Path,
  *,
  nfe: int | None = None,
  noise: Noise = "input",
  dtype: Dtype = "float32",
) -> str:
  """Write program, weights, note and loader into a new folder."""
  save = needed("stablehlo", "safetensors.numpy", "stablehlo").save_file
  needed("stablehlo", "flatbuffers", "stablehlo")
  sampler = exported_sampler(
    trained.run, trained.params, step=trained.step, nfe=nfe, noise=noise
  )
  with new_folder(out) as folder:
    weights, program = make_program(sampler, dtype)
    (folder / "sampler.stablehlo").write_bytes(program.serialize())
    save(weights, folder / "weights.safetensors")
    note = {
      **sampler.note,
      "format": "stablehlo",
      "file": "sampler.stablehlo",
      "dtype": dtype,
      "platforms": list(program.platforms),
      "calling_convention_version": program.calling_convention_version,
    }
    write_json(folder / "sampler.json", note)
    write_text(folder / "load.py", LOADER)
  return f"{out}: for {', '.join(PLATFORMS)}, {dtype}, {size_of(out)}"


def make_program(
  sampler: Exported, dtype: Dtype = "float32"
) -> tuple[dict[str, np.ndarray], jax.export.Exported]:
  """Return stored weights by name, and the program that takes them.

  float16 and int8 concern what is stored: the program computes in float32.
  """
  from jax import export

  check_dtype(dtype)
  paths, tree = jax.tree_util.tree_flatten_with_path(sampler.weights)
  names = [".".join(str(key.key) for key in path) for path, _ in paths]
  stored: dict[str, np.ndarray] = {}
  for name, (_, array) in zip(names, paths, strict=True):
    stored |= _stored(name, np.ascontiguousarray(array), dtype)

  def function(stored: dict[str, Array], *inputs: Array) -> Array:
    leaves = [_restored(stored, name) for name in names]
    return sampler.function(tree.unflatten(leaves), *inputs)

  shapes = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), stored
  )
  make = export.export(jax.jit(function), platforms=PLATFORMS)
  return stored, make(shapes, *sampler.abstract())


def _stored(name: str, array: np.ndarray, dtype: str) -> dict[str, np.ndarray]:
  """Return what is stored of an array."""
  large = array.size >= _LARGE and array.dtype == np.float32
  if large and dtype == "float16":
    return {name: array.astype(np.float16)}
  if large and dtype == "int8" and array.ndim > 1:
    rounded, scale = round_to_int8(array, array.ndim - 1)
    return {name: rounded, f"{name}{_SCALE}": scale}
  return {name: array}


def _restored(stored: dict[str, Array], name: str) -> Array:
  """Return an array of what is stored, float32."""
  array, scale = stored[name], stored.get(f"{name}{_SCALE}")
  if scale is None:
    return array.astype(jnp.float32)
  return array.astype(jnp.float32) * scale.reshape(
    (1,) * (array.ndim - 1) + (-1,)
  )


FORMAT = ExportFormat(
  summary="one program for cpu, cuda and tpu, which JAX alone reads",
  write=write,
)
