"""Commands that work, and the one thing that is spoiled in each input."""

import contextlib
import dataclasses
import pathlib
import random
import re
import shutil
from typing import Any

import damages

from jaxflow import options
from jaxflow.commands import flags, main
from jaxflow.config import load_config, presets, registry
from jaxflow.config.components import components
from jaxflow.config.files import flatten

SMALL = (
  "--config.model.width=8 --config.model.depth=1 --config.train.steps=20 "
  "--config.train.batch_size=16 --config.train.steps_per_dispatch=5 "
  "--config.train.log_every=10 --config.checkpoint.every=10 "
  "--config.train.sample_every=0 --config.optimizer.warmup_steps=0 "
  "--config.evaluation.num=64 --config.evaluation.flow.num=16"
)
DIT = "--config.model.num_heads=2 --config.model.patch_size=2"
CLASSIFIER = (
  "--config.evaluation.network.name=classifier "
  "--config.evaluation.network.file=classifier.npz"
)
REFLOW = "--config=ring:reflow --config.init.workdir=run"
ROUNDS = f"--config=ring:reflow {SMALL} --rounds=1 --num=16 --nfe=2"
# The commands that make what others read, in this order.
BASE = (
  "encode --out=latents --data=digits --autoencoder=weights.safetensors "
  "--size=8 --shard_size=1000 --batch_size=256",
  f"train --config=ring:flow_matching --workdir=run {SMALL}",
  f"train --config=digits:flow_matching --workdir=digits {SMALL}"
  " --config.model.name=mlp",
  "evaluate --workdir=run --nfe=1",
  "bench --workdir=run --nfe=1 --batch=1",
  "pairs --workdir=run --out=pairs --num=64 --shard_size=32 --nfe=2",
  f"rectify --workdir=rounds {ROUNDS}",
  "stats --config=digits:flow_matching --out=stats.npz --num=64 "
  "--config.evaluation.network.name=classifier",
)


@dataclasses.dataclass(frozen=True)
class Job:
  """A command that works, until something is spoiled.

  Attributes:
    text: Its command line.
    reads: Files that it reads, by kind, as a pattern.
    answer: The file or folder with its result, where results can be compared.
  """

  text: str
  reads: dict[str, str] = dataclasses.field(default_factory=dict)
  answer: str = ""

  @property
  def argv(self) -> list[str]:
    """The command line as a list."""
    return self.text.split()


def run_files(name: str, **more: str) -> dict[str, str]:
  """Return the files of a run that all its readers read."""
  return {
    "config.json": f"{name}/config.json",
    "checkpoint": f"{name}/checkpoints/20/**/*",
    **more,
  }


RESULTS = {"results": "run/*.json", "CSV": "run/metrics.csv"}
JOBS = (
  Job(f"train --config=ring:flow_matching --workdir=new {SMALL}"),
  Job(
    f"train --config=own.py:mean_flow --workdir=new {SMALL}",
    {"config file": "own.py"},
    "new/metrics.csv",
  ),
  Job(
    "train --config=ring:flow_matching --workdir=run "
    + SMALL.replace("steps=20", "steps=30"),
    run_files("run", CSV="run/metrics.csv"),
  ),
  Job(
    "train --config=ring:consistency_distillation --workdir=new "
    f"--config.teacher.workdir=run {SMALL}",
    run_files("run"),
    "new/metrics.csv",
  ),
  Job(
    f"train {REFLOW} --config.data.pairs=pairs --workdir=new {SMALL}",
    run_files("run", pairs="pairs/*"),
    "new/metrics.csv",
  ),
  Job(
    "train --config=latents:flow_matching --config.data.data_dir=latents "
    f"--workdir=new {SMALL} {DIT}",
    {"latents": "latents/*"},
    "new/metrics.csv",
  ),
  Job("sample --workdir=run --out=a.npz --num=8", run_files("run"), "a.npz"),
  Job(
    "sample --workdir=digits --out=a.npz --num=8 --label=3 --step=20 --seed=1",
    run_files("digits"),
    "a.npz",
  ),
  Job("sample --workdir=digits --out=a.png --num=8", run_files("digits")),
  Job(
    "evaluate --workdir=run --nfe=2",
    run_files("run", results="run/evaluation.json"),
    "run/evaluation.json",
  ),
  Job(
    f"evaluate --workdir=digits --nfe=1 {CLASSIFIER} "
    "--config.evaluation.reference=stats.npz --config.evaluation.split=train",
    run_files("digits", statistics="stats.npz", classifier="classifier.npz"),
    "digits/evaluation.json",
  ),
  Job(
    "pairs --workdir=run --out=new --num=16 --nfe=2 --shard_size=8",
    run_files("run"),
    "new",
  ),
  Job(
    "pairs --workdir=run --out=pairs --num=64 --shard_size=32 --nfe=2",
    run_files("run", pairs="pairs/*"),
    "pairs",
  ),
  Job(f"rectify --workdir=new {ROUNDS} --teacher=run", run_files("run")),
  Job(
    f"rectify --workdir=rounds {ROUNDS}",
    {
      "rounds": "rounds/rectify.json",
      "pairs": "rounds/pairs_1/*",
      **run_files("rounds/round_0"),
    },
  ),
  Job(
    BASE[0].replace("latents", "new"), {"weights": "weights.safetensors"}, "new"
  ),
  Job(BASE[0], {"weights": "weights.safetensors", "latents": "latents/*"}),
  Job(
    f"stats --config=digits:flow_matching --out=s.npz {CLASSIFIER} --num=64",
    {"classifier": "classifier.npz"},
    "s.npz",
  ),
  Job("bench --workdir=run --nfe=1 --batch=1", run_files("run", **RESULTS)),
  Job(
    "bench --workdir=digits --nfe=1 --batch=1 --teacher=digits --teacher_nfe=2",
    run_files("digits"),
  ),
  Job("report --workdir=run --num=16", run_files("run", **RESULTS)),
  Job(f"compile --config=ring:mean_flow --topology=host:1 {SMALL}"),
  Job(
    f"compile --config=own.py:mean_flow --topology=host:1 {SMALL}",
    {"config file": "own.py"},
  ),
  Job("methods"),
  Job("presets", {"config file": "configs/own.py"}),
)
OWN = """
from jaxflow.config import default_config

def get_config(method):
  return default_config(method, data="ring", model="mlp")
"""


