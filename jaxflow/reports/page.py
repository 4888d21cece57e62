"""Write all that is known of a run as one page."""

import functools
import pathlib
import re
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import jax

from jaxflow import figures
from jaxflow.config import flatten
from jaxflow.errors import UsageError, named
from jaxflow.files import check_workdir, part_of, write_text
from jaxflow.metrics.scores import ARROWS
from jaxflow.metrics.table import direction
from jaxflow.metrics.text_tables import with_error
from jaxflow.parallel import processes
from jaxflow.plans import SamplePlan
from jaxflow.reports import html
from jaxflow.reports.costs import COST_COLUMNS, cost_cells, read_costs
from jaxflow.reports.gallery_samples import GallerySamples
from jaxflow.reports.image_gallery import IMAGE_PICTURES
from jaxflow.reports.plane_gallery import PLANE_PICTURES
from jaxflow.reports.quality import read_rows
from jaxflow.reports.sampled_runs import SampledRun, open_run
from jaxflow.runs.decoding import is_drawn
from jaxflow.runs.drawing import check_num

# Writes a picture to a file and returns its caption; raises UsageError where
# the picture must be left out.
SavePicture = Callable[[pathlib.Path], str]

# Files of a run to which the page links.
_FILES = (
  *("config.json", "metrics.csv", "evaluations.csv", "evaluation.json"),
  *("bench.json", "bench.png"),
)
# Numbers of samples that are compared with data.
_IMAGES = 300
_POINTS = 5000


def report(
  workdir: pathlib.Path, *, nfe: int | None = None, num: int | None = None
) -> pathlib.Path:
  """Write `report.html`: config, curves, evaluation, costs, pictures.

  A missing part is replaced by the reason. The page needs no other file.

  Pictures take `nfe` network calls per sample, by default `sample.nfe`; `num`
  samples, by default 300 images or 5000 points, are compared with data.
  """
  if num is not None and num < 2:
    raise UsageError(f"num={num}: give at least 2 samples")
  source = open_run(workdir, frozen=("teacher",))
  plan = source.plan
  check_num(num or 1, plan.model.shape)
  calls = plan.sample.nfe if nfe is None else nfe
  with named(**({"nfe": "sample.nfe"} if nfe is None else {})):
    source.run.make_sampler(calls)
  file = workdir / "report.html"
  processes.once(lambda: check_workdir(workdir, file.name))
  with tempfile.TemporaryDirectory() as name:
    drawing = pathlib.Path(name) / "drawing.png"
    parts = [
      *_facts(workdir, source),
      *_training(workdir, drawing),
      *_scores(workdir, plan.sample, int(source.state.step)),
      *_costs(workdir),
    ]
    for title, save in _gallery(workdir, source, nfe=calls, num=num).items():
      parts += _picture(title, save, drawing)
  parts.insert(1, html.contents(parts))
  text = html.page(f"{plan.model.name} on {plan.data.name}", parts)
  processes.once(lambda: write_text(file, text))
  return file


def _gallery(
  workdir: pathlib.Path, source: SampledRun, *, nfe: int, num: int | None
) -> dict[str, SavePicture]:
  """Draw samples of a run and return pictures of them, by title."""
  found: dict[str, SavePicture] = {
    "Samples during training, from the same noise": functools.partial(
      _save_training, workdir
    )
  }
  shape = source.plan.model.shape
  if not is_drawn(source.plan.data):
    return {"Samples": functools.partial(_refuse, shape)}
  if len(shape) == 3:
    count, pictures = num or _IMAGES, IMAGE_PICTURES
  else:
    count, pictures = num or _POINTS, PLANE_PICTURES
  samples = GallerySamples(source, nfe=nfe, num=count)
  return found | {
    title: functools.partial(save, samples) for title, save in pictures.items()
  }


def _save_training(workdir: pathlib.Path, file: pathlib.Path) -> str:
  """Set the pictures of training side by side."""
  found = (workdir / "samples").glob("*.png")
  names = sorted(x.name for x in found if x.stem.isdecimal())
  files = [part_of(workdir, f"samples/{name}") for name in names]
  if not files:
    raise UsageError("the run wrote no pictures; set train.sample_every")
  figures.save_strip(files, file, names=[f"step {int(x.stem)}" for x in files])
  return ""


def _refuse(shape: tuple[int, ...], file: pathlib.Path) -> str:
  """Raise UsageError: samples of this shape cannot be shown."""
  raise UsageError(
    f"samples of shape {shape} are neither images nor points in the plane"
  )


