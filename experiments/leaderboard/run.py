"""Every row of METHODS on the digits, after equal training, in one table.

One network and one budget for all: the wall time in which flow matching takes
`budget` steps. Steps of a row are its budget divided by its own measured time
per step. What a row starts from counts: of a row with a teacher, a starting
point or pairs, half of the budget is that of the teacher, and a pair costs as
much as its network calls, of which a step of flow matching has three a sample.
`--workdir` keeps the runs; the same command goes on where it stopped.
"""

import argparse
import csv
import json
import os
import pathlib
import platform
import sys
import tempfile
import time

import jax
from absl import logging
from PIL import Image, ImageDraw
from rich.console import Console
from rich.table import Table

from jaxflow import commands
from jaxflow.config import Config, update
from jaxflow.config.flags import config_of_run, load_file
from jaxflow.methods import METHODS

HERE = pathlib.Path(__file__).parent
SETTINGS = {
  "config": HERE.parents[1] / "configs" / "digits.py",
  "baseline": "flow_matching",
  "evaluation": (
    "evaluation.num=360",
    "evaluation.metrics=recognised,sliced_wasserstein",
    "evaluation.network.name=none",
    "evaluation.flow.num=0",
  ),
  # Steps of the baseline; their wall time is everybody's budget.
  "budget": 1200,
  "teacher_share": 0.5,
  "pairs": {"num": 4096, "solver": "heun", "nfe": 16, "guidance": 1.3},
  "nfe": (1, 2, 4),
  # A row that is trained in stages, each the teacher of the next: what changes,
  # and the numbers of calls for which the stage is meant.
  "stages": {
    "progressive_distillation": [
      ({"times": {"num_steps": 4}, "sample": {"nfe": 4}}, (4,)),
      ({"times": {"num_steps": 2}, "sample": {"nfe": 2}}, (2,)),
      ({"times": {"num_steps": 1}, "sample": {"nfe": 1}}, (1,)),
    ],
  },
  # Dispatches that are timed; the fastest counts, others may have been
  # disturbed.
  "timed": 12,
}
QUICK = {"methods": ["flow_matching", "mean_flow"], "budget": 20, "timed": 1}
RESULTS = HERE / "results"


def main() -> None:
  """Run the leaderboard."""
  parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  parser.add_argument(
    "--workdir", type=pathlib.Path, default="runs/leaderboard"
  )
  parser.add_argument(
    "--methods", default="", help="rows, separated by commas; default: all"
  )
  parser.add_argument(
    "--quick", action="store_true", help="two rows, in a temporary folder"
  )
  arguments = parser.parse_args()
  # Libraries warn of what a reader of the table can do nothing about.
  logging.set_verbosity(logging.ERROR)
  methods = arguments.methods.split(",") if arguments.methods else [*METHODS]
  if arguments.quick:
    SETTINGS.update({k: v for k, v in QUICK.items() if k in SETTINGS})
    with tempfile.TemporaryDirectory() as folder:
      show(leaderboard(pathlib.Path(folder), QUICK["methods"]))
    return
  unknown = [name for name in methods if name not in METHODS]
  if unknown:
    parser.error(f"--methods={unknown[0]}: choose among {', '.join(METHODS)}")
  rows = leaderboard(arguments.workdir, methods)
  show(rows)
  if len(methods) == len(METHODS):
    write(rows, RESULTS)
    picture(arguments.workdir, rows, RESULTS / "one_call.png")


def leaderboard(workdir: pathlib.Path, methods: list[str]) -> list[dict]:
  """Train and evaluate rows; a finished one is read from its folder."""
  workdir.mkdir(parents=True, exist_ok=True)
  jax.config.update("jax_compilation_cache_dir", str(workdir / "xla"))
  rows = []
  for number, method in enumerate(methods, start=1):
    print(f"\n[{number}/{len(methods)}] {method}", flush=True)
    file = workdir / method / "row.json"
    if not file.exists():
      row = run(workdir, method)
      part = file.with_suffix(".json.part")
      part.write_text(json.dumps(row, indent=2) + "\n")
      os.replace(part, file)
    rows.append(json.loads(file.read_text()))
  return rows