@dataclasses.dataclass
class Case:
  """One spoiled input and how it was answered.

  Attributes:
    job: The command before it was spoiled.
    kind: "flag", "field" or a kind of file.
    what: What was spoiled, and how.
    argv: The command line.
    names: Texts of which the answer must have one.
    wrong: Whether a result without a word is nonsense.
    compare: Whether a result must be the one of undamaged input.
  """

  job: Job
  kind: str
  what: str
  argv: list[str]
  names: tuple[str, ...] = ()
  wrong: bool = False
  compare: bool = False
  verdict: str = ""
  reason: str = ""
  line: str = ""


# Values by the type of a flag or field: those that are never right, and those
# that may be.
NEVER: dict[Any, tuple[str, ...]] = {
  bool: ("maybe", "2", "nan"),
  int: ("x", "1.5", "nan", "-3", "1e3x", "0x", "-9" + "9" * 30),
  float: ("x", "nan", "1,5", "1e5e", "--", "inf", "-inf"),
  list: ("x", "1,,2", "-3", "nan", "1.5", "1,x", "{}"),
  str: ("nosuch", "no such", "7", "\u2603"),
}
PERHAPS: dict[Any, tuple[str, ...]] = {
  bool: ("0", ""),
  int: ("0", "", "1e3", str(10**6), str(2**31), str(2**63), "9" * 30),
  float: ("-3", "0", "1e30", "1e-30", ""),
  list: ("0", "()", "", str(2**31), "1,1,1,1,1", "9" * 30),
  str: ("", "x" * 300, "/proc/x", "/dev/null/x", "own.py"),
}
KINDS = {"bool": bool, "float": float, "int": int, "numbers": list}
# Any text may be right there, or decides nothing.
FREE = ("raw_dir", "data_dir", "out", "pairs_digest", "config", "init.ema")
FREE += ("features.ema", "features.workdir", "s_max")
# Texts that are right there: 7 is a class.
RIGHT = {"label": ("7",)}
# Numbers for options of components, whose ranges are in their signatures.
NUMBERS = ("-3", "0", "1", "7", "-inf", "inf")
# They reach outside this machine, or ask for long work that is right.
LEFT_OUT = ("wandb", "debug", "version", "distributed", "download")
# Any number of them is right, and large ones take hours.
LEFT_OUT += ("train.steps", "flow.steps", "evaluation.num", "help")


def copy(job: Job, base: pathlib.Path, folder: pathlib.Path) -> None:
  """Copy the files that a job uses."""
  words = {
    part
    for word in (*job.argv, *job.reads.values(), "configs")
    for part in re.split("[=/:]", word)
  }
  for path in base.iterdir():
    if path.name in words:
      take = shutil.copytree if path.is_dir() else shutil.copy2
      take(path, folder / path.name)


