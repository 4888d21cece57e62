"""Kill a training run again and again; compare it with one left alone.

Every kill is followed by the same command. Kills fall at random: while the
program starts, between two steps, in the middle of a save, with SIGKILL or
SIGTERM. Then come damages: a checkpoint cut short, one deleted, a full disk.
At the end every array, the position in the data and every logged number must
be those of an uninterrupted run, bit for bit; on another number of devices,
to rounding. Other methods are killed less often. At last `sample` and
`evaluate` are killed while they read a run, and a run that is being trained is
given to a second training. `--workdir` keeps the runs.
"""

import argparse
import csv
import dataclasses
import functools
import hashlib
import json
import os
import pathlib
import platform
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from absl import logging
from rich.console import Console
from rich.table import Table

import jaxflow
from jaxflow.parallel import sharding
from jaxflow.runs.pair_generation import PairOptions, make_pairs
from jaxflow.runs.restoring import load
from jaxflow.training.checkpoints import saved_steps

HERE = pathlib.Path(__file__).parent
CONFIG = HERE.parents[1] / "configs" / "ring.py"
DEVICES = 4
# Steps between two checkpoints; a kill comes in every third interval or so.
EVERY = 100
STEPS_PER_KILL = 300
HOWS = ("kill", "kill", "term", "save", "start")
# The methods, and the flags that they need: the first has every incident.
RUNS = {
  "consistency_distillation": ["--config.teacher.workdir={}/teacher"],
  "mean_flow": [],
  "consistency_trajectory": [
    "--config.teacher.workdir={}/denoiser",
    "--config.teacher.init_student=False",
    "--config.times.solver_steps=1",
    "--config.discriminator.network.name=conv",
    "--config.discriminator.network.width=16",
  ],
  "reflow": [
    "--config.data.pairs={}/pairs",
    "--config.init.workdir={}/teacher",
  ],
}
RESULTS = HERE / "results"
# What the clock says differs from run to run.
TIMED = ("samples_per_second", "seconds", "data_wait")


