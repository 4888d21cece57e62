"""A config that trains in a second, and the command line run in process."""

import contextlib
import hashlib
import io
import pathlib
from collections.abc import Collection
from typing import NamedTuple

import jax
import numpy as np

from jaxflow.commands import main
from jaxflow.config import make_plan
from jaxflow.parallel import sharding
from jaxflow.runs.restoring import load
from jaxflow.runs.run import Run

CONFIG = '''\
"""A config for tests."""

from jaxflow.config import default_config


def get_config(method):
  config = default_config(method, data="ring", model="mlp")
  config.data.conditional = False
  config.model.update(width=16, depth=1, time_features=8)
  config.optimizer.learning_rate = 1e-2
  config.ema.sampling = {"name": "power", "width": 0.1}
  config.train.update(steps=40, batch_size=16, log_every=10)
  config.train.steps_per_dispatch = 5
  config.checkpoint.every = 20
  config.evaluation.update(num=100, kept=200)
  config.evaluation.flow.num = 0
  return config
'''


class Result(NamedTuple):
  """What a command did: its exit code and its two streams."""

  code: int
  out: str
  err: str


def run(*arguments) -> Result:
  """Run a command line in this process."""
  out, err = io.StringIO(), io.StringIO()
  with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
    code = main.run(["jaxflow", *map(str, arguments)])
  return Result(code, out.getvalue(), err.getvalue())


def quiet():
  """Keep what others print off the standard streams."""
  return contextlib.redirect_stdout(io.StringIO())


def config_file(folder: pathlib.Path) -> pathlib.Path:
  """Write CONFIG in a folder."""
  path = folder / "config.py"
  path.write_text(CONFIG)
  return path


def train(folder: pathlib.Path, name: str, method: str, *flags) -> pathlib.Path:
  """Train CONFIG in `folder / name`; the flags are without `--config.`."""
  result = run(*train_command(folder, name, method, *flags))
  assert result.code == 0, result.err
  return folder / name


def train_command(folder, name, method, *flags) -> list[str]:
  return [
    "train",
    f"--config={config_file(folder)}:{method}",
    f"--workdir={folder / name}",
    *(f"--config.{flag}" for flag in flags),
  ]


def arrays(path) -> dict[str, np.ndarray]:
  """Return all arrays of an .npz file, which is closed again."""
  with np.load(path) as file:
    return dict(file)


def run_of(config) -> Run:
  """Build the run of a resolved config."""
  return Run(make_plan(config))


def state_of(workdir: pathlib.Path, step: int | None = None):
  """Restore the state of a workdir on all devices."""
  mesh = sharding.make_mesh()
  return load(workdir, mesh=mesh, step=step)[1]


def assert_same_bits(a, b):
  """Two trees have the same leaves, bit for bit."""
  left, right = (jax.tree_util.tree_leaves_with_path(x) for x in (a, b))
  assert [path for path, _ in left] == [path for path, _ in right]
  for (path, x), (_, y) in zip(left, right, strict=True):
    x, y = np.asarray(x), np.asarray(y)
    assert x.dtype == y.dtype, path
    assert x.tobytes() == y.tobytes(), path


def apart(a, b) -> float:
  """How far a tree is from another, relatively, all of it as one vector.

  Trainings that differ by rounding are compared so: a bias that began at 0 has
  only its rounding to be compared with.
  """
  a, b = (
    np.concatenate([np.ravel(x) for x in jax.tree.leaves(t)]) for t in (a, b)
  )
  return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def checksums(folder: pathlib.Path) -> dict[str, str]:
  """Return the hash of every file below a folder."""
  return {
    str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
    for path in sorted(folder.rglob("*"))
    if path.is_file()
  }


def flip_bit(path: pathlib.Path, draw: np.random.Generator) -> None:
  """Flip one bit of a file, which a generator chooses."""
  content = bytearray(path.read_bytes())
  content[draw.integers(len(content))] ^= 1 << draw.integers(8)
  path.write_bytes(content)


@contextlib.contextmanager
def flipped_bit(path: pathlib.Path, draw: np.random.Generator):
  """Do so for a while."""
  whole = path.read_bytes()
  flip_bit(path, draw)
  try:
    yield
  finally:
    path.write_bytes(whole)


TIMED = {"samples_per_second", "data_wait", "seconds"}
# Steps of the rows of a run of CONFIG.
LOGGED = ["1", "10", "20", "30", "40"]


def rows(
  workdir: pathlib.Path, *, without: Collection[str] = TIMED
) -> list[dict[str, str]]:
  """Read metrics.csv without the columns that differ from run to run."""
  lines = (workdir / "metrics.csv").read_text().splitlines()
  columns = lines[0].split(",")
  table = [dict(zip(columns, line.split(","), strict=True)) for line in lines]
  return [
    {k: v for k, v in row.items() if k not in without} for row in table[1:]
  ]
