"""`jaxflow export`: write a run as files for other programs."""

import pathlib
from typing import Any

from jaxflow.commands.command import (
  SAMPLING,
  STEP,
  WORKDIR,
  Command,
  Flag,
  Values,
)
from jaxflow.commands.console import log
from jaxflow.commands.flags import check_writable

_OPTIONS = (
  Flag("nfe", "network calls per sample (default: sample.nfe)", kind=int),
  Flag(
    "noise",
    "input: the sampler takes noise; seed: it draws that of a seed (default: "
    "input)",
  ),
  Flag(
    "dtype",
    "type in which weights are stored: float32, float16 or int8 (default: "
    "float32)",
  ),
  Flag(
    "onnxruntime_web",
    "of web: the folder of the npm package onnxruntime-web (default: "
    "node_modules/onnxruntime-web)",
  ),
  Flag("licence", "the licence that the model card states (default: none)"),
)


def _run(values: Values, config: Any) -> None:
  from jaxflow import api
  from jaxflow.exports import format_of
  from jaxflow.parallel import processes

  out = pathlib.Path(values.out)
  if not format_of(values.format).folder:
    processes.once(lambda: check_writable(out))
  run = api.load(
    values.workdir, step=values.step, average=values.ema, config=config
  )
  options = {flag.name: values[flag.name].value for flag in _OPTIONS}
  run.export(values.format, out, log=log, **options)


COMMAND = Command(
  summary="write a run, or its sampler, as files for other programs",
  changes=SAMPLING,
  flags=(
    WORKDIR,
    STEP,
    Flag("ema", "the average that is written (default: sample.ema), or online"),
    Flag(
      "format",
      "onnx or stablehlo: the sampler, noise in and samples out; web: a page "
      "that draws in the browser; safetensors: "
      "weights, config and model card, as on a model hub; dit, sit or another "
      "format of jaxflow import: the network under its names",
    ),
    Flag("out", "a new folder; under published names a .safetensors file"),
    *_OPTIONS,
  ),
  required={"workdir": "FOLDER", "format": "FORMAT", "out": "PATH"},
  run=_run,
  example="jaxflow export --workdir=runs/digits --format=onnx --out=model",
)
