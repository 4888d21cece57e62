"""An experiment: what it measures, what it claims, what it writes."""

import argparse
import dataclasses
import os
import pathlib
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from absl import logging

from experiments.runner import pages
from experiments.runner.bench import Bench
from experiments.runner.results import Results, Row
from experiments.runner.verdicts import Claim
from jaxflow.errors import RunError, UsageError

# The short form compiles much and computes little.
_COMPILE_FAST = (
  "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Column:
  """A metric as a column of the table.

  Attributes:
    metric: Its name in the rows.
    heading: What stands above it, with the unit.
    format: How a number is written.
    missing: What stands for a number that is not there.
  """

  metric: str
  heading: str
  format: str = ".3f"
  missing: str = "diverged"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Study:
  """One experiment.

  Attributes:
    name: Of its folder.
    question: What it answers, in one sentence.
    settings: Everything that can be set; "seeds" is how many.
    quick: What of it is different in the short form, under 60 s.
    measure: Makes the rows; pictures of samples go to `bench.figures`.
    claims: What the rows say of the claims.
    columns: What of the rows the table shows.
    figures: Draws figures of the rows into a folder, or None.
  """

  name: str
  question: str
  settings: Mapping[str, Any]
  quick: Mapping[str, Any]
  measure: Callable[[Bench], Sequence[Row]]
  claims: Callable[[Results], Sequence[Claim]]
  columns: Sequence[Column]
  figures: Callable[[Results, pathlib.Path], None] | None = None

  @property
  def folder(self) -> pathlib.Path:
    """Where the experiment stands."""
    return pathlib.Path(__file__).parents[1] / self.name

  def main(self) -> None:
    """Run the experiment from the command line."""
    parser = argparse.ArgumentParser(description=self.question)
    parser.add_argument(
      "--workdir",
      type=pathlib.Path,
      default=pathlib.Path("runs/experiments") / self.name,
      help="where trained networks are kept; the same command uses them again",
    )
    parser.add_argument(
      "--quick",
      action="store_true",
      help="a small form, under a minute; prints only",
    )
    arguments = parser.parse_args()
    # Libraries warn of what a reader of the table can do nothing about.
    logging.set_verbosity(logging.ERROR)
    try:
      if arguments.quick:
        with tempfile.TemporaryDirectory() as folder:
          self.run(pathlib.Path(folder), quick=True)
      else:
        self.run(arguments.workdir, quick=False)
    except (UsageError, RunError) as error:
      print(f"{self.name}: {error}", file=sys.stderr)
      sys.exit(1)
    except KeyboardInterrupt:
      sys.exit("interrupted: the same command goes on with the next network")

  def run(self, workdir: pathlib.Path, *, quick: bool) -> Results:
    """Measure, judge and print; write what is kept of the full form.

    Args:
      workdir: Where trained networks are kept.
      quick: Whether to run the short form, which writes to `workdir` only.
    """
    began = time.perf_counter()
    if quick:
      os.environ.setdefault("XLA_FLAGS", _COMPILE_FAST)
    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
      cache = workdir if quick else workdir.parent
      jax.config.update("jax_compilation_cache_dir", str(cache / "xla"))
      # Runs that differ in the seed share their programs, small ones too.
      jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    figures = workdir / "figures" if quick else self.folder / "results"
    figures.mkdir(parents=True, exist_ok=True)
    bench = Bench(
      settings={**self.settings, **(self.quick if quick else {})},
      workdir=workdir,
      figures=figures,
      quick=quick,
    )
    print(self.question, flush=True)
    rows = [row.as_json() for row in self.measure(bench)]
    seconds = time.perf_counter() - began
    results = Results(self._about(bench, seconds), rows)
    claims = [claim.as_json() for claim in self.claims(results)]
    results = dataclasses.replace(results, claims=claims)
    if self.figures is not None:
      self.figures(results, figures)
    print(pages.as_text(self, results))
    if not quick:
      results.save(self.folder / "results" / f"{self.name}.json")
      pages.write(self, results)
    print(f"{self.name}: {seconds:.0f} s")
    return results

  def _about(self, bench: Bench, seconds: float) -> dict[str, Any]:
    """Return how the numbers came about."""
    return {
      "command": f"python -m experiments.{self.name}.run",
      "settings": bench.settings,
      "seeds": list(bench.seeds),
      "seconds": round(seconds),
      "seconds_training": round(bench.trained),
      "hardware": f"{os.cpu_count()} CPU cores, {platform.machine()}",
      "python": platform.python_version(),
      "jax": jax.__version__,
      "date": time.strftime("%Y-%m-%d"),
    }
