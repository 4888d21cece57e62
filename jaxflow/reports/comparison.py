"""Set runs side by side: what they scored, what they cost, how they learned."""

import dataclasses
import os
import pathlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table

from jaxflow import figures
from jaxflow.config import flatten, load_config
from jaxflow.errors import UsageError, named
from jaxflow.files import part_of, probe, write_text, writing
from jaxflow.metrics.scores import ARROWS, place
from jaxflow.metrics.table import direction
from jaxflow.metrics.text_tables import render, with_error
from jaxflow.reports import html
from jaxflow.reports.costs import Cost, read_costs
from jaxflow.reports.quality import read_rows

_COLUMNS = ("", "run", "NFE", "value", "real data", "N")
# Fields of a config that differ between runs of any two folders.
_PLACES = ("workdir", "stored_dir", "pairs_digest")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compared:
  """What the files of a run say.

  Attributes:
    folder: The run's folder.
    config: Its config, field by field.
    rows: Its evaluations.
    costs: Costs of its sampler.
    log: Columns of its training by name, none if there is no log.
    during: Columns of evaluations while it trained.
  """

  folder: pathlib.Path
  config: Mapping[str, Any]
  rows: Sequence[Mapping[str, Any]]
  costs: Sequence[Cost]
  log: Mapping[str, Any]
  during: Mapping[str, Any]


def compare(
  workdirs: Sequence[pathlib.Path],
  out: pathlib.Path | None = None,
  *,
  log: Callable[[str], None] = print,
) -> None:
  """Print a table of runs, and write it as a page with their curves.

  The page is `out`; the picture of the curves stands in it, and beside it as a
  PNG file. Only files of the runs are read: those of `evaluate`, `bench` and
  `train`. What is not there is left out, with a line.
  """
  if len(workdirs) < 2:
    raise UsageError(f"workdirs={','.join(map(str, workdirs))}: give 2 or more")
  twice = {str(x) for x in workdirs if workdirs.count(x) > 1}
  if twice:
    raise UsageError(f"workdirs={min(twice)} is given twice: give it once")
  names = short_names(workdirs)
  runs = {n: _read(x) for n, x in zip(names, workdirs, strict=True)}
  picture = out and out.with_suffix(".png")
  for file in (out, picture):
    if file is not None:
      with writing(file):
        probe(file)
  notes = _notes(runs)
  lines = _lines(runs)
  if lines:
    log(_text(lines))
  for note in notes:
    log(note)
  if out is None or picture is None:
    return
  write_text(out, _page(runs, lines, notes, picture))
  log(f"{out} and {picture.name}: {len(runs)} runs")


def short_names(workdirs: Sequence[pathlib.Path]) -> list[str]:
  """Return the shortest ends of paths that tell them apart.

  Example:
    >>> short_names([pathlib.Path("runs/a/x"), pathlib.Path("runs/b/x")])
    ['a/x', 'b/x']
  """
  parts = [os.path.abspath(x).split(os.sep) for x in workdirs]
  for count in range(1, max(map(len, parts)) + 1):
    names = ["/".join(x[-count:]) for x in parts]
    if len(set(names)) == len(names):
      return names
  raise UsageError(f"workdirs={workdirs[0]} is given twice: give it once")


def _read(folder: pathlib.Path) -> Compared:
  """Read what a folder holds of a run."""

  def read_log(name: str) -> Mapping[str, Any]:
    file = part_of(folder, name)
    return figures.read_log(file) if file.is_file() else {}

  with named(workdir="workdirs"):
    config = flatten(load_config(folder).to_dict())
  return Compared(
    folder=folder,
    config=config,
    rows=read_rows(part_of(folder, "evaluation.json")),
    costs=read_costs(part_of(folder, "bench.json")),
    log=read_log("metrics.csv"),
    during=read_log("evaluations.csv"),
  )


def _lines(runs: Mapping[str, Compared]) -> list[tuple[str, ...]]:
  """Return the rows of the table, those of a quantity together."""
  scores, costs = [], []
  for run, found in runs.items():
    for row in found.rows:
      for metric, score in row["scores"].items():
        counts = dict.fromkeys(n for n in (score.num, score.real_num) if n)
        scores.append(
          (
            f"{metric} {ARROWS[direction(metric)]}",
            run,
            _nfe(row["nfe"]),
            with_error(score.value, score.error),
            with_error(score.real, score.real_error),
            "/".join(map(str, counts)),
          )
        )
      if row["nfe"] and row.get("samples_per_second"):
        speed = f"{row['samples_per_second']:,.0f}"
        costs.append(("samples/s ↑", run, _nfe(row["nfe"]), speed, "", ""))
    for cost in found.costs:
      if cost.model == "run":
        costs += _of_cost(run, cost)
    costs += _of_training(run, found)
  scores.sort(key=lambda line: place(line[0].split()[0]))
  costs = list(dict.fromkeys(costs))  # FLOPs of a sample are of any batch.
  order = list(dict.fromkeys(line[0] for line in costs))
  costs.sort(key=lambda line: order.index(line[0]))
  return [*scores, *costs]


