"""What memory, time and disk a large load takes, each in a process of its own.

Every case runs at a tenth of its size and at its size. A process reports the
most memory that it has held (VmHWM of /proc/self/status, so on Linux only).
The first row is the floor: the imports and one training step.

  python -m experiments.load.run            # minutes; writes results/
  python -m experiments.load.run --quick    # under 30 s, prints only
"""

import argparse
import csv
import json
import pathlib
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

import numpy as np

import jaxflow
from experiments.runner import pages
from jaxflow import data
from jaxflow.config import default_config
from jaxflow.config.components import Config
from jaxflow.data.folders.writing import write_missing_shards
from jaxflow.runs.pair_generation import PairOptions, make_pairs

HERE = pathlib.Path(__file__).parent
RESULTS = HERE / "results"
# What a process may usually open at once.
OPEN_FILES = 1024


def tiny_config(method: str, steps: int, *, name: str = "ring") -> Config:
  """Return the config of a small network of points, without labels."""
  config = default_config(method, data=name, model="mlp")
  config.data.conditional = False
  config.model.update(width=32, depth=2, time_features=8)
  config.train.update(steps=steps, batch_size=64, log_every=100)
  config.checkpoint.every = max(steps, 1)
  config.evaluation.flow.num = 0
  return config


def silent(line: str) -> None:
  """Leave out a line of progress."""
  del line


def floor(size: int, folder: pathlib.Path) -> None:
  """Train as many steps, in memory."""
  del folder
  jaxflow.train(tiny_config("flow_matching", size), log=silent)


def rows(size: int, folder: pathlib.Path) -> None:
  """Train on arrays of so many points."""
  points = np.random.default_rng(0).standard_normal((size, 2), np.float32)
  config = tiny_config("flow_matching", 200)
  jaxflow.train(config, folder / "run", data={"data": points}, log=silent)


def mapped(size: int, folder: pathlib.Path, columns: int = 2) -> None:
  """Stream as many points from a file that is mapped into memory."""
  file, shape = folder / "rows.npy", (size, columns)
  made = np.lib.format.open_memmap(file, "w+", np.float32, shape)
  for first in range(0, size, 2**16):
    part = made[first : first + 2**16]
    part[:] = np.random.default_rng(first).standard_normal(part.shape)
  made.flush()
  del made, part
  config = tiny_config("flow_matching", 200, name="arrays")
  config.data.update(file=str(file), ram_gib=0.0)
  jaxflow.train(config, folder / "run", log=silent)


def pairs(size: int, folder: pathlib.Path) -> None:
  """Write so many pairs and train on them."""
  jaxflow.train(tiny_config("flow_matching", 200), folder / "a", log=silent)
  options = PairOptions(num=size, nfe=4, solver="heun")
  assert make_pairs(folder / "a", folder / "pairs", options, log=silent)
  config = tiny_config("reflow", 200)
  config.data.pairs = str(folder / "pairs")
  config.init.workdir = str(folder / "a")
  jaxflow.train(config, folder / "b", log=silent)