def spoiled(job: Job, folder: pathlib.Path, rng: random.Random) -> Case:
  """Spoil one thing of a job whose files are in a folder; return the case."""
  command = main.command_of(job.argv[0])
  fields = 4 if command.takes_config else 2 if command.changes else 0
  kind = rng.choice(["flag", *job.reads, *job.reads, *["field"] * fields])
  if kind == "flag":
    return _flag(job, rng)
  if kind == "field":
    return _field(job, folder, rng)
  files = sorted(p for p in folder.glob(job.reads[kind]) if p.is_file())
  path = rng.choice(files)
  name = path.relative_to(folder)
  how, wrong, compare = damages.of(path)(path, rng)
  names = (path.name, *re.findall(r"(\w+)=", how))
  if kind in ("checkpoint", "pairs", "latents"):
    names += name.parts[:1]
  elif kind == "config.json":
    names += ("config",)
  elif kind == "config file":
    names += tuple(re.findall(r"c\.([\w.]+)", how))
  # Presets are listed whatever is in them, and of results only some are shown.
  # Weights from elsewhere cannot be checked.
  listed = job.text == "presets"
  wrong &= not listed and kind != "results"
  return Case(
    job=job,
    kind=kind,
    what=f"{name}: {how}",
    argv=job.argv,
    names=() if listed else names,
    wrong=wrong,
    compare=compare and kind != "weights",
  )


def _flag(job: Job, rng: random.Random) -> Case:
  """Spoil a flag: its value, its name, or the words around it."""
  values = flags.defined(main.command_of(job.argv[0]))
  names = sorted(n for n in values if n not in LEFT_OUT and "FIELD" not in n)
  odd = ["--nosuch=1", "--distributed=perhaps", "nosuch", "--=1", "-x"]
  odd += [f"--{name[:-1]}y=1" for name in names]
  if not names or rng.random() < 0.15:
    given, wrong = rng.choice(odd), True
    name = given.strip("-").split("=")[0]
  else:
    name = rng.choice(names)
    kind = KINDS.get(values[name].flag_type(), str)
    value, wrong = _value(kind, name, rng)
    # A new folder may have any name.
    wrong &= name != "workdir" or job.argv[0] not in ("train", "rectify")
    given = f"--{name}={value}"
  return Case(job, "flag", given, [*job.argv, given], (name,), wrong)


def _field(job: Job, folder: pathlib.Path, rng: random.Random) -> Case:
  """Spoil a field of the config."""
  changes = main.command_of(job.argv[0]).changes
  with contextlib.chdir(folder):
    config = _config(job)
  fields = {
    name: value
    for name, value in flatten(config.to_dict()).items()
    if not name.endswith(LEFT_OUT)
    and ".config" not in name
    and (not changes or any(f"{name}.".startswith(f"{c}.") for c in changes))
  }
  name = rng.choice(sorted(fields))
  section, _, last = name.rpartition(".")
  kinds, chance, more = components(config), rng.random(), []
  if chance < 0.1:
    other = rng.choice([f"{name}x", f"no.{name}", section, f"{name}.x"])
    given, wrong = f"--config.{other}=1", True
  elif chance < 0.13:
    given, wrong = f"--config.{name}", not isinstance(fields[name], bool)
  elif last == "name" and section in kinds and chance < 0.6:
    makers = registry.KINDS[kinds[section]]
    value = rng.choice(sorted(makers))
    given, wrong = f"--config.{name}={value}", False
    ranges = {
      k: x
      for k, x in options.marked(makers[value], options.Range).items()
      if options.parameters(makers[value])[k].default.__class__ in (int, float)
    }
    if ranges and chance < 0.4:
      last, number = rng.choice(sorted(ranges)), rng.choice(NUMBERS)
      wrong = not ranges[last].allows(float(number))
      more = [f"--config.{section}.{last}={number}"]
  else:
    kind = type(fields[name])
    if fields[name] is None:
      kind = str if name.endswith(FREE) else int
    value, wrong = _value(kind, name, rng)
    given = f"--config.{name}={value}"
  # `compile` takes a teacher that is not there to be like the student.
  absent = name.endswith("workdir") or name == "teacher.ema"
  wrong &= job.argv[0] != "compile" or not absent
  # Only evaluations read it.
  wrong &= job.argv[0] == "evaluate" or name != "evaluation.reference"
  names = last, section, f"{section.rpartition('.')[2]}="  # solver='euler'
  what = " ".join([given, *more])
  return Case(job, "field", what, [*job.argv, given, *more], names, wrong)


def _config(job: Job) -> Any:
  """Return the config that a job reads."""
  given = dict(word.partition("=")[::2] for word in job.argv)
  if "--config" in given:
    return presets.load_file(given["--config"])
  return load_config(pathlib.Path(given["--workdir"]))


def _value(kind: Any, name: str, rng: random.Random) -> tuple[str, bool]:
  """Return a value for a flag or field, and whether it is wrong for sure."""
  never = rng.random() < 0.6
  value = rng.choice((NEVER if never else PERHAPS)[kind])
  right = name.endswith(FREE) or value in RIGHT.get(name, ())
  return value, never and not right