def run(workdir: pathlib.Path, method: str) -> dict:
  """Train one row within the budget and evaluate it."""
  start = origin(load(method))
  if start:
    prepare(workdir, start)
  share = 1 - SETTINGS["teacher_share"] if start else 1.0
  if load(method).data.get("pairs", ""):
    share -= make_pairs(workdir, start)
  stages = SETTINGS["stages"].get(method, [({}, SETTINGS["nfe"])])
  row = {"method": method, "start": start, "steps": 0, "seconds": 0.0}
  row["nfe"] = {}
  folder = None
  for number, (fields, nfe) in enumerate(stages, start=1):
    config = config_of(workdir, method, fields, teacher=folder)
    name = f"stage_{number}" if len(stages) > 1 else "run"
    folder = workdir / method / name
    set_steps(workdir, config, share / len(stages))
    train(config, folder)
    row["steps"] += config.train.steps
    row["seconds"] += seconds_of(folder)
    changes = [f"--config.{change}" for change in SETTINGS["evaluation"]]
    config = config_of_run(folder, changes, ("evaluation",))
    for result in commands.evaluate(folder, nfe=nfe, config=config):
      scores = result["scores"]
      row["nfe"][result["nfe"]] = {
        "folder": str(folder.relative_to(workdir)),
        "recognised": scores["recognised"].value,
        "sliced_wasserstein": scores["sliced_wasserstein"].value,
        "error": scores["sliced_wasserstein"].error,
        "floor": scores["sliced_wasserstein"].real,
        "ceiling": scores["recognised"].real,
      }
  return row


def load(method: str) -> Config:
  """Return the config of a row on the digits."""
  return load_file(f"{SETTINGS['config']}:{method}")


def origin(config: Config) -> str:
  """Return the row that a config starts from, "" for none.

  The config file names a run of it, as teacher, as first weights or for its
  features; pairs are made by the same.
  """
  sections = (config.get(name, {}) for name in ("teacher", "init", "features"))
  folders = [section.get("workdir", "") for section in sections]
  named = {pathlib.Path(folder).name for folder in folders if folder}
  if len(named) > 1:
    raise ValueError(f"{config.method} starts from several rows: {named}")
  return named.pop() if named else ""


def prepare(workdir: pathlib.Path, method: str) -> None:
  """Train the row that others start from, with its share of the budget."""
  folder = workdir / "start" / method
  config = config_of(workdir, method, {})
  set_steps(workdir, config, SETTINGS["teacher_share"])
  train(config, folder)


def make_pairs(workdir: pathlib.Path, method: str) -> float:
  """Make pairs with a run of `prepare`; return the share of the budget."""
  options = commands.PairOptions(**SETTINGS["pairs"])
  folder = workdir / "start"
  if not commands.make_pairs(folder / method, folder / "pairs", options):
    sys.exit(0)
  calls = options.num * options.nfe * (2 if options.guidance != 1 else 1)
  batch_size = load(SETTINGS["baseline"]).train.batch_size
  return calls / (3 * batch_size) / SETTINGS["budget"]


def config_of(
  workdir: pathlib.Path,
  method: str,
  fields: dict,
  teacher: pathlib.Path | None = None,
) -> Config:
  """Return a config whose starting points are those of this leaderboard."""
  config = load(method)
  update(config, fields)
  start = workdir / "start" / origin(config)
  if config.get("teacher", {}).get("workdir", ""):
    config.teacher.workdir = str(teacher or start)
    if teacher:
      config.teacher.guidance = 1.0
  for section in ("init", "features"):
    if config.get(section, {}).get("workdir", ""):
      config[section].workdir = str(start)
  if config.data.get("pairs", ""):
    config.data.pairs = str(workdir / "start" / "pairs")
  config.train.update(sample_every=0, log_every=100)
  config.checkpoint.every = 1000
  return config


