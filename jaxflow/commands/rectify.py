"""Several rounds of ReFlow: pairs of the last run, then a run on them.

Round 0 trains on real data alone, with fresh noise: flow matching. Round k
trains on pairs of round k - 1, and on real data beside them, from the weights
of round k - 1. A workdir holds `rectify.json`, `round_0`, `pairs_1`, `round_1`,
`pairs_2`, ...; each part is done, resumed or begun by its own command, so the
same command goes on wherever it stopped.
"""

import dataclasses
import json
import pathlib
from collections.abc import Callable
from typing import Any

import jax

from jaxflow import config as config_lib
from jaxflow import couplings
from jaxflow.commands import pairs
from jaxflow.commands.train import train
from jaxflow.config import Config
from jaxflow.config.files import load_config
from jaxflow.config.limits import check_limits
from jaxflow.errors import UsageError, named
from jaxflow.files import replace_file
from jaxflow.methods import METHODS
from jaxflow.parallel import folders, processes, sharding
from jaxflow.runs import model as build
from jaxflow.runs.initial_weights import check_same_network
from jaxflow.runs.inputs import check_mesh
from jaxflow.runs.run import Run, load_data

FILE = "rectify.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rounds:
  """How many rounds; each field is a flag of the command line.

  Attributes:
    rounds: Rounds on pairs.
    start: Share of pairs among the rows of the first of them.
    end: Share in the last; between, it grows by equal steps.
    teacher: Folder of a trained run that takes the place of round 0.
  """

  rounds: int = 3
  start: float = 0.4
  end: float = 0.9
  teacher: str = ""

  def __post_init__(self):
    """Raise UsageError if a number is out of range."""
    if self.rounds < 1:
      raise UsageError(f"--rounds={self.rounds}: give at least 1")
    for name in ("start", "end"):
      if not 0 < getattr(self, name) <= 1:
        raise UsageError(
          f"--{name}={getattr(self, name)}: give a share above 0, at most 1"
        )

  def share(self, number: int) -> float:
    """Return the share of pairs in a round."""
    return couplings.synthetic_share(
      number, self.rounds, start=self.start, end=self.end
    )


def rectify(
  config: Config,
  workdir: pathlib.Path,
  rounds: Rounds,
  options: pairs.Options,
  *,
  say: Callable[[str], None] = print,
) -> bool:
  """Train all rounds in a workdir, or go on where they stopped.

  Args:
    config: The config of every round; its method trains a velocity on pairs.
      Each round sets `data.pairs`, `data.synthetic_share` and `init`.
    workdir: Where the rounds and their pairs go.
    rounds: How many, and on how many pairs.
    options: How pairs are made; round k adds k - 1 to the seed.
    say: Prints a line.

  Returns:
    Whether the last round reached its end; False after an interruption.

  Raises:
    UsageError: If an option is wrong, or the workdir holds other rounds.
    RunError: If training fails or samples are not finite.
  """
  check_limits(config)
  _check(config, rounds, options)

  def claim():
    folders.make_workdir(workdir)
    _keep(workdir, rounds, options)

  with named(workdir="--workdir"):
    folders.check_shared(workdir)
    processes.once(claim)
  previous = pathlib.Path(rounds.teacher)
  if not rounds.teacher:
    previous = workdir / "round_0"
    say(f"round 0 of {rounds.rounds}: {previous}")
    own = {"pairs": "", "synthetic_share": 0.0}
    first = _changed(config, {"data": own, "init": {"workdir": ""}})
    if not train(first, previous, say=say):
      return False
  for number in range(1, rounds.rounds + 1):
    share, folder = rounds.share(number), workdir / f"pairs_{number}"
    current = workdir / f"round_{number}"
    say(f"round {number} of {rounds.rounds}, {share:.0%} pairs: {current}")
    made = dataclasses.replace(options, seed=options.seed + number - 1)
    if not pairs.make_pairs(previous, folder, made, say=say):
      return False
    fields = {
      "data": {"pairs": str(folder), "synthetic_share": share},
      "init": {"workdir": str(previous), "ema": options.ema},
    }
    if not train(_changed(config, fields), current, say=say):
      return False
    previous = current
  return True


def _changed(config: Config, fields: dict[str, Any]) -> Config:
  changed = config.copy_and_resolve_references()
  with changed.unlocked():
    config_lib.update(changed, fields)
  return changed.lock()


def _check(config: Config, rounds: Rounds, options: pairs.Options) -> None:
  """Raise UsageError for what would fail only after a round."""
  if "synthetic_share" not in config.data:
    flows = [
      name
      for name, row in METHODS.items()
      if row.teaches and "pairs" in row.needs
    ]
    raise UsageError(
      f"method={config.method!r} trains no velocity on pairs: take one of "
      f"{', '.join(flows)}"
    )
  check_mesh(config, sharding.make_mesh(**config.mesh))
  real = processes.together(lambda: load_data(config, "train"))
  own = config_lib.resolve(
    config,
    shape=real.shape,
    num_classes=real.num_classes,
    teacher=None,
  )
  run = Run.of(own)
  pairs.make_draw(pairs.solving(own, options), options)
  if rounds.teacher:
    _check_teacher(run, rounds.teacher, options)


def _check_teacher(run: Run, folder: str, options: pairs.Options) -> None:
  """Raise UsageError if the first round cannot follow on a teacher."""
  teacher = load_config(pathlib.Path(folder), field="--teacher")
  pairs.make_draw(pairs.solving(teacher, options), options)
  own = run.model.config
  for name in ("name", "shape", "num_classes"):
    if own.data[name] != teacher.data[name]:
      raise UsageError(
        f"--teacher={folder}: its data.{name} is {teacher.data[name]!r}, this "
        f"run's is {own.data[name]!r}; they must agree"
      )
  key, its = jax.random.key(0), build.make_model(teacher).network
  check_same_network(
    jax.eval_shape(run.model.network.init, key),
    jax.eval_shape(its.init, key),
    (own, teacher),
    f"--teacher={folder}",
    "go round by round, with `jaxflow pairs` and `jaxflow train`",
  )


def _keep(
  workdir: pathlib.Path, rounds: Rounds, options: pairs.Options
) -> None:
  """Write the options in the workdir, or compare them with those there."""
  given = dataclasses.asdict(rounds) | dataclasses.asdict(options)
  del given["batch_size"]  # It may change: it decides nothing.
  path = workdir / FILE
  if not path.exists():
    if any(p.suffix != ".tmp" for p in workdir.iterdir()):
      raise UsageError(
        f"--workdir={workdir} is not empty and holds no {FILE}: give a new "
        "folder"
      )
    text = json.dumps(given, indent=2) + "\n"
    replace_file(path, lambda draft: draft.write_text(text))
  try:
    found = json.loads(path.read_text())
  except ValueError as error:
    raise UsageError(
      f"--workdir={workdir}: {FILE} cannot be read ({error}): restore it from "
      "a copy, or give another folder"
    ) from error
  for name, value in given.items():
    if found.get(name) != value:
      raise UsageError(
        f"--workdir={workdir} was made with --{name}={found.get(name)!r}, not "
        f"{value!r}: give another --workdir, or the old value"
      )
