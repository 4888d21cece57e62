"""Six claims about the methods of 2025 and 2026, at one budget of FLOPs."""

import pathlib
from typing import Any

import numpy as np

from experiments import runner
from experiments.budget import Board
from jaxflow.figures.canvas import save_figure

FLOW, MEAN = "flow_matching", "mean_flow"
ALPHA, DRIFT = "alpha_flow", "drifting"
DRIFT_PUBLISHED = "drifting, published temperatures"
CENTRAL = "mean_flow, central differences"
FLOW_NEAR, MEAN_NEAR = (
  f"{FLOW}, optimal transport",
  f"{MEAN}, optimal transport",
)
START = "mean_flow, half of the budget"
PIXELS, RANDOM = "Fréchet loss of pixels", "Fréchet loss of random features"
MATCHING = "distribution_matching"
JUDGED = "distribution_matching, discriminator"
NEAR: dict[str, Any] = {"data": {"coupling": {"rows": 64}}}
# A row of METHODS, and what is different.
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
  FLOW: (FLOW, {}),
  FLOW_NEAR: (FLOW, NEAR),
  MEAN: (MEAN, {}),
  MEAN_NEAR: (MEAN, NEAR),
  CENTRAL: (MEAN, {"loss": {"derivative": "central"}}),
  ALPHA: (ALPHA, {}),
  DRIFT: (DRIFT, {}),
  DRIFT_PUBLISHED: (DRIFT, {"loss": {"temperatures": (0.02, 0.05, 0.2)}}),
  PIXELS: (
    "frechet_distance_loss",
    {"features": {"network": {"name": "none"}}},
  ),
  RANDOM: ("frechet_distance_loss", {}),
  MATCHING: (MATCHING, {}),
  JUDGED: (
    MATCHING,
    {
      "critic": {"network": {"name": "heads"}},
      "loss": {"adversarial_weight": 3e-3},
    },
  ),
}
SETTINGS = {
  "seeds": 3,
  "data": "digits",
  # What of configs/digits.py is different.
  "changes": {
    "model": {"depth": 3, "width": 64, "num_heads": 2, "patch_size": 4}
  },
  "fields": {
    method: {"optimizer": {"learning_rate": 4e-3}} for method in (FLOW, MEAN)
  },
  "steps": 2400,
  "num": 360,
  "variants": tuple(VARIANTS),
  "baseline": FLOW,
  "batch_size": 64,
  "warmup_share": 0.1,
  "start_share": 0.5,
  "nfe": (1,),
  "classifier_steps": 1000,
  # Samples that fill the memory of a Frechet loss.
  "fill": 7680,
}
QUICK = {
  "seeds": 2,
  "changes": {"model": {"patch_size": 4, "depth": 1}},
  "steps": 20,
  "num": 100,
  "variants": (MEAN, CENTRAL, DRIFT, PIXELS),
  "classifier_steps": 20,
  "fill": 320,
}
# So much farther is still as good, and still competitive.
AS_GOOD, COMPETITIVE = 1.1, 1.25


def measure(bench: runner.Bench) -> list[runner.Row]:
  """Train and judge every variant."""
  settings = bench.settings
  name, num = settings["data"], settings["num"]
  judge = runner.ImageJudge(
    name, bench.workdir, num=num, train_steps=settings["classifier_steps"]
  )
  board = Board(bench, name, settings["changes"], settings["steps"])
  floor = judge.floor(num, bench.seeds)
  rows = [_row("real images", {f"{k}_1": v for k, v in floor.items()})]
  strips = {}
  for variant in settings["variants"]:
    method, fields = VARIANTS[variant]
    if variant in (PIXELS, RANDOM):
      fields = {**fields, "loss": {"fill": settings["fill"]}}
    row, strips[variant] = board.row(method, judge, name=variant, fields=fields)
    rows.append(_row(variant, row.numbers))
  start = board.start(MEAN)
  samples = start.sample(num, 1)
  strips[START] = samples[0, :20]
  rows.append(_row(START, {f"{k}_1": v for k, v in judge(samples).items()}))
  runner.save_images(bench.figures / "samples.png", strips, scale=3)
  return rows