@dataclasses.dataclass(frozen=True)
class Plan:
  """A run of so many steps, on so many devices.

  Attributes:
    root: Where teachers, pairs and compiled programs are.
    method: The method.
    steps: Steps of the run.
  """

  root: pathlib.Path
  method: str
  steps: int

  @property
  def folder(self) -> pathlib.Path:
    """Where the runs of the method go."""
    return self.root / self.method

  def start(self, name: str, *, steps: int = 0, devices: int = DEVICES):
    """Start `jaxflow train`, or go on; return the process."""
    return self.command(
      "train",
      f"--config={CONFIG}:{self.method}",
      f"--workdir={self.folder / name}",
      *(flag.format(self.root) for flag in RUNS[self.method]),
      f"--config.train.steps={steps or self.steps}",
      "--config.train.steps_per_dispatch=10",
      f"--config.train.log_every={EVERY}",
      "--config.train.sample_every=0",
      f"--config.checkpoint.every={EVERY}",
      "--config.optimizer.schedule=constant",
      devices=devices,
    )

  def command(self, *arguments: str, devices: int = DEVICES):
    """Start a command of jaxflow; return the process."""
    with self.log.open("w") as file:
      return subprocess.Popen(
        [sys.executable, "-m", "jaxflow", *arguments],
        env=self.environment(devices),
        stdout=file,
        stderr=subprocess.STDOUT,
      )

  @property
  def log(self) -> pathlib.Path:
    """What the last process printed; a pipe that nobody reads would block."""
    return self.folder / "log.txt"

  def ended(self, process: subprocess.Popen) -> str:
    """Wait for the end of a process; return what it printed."""
    process.wait()
    return self.log.read_text()

  def environment(self, devices: int) -> dict[str, str]:
    """Return the environment of a run."""
    flags = f"--xla_force_host_platform_device_count={devices}"
    return os.environ | {
      "JAX_PLATFORMS": "cpu",
      "XLA_FLAGS": flags,
      "JAX_COMPILATION_CACHE_DIR": str(self.root / "xla"),
      "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }

  def finish(self, name: str, **options) -> str:
    """Train to the end; return what was printed."""
    process = self.start(name, **options)
    out = self.ended(process)
    if process.returncode:
      raise SystemExit(f"{name} failed:\n{out}")
    return out

  def checkpoints(self, name: str) -> pathlib.Path:
    """Return the folder of a run's checkpoints."""
    return self.folder / name / "checkpoints"

  def step(self, name: str) -> int:
    """Return the last step that is saved to its end; 0 for none."""
    return max(saved_steps(self.checkpoints(name)), default=0)


def main() -> None:
  """Run the experiment."""
  parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  parser.add_argument("--workdir", type=pathlib.Path, default="runs/chaos")
  parser.add_argument("--kills", type=int, default=30)
  parser.add_argument("--seed", type=int, default=0, help="of the kills")
  parser.add_argument(
    "--quick", action="store_true", help="three kills, in a temporary folder"
  )
  arguments = parser.parse_args()
  # Warnings of a library that a reader of the table can do nothing about.
  logging.set_verbosity(logging.ERROR)
  if arguments.quick:
    with tempfile.TemporaryDirectory() as folder:
      show(chaos(pathlib.Path(folder), 3, arguments.seed))
    return
  if arguments.workdir.exists() and any(arguments.workdir.iterdir()):
    parser.error(f"--workdir={arguments.workdir} is not empty: give a new one")
  rows = chaos(arguments.workdir, arguments.kills, arguments.seed)
  show(rows)
  write(rows, RESULTS, arguments.kills)


def chaos(folder: pathlib.Path, kills: int, seed: int) -> list[dict]:
  """Run everything; return one row an incident and one a comparison."""
  folder.mkdir(parents=True, exist_ok=True)
  generator = random.Random(seed)
  first, *others = RUNS
  plan = Plan(folder, first, kills * STEPS_PER_KILL)
  teach(folder)
  rows = killed(plan, kills, generator)
  rows.append(disk_full(plan))
  # Another number of devices goes on from the middle.
  shutil.copytree(plan.folder / "killed", plan.folder / "moved")
  # Few steps: rounding grows with each.
  more = plan.steps + 20
  out = plan.finish("moved", steps=more, devices=DEVICES // 2)
  assert f"resumed at step {plan.steps}" in out, out
  plan.finish("alone", steps=more)
  rows.append(compare(plan, "moved", "alone", exact=False))
  few = min(kills // 3, len(HOWS))
  for method in others:
    rows += killed(Plan(folder, method, few * STEPS_PER_KILL), few, generator)
  rows += [
    reading(plan, name, few, generator) for name in ("sample", "evaluate")
  ]
  return [*rows, twice(plan)]


def killed(plan: Plan, kills: int, generator: random.Random) -> list[dict]:
  """Kill a run and damage its checkpoints; compare it with one left alone."""
  plan.folder.mkdir()
  print(f"{plan.method}: uninterrupted run", flush=True)
  plan.finish("alone")
  rows = []
  for number in range(kills):
    rows.append(kill(plan, number, generator))
    print(f"[{number + 1}/{kills}] {describe(rows[-1])}", flush=True)
  for damage in (cut_short, deleted):
    rows.append(damaged(plan, damage))
    print(describe(rows[-1]), flush=True)
  plan.finish("killed")
  rows.append(compare(plan, "killed", "alone", exact=True))
  return rows


def teach(folder: pathlib.Path) -> None:
  """Train the teachers of all runs, and make pairs."""
  print("teachers", flush=True)
  for name, method in (("teacher", "flow_matching"), ("denoiser", "denoising")):
    config = jaxflow.preset(f"{CONFIG}:{method}")
    config.train.steps = 200
    jaxflow.train(config, folder / name, log=lambda line: None)
  options = PairOptions(num=2048, nfe=4)
  make_pairs(
    folder / "teacher", folder / "pairs", options, log=lambda line: None
  )


def kill(plan: Plan, number: int, generator: random.Random) -> dict:
  """Start or go on, kill at random; return what happened."""
  how = HOWS[number % len(HOWS)]
  before = plan.step("killed")
  process = plan.start("killed")
  # A random place in this kill's share of the run.
  target = (number + generator.random()) * STEPS_PER_KILL
  began = time.perf_counter()
  if how == "start":
    time.sleep(generator.uniform(0, 8))
  else:
    while plan.step("killed") < target and process.poll() is None:
      time.sleep(0.01)
    if how == "save":
      wait_for_save(plan.checkpoints("killed"), process)
      time.sleep(generator.uniform(0, 0.05))
    else:
      time.sleep(generator.uniform(0, 0.3))
  saving = unfinished(plan.checkpoints("killed"))
  process.send_signal(signal.SIGTERM if how == "term" else signal.SIGKILL)
  out = plan.ended(process)
  expected = 0 if how == "term" else -signal.SIGKILL
  assert process.returncode == expected, out
  return {
    "method": plan.method,
    "incident": how,
    "after_seconds": round(time.perf_counter() - began, 2),
    "resumed_at": before,
    "saved_step": plan.step("killed"),
    "half_written": len(saving),
    "exit_code": process.returncode,
  }


def wait_for_save(folder: pathlib.Path, process: subprocess.Popen) -> None:
  """Wait until a checkpoint is being written."""
  while not unfinished(folder) and process.poll() is None:
    time.sleep(0.001)


def unfinished(folder: pathlib.Path) -> list[str]:
  """Return the checkpoints that are being written."""
  found = folder.glob("*") if folder.is_dir() else ()
  return [p.name for p in found if "tmp" in p.name]


def cut_short(checkpoint: pathlib.Path) -> None:
  """Cut the largest file of a checkpoint in half."""
  files = [p for p in checkpoint.rglob("*") if p.is_file()]
  largest = max(files, key=lambda p: p.stat().st_size)
  os.truncate(largest, largest.stat().st_size // 2)


def deleted(checkpoint: pathlib.Path) -> None:
  """Delete the arrays of a checkpoint; its name stays."""
  shutil.rmtree(checkpoint / "state")


def damaged(plan: Plan, damage: Callable[[pathlib.Path], None]) -> dict:
  """Damage the newest checkpoint, and go on for a few seconds."""
  steps = saved_steps(plan.checkpoints("killed"))
  damage(plan.checkpoints("killed") / str(steps[-1]))
  process = plan.start("killed")
  time.sleep(1)
  while plan.step("killed") in steps and process.poll() is None:
    time.sleep(0.05)
  process.send_signal(signal.SIGTERM)
  out = plan.ended(process)
  assert process.returncode == 0, out
  assert f"{steps[-1]} cannot be read" in out, out
  assert f"resumed at step {steps[-2]}" in out, out
  return {
    "method": plan.method,
    "incident": damage.__name__.replace("_", " "),
    "resumed_at": steps[-2],
    "saved_step": plan.step("killed"),
    "exit_code": process.returncode,
  }


def disk_full(plan: Plan) -> dict:
  """Train on a disk that fills up, make room, train to the end."""
  place = plan.folder / "small"
  place.mkdir()
  mount = ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(place)]
  if subprocess.run(mount, capture_output=True, check=False).returncode:
    return {
      "method": plan.method,
      "incident": "disk full",
      "result": "not run: no right to mount",
    }
  try:
    ballast = place / "ballast"
    ballast.write_bytes(b"0" * 2**20 * 3)
    process = plan.start("small/run")
    out = plan.ended(process)
    code, step = process.returncode, plan.step("small/run")
    ballast.unlink()
    assert code == 1, out
    subprocess.run(["mount", "-o", "remount,size=64m", str(place)], check=True)
    again = plan.finish("small/run")
    assert f"resumed at step {step}" in again or not step, again
    row = compare(plan, "small/run", "alone", exact=True)
  finally:
    subprocess.run(["umount", str(place)], check=True)
  message = out.strip().splitlines()[-1]
  print(message)
  return row | {
    "incident": "disk full",
    "exit_code": code,
    "saved_step": step,
    "message": message.replace(str(plan.root), "FOLDER"),
  }


def reading(
  plan: Plan, name: str, kills: int, generator: random.Random
) -> dict:
  """Kill a command that reads a run; then let it end, as on a copy."""
  place, copy = (plan.folder / folder for folder in ("moved", "copy"))
  flags = ["--nfe=1,2", "--config.evaluation.num=4000"]
  answers, before = [], hashes(place)
  if name == "sample":
    flags = ["--num=100000", "--nfe=2", f"--out={plan.folder / 'samples.npz'}"]
  seconds = 0.0
  shutil.copytree(place, copy)
  for folder, number in ((copy, 0), (place, kills)):
    for _ in range(number):
      process = plan.command(name, f"--workdir={folder}", *flags)
      time.sleep(generator.uniform(0, seconds))
      process.kill()
      plan.ended(process)
    began = time.perf_counter()
    process = plan.command(name, f"--workdir={folder}", *flags)
    out = plan.ended(process)
    assert process.returncode == 0, out
    seconds = time.perf_counter() - began
    answers.append(answer(plan, name, folder))
  same = answers[0] == answers[1]
  kept = hashes(place) == before
  assert same and kept, (name, same, kept)
  shutil.rmtree(copy)
  row = {"method": plan.method, "incident": f"{kills} kills of {name}"}
  print(describe(row), flush=True)
  return row | {"bit_identical": same, "run_unchanged": kept}


def answer(plan: Plan, name: str, folder: pathlib.Path) -> Any:
  """Return what a reader of a run has found, and remove samples."""
  if name == "evaluate":
    rows = json.loads((folder / "evaluation.json").read_text())["rows"]
    return [row["scores"] for row in rows]
  path = plan.folder / "samples.npz"
  with np.load(path) as file:
    found = {key: file[key].tobytes() for key in file.files}
  path.unlink()
  return found


def hashes(workdir: pathlib.Path) -> dict[pathlib.Path, str]:
  """Return the hashes of a run's config and checkpoints."""
  files = [workdir / "config.json", *(workdir / "checkpoints").rglob("*")]
  read = {file: file.read_bytes() for file in files if file.is_file()}
  return {file: hashlib.sha256(data).hexdigest() for file, data in read.items()}


def twice(plan: Plan) -> dict:
  """Start a second training in the folder of one that goes on."""
  before = plan.step("moved")
  steps = before + 10 * STEPS_PER_KILL
  log = plan.log.with_name("first.txt")
  first = plan.start("moved", steps=steps)
  while plan.step("moved") == before and first.poll() is None:
    time.sleep(0.05)
  plan.log.rename(log)
  second = plan.start("moved", steps=steps)
  message = plan.ended(second).strip()
  first.send_signal(signal.SIGTERM)
  first.wait()
  assert first.returncode == 0, log.read_text()
  assert second.returncode == 2, message
  assert "is being trained by another process" in message, message
  return {
    "method": plan.method,
    "incident": "two trainings in one folder",
    "exit_code": second.returncode,
    "message": message.splitlines()[-1].replace(str(plan.root), "FOLDER"),
    "saved_step": plan.step("moved"),
  }


def compare(plan: Plan, name: str, other: str, *, exact: bool) -> dict:
  """Compare two finished runs: state, position, logged numbers."""
  (mine, at), (its, there) = (
    state_of(plan.folder / folder) for folder in (name, other)
  )
  pairs = list(zip(mine.values(), its.values(), strict=True))
  same = all(a.tobytes() == b.tobytes() for a, b in pairs)
  rows = [logged(plan.folder / folder) for folder in (name, other)]
  assert at == there, (at, there)
  far = {
    k: float(np.linalg.norm(x.astype("f8") - its[k]))
    / max(float(np.linalg.norm(its[k])), 1e-30)
    for k, x in mine.items()
  }
  # A moment is a mean of gradients, small differences of large numbers.
  moments = {k: v for k, v in far.items() if k.startswith("opt_state")}
  others = {k: v for k, v in far.items() if k not in moments}
  row = {
    "method": plan.method,
    "incident": f"{name} against {other}",
    "arrays": len(pairs),
    "bit_identical": same,
    "relative_difference": max(others.values()),
    "relative_difference_of_moments": max(moments.values()),
    "same_log": rows[0] == rows[1],
  }
  if exact:
    assert same and rows[0] == rows[1], row
  else:
    assert row["relative_difference"] < 1e-5, row
  return row


def state_of(workdir: pathlib.Path) -> tuple[dict[str, np.ndarray], dict]:
  """Return a run's last checkpoint: arrays by name, and the data position."""
  mesh = sharding.make_mesh(devices=jax.devices()[:1])
  _, state = load(workdir, mesh=mesh)
  step = int(state.step)
  data = workdir / "checkpoints" / str(step) / "data" / "metadata"
  position = json.loads(data.read_text())
  leaves = jax.tree_util.tree_leaves_with_path(state)
  name = functools.partial(jax.tree_util.keystr, simple=True, separator="/")
  return {name(path): np.asarray(x) for path, x in leaves}, position


def logged(workdir: pathlib.Path) -> list[dict[str, str]]:
  """Return the rows of metrics.csv without what the clock says."""
  with open(workdir / "metrics.csv", newline="") as file:
    return [
      {k: v for k, v in row.items() if k not in TIMED}
      for row in csv.DictReader(file)
    ]


def describe(row: dict) -> str:
  """Return a row as one line."""
  return ", ".join(f"{k} {v}" for k, v in row.items())


def show(rows: list[dict]) -> None:
  """Print the table."""
  table = Table("method", "incident", "what was seen")
  for row in rows:
    rest = dict(row)
    first = rest.pop("method"), rest.pop("incident")
    table.add_row(*first, describe(rest))
  Console(width=100).print(table)


def write(rows: list[dict], folder: pathlib.Path, kills: int) -> None:
  """Write the rows and what they were made with."""
  folder.mkdir(exist_ok=True)
  columns = list(dict.fromkeys(k for row in rows for k in row))
  with open(folder / "incidents.csv", "w", newline="") as file:
    writer = csv.DictWriter(file, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
  about = {
    "command": f"python experiments/chaos/run.py --kills={kills}",
    "jax": jax.__version__,
    "python": platform.python_version(),
    "machine": f"{os.cpu_count()} CPU cores, {DEVICES} forced devices",
  }
  (folder / "about.json").write_text(json.dumps(about, indent=2) + "\n")


if __name__ == "__main__":
  main()
