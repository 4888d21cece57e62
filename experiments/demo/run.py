"""Three ways to a one-step generator of handwritten digits, side by side.

Trains a flow-matching teacher, a MeanFlow model from scratch and a consistency
model distilled from the teacher, on scikit-learn's 1,797 digits, and compares
their samples with held-out digits. `--workdir` keeps the runs; an interrupted
demo goes on where it stopped.
"""

import argparse
import dataclasses
import json
import pathlib
import sys
import tempfile
import time

from absl import logging
from PIL import Image
from rich.console import Console
from rich.table import Table

import jaxflow
from jaxflow.config import Config, changed, make_plan, update
from jaxflow.figures import read_log, save_samples
from jaxflow.files import replace_file
from jaxflow.runs.run import Run

GRID = 100
SETTINGS = {
  "config": pathlib.Path(__file__).parents[2] / "configs" / "digits.py",
  "nfe": {
    "flow_matching": (1, 2, 4, 50),
    "mean_flow": (1, 2, 4),
    "consistency_distillation": (1, 2, 4),
  },
  # What the table shows; jaxflow evaluate shows all there is.
  "evaluation": {
    "metrics": "recognised,sliced_wasserstein",
    "network": {"name": "none"},
    "flow": {"num": 0},
    # One program draws what is judged and what is shown.
    "batch_size": GRID,
  },
  # What the short form changes; it samples in one call only.
  "quick": {
    "model": {"depth": 1},
    "optimizer": {"warmup_steps": 0},
    "train": {"steps": 50, "sample_every": 0},
  },
}


def main() -> None:
  """Run the demo."""
  parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  parser.add_argument("--workdir", type=pathlib.Path, default="runs/demo")
  parser.add_argument(
    "--quick", action="store_true", help="a few steps in a temporary folder"
  )
  arguments = parser.parse_args()
  # Libraries warn of what a reader of the table can do nothing about.
  logging.set_verbosity(logging.ERROR)
  if not arguments.quick:
    demo(arguments.workdir, quick=False)
    return
  with tempfile.TemporaryDirectory() as folder:
    demo(pathlib.Path(folder), quick=True)


def demo(workdir: pathlib.Path, *, quick: bool) -> None:
  """Train, sample and compare; write `summary.json` and image grids."""
  began = time.perf_counter()
  calls, runs = SETTINGS["nfe"], {}
  for number, method in enumerate(calls, start=1):
    print(f"\n[{number}/{len(calls)}] training {method}", flush=True)
    run = jaxflow.train(config_of(method, workdir, quick), workdir / method)
    if not run.finished:
      sys.exit(0)
    runs[method] = run
  print("\nsampling and comparing with held-out digits", flush=True)
  rows = []
  for method, run in runs.items():
    nfe = calls[method]
    rows += summarise(workdir, method, run, nfe[:1] if quick else nfe)
  save_one_step(workdir)
  text = json.dumps(rows, indent=2) + "\n"
  replace_file(workdir / "summary.json", lambda draft: draft.write_text(text))
  show(rows)
  seconds = time.perf_counter() - began
  print(f"image grids and runs: {workdir}/  (this took {seconds:.0f} s)")


def config_of(method: str, workdir: pathlib.Path, quick: bool) -> Config:
  """Return the config of a method, with the demo's own teacher."""
  config = jaxflow.preset(f"{SETTINGS['config']}:{method}")
  if "teacher" in config and config.teacher.workdir:
    config.teacher.workdir = str(workdir / "flow_matching")
  if quick:
    update(config, SETTINGS["quick"])
  return config


def summarise(
  workdir: pathlib.Path,
  method: str,
  run: jaxflow.TrainedRun,
  nfe: tuple[int, ...],
) -> list[dict[str, object]]:
  """Evaluate a run and write a grid of its samples for each NFE."""
  rows = []
  # In memory: the folder's own config keeps all metrics.
  config = changed(run.config, {"evaluation": SETTINGS["evaluation"]})
  run = dataclasses.replace(run, run=Run(make_plan(config)))
  seconds = read_log(workdir / method / "metrics.csv")["seconds"][-1]
  for result in run.evaluate(nfe=nfe):
    calls = result["nfe"]
    samples = run.sample(GRID, nfe=calls)
    save_samples(samples, workdir / f"{method}_nfe{calls}.png")
    recognised = result["scores"]["recognised"]
    distance = result["scores"]["sliced_wasserstein"]
    rows.append(
      {
        "model": method,
        "nfe": calls,
        "recognised": recognised.value,
        "sliced_wasserstein": distance.value,
        "floor": distance.real,
        "ceiling": recognised.real,
        "samples_per_second": result["samples_per_second"],
        "train_seconds": seconds,
      }
    )
  return rows


def save_one_step(workdir: pathlib.Path) -> None:
  """Put the one-step grids of MeanFlow and of the student side by side."""
  grids = [
    Image.open(workdir / f"{method}_nfe1.png").convert("L")
    for method in ("mean_flow", "consistency_distillation")
  ]
  gap = 16
  width, height = grids[0].size
  both = Image.new("L", (2 * width + gap, height), 255)
  for number, grid in enumerate(grids):
    both.paste(grid, (number * (width + gap), 0))
  both.save(workdir / "one_step.png")


def show(rows: list[dict[str, object]]) -> None:
  """Print the table."""
  table = Table(title="Digits, class-conditional", title_justify="left")
  for name in ("model", "NFE", "recognised", "sliced W", "x floor"):
    table.add_column(name, justify="left" if name == "model" else "right")
  for name in ("samples/s", "train s"):
    table.add_column(name, justify="right")
  for row in rows:
    table.add_row(
      row["model"],
      str(row["nfe"]),
      f"{row['recognised']:.1%}",
      f"{row['sliced_wasserstein']:.4f}",
      f"{row['sliced_wasserstein'] / row['floor']:.2f}",
      f"{row['samples_per_second']:,.0f}",
      f"{row['train_seconds']:.0f}",
    )
  first = rows[0]
  table.add_row(
    "real digits",
    "",
    f"{first['ceiling']:.1%}",
    f"{first['floor']:.4f}",
    "1.00",
    "",
    "",
  )
  Console(width=90).print(table)
  print(
    "recognised: share of samples that a nearest-neighbour classifier of real "
    "digits\n  takes for the class asked for; sliced W: sliced Wasserstein "
    "distance to held-out\n  digits; its floor is the distance between real "
    "and real digits"
  )


if __name__ == "__main__":
  main()