def _of_cost(run: str, cost: Cost) -> list[tuple[str, ...]]:
  latency = f"latency, ms, batch {cost.batch} ↓"
  median, p95 = (1e3 * x for x in (cost.latency.median, cost.latency.p95))
  nfe, text = str(cost.nfe), f"{median:.3g} (p95 {p95:.3g})"
  return [
    (latency, run, nfe, text, "", str(cost.latency.num)),
    ("MFLOP/sample ↓", run, nfe, f"{cost.flops / 1e6:.4g}", "", ""),
  ]


def _of_training(run: str, found: Compared) -> list[tuple[str, ...]]:
  """Return what training took, as far as its log says so."""
  steps = found.log.get("step", ())
  if not len(steps):
    return []
  samples = int(steps[-1]) * found.config["train.batch_size"]
  lines = [("training, samples ↓", run, "", f"{samples:,}", "", "")]
  if "seconds" in found.log:
    time = f"{found.log['seconds'][-1]:,.0f}"
    lines.append(("training, s ↓", run, "", time, "", ""))
  return lines


def _nfe(nfe: int | None) -> str:
  return "" if nfe is None else str(nfe)


def _notes(runs: Mapping[str, Compared]) -> list[str]:
  """Return lines on what is missing, and on what does not compare."""
  notes = []
  for file, what, have in (
    ("evaluation.json", "evaluate", lambda x: x.rows),
    ("bench.json", "bench", lambda x: x.costs),
    ("metrics.csv", "train", lambda x: x.log),
  ):
    without = [run for run, found in runs.items() if not have(found)]
    if without:
      notes.append(
        f"left out of {', '.join(without)}: there is no {file}; run jaxflow "
        f"{what}"
      )
  for field in ("data.name", "data.shape"):
    values = {run: str(found.config[field]) for run, found in runs.items()}
    if len(set(values.values())) > 1:
      told = ", ".join(f"{value} ({run})" for run, value in values.items())
      notes.append(f"{field} is {told}: scores of other data do not compare")
  return notes


def _text(lines: Sequence[Sequence[str]]) -> str:
  """Return the table as text of at most 100 columns."""
  grid = Table(box=box.SIMPLE, collapse_padding=True)
  for name in _COLUMNS:
    right = name in ("NFE", "N", "value", "real data")
    grid.add_column(name, justify="right" if right else "left", overflow="fold")
  for line, ends, first in _grouped(lines):
    grid.add_row(*_once(line, first), end_section=ends)
  return render(grid)


def _grouped(lines: Sequence[Sequence[str]]) -> list[tuple[Any, bool, bool]]:
  """Return lines, and whether each is the last, or the first, of its kind."""
  names = [line[0] for line in lines]
  return [
    (line, names[i + 1 : i + 2] != [line[0]], names[i - 1 : i] != [line[0]])
    for i, line in enumerate(lines)
  ]


def _once(line: Sequence[str], first: bool) -> list[str]:
  """Return the cells of a line; what names its kind stands in the first."""
  return [line[0] if first else "", *line[1:]]


def _differences(runs: Mapping[str, Compared]) -> list[list[str]]:
  """Return fields of the configs that are not the same in all runs."""
  fields = dict.fromkeys(k for found in runs.values() for k in found.config)
  rows = []
  for field in fields:
    values = [str(found.config.get(field, "")) for found in runs.values()]
    if field.rpartition(".")[2] not in _PLACES and len(set(values)) > 1:
      rows.append([field, *values])
  return rows


def _page(
  runs: Mapping[str, Compared],
  lines: Sequence[Sequence[str]],
  notes: Sequence[str],
  picture: pathlib.Path,
) -> str:
  """Write the picture of the curves; return the page, with it inside."""
  parts = [html.paragraph(f"{len(runs)} runs. {html.made_by()}")]
  parts += [html.note(note) for note in notes]
  if lines:
    cells = [_once(line, first) for line, _, first in _grouped(lines)]
    parts += [html.heading("Scores and costs"), html.table(_COLUMNS, cells)]
    parts.append(html.note("Real data: the same with fresh real samples."))
  try:
    logs = {run: found.log for run, found in runs.items() if found.log}
    during = {run: found.during for run, found in runs.items() if found.during}
    figures.save_overlaid_curves(logs, picture, evaluations=during)
    with tempfile.TemporaryDirectory() as name:
      narrow = pathlib.Path(name) / "narrow.png"
      figures.save_overlaid_curves(logs, narrow, evaluations=during, columns=1)
      title = "training curves of all runs"
      curves = html.picture(picture, title, narrow=narrow)
  except UsageError as error:
    curves = html.note(f"left out: {error}")
  parts += [html.heading("Training"), curves]
  parts.append(html.heading("What differs"))
  parts.append(html.table(["field", *runs], _differences(runs)))
  folders = [[run, str(found.folder)] for run, found in runs.items()]
  parts += [html.heading("Folders"), html.table(["run", "folder"], folders)]
  return html.page(f"Comparison of {', '.join(runs)}", parts)
