"""Weights, config and model card: the layout of model hubs."""

import json
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

import jaxflow
from jaxflow.config.files import save_config
from jaxflow.errors import UsageError
from jaxflow.exports import ExportFormat, Trained
from jaxflow.exports.writing import needed, new_folder, size_of, write_json
from jaxflow.files import write_text
from jaxflow.reports.quality import read_rows
from jaxflow.runs.weight_files import WEIGHTS, named_tensors


def write(
  trained: Trained, out: pathlib.Path, *, licence: str = "unknown"
) -> str:
  """Write `model.safetensors`, `config.json` and `README.md` into a folder."""
  save = needed("safetensors", "safetensors.numpy", "latents").save_file
  if trained.run.plan.adapter is not None:
    raise UsageError(
      "format='safetensors': the run has an adapter; make one network of it "
      "with jaxflow merge first"
    )
  params = jax.tree.map(np.asarray, trained.params)
  with new_folder(out) as folder:
    save(named_tensors(params, trained.step), folder / WEIGHTS)
    save_config(trained.run.plan.config, folder / "config.json")
    values = json.loads((folder / "config.json").read_text())
    write_json(folder / "config.json", _without_folders(values))
    write_text(folder / "README.md", model_card(trained, licence))
  return f"{out}: {len(jax.tree.leaves(params))} tensors, {size_of(out)}"


def _without_folders(value: Any) -> Any:
  """Return a config whose absolute paths are the names of their ends.

  A folder that others read should not say how a machine is arranged.
  """
  if isinstance(value, dict):
    return {k: _without_folders(x) for k, x in value.items()}
  if isinstance(value, str) and pathlib.PurePath(value).is_absolute():
    return pathlib.PurePath(value).name
  return value


def model_card(trained: Trained, licence: str) -> str:
  """Return the text of a model card, with a head in YAML.

  The head has the fields of model hubs. Metrics are those of the run's
  `evaluation.json` at the exported step, with real data as their floor.
  """
  plan, model = trained.run.plan, trained.run.model
  count = sum(x.size for x in jax.tree.leaves(trained.params))
  rows = _rows(trained)
  head = {
    "library_name": "jaxflow",
    "license": licence,
    "tags": ["jax", "one-step-generation", model.name],
    "datasets": [plan.data.name],
    "pipeline_tag": "unconditional-image-generation",
    "model-index": [_results(trained, rows)],
  }
  if len(model.shape) != 3:
    del head["pipeline_tag"]
  if not rows:
    del head["model-index"]
  # JSON is YAML.
  lines = [f"{key}: {json.dumps(value)}" for key, value in head.items()]
  classes = f", {model.num_classes} classes" if model.num_classes else ""
  shape = " x ".join(map(str, model.shape))
  text = f"""\
---
{chr(10).join(lines)}
---

# {model.name} on {plan.data.name}

- Method: `{model.name}`, {model.method.summary} ({model.method.paper})
- Network: `{model.options.get("name", "given")}`, {count:,} parameters
- Samples: {shape}{classes}
- Network calls a sample: {plan.sample.nfe}
- Training: step {trained.step:,}, average `{plan.sample.ema}`
- Licence: {licence}

```python
import jaxflow

run = jaxflow.load("FOLDER")  # This folder, or hf://OWNER/NAME.
samples = run.sample(16, nfe={plan.sample.nfe}, seed=0)
```

`jaxflow sample --workdir=FOLDER --num=16 --nfe={plan.sample.nfe} \
--out=samples.npz` does the same. Written by jaxflow {jaxflow.__version__}.
"""
  return text + "".join(_table(rows))


def _rows(trained: Trained) -> list[Mapping[str, Any]]:
  """Return the evaluations of the exported step and average."""
  if trained.workdir is None:
    return []
  own = trained.step, trained.run.plan.sample.ema
  rows = read_rows(trained.workdir / "evaluation.json")
  return [row for row in rows if own == (row["step"], row.get("ema"))]


def _results(trained: Trained, rows: list[Mapping[str, Any]]) -> dict[str, Any]:
  """Return metrics as the head of a card lists them."""
  data = trained.run.plan.data.name
  return {
    "name": f"{trained.run.model.name} on {data}",
    "results": [
      {
        "task": {"type": "unconditional-image-generation"},
        "dataset": {"name": data, "type": data},
        "metrics": [
          {
            "type": name,
            "value": score.value,
            "name": f"{name}, NFE {row['nfe']}",
          }
          for row in rows
          for name, score in row["scores"].items()
        ],
      }
    ],
  }


def _table(rows: list[Mapping[str, Any]]) -> Iterator[str]:
  """Yield lines of a table of metrics, with real data beside."""
  if not rows:
    return
  yield "\n| metric | NFE | samples | real data |\n|---|--:|--:|--:|\n"
  for row in rows:
    for name, score in row["scores"].items():
      real = "" if score.real is None else f"{score.real:.4g}"
      yield f"| {name} | {row['nfe']} | {score.value:.4g} | {real} |\n"


FORMAT = ExportFormat(
  summary="weights, config and model card, as on a model hub",
  write=write,
)