def shards(size: int, folder: pathlib.Path) -> None:
  """Write so many shards of latents, open them and read one epoch."""
  each, batch = 4, 128
  description = {
    **dict.fromkeys(("data", "images", "autoencoder", "parameters"), "noise"),
    **{"raw_dir": None, "data_dir": None, "size": 16, "flip": False},
    **{"shape": [2, 2, 4], "num_classes": 0, "dtype": "float16", "scale": 1.0},
    **{"counts": {"train": each * size, "test": 1}, "shard_size": each},
  }
  latents = data.LatentFolder.create(folder / "latents", description)
  generator = np.random.default_rng(0)

  def make(first: int, num: int) -> list[np.ndarray]:
    del first
    mean = generator.standard_normal((num, 2, 2, 4))
    return [mean, np.full_like(mean, 0.1)]

  write_missing_shards(
    latents.files("train"),
    make,
    lambda shard, arrays: latents.write("train", shard, arrays),
    **{"batch_size": each, "devices": 1, "unit": "latents"},
    check=latents.check_unchanged,
    log=silent,
  )
  latents.write_decoder({"weight": np.zeros(1)})
  latents.finish()
  found = data.LatentFolder.open(folder / "latents")
  source = data.Latents(found, "train", name="latents")
  batches = data.Batches(source, batch_size=batch, seed=0, threads=2)
  for _ in range(each * size // batch):
    next(batches)
  batches.close()


def classes(size: int, folder: pathlib.Path) -> None:
  """Train with so many classes, sample every class and evaluate."""
  label = np.arange(20 * size) % size
  points = np.random.default_rng(0).normal(0, 0.01, (len(label), 2))
  points += np.stack([np.cos(label), np.sin(label)], axis=1)
  split = {"data": points.astype(np.float32), "labels": label}
  config = tiny_config("flow_matching", 500, name="given")
  config.data.conditional = True
  config.sample.nfe = 4
  config.evaluation.update(num=5 * size, nfe=(4,))
  both = {"train": split, "test": split}
  run = jaxflow.train(config, folder / "run", data=both, log=silent)
  assert run.sample(5 * size).shape == (5 * size, 2)  # The classes in turn.
  run.evaluate()


def evaluation(size: int, folder: pathlib.Path) -> None:
  """Evaluate so many samples of a short run."""
  config = tiny_config("flow_matching", 200)
  config.evaluation.update(num=size, nfe=(4,))
  jaxflow.train(config, folder / "run", log=silent).evaluate()


def steps(size: int, folder: pathlib.Path) -> None:
  """Train so many steps, logged and kept as by default."""
  config = tiny_config("flow_matching", size)
  config.checkpoint.every = 1000
  jaxflow.train(config, folder / "run", log=silent)


CASES: dict[str, tuple[Callable[[int, pathlib.Path], None], int]] = {
  "rows": (rows, 1_000_000),
  "mapped": (mapped, 1_000_000),
  "pairs": (pairs, 200_000),
  "shards": (shards, 10_000),
  "classes": (classes, 1000),
  "evaluation": (evaluation, 200_000),
  "steps": (steps, 100_000),
}
NAMES = {"floor": floor} | {name: case[0] for name, case in CASES.items()}


def one(case: str, size: int) -> dict:
  """Run a case in this process; return its figures."""
  hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
  resource.setrlimit(resource.RLIMIT_NOFILE, (min(OPEN_FILES, hard), hard))
  with tempfile.TemporaryDirectory() as name:
    folder, began = pathlib.Path(name), time.perf_counter()
    NAMES[case](size, folder)
    seconds = time.perf_counter() - began
    written = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
  status = pathlib.Path("/proc/self/status").read_text()
  peak = int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0])
  return {
    **{"case": case, "size": size, "peak_mib": round(peak / 1024)},
    **{"seconds": round(seconds, 1), "disk_mib": round(written / 2**20, 2)},
  }


def measured(case: str, size: int) -> dict:
  """Run a case in a process of its own; return its figures."""
  command = [sys.executable, "-m", "experiments.load.run"]
  command += [f"--case={case}", f"--size={size}"]
  done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
  row = json.loads(done.stdout.splitlines()[-1])
  print(row, file=sys.stderr, flush=True)
  return row


def markdown(found: list[dict]) -> str:
  """Return a table: a tenth of the size beside the size, and the growth."""
  lines = [
    "| case | size | peak, MiB | growth, MiB | seconds | on disk, MiB |",
    "|---|--:|--:|--:|--:|--:|",
  ]
  before: dict[str, int] = {}
  for row in found:
    name, peak = row["case"], int(row["peak_mib"])
    growth = f"{peak - before[name]:+,}" if name in before else ""
    before[name] = peak
    lines.append(
      f"| {name} | {int(row['size']):,} | {peak:,} | {growth} |"
      f" {float(row['seconds']):,.1f} | {float(row['disk_mib']):,.2f} |"
    )
  return "\n".join(lines) + "\n"


def main() -> int:
  """Run the study."""
  parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
  parser.add_argument(
    "--quick", action="store_true", help="two small cases; write nothing"
  )
  parser.add_argument("--case", choices=NAMES, help="run it in this process")
  parser.add_argument("--size", type=int, default=1, help="of --case")
  given = parser.parse_args()
  if given.case:
    print(json.dumps(one(given.case, given.size)))
    return 0
  if given.quick:
    print(markdown([measured("floor", 1), measured("shards", 100)]))
    return 0
  found = [measured("floor", 1)]
  for case, (_, size) in CASES.items():
    found += [measured(case, size // 10), measured(case, size)]
  RESULTS.mkdir(exist_ok=True)
  with (RESULTS / "load.csv").open("w", newline="") as file:
    writer = csv.DictWriter(file, list(found[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(found)
  page = HERE / "README.md"
  page.write_text(pages.filled(page.read_text(), {"table": markdown(found)}))
  return 0


if __name__ == "__main__":
  sys.exit(main())