def _row(name: str, numbers: dict[str, Any]) -> runner.Row:
  return runner.Row({"variant": name}, numbers)


def claims(results: runner.Results) -> list[runner.Claim]:
  """Check the six claims."""
  known = {row["labels"]["variant"] for row in results.rows}

  def compare(
    left: str, right: str, metric: str = "frechet", factor: float = 1.0
  ) -> list[runner.Check]:
    if not {left, right} <= known:
      return []
    kind = (
      "is nearer than"
      if factor == 1
      else f"is at most {factor:g} times as far as"
    )
    seen = {"frechet": "classifier", "sliced_wasserstein": "pixels"}[metric]
    return [
      runner.at_most(
        f"{seen}: {left} {kind} {right}",
        results.values(f"{metric}_1", variant=left),
        results.values(f"{metric}_1", variant=right),
        factor=factor,
      )
    ]

  both = ("frechet", "sliced_wasserstein")
  found = {
    "Drifting in pixels without features is competitive with MeanFlow.": [
      check
      for name in (DRIFT, DRIFT_PUBLISHED)
      for check in compare(name, MEAN, factor=COMPETITIVE)
    ],
    "alpha-Flow's curriculum beats MeanFlow.": [
      check for metric in both for check in compare(ALPHA, MEAN, metric)
    ],
    "Central differences are as good as the JVP.": [
      check
      for metric in both
      for check in compare(CENTRAL, MEAN, metric, AS_GOOD)
    ],
    "A Frechet loss improves distances that it does not train on.": [
      check
      for name in (PIXELS, RANDOM)
      for metric in both
      for check in compare(name, START, metric)
    ],
    "Distribution matching needs its discriminator.": [
      check for metric in both for check in compare(JUDGED, MATCHING, metric)
    ],
    "Minibatch optimal transport improves one call.": [
      check
      for near, free in ((FLOW_NEAR, FLOW), (MEAN_NEAR, MEAN))
      for metric in both
      for check in compare(near, free, metric)
    ],
  }
  limits = "digits of 8 x 8 pixels and a network of 250,000 parameters"
  return [
    runner.Claim(text=text, checks=checks, limits=limits)
    for text, checks in found.items()
    if checks
  ]


def figures(results: runner.Results, folder: pathlib.Path) -> None:
  """Draw both distances of every variant."""
  names = [row["labels"]["variant"] for row in results.rows]
  figure, axes = runner.panels(2, width=5.4, height=5, columns=2)
  for panel, metric, title in zip(
    axes,
    ("frechet_1", "sliced_wasserstein_1"),
    ("Fréchet distance, classifier", "sliced Wasserstein distance, pixels"),
    strict=True,
  ):
    values = [results.values(metric, variant=name) for name in names]
    panel.errorbar(
      [np.nanmean(x) for x in values],
      range(len(names))[::-1],
      xerr=[np.nanstd(x, ddof=1) for x in values],
      fmt="o",
      markersize=4,
      capsize=2,
    )
    panel.set_yticks(range(len(names))[::-1], names, fontsize=8)
    runner.logarithmic(panel)
    panel.set_xlabel(title)
    panel.grid(color="0.92", which="both")
  save_figure(figure, folder / "frontier.png")


STUDY = runner.Study(
  name="frontier",
  question="Which claims about the methods of 2025 and 2026 hold here?",
  settings=SETTINGS,
  quick=QUICK,
  measure=measure,
  claims=claims,
  columns=[
    runner.Column(metric="steps", heading="steps", format=",.0f"),
    runner.Column(metric="frechet_1", heading="Fréchet", format=".2f"),
    runner.Column(
      metric="sliced_wasserstein_1",
      heading="sliced Wasserstein",
      format=".4f",
    ),
    runner.Column(metric="accuracy_1", heading="recognised", format=".2f"),
    runner.Column(metric="recall_1", heading="recall", format=".2f"),
  ],
  figures=figures,
)

if __name__ == "__main__":
  STUDY.main()
