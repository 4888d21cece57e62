"""Give all commands wrong and damaged input; count how they answer.

A seeded generator takes a command that works and spoils one thing: a flag, a
field of the config, or a file that the command reads. An answer is clear if it
is one line that names what is wrong, a warning beside a result, or the result
that undamaged input has. Otherwise it is

  unclear    the text of a raw exception, a line that does not name what is
             wrong, or a run that was changed all the same
  traceback  or an end by a signal
  nonsense   a result of input that is wrong, without a word
  hang       no end within the time limit

Every command runs in a fork of a process that has imported everything.
"""

import argparse
import collections
import importlib
import json
import math
import os
import pathlib
import platform
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from typing import Any

import inputs
import jax
import numpy as np
import safetensors.numpy
from rich.console import Console
from rich.table import Table
from run import hashes, logged

from jaxflow.commands import main

HERE = pathlib.Path(__file__).parent
RESULTS = HERE / "results"
VERDICTS = ("clear", "unclear", "traceback", "nonsense", "hang")
AT_ONCE, SECONDS, MEMORY = 2, 150, 12 * 2**30
# Modules that commands import when they run.
HEAVY = (
  *("api", "compilation.of_config", "evaluation.data_statistics"),
  *("reports.bench", "reports.page", "runs.encoding", "runs.rounds"),
  *("runs.train", "training.wandb_log"),
)
# Texts that only a reader of the code understands.
RAW = re.compile(
  r"\w(Error|Exception)\b|object (has no|is not|cannot)|NoneType|<class|dtype\("
  r"|argument (must|of type)|unsupported operand|not supported between|\bjaxlib"
  r"|unexpected keyword|positional argument|invalid literal|could not convert"
  r"|unhashable|indices must|out of range for|ShapeDtypeStruct|INVALID_ARGUMENT"
  r"|RESOURCE_EXHAUSTED|cannot be interpreted|must be real|to unpack|broadcast"
  r"|\[Errno|not subscriptable|not iterable|_ARRAY_API|Traceback"
)
NOISE = re.compile(r"^([EFW]\d{4} |Exception ignored|Fatal )", re.MULTILINE)


def run() -> None:
  """Run the campaign."""
  parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  parser.add_argument("--inputs", type=int, default=1000)
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--workdir", help="keeps what the commands read")
  parser.add_argument(
    "--quick", action="store_true", help="forty inputs; prints only"
  )
  arguments = parser.parse_args()
  count = 40 if arguments.quick else arguments.inputs
  os.environ |= {
    "JAX_PLATFORMS": "cpu",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "XLA_FLAGS": "--xla_backend_optimization_level=0",
  }
  for name in (*(f"commands.{name}" for name in main.COMMANDS), *HEAVY):
    importlib.import_module(f"jaxflow.{name}")
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(arguments.workdir or name).absolute()
    jax.config.update("jax_compilation_cache_dir", f"{folder}/xla")
    if not (folder / "base").exists():
      make_base(folder / "new")
      (folder / "new").rename(folder / "base")
    cases = []
    for case in campaign(folder, folder / "base", count, arguments.seed):
      cases.append(case)
      # What is written so far stays where the rest is interrupted.
      if not arguments.quick and (len(cases) % 100 == 0 or len(cases) == count):
        write(cases, arguments)
  show(cases)


def make_base(base: pathlib.Path) -> None:
  """Make the runs and files that the commands read."""
  (base / "configs").mkdir(parents=True)
  for file in ("own.py", "configs/own.py"):
    (base / file).write_text(inputs.OWN)
  # The tests have small weights under published names.
  sys.path.append(str(HERE.parents[1] / "tests"))
  plain_autoencoder = importlib.import_module("plain_autoencoder")
  weights = plain_autoencoder.tensors()
  safetensors.numpy.save_file(weights, base / "weights.safetensors")
  for text in inputs.BASE:
    child = Child(text.split(), base, math.inf)
    while not child.ended():
      time.sleep(0.01)
    if child.code != 0:
      raise SystemExit(f"{text} failed:\n{child.err}")
  (base / "digits_classifier.npz").rename(base / "classifier.npz")


