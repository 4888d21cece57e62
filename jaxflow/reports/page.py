"""Write what is known of a run as one page."""

import pathlib
import tempfile
from collections.abc import Iterator
from typing import Any

import jax

from jaxflow import evaluation, figures, reports
from jaxflow.config import Config
from jaxflow.config.files import flatten, load_config, sampling_of
from jaxflow.errors import RunError, UsageError
from jaxflow.files import replace_file
from jaxflow.parallel import processes, sharding
from jaxflow.reports import html
from jaxflow.reports.gallery import gallery
from jaxflow.reports.sampled_runs import Contestant
from jaxflow.runs.run import Run, load


def report(
  workdir: pathlib.Path, *, nfe: int | None = None, num: int | None = None
) -> pathlib.Path:
  """Write `report.html`: config, curves, evaluation, costs, pictures.

  What is missing is left out, with the reason in its place.

  Args:
    workdir: The run's folder.
    nfe: Network calls per sample of the pictures; default: `sample.nfe`.
    num: How many samples are compared with data; default: as `gallery` says.

  Returns:
    The file, which needs no other.

  Raises:
    UsageError: If an argument is wrong, the workdir holds no run, or a file in
      it is damaged.
    RunError: If the page cannot be written.
  """
  config = load_config(workdir, field="--workdir")
  if num is not None and num < 2:
    raise UsageError(f"--num={num}: give at least 2 samples")
  field = "sample.nfe" if nfe is None else "--nfe"
  calls: int = config.sample.nfe if nfe is None else nfe
  Run.of(config).model.make_sampler(calls, field)
  mesh = sharding.fitting_mesh(config.mesh)
  run, state = load(
    workdir,
    field="--workdir",
    mesh=mesh,
    ema=config.sample.ema,
    roles=("teacher",),
  )
  contestant = Contestant(role="run", run=run, state=state, field=field)
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    parts = [
      *_facts(config, contestant),
      *_curves(workdir, folder),
      *_scores(workdir, config, int(state.step)),
      *_costs(workdir),
    ]
    for picture in gallery(
      workdir, folder, contestant, mesh, nfe=calls, num=num
    ):
      parts += _shown(picture.title, picture.text, picture.file)
  text = html.page(f"{config.method} on {config.data.name}", parts)
  file = workdir / "report.html"
  processes.once(lambda: _write(file, text))
  return file


def _facts(config: Config, contestant: Contestant) -> list[str]:
  count = sum(x.size for x in jax.tree.leaves(contestant.params))
  line = (
    f"Step {int(contestant.state.step)} of {config.train.steps}; {count:,} "
    f"parameters; average {config.sample.ema!r}; jax {jax.__version__}."
  )
  fields = flatten(config.to_dict())
  rows = [(name, _plain(value)) for name, value in sorted(fields.items())]
  return [
    html.paragraph(line),
    html.folded(f"Config: {len(rows)} fields", html.table((), rows)),
  ]


def _curves(workdir: pathlib.Path, folder: pathlib.Path) -> list[str]:
  file = folder / "curves.png"
  during = workdir / "evaluations.csv"
  try:
    figures.save_curves(
      figures.read_log(workdir / "metrics.csv"),
      file,
      evaluations=figures.read_log(during) if during.is_file() else None,
    )
  except UsageError as error:
    return _shown("Training", f"left out: {error}", None)
  return _shown("Training", "", file)


def _scores(workdir: pathlib.Path, config: Config, step: int) -> list[str]:
  path = workdir / "evaluation.json"
  rows = evaluation.read_rows(path)
  if not rows:
    text = "left out: there is no evaluation.json; run jaxflow evaluate"
    return _shown("Evaluation", text, None)
  columns = ("metric", "NFE", "step", "value", "real data", "samples")
  tables: dict[str, list[dict[str, Any]]] = {}
  for row in rows:
    tables.setdefault(_title(row, config, step), []).append(row)
  parts = []
  for title, alike in tables.items():
    parts += [
      html.heading(title),
      html.table(columns, _score_cells(alike)),
    ]
  return [
    *parts,
    html.note("Real data: the same number with fresh real samples."),
  ]


def _title(row: dict[str, Any], config: Config, step: int) -> str:
  """Say in what an evaluation is of other samples than this page."""
  found = []
  if row["step"] != step:
    found.append(f"step {row['step']}")
  if row.get("ema", config.sample.ema) != config.sample.ema:
    found.append(f"average {row['ema']!r}")
  own = flatten(sampling_of(config))
  sampled = flatten(row.get("sampling", sampling_of(config)))
  found += [
    f"{name}={sampled.get(name)}"
    for name in sorted(own.keys() | sampled.keys())
    if own.get(name) != sampled.get(name)
  ]
  return "Evaluation" + (f" with {', '.join(found)}" if found else "")


def _score_cells(rows: list[dict[str, Any]]) -> Iterator[tuple[str, ...]]:
  names = dict.fromkeys(name for row in rows for name in row["scores"])
  for name in names:
    for row in rows:
      score = row["scores"].get(name)
      if score is not None:
        yield (
          name,
          "" if row["nfe"] is None else str(row["nfe"]),
          str(row["step"]),
          _number(score["value"], score.get("error")),
          _number(score.get("real"), score.get("real_error")),
          str(score.get("num", "")),
        )


def _costs(workdir: pathlib.Path) -> list[str]:
  costs = reports.read_costs(workdir / "bench.json")
  if not costs:
    text = "left out: there is no bench.json; run jaxflow bench"
    return _shown("Costs", text, None)
  columns = [x.replace("\n", " ") for x in reports.COST_COLUMNS]
  rows = []
  for cost in costs:
    first, *others = reports.cost_cells(cost)
    rows.append([first, str(cost.batch), *others])
  picture = workdir / "bench.png"
  return [
    html.heading("Costs"),
    html.table([columns[0], "batch", *columns[1:]], rows),
    html.note(
      "Over calls: beyond what as many calls of the network alone take."
    ),
    *([html.picture(picture, "quality and latency")] * picture.is_file()),
  ]


def _shown(title: str, text: str, file: pathlib.Path | None) -> list[str]:
  if file is None:
    return [html.heading(title), html.note(text)]
  return [html.heading(title), html.picture(file, title, text)]


def _number(value: float | None, error: float | None) -> str:
  if value is None:
    return ""
  return f"{value:.4g}" if error is None else f"{value:.4g} ± {error:.2g}"


def _plain(value: Any) -> str:
  return "" if value is None else str(value)


def _write(file: pathlib.Path, text: str) -> None:
  try:
    replace_file(file, lambda draft: draft.write_text(text))
  except OSError as error:
    raise RunError(
      f"{file} cannot be written ({error.strerror}): make --workdir writable"
    ) from error
