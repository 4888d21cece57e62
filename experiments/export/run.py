"""What exports weigh, how fast they are, and what rounding does to samples.

A run of digits is exported in every type of weights; ONNX Runtime draws from
each file, and metrics compare the samples with held-out digits. The shape of
DiT-S/2 on latents is exported with random weights and compared with JAX.

  python -m experiments.export.run --workdir=runs/demo/mean_flow  # writes
  python -m experiments.export.run --quick   # under 60 s, prints only
"""

import argparse
import contextlib
import csv
import pathlib
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

import jaxflow
from experiments.runner import pages
from jaxflow import metrics
from jaxflow.config import default_config, make_plan, update
from jaxflow.config.stand_ins import resolve_alone
from jaxflow.errors import RunError
from jaxflow.exports.onnx import make_model
from jaxflow.exports.sampler import DTYPES, Exported, exported_sampler
from jaxflow.runs.opening import load_data
from jaxflow.runs.run import Run

HERE = pathlib.Path(__file__).parent
RESULTS = HERE / "results"
METRICS = ("recognised", "sliced_wasserstein", "energy_distance")
BATCHES = (1, 64)
# DiT-S/2, on latents of 256 pixels.
SMALL = {"width": 384, "depth": 12, "num_heads": 6, "patch_size": 2}
TINY = {"width": 32, "depth": 2, "num_heads": 2, "patch_size": 8}


def session_of(model: Any) -> Any:
  """Return a session of ONNX Runtime on one thread."""
  try:
    import onnxruntime
  except ImportError as error:
    raise RunError(
      "export needs onnxruntime: pip install onnxruntime"
    ) from error
  options = onnxruntime.SessionOptions()
  options.intra_op_num_threads = 1
  return onnxruntime.InferenceSession(model.SerializeToString(), options)


def arguments(sampler: Exported, rows: int, seed: int = 0) -> dict[str, Any]:
  """Return noise, and the classes in turn."""
  given: dict[str, Any] = {}
  for x in sampler.inputs:
    shape = x.abstract(rows).shape
    draw = np.random.default_rng(seed).standard_normal
    given[x.name] = (
      np.arange(rows, dtype=np.int32) % sampler.note["num_classes"]
      if x.name == "label"
      else draw(shape, np.float32)
    )
  return given


def milliseconds(call: Callable[[], Any], times: int) -> float:
  """Return the median time of a call, after one that is not timed."""
  call()
  spent = []
  for _ in range(times):
    began = time.perf_counter()
    call()
    spent.append(time.perf_counter() - began)
  return 1e3 * float(np.median(spent))


def measured(
  run: jaxflow.api.TrainedRun, num: int, times: int
) -> list[dict[str, Any]]:
  """Return a row for JAX, and one for each type of weights."""
  sampler = exported_sampler(run.run, run.params, step=run.step, nfe=1)
  jitted = jax.jit(sampler.function)
  rows, given = [], arguments(sampler, num)

  def row(name: str, size: int, draw: Callable[..., Any]) -> dict[str, Any]:
    found = {"what": name, "bytes": size}
    for batch in BATCHES:
      some = arguments(sampler, batch)
      spent = milliseconds(lambda some=some: draw(some), times)
      found[f"ms_{batch}"] = round(spent, 3)
    samples = draw(given)
    for metric, value in scores(run, samples, given.get("label")).items():
      found[metric] = round(value.value, 4)
      found[f"{metric}_error"] = round(value.error, 4)
    whole = rows[0]["samples"] if rows else samples
    found["apart"] = float(np.abs(samples - whole).max())
    return {**found, "samples": samples}

  weights = jax.device_put(sampler.weights)
  size = sum(x.nbytes for x in jax.tree.leaves(sampler.weights))
  rows.append(
    row("jax.jit", size, lambda x: np.asarray(jitted(weights, *x.values())))
  )
  for dtype in DTYPES:
    model = make_model(sampler, dtype)
    session = session_of(model)
    name = f"ONNX Runtime, {dtype}"
    rows.append(
      row(name, model.ByteSize(), lambda x, s=session: s.run(None, x)[0])
    )
  return [{k: v for k, v in row.items() if k != "samples"} for row in rows]


