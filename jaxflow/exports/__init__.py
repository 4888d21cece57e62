"""Ways out of the library: one file a format, one table of all.

A format writes a trained run as files that other programs read. `onnx`,
`stablehlo`, `safetensors` and `web` each have a file here with a `FORMAT`;
published formats, which write the network's weights under the names of others,
are those of `pretrained.formats` that can be written.
"""

import dataclasses
import importlib
import inspect
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from jaxflow.errors import UsageError, unknown
from jaxflow.pretrained import formats as published_formats
from jaxflow.runs.run import Run
from jaxflow.types import PyTree

_OWN = ("onnx", "safetensors", "stablehlo", "web")
FORMATS = (*_OWN, *published_formats.FORMATS)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trained:
  """What is exported.

  Attributes:
    run: The run.
    params: The parameters that are sampled.
    step: Of the checkpoint.
    workdir: Its folder, or None.
  """

  run: Run
  params: PyTree
  step: int
  workdir: pathlib.Path | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportFormat:
  """A format in which a run leaves.

  Attributes:
    summary: What it is, in one line.
    write: `write(trained, out) -> line`, a line that says what was written. Its
      keyword arguments are options of `jaxflow export`.
    folder: Whether `out` is a new folder, or else a file.
  """

  summary: str
  write: Callable[..., str]
  folder: bool = True


def format_of(name: str) -> ExportFormat:
  """Return a format; raise UsageError if there is none of that name.

  Example:
    >>> format_of("onnx").folder, format_of("dit").folder
    (True, False)
  """
  if name in _OWN:
    return importlib.import_module(f"{__name__}.{name}").FORMAT
  if name in FORMATS:
    from jaxflow.exports.published import published

    return published(name)
  raise unknown("format", name, FORMATS)


def export(
  trained: Trained,
  format: str,
  out: pathlib.Path,
  options: Mapping[str, Any],
) -> str:
  """Write a run in a format; options that are None are left to it.

  Raises:
    UsageError: If the format is unknown, has no such option, or cannot hold the
      run; nothing is written then.
  """
  target = format_of(format)
  given = {k: v for k, v in options.items() if v is not None}
  known = list(inspect.signature(target.write).parameters)[2:]
  for name, value in given.items():
    if name not in known:
      takes = f"takes {', '.join(known)}" if known else "takes no option"
      raise UsageError(f"{name}={value}: format={format!r} {takes}")
  return target.write(trained, out, **given)