class Child:
  """A fork that runs one command in a folder."""

  def __init__(
    self, argv: list[str], folder: pathlib.Path, seconds: float = SECONDS
  ):
    self._folder, self._end = folder, time.monotonic() + seconds
    self.code: int | None = None
    self.out = self.err = ""
    self._pid = os.fork()
    if not self._pid:
      self._become(argv)

  def _become(self, argv: list[str]) -> None:
    os.setsid()
    os.chdir(self._folder)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    files = ((0, os.devnull), (1, ".out"), (2, ".err"))
    for number, name in files:
      os.dup2(os.open(name, os.O_RDWR | os.O_CREAT | os.O_TRUNC), number)
    code: Any = 1
    try:
      code = main.run(["jaxflow", *argv])
    except SystemExit as error:
      code = error.code or 0
    except BaseException:
      traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else 1)

  def ended(self) -> bool:
    """Return whether it has ended; end it where its time is over."""
    pid, status = os.waitpid(self._pid, os.WNOHANG)
    if not pid and time.monotonic() < self._end:
      return False
    if pid:
      self.code = os.waitstatus_to_exitcode(status)
    else:
      os.killpg(self._pid, signal.SIGKILL)
      os.waitpid(self._pid, 0)
    for name in ("out", "err"):
      text = (self._folder / f".{name}").read_text(errors="replace")
      setattr(self, name, text)
    return True


def campaign(
  folder: pathlib.Path, base: pathlib.Path, count: int, seed: int
) -> Iterator[inputs.Case]:
  """Yield judged cases."""
  answers = {}
  for job in inputs.JOBS:
    if job.answer or job.reads:
      place = fresh(folder / "valid", job, base)
      child = Child(job.argv, place, math.inf)
      while not child.ended():
        time.sleep(0.01)
      assert child.code == 0, (job.text, child.code, child.out, child.err)
      answers[job.text] = answer(place, job)
      assert answers[job.text] or not job.answer, job.text
  seen, running = set(), []
  number = done = 0
  while done < count or running:
    if len(running) < AT_ONCE and done < count:
      job = inputs.JOBS[number % len(inputs.JOBS)]
      place = fresh(folder / f"case{number}", job, base)
      case = inputs.spoiled(job, place, random.Random(f"{seed} {number}"))
      number += 1
      key = (job.text, case.what)
      if key in seen:
        shutil.rmtree(place)
        continue
      seen.add(key)
      done += 1
      before = [hashes(path) for path in place.iterdir()]
      running.append((case, place, before, Child(case.argv, place)))
      continue
    for entry in list(running):
      case, place, before, child = entry
      if child.ended():
        running.remove(entry)
        now = [hashes(path) for path in place.iterdir()]
        changed = any(old not in now for old in before)
        judge(case, child, changed, answers.get(case.job.text), place)
        shutil.rmtree(place, ignore_errors=True)
        if case.verdict != "clear":
          print(
            f"[{done}] {case.verdict}: {case.job.text[:40]}, "
            f"{case.what}: {case.reason}: {case.line}",
            flush=True,
          )
        yield case
    time.sleep(0.01)


def fresh(place: pathlib.Path, job: inputs.Job, base: pathlib.Path):
  """Return a new folder with the files of a job."""
  shutil.rmtree(place, ignore_errors=True)
  place.mkdir()
  inputs.copy(job, base, place)
  return place


def answer(place: pathlib.Path, job: inputs.Job) -> Any:
  """Return the result of a job, without what the clock says."""
  path = place / job.answer
  if not job.answer or not path.exists():
    return None
  if path.suffix == ".npz":
    with np.load(path) as file:
      return {name: file[name].tobytes() for name in file.files}
  if path.suffix == ".csv":
    return logged(path.parent)
  if path.suffix == ".json":
    rows = json.loads(path.read_text())["rows"]
    return [(row["nfe"], row["scores"]) for row in rows]
  shards = [*path.glob("*.array_record"), *path.glob("*.npy")]
  return {shard.name: shard.read_bytes() for shard in shards}


