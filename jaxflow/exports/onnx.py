"""The sampler as one ONNX graph, weights inside."""

import pathlib

import jax

from jaxflow.errors import UsageError
from jaxflow.exports import ExportFormat, Trained, onnx_rules
from jaxflow.exports.onnx_graph import OPSET, Graph
from jaxflow.exports.sampler import (
  Dtype,
  Exported,
  Noise,
  check_dtype,
  exported_sampler,
)
from jaxflow.exports.writing import needed, new_folder, size_of, write_json

# A message of protobuf is smaller than this.
_MOST = 2**31


def write(
  trained: Trained,
  out: pathlib.Path,
  *,
  nfe: int | None = None,
  noise: Noise = "input",
  dtype: Dtype = "float32",
) -> str:
  """Write `sampler.onnx` and `sampler.json` into a new folder."""
  onnx = needed("onnx", "onnx", "onnx")
  exported = exported_sampler(
    trained.run, trained.params, step=trained.step, nfe=nfe, noise=noise
  )
  with new_folder(out) as folder:
    model = make_model(exported, dtype)
    if model.ByteSize() >= _MOST:
      raise UsageError(
        f"dtype={dtype}: the graph has {model.ByteSize():,} bytes, and a file "
        "of ONNX fewer than 2 GiB; take int8, or format='stablehlo'"
      )
    onnx.checker.check_model(model, full_check=True)
    (folder / "sampler.onnx").write_bytes(model.SerializeToString())
    note = {
      **exported.note,
      "format": "onnx",
      "file": "sampler.onnx",
      "dtype": dtype,
      "opset": OPSET,
      "ir_version": model.ir_version,
    }
    note["versions"] = {**note["versions"], "onnx": onnx.__version__}
    write_json(folder / "sampler.json", note)
  nodes = len(model.graph.node)
  return f"{out}: {nodes} nodes, weights in {dtype}, {size_of(out)}"


def make_model(exported: Exported, dtype: Dtype = "float32"):
  """Return the ONNX model of a sampler, its weights rounded to a type.

  float16 and int8 concern what is stored: the graph computes in float32. int8
  has a scale for each output channel of a matrix or a kernel.
  """
  check_dtype(dtype)
  abstract = exported.abstract()
  traced = onnx_rules.lowered(exported.function, exported.weights, abstract)
  graph = Graph(dtype)
  paths, _ = jax.tree_util.tree_flatten_with_path(exported.weights)
  for path, array in paths:
    graph.names[id(array)] = ".".join(str(key.key) for key in path)
  inputs = [
    graph.input(x.name, shape.shape, shape.dtype)
    for x, shape in zip(exported.inputs, abstract, strict=True)
  ]
  values = [*(array for _, array in paths), *inputs]
  (samples,) = onnx_rules.lower(graph, traced, values)
  shape = traced.out_avals[0].shape
  return graph.model(graph.full(samples, shape), "samples", shape)


FORMAT = ExportFormat(
  summary="one graph for ONNX Runtime, on servers, phones and in browsers",
  write=write,
)