def set_steps(workdir: pathlib.Path, config: Config, share: float) -> None:
  """Give a config the steps that a share of the budget buys."""
  baseline = config_of(workdir, SETTINGS["baseline"], {})
  seconds = SETTINGS["budget"] * share * time_per_step(workdir, baseline)
  dispatch = config.train.steps_per_dispatch
  steps = int(seconds / time_per_step(workdir, config) / dispatch) * dispatch
  config.train.steps = max(steps, dispatch)
  warmup = config.optimizer.warmup_steps
  config.optimizer.warmup_steps = min(warmup, config.train.steps // 4)


def time_per_step(workdir: pathlib.Path, config: Config) -> float:
  """Return the seconds of a training step, the fastest of some dispatches.

  It is measured once: a run that goes on has as many steps as when it began.
  """
  file = workdir / "seconds_per_step.json"
  known = json.loads(file.read_text()) if file.exists() else {}
  if config.method not in known:
    known[config.method] = measure(config)
    file.write_text(json.dumps(known, indent=2) + "\n")
  return known[config.method]


def measure(config: Config) -> float:
  """Train for some dispatches; return the seconds of a step in the fastest."""
  config = config.copy_and_resolve_references()
  dispatch = config.train.steps_per_dispatch
  config.train.steps = dispatch * (SETTINGS["timed"] + 1)
  config.train.log_every = dispatch
  config.optimizer.warmup_steps = 0
  with tempfile.TemporaryDirectory() as folder:
    commands.train(config, pathlib.Path(folder) / "run", say=lambda line: None)
    with open(pathlib.Path(folder) / "run/metrics.csv", newline="") as file:
      speeds = [row["samples_per_second"] for row in csv.DictReader(file)]
  return config.train.batch_size / max(float(s) for s in speeds if s)


def train(config: Config, folder: pathlib.Path) -> None:
  """Train to the end, or leave: the same command goes on."""
  if not commands.train(config, folder):
    sys.exit(0)


def seconds_of(folder: pathlib.Path) -> float:
  """Return the time that a run has trained, from its log."""
  with open(folder / "metrics.csv", newline="") as file:
    return float(list(csv.DictReader(file))[-1]["seconds"])


def cells(row: dict) -> list[str]:
  """Return the quality for every number of calls, as text."""
  texts = []
  for nfe in SETTINGS["nfe"]:
    score = row["nfe"].get(str(nfe))
    ratio = score and score["sliced_wasserstein"] / score["floor"]
    texts.append(f"{score['recognised']:.0%}, {ratio:.2f}" if score else "")
  return texts


def best_first(rows: list[dict]) -> list[dict]:
  """Sort rows by their sliced Wasserstein distance after one call."""
  return sorted(rows, key=lambda r: r["nfe"]["1"]["sliced_wasserstein"])


def show(rows: list[dict]) -> None:
  """Print the table."""
  table = Table(title="Digits, equal training time", title_justify="left")
  for name in ("method", "starts from"):
    table.add_column(name)
  table.add_column("steps", justify="right")
  for nfe in SETTINGS["nfe"]:
    table.add_column(f"{nfe} call{'s' * (nfe > 1)}", justify="right")
  for row in best_first(rows):
    table.add_row(row["method"], row["start"], f"{row['steps']:,}", *cells(row))
  Console(width=100).print(table)
  print(
    "share of samples that a classifier of real digits recognises, and sliced\n"
    "Wasserstein distance to held-out digits in units of what real digits score"
  )


def write(rows: list[dict], folder: pathlib.Path) -> None:
  """Write `leaderboard.json` and `leaderboard.md`."""
  folder.mkdir(exist_ok=True)
  about = {
    "settings": SETTINGS | {"config": "configs/digits.py"},
    "jax": jax.__version__,
    "machine": f"{os.cpu_count()} cores, {platform.machine()}",
    "date": time.strftime("%Y-%m-%d"),
  }
  text = json.dumps({"about": about, "rows": rows}, indent=2) + "\n"
  (folder / "leaderboard.json").write_text(text)
  head = ["method", "starts from", "steps"]
  head += [f"{n} call{'s' * (n > 1)}" for n in SETTINGS["nfe"]]
  lines = ["| " + " | ".join(head) + " |", "|---|---|--:" + "|--:" * 3 + "|"]
  for row in best_first(rows):
    start = f"`{row['start']}`" if row["start"] else ""
    parts = [f"`{row['method']}`", start, f"{row['steps']:,}", *cells(row)]
    lines.append("| " + " | ".join(parts) + " |")
  (folder / "leaderboard.md").write_text("\n".join(lines) + "\n")


def picture(
  workdir: pathlib.Path, rows: list[dict], path: pathlib.Path
) -> None:
  """Draw one line of one-call samples for every row, best first."""
  strips = []
  for row in best_first(rows):
    folder = workdir / row["nfe"]["1"]["folder"]
    samples, _ = commands.sample(folder, num=20, nfe=1)
    pixels = ((samples[..., 0] + 1) * 127.5).clip(0, 255).astype("uint8")
    strip = Image.fromarray(pixels.swapaxes(0, 1).reshape(8, -1))
    strips.append((row["method"], strip.resize((20 * 24, 24), 0)))
  text, height = 250, 28
  image = Image.new("L", (text + 20 * 24, height * len(strips)), 255)
  draw = ImageDraw.Draw(image)
  for number, (name, strip) in enumerate(strips):
    draw.text((4, number * height + 8), name, fill=0)
    image.paste(strip, (text, number * height + 2))
  image.save(path)


if __name__ == "__main__":
  main()