def judge(
  case: inputs.Case,
  child: Child,
  changed: bool,
  expected: Any,
  place: pathlib.Path,
) -> None:
  """Set verdict, reason and line of a case."""
  lines = child.err.strip().splitlines() or [""]
  case.line, command = lines[-1], case.argv[0]
  told = bool(child.err.strip()) or "warning" in child.out.lower()
  # Training may go on, and set aside what is damaged.
  kept = command not in ("train", "rectify") or bool(child.code)
  other = case.compare and child.code == 0 and case.job.answer
  case.verdict = "unclear"
  if child.code is None:
    case.verdict, case.reason = "hang", f"{SECONDS} s"
  elif child.code < 0 or "Traceback (most recent" in child.out + child.err:
    case.verdict, case.reason = "traceback", f"exit {child.code}"
  elif kept and changed and "damaged-" not in str(list(place.rglob("*"))):
    case.reason = "the run was changed"
  elif NOISE.search(child.err):
    case.reason = "noise of libraries"
    case.line = next(x for x in lines if NOISE.search(x))
  elif not child.code and told:
    case.verdict = "clear"
  elif not child.code and case.wrong:
    case.verdict, case.reason = "nonsense", "accepted"
    case.line = child.out.strip().split("\n")[-1]
  elif not child.code and other and answer(place, case.job) != expected:
    case.verdict, case.reason = "nonsense", "another result without a word"
  elif not child.code:
    case.verdict = "clear"
  elif not re.match(rf"jaxflow( {command})?: ", case.line):
    case.reason = f"exit {child.code} without a line of ours"
  elif "(--debug shows where)" in case.line:
    case.reason = "raw exception"
  # A file that is code may raise what it will.
  elif RAW.search(case.line) and case.kind != "config file":
    case.reason = "raw text"
  elif case.names and not any(name in child.err for name in case.names):
    case.reason = f"names none of {', '.join(case.names)}"
  else:
    case.verdict = "clear"


def counted(cases: list[inputs.Case], key: str) -> dict[str, dict[str, int]]:
  """Return counts of verdicts by command or kind."""
  counts: dict[str, Any] = {}
  for case in cases:
    name = case.argv[0] if key == "command" else case.kind
    counts.setdefault(name, collections.Counter())[case.verdict] += 1
  total = collections.Counter(case.verdict for case in cases)
  return {k: dict(v) for k, v in sorted(counts.items())} | {"all": dict(total)}


def show(cases: list[inputs.Case]) -> None:
  """Print the counts."""
  for key in ("command", "kind"):
    table = Table(key, *VERDICTS)
    for name, counts in counted(cases, key).items():
      table.add_row(name, *(str(counts.get(v, 0)) for v in VERDICTS))
    Console(width=100).print(table)


def write(cases: list[inputs.Case], arguments: argparse.Namespace) -> None:
  """Write the counts, and what is not clear."""
  found = []
  for case in sorted(cases, key=lambda case: (case.verdict, case.argv[0])):
    row = {"verdict": case.verdict, "command": case.argv[0], "kind": case.kind}
    # What crashes or hangs is named by its kind only.
    if case.verdict in ("unclear", "nonsense"):
      row |= {"what": case.what, "reason": case.reason, "line": case.line}
    if case.verdict != "clear":
      found.append(row)
  command = f"--inputs={arguments.inputs} --seed={arguments.seed}"
  result = {
    "command": f"python experiments/chaos/campaign.py {command}",
    "jax": jax.__version__,
    "python": platform.python_version(),
    "machine": f"{os.cpu_count()} CPU cores",
    # Fewer than the command asks for where it was interrupted.
    "inputs": len(cases),
    "seconds_for_each": SECONDS,
    "by_command": counted(cases, "command"),
    "by_kind": counted(cases, "kind"),
    "not_clear": found,
  }
  RESULTS.mkdir(exist_ok=True)
  text = json.dumps(result, indent=1, ensure_ascii=False)
  (RESULTS / "campaign.json").write_text(text + "\n")


if __name__ == "__main__":
  run()