def _facts(workdir: pathlib.Path, source: SampledRun) -> list[str]:
  plan = source.plan
  count = sum(x.size for x in jax.tree.leaves(source.params))
  line = (
    f"Step {int(source.state.step)} of {plan.train.steps}; {count:,} "
    f"parameters; average {plan.sample.ema!r}. {html.made_by()} With jax "
    f"{jax.__version__}."
  )
  # Beside the page, where it stands in the run's folder.
  beside = {x: x for x in _FILES if (workdir / x).is_file()}
  paper = plan.model.method.paper
  number = re.search(r"arXiv:(\d+\.\d+)", paper)
  if number:
    beside[paper] = f"https://arxiv.org/abs/{number[1]}"
  fields = sorted(flatten(plan.config.to_dict()).items())
  rows = [(name, "" if value is None else str(value)) for name, value in fields]
  return [
    html.paragraph(line),
    html.links("Files of the run, and the method:", beside),
    html.folded(f"Config: {len(rows)} fields", html.table((), rows)),
  ]


def _picture(title: str, save: SavePicture, file: pathlib.Path) -> list[str]:
  """Return a picture under its title, or why it is left out."""
  try:
    caption = save(file)
  except UsageError as error:
    return _left_out(title, str(error))
  return [html.heading(title), html.picture(file, title, caption)]


def _left_out(title: str, reason: str) -> list[str]:
  return [html.heading(title), html.note(f"left out: {reason}")]


def _training(workdir: pathlib.Path, file: pathlib.Path) -> list[str]:
  """Return the curves in two columns, and in one for a narrow page."""
  title, narrow = "Training", file.with_name("narrow.png")
  try:
    _save_curves(workdir, file)
    _save_curves(workdir, narrow, columns=1)
  except UsageError as error:
    return _left_out(title, str(error))
  return [html.heading(title), html.picture(file, title, narrow=narrow)]


def _save_curves(
  workdir: pathlib.Path, file: pathlib.Path, columns: int = 2
) -> None:
  """Draw the logs of training, and of evaluations while it ran."""
  during = part_of(workdir, "evaluations.csv")
  figures.save_curves(
    figures.read_log(part_of(workdir, "metrics.csv")),
    file,
    evaluations=figures.read_log(during) if during.is_file() else None,
    columns=columns,
  )


def _scores(workdir: pathlib.Path, sample: SamplePlan, step: int) -> list[str]:
  rows = read_rows(part_of(workdir, "evaluation.json"))
  if not rows:
    reason = "there is no evaluation.json; run jaxflow evaluate"
    return _left_out("Evaluation", reason)
  columns = ("metric", "NFE", "value", "real data", "samples", "step")
  tables: dict[str, list[dict[str, Any]]] = {}
  for row in rows:
    tables.setdefault(_title(row, sample, step), []).append(row)
  parts = []
  for title, alike in tables.items():
    parts += [html.heading(title), html.table(columns, _score_cells(alike))]
  note = html.note(
    "Real data: the same number with fresh real samples. ↓ lower is better, ↑ "
    "higher."
  )
  return [*parts, note]


def _title(row: dict[str, Any], sample: SamplePlan, step: int) -> str:
  """Say how the samples of an evaluation differ from those of the page."""
  found = []
  if row["step"] != step:
    found.append(f"step {row['step']}")
  if row.get("ema", sample.ema) != sample.ema:
    found.append(f"average {row['ema']!r}")
  own = flatten(sample.record)
  sampled = flatten(row.get("sampling", sample.record))
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
          f"{name} {_arrow(name)}",
          "" if row["nfe"] is None else str(row["nfe"]),
          with_error(score.value, score.error),
          with_error(score.real, score.real_error),
          "" if score.num is None else str(score.num),
          str(row["step"]),
        )


def _costs(workdir: pathlib.Path) -> list[str]:
  costs = read_costs(part_of(workdir, "bench.json"))
  if not costs:
    return _left_out("Costs", "there is no bench.json; run jaxflow bench")
  columns = [x.replace("\n", " ") for x in COST_COLUMNS]
  rows = []
  for cost in costs:
    first, *others = cost_cells(cost)
    rows.append([first, str(cost.batch), *others])
  parts = [
    html.heading("Costs"),
    html.table([columns[0], "batch", *columns[1:]], rows),
    html.note(
      "Over calls: time beyond that of as many calls of the network alone."
    ),
  ]
  picture = part_of(workdir, "bench.png")
  if picture.is_file():
    parts.append(html.picture(picture, "quality and latency"))
  return parts


def _arrow(name: str) -> str:
  """Return which direction is better; a file may name what is no metric."""
  try:
    return ARROWS[direction(name)]
  except UsageError:
    return ""
