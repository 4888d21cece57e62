"""Kill a training run again and again; compare it with one left alone.

Every kill is followed by the same command. Kills fall at random: while the
program starts, between two steps, in the middle of a save, with SIGKILL or
SIGTERM. Then come damages: a checkpoint cut short, one deleted, a full disk.
At the end every array, the position in the data and every logged number must
be those of an uninterrupted run, bit for bit; on another number of devices,
to rounding. `--workdir` keeps the runs.
"""

import argparse
import csv
import dataclasses
import functools
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

import jax
import numpy as np
from absl import logging
from rich.console import Console
from rich.table import Table

import jaxflow
from jaxflow.parallel import sharding
from jaxflow.runs.restoring import load
from jaxflow.training.checkpoints import saved_steps

HERE = pathlib.Path(__file__).parent
CONFIG = HERE.parents[1] / "configs" / "ring.py"
DEVICES = 4
# Steps between two checkpoints; a kill comes in every third interval or so.
EVERY = 100
STEPS_PER_KILL = 300
HOWS = ("kill", "kill", "term", "save", "start")
RESULTS = HERE / "results"
# What the clock says differs from run to run.
TIMED = ("samples_per_second", "seconds", "data_wait")


@dataclasses.dataclass(frozen=True)
class Plan:
  """A run of so many steps, on so many devices.

  Attributes:
    folder: Where runs and compiled programs go.
    steps: Steps of the run.
  """

  folder: pathlib.Path
  steps: int

  def start(self, name: str, *, steps: int = 0, devices: int = DEVICES):
    """Start `jaxflow train`, or go on; return the process."""
    command = [
      *(sys.executable, "-m", "jaxflow", "train"),
      f"--config={CONFIG}:consistency_distillation",
      f"--workdir={self.folder / name}",
      f"--config.teacher.workdir={self.folder / 'teacher'}",
      f"--config.train.steps={steps or self.steps}",
      "--config.train.steps_per_dispatch=10",
      f"--config.train.log_every={EVERY}",
      "--config.train.sample_every=0",
      f"--config.checkpoint.every={EVERY}",
      "--config.optimizer.schedule=constant",
    ]
    with self.log.open("w") as file:
      return subprocess.Popen(
        command,
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
      "JAX_COMPILATION_CACHE_DIR": str(self.folder / "xla"),
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
  plan = Plan(folder, kills * STEPS_PER_KILL)
  teach(plan)
  print("uninterrupted run", flush=True)
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
  rows.append(disk_full(plan))
  # Another number of devices goes on from the middle.
  shutil.copytree(folder / "killed", folder / "moved")
  # Few steps: rounding grows with each.
  more = plan.steps + 20
  out = plan.finish("moved", steps=more, devices=DEVICES // 2)
  assert f"resumed at step {plan.steps}" in out, out
  plan.finish("alone", steps=more)
  rows.append(compare(plan, "moved", "alone", exact=False))
  return rows


def teach(plan: Plan) -> None:
  """Train the teacher of all runs."""
  print("teacher", flush=True)
  config = jaxflow.preset(f"{CONFIG}:flow_matching")
  config.train.steps = 200
  jaxflow.train(config, plan.folder / "teacher", log=lambda line: None)


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
    return {"incident": "disk full", "result": "not run: no right to mount"}
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
    "message": message.replace(str(plan.folder), "FOLDER"),
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
  table = Table("incident", "what was seen")
  for row in rows:
    rest = {k: v for k, v in row.items() if k != "incident"}
    table.add_row(row["incident"], describe(rest))
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
