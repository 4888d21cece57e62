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
from typing import get_type_hints

import jax

from jaxflow import config as config_lib
from jaxflow import couplings
from jaxflow.errors import UsageError, named
from jaxflow.files import part_of, write_text
from jaxflow.parallel import folders, processes, sharding
from jaxflow.plans import Plan
from jaxflow.reading import read_json, reading
from jaxflow.runs.initial_weights import check_fits
from jaxflow.runs.inputs import check_classes, check_mesh
from jaxflow.runs.opening import load_data
from jaxflow.runs.options import option
from jaxflow.runs.pair_generation import PairOptions, make_draw, make_pairs
from jaxflow.runs.run import Run
from jaxflow.runs.train import train

FILE = "rectify.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rounds:
  """How many rounds; the command line has a flag for each field."""

  rounds: int = option(3, "rounds on pairs, each from the weights of the last")
  start: float = option(
    0.4,
    "share of pairs in the first round; the other rows are real data with "
    "fresh noise",
  )
  end: float = option(0.9, "share of pairs in the last round")
  teacher: str = option(
    "", "a trained run in place of round 0, which trains without pairs"
  )

  def __post_init__(self) -> None:
    """Raise UsageError if a number is out of range."""
    if self.rounds < 1:
      raise UsageError(f"rounds={self.rounds}: give at least 1")
    for name in ("start", "end"):
      if not 0 < getattr(self, name) <= 1:
        raise UsageError(
          f"{name}={getattr(self, name)}: give a share above 0, at most 1"
        )

  def share(self, number: int) -> float:
    """Return the share of pairs in a round."""
    return couplings.synthetic_share(
      number, self.rounds, start=self.start, end=self.end
    )


def rectify(
  config: config_lib.Config,
  workdir: pathlib.Path,
  rounds: Rounds,
  options: PairOptions,
  *,
  log: Callable[[str], None] = print,
) -> bool:
  """Train all rounds in a workdir, or go on where they stopped.

  Args:
    config: The config of every round; its method trains a velocity on pairs.
      Each round sets `data.pairs`, `data.synthetic_share` and `init`.
    workdir: Where the rounds and their pairs go.
    rounds: How many, and on how many pairs.
    options: How pairs are made; round k adds k - 1 to the seed.
    log: Takes a line.
  """
  config_lib.check_limits(config)
  _check(config, rounds, options)
  folders.check_shared(workdir)

  def begin():
    folders.make_workdir(workdir)
    for path in workdir.iterdir():
      part_of(workdir, path.name)
    _save_or_compare(workdir, rounds, options)

  processes.once(begin)
  previous = pathlib.Path(rounds.teacher)
  if not rounds.teacher:
    previous = workdir / "round_0"
    log(f"round 0 of {rounds.rounds}: {previous}")
    own = {"pairs": "", "synthetic_share": 0.0}
    first = {"data": own, "init": {"workdir": ""}}
    if not train(config_lib.changed(config, first), previous, log=log).finished:
      return False
  for number in range(1, rounds.rounds + 1):
    share, folder = rounds.share(number), workdir / f"pairs_{number}"
    current = workdir / f"round_{number}"
    log(f"round {number} of {rounds.rounds}, {share:.0%} pairs: {current}")
    made = dataclasses.replace(options, seed=options.seed + number - 1)
    if not make_pairs(previous, folder, made, log=log):
      return False
    fields = {
      "data": {"pairs": str(folder), "synthetic_share": share},
      "init": {"workdir": str(previous), "ema": options.ema},
    }
    if not train(config_lib.changed(config, fields), current, log=log).finished:
      return False
    previous = current
  return True


def _check(
  config: config_lib.Config, rounds: Rounds, options: PairOptions
) -> None:
  """Raise UsageError for what would fail only after a round."""
  most = 2**32 - options.seed
  if rounds.rounds > most:
    raise UsageError(
      f"rounds={rounds.rounds}: give at most {most}, each takes a seed"
    )
  method = config_lib.method_of(config)
  flows = {
    name: row
    for name, row in config_lib.methods().items()
    if row.teaches and "pairs" in row.needs
  }
  if not method.teaches or "pairs" not in method.needs:
    name = config_lib.method_name(config)
    raise UsageError(
      f"method={name!r} trains no velocity on pairs: take one of "
      f"{', '.join(flows)}"
    )
  data_plan = config_lib.data_plan(config)
  real = processes.together(lambda: load_data(data_plan, "train"))
  check_classes(real)
  plan = config_lib.make_plan(
    config_lib.resolve(
      config, shape=real.shape, num_classes=real.num_classes, teacher=None
    )
  )
  mesh = sharding.make_mesh(**plan.mesh)
  check_mesh(plan, mesh)
  make_draw(plan, options)
  # Of a wrong optimizer, the state tells.
  Run(plan).template(mesh)
  if rounds.teacher:
    with named(workdir="teacher"):
      saved = config_lib.load_config(pathlib.Path(rounds.teacher))
      teacher = config_lib.make_plan(saved)
      make_draw(teacher, options)
    _check_teacher(f"teacher={rounds.teacher}", teacher, plan)


def _check_teacher(name: str, teacher: Plan, plan: Plan) -> None:
  """Raise UsageError if the first round cannot follow on a teacher."""
  for field in ("name", "shape", "num_classes"):
    mine, its = getattr(plan.data, field), getattr(teacher.data, field)
    if mine != its:
      raise UsageError(
        f"{name}: its data.{field} is {its!r}, this run's is {mine!r}; they "
        "must agree"
      )
  check_fits(
    plan.model,
    teacher.model,
    jax.eval_shape(teacher.model.network.init, jax.random.key(0)),
    name,
    "go round by round, with `jaxflow pairs` and `jaxflow train`",
  )


def _save_or_compare(
  workdir: pathlib.Path, rounds: Rounds, options: PairOptions
) -> None:
  """Write the options in the workdir, or compare them with those there."""
  given = dataclasses.asdict(rounds) | dataclasses.asdict(options)
  del given["batch_size"]  # It may change: it decides nothing.
  path = workdir / FILE
  if not path.exists():
    if any(p.suffix != ".tmp" for p in workdir.iterdir()):
      raise UsageError(
        f"workdir={workdir} is not empty and holds no {FILE}: give a new folder"
      )
    write_text(path, json.dumps(given, indent=2) + "\n")
  remedy = "restore it from a copy, or give another folder"
  with reading(f"workdir={workdir}: {FILE}", remedy):
    kinds = get_type_hints(Rounds) | get_type_hints(PairOptions)
    found = read_json(path, {k: kinds[k] for k in given})
    for name in sorted(given.keys() ^ found.keys()):
      raise ValueError(f"{name} is {'absent' if name in given else 'unknown'}")
  for name, value in given.items():
    if found[name] != value:
      raise UsageError(
        f"workdir={workdir} was made with {name}={found[name]!r}, not "
        f"{value!r}: give another workdir, or the old value"
      )
