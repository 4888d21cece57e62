"""The sampler as a web page: ONNX Runtime draws in the browser of a visitor."""

import json
import pathlib
import shutil

from jaxflow.errors import UsageError
from jaxflow.exports import ExportFormat, Trained, onnx
from jaxflow.exports.sampler import Dtype
from jaxflow.exports.writing import needed, new_folder, size_of
from jaxflow.files import writing

PAGE = pathlib.Path(__file__).with_name("sampler_page")
# The version that is tested, and its files: with WebGPU, and without.
VERSION = "1.30.0"
_PACKAGE = "onnxruntime-web"
RUNTIME = (
  "ort.webgpu.bundle.min.mjs",
  "ort-wasm-simd-threaded.asyncify.wasm",
  "ort.wasm.bundle.min.mjs",
  "ort-wasm-simd-threaded.wasm",
)


def write(
  trained: Trained,
  out: pathlib.Path,
  *,
  nfe: int | None = None,
  dtype: Dtype = "float32",
  onnxruntime_web: str | None = None,
) -> str:
  """Write page, sampler and onnxruntime-web into a new folder."""
  needed("web", "onnx", "onnx")
  runtime = _runtime(onnxruntime_web)
  with new_folder(out) as folder:
    onnx.write(trained, folder / "graph", nfe=nfe, dtype=dtype)
    check_drawn(json.loads((folder / "graph" / "sampler.json").read_text()))
    with writing(out):
      for file in (folder / "graph").iterdir():
        file.rename(folder / file.name)
      (folder / "graph").rmdir()
      shutil.copytree(PAGE, folder, dirs_exist_ok=True)
      (folder / _PACKAGE).mkdir()
      for name in RUNTIME:
        shutil.copyfile(runtime / name, folder / _PACKAGE / name)
  return (
    f"{out}: {size_of(out)}; python -m http.server --directory {out} shows it"
  )


def check_drawn(note: dict) -> None:
  """Raise UsageError if the page cannot draw a sampler of this note."""
  shape = tuple(note["output"]["shape"][1:])
  picture = len(shape) == 3 and shape[-1] in (1, 3)
  if not picture and shape != (2,):
    raise UsageError(
      f"format='web' draws pictures [height, width, 1 or 3] and points [2], "
      f"and the samples are {list(shape)}: take format='onnx'"
    )
  label = next((x for x in note["inputs"] if x["name"] == "label"), None)
  if label is not None and len(label["shape"]) > 1:
    raise UsageError(
      "format='web' has classes to choose, and the labels of this run are "
      f"vectors {label['shape'][1:]}: take format='onnx'"
    )


def _runtime(given: str | None) -> pathlib.Path:
  """Return the folder of the files of onnxruntime-web."""
  package = pathlib.Path(given or pathlib.Path("node_modules") / _PACKAGE)
  advice = (
    f"npm install {_PACKAGE}@{VERSION}, or --onnxruntime-web=FOLDER of the "
    "npm package"
  )
  lacking = [x for x in RUNTIME if not (package / "dist" / x).is_file()]
  if lacking:
    raise UsageError(
      f"onnxruntime_web={package} has no dist/{lacking[0]}: {advice}"
    )
  return package / "dist"


FORMAT = ExportFormat(
  summary="a web page that draws samples in the browser, without a server",
  write=write,
)