def scores(
  run: jaxflow.api.TrainedRun, samples: np.ndarray, labels: Any
) -> dict[str, metrics.Estimate]:
  """Compare samples with held-out digits; training digits recognise them."""
  found = {}
  for split, names in (("train", METRICS[:1]), ("test", METRICS[1:])):
    real = load_data(run.run.plan.data, split)
    known = real.take(np.arange(len(real)))
    sides = (
      metrics.SampleSummary(num=len(x), samples=x, label=np.asarray(y))
      for x, y in (
        (np.clip(samples, -1, 1), labels),
        (known["data"], known["cond"]),
      )
    )
    found |= metrics.compare(*sides, names=names)
  return found


def latents(
  model: Mapping[str, int], batches: Iterable[int]
) -> dict[int, float]:
  """Return how far ONNX Runtime is from JAX on latents, by batch."""
  config = default_config("mean_flow", data="given", model="dit")
  update(config, {"model": dict(model)})
  config, _ = resolve_alone(config, shape=(32, 32, 4), num_classes=1000)
  run = Run(make_plan(config))
  draw = np.random.default_rng(0)
  shapes = jax.eval_shape(run.model.network.init, jax.random.key(0))
  params = jax.tree.map(
    lambda x: 0.02 * draw.standard_normal(x.shape, np.float32), shapes
  )
  sampler = exported_sampler(run, params, nfe=1)
  session, found = session_of(make_model(sampler)), {}
  for batch in batches:
    given = arguments(sampler, batch)
    expected = jax.jit(sampler.function)(sampler.weights, *given.values())
    made = session.run(None, given)[0]
    found[batch] = float(np.abs(made - expected).max())
  return found


def markdown(rows: list[dict[str, Any]]) -> str:
  """Return the table of a run's exports."""
  whole = next(int(x["bytes"]) for x in rows if "float32" in x["what"])
  lines = [
    "| sampler | MB | share | ms, batch 1 | ms, batch 64 | recognised | "
    "sliced W | energy distance | largest change |",
    "|---|--:|--:|--:|--:|--:|--:|--:|--:|",
  ]
  for x in rows:
    judged = (
      f"{float(x[m]):.4f} ± {float(x[f'{m}_error']):.4f}" for m in METRICS
    )
    lines.append(
      f"| {x['what']} | {int(x['bytes']) / 1e6:.3f} | "
      f"{int(x['bytes']) / whole:.2f} | {float(x['ms_1']):.2f} | "
      f"{float(x['ms_64']):.1f} | {' | '.join(judged)} | "
      f"{float(x['apart']):.1e} |"
    )
  return "\n".join(lines)


def latents_markdown(rows: list[dict[str, Any]]) -> str:
  """Return the table of the network of latents."""
  lines = ["| batch | largest difference |", "|--:|--:|"]
  lines += [f"| {x['batch']} | {float(x['apart']):.1e} |" for x in rows]
  return "\n".join(lines)


def write(name: str, rows: list[dict[str, Any]]) -> None:
  """Write rows into `results`."""
  RESULTS.mkdir(exist_ok=True)
  with (RESULTS / f"{name}.csv").open("w", newline="") as file:
    writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)


@contextlib.contextmanager
def small_run() -> Iterator[jaxflow.api.TrainedRun]:
  """Yield a run of digits that was trained for a moment."""
  config = jaxflow.preset("digits:mean_flow")
  config.model.depth = 1
  config.optimizer.warmup_steps = 0
  config.train.update(steps=5, sample_every=0)
  with tempfile.TemporaryDirectory() as folder:
    yield jaxflow.train(config, folder, log=lambda line: None)


def quick() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
  """Do both for a moment."""
  with small_run() as run:
    rows = measured(run, 100, 1)
  return rows, [{"batch": n, "apart": x} for n, x in latents(TINY, [3]).items()]


def main() -> int:
  """Run the study."""
  parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
  parser.add_argument("--workdir", default="runs/demo/mean_flow")
  parser.add_argument("--quick", action="store_true", help="write nothing")
  given = parser.parse_args()
  if given.quick:
    first, second = quick()
    print(markdown(first), latents_markdown(second), sep="\n\n")
    return 0
  rows = measured(jaxflow.load(given.workdir), 1437, 50)
  apart = latents(SMALL, (1, 3, 64)).items()
  others = [{"batch": n, "apart": x} for n, x in apart]
  write("digits", rows)
  write("latents", others)
  page = HERE / "README.md"
  tables = {"table": markdown(rows), "latents": latents_markdown(others)}
  page.write_text(pages.filled(page.read_text(), tables))
  return 0


if __name__ == "__main__":
  sys.exit(main())
