"""Every row of METHODS after equal training, on two sets of images.

One network and one budget for all rows of a set: the FLOPs in which flow
matching takes `steps` steps, see `experiments.budget`.
"""

import pathlib

import numpy as np

from experiments import runner
from experiments.budget import Board
from jaxflow.figures.canvas import save_figure
from jaxflow.methods import METHODS

NETWORK = {"depth": 3, "width": 64, "num_heads": 2}
SETTINGS = {
  "seeds": 3,
  # For each set what of configs/digits.py is different, the steps of the
  # baseline, whose FLOPs are everybody's budget, and how many samples are
  # judged.
  "data": {
    "digits": ({"model": {**NETWORK, "patch_size": 4}}, 2400, 360),
    "fashion_mnist": ({"model": {**NETWORK, "patch_size": 7}}, 1200, 1000),
  },
  "methods": tuple(METHODS),
  "baseline": "flow_matching",
  "batch_size": 64,
  "warmup_share": 0.1,
  "start_share": 0.5,
  "pairs": {"num": 3072, "solver": "heun", "nfe": 8, "guidance": 1.3},
  "nfe": (1, 2, 4),
  # A row that is trained in stages, each the teacher of the next: what changes,
  # and the numbers of calls for which the stage is meant.
  "stages": {
    "progressive_distillation": (
      ({"times": {"num_steps": 4}, "sample": {"nfe": 4}}, (4,)),
      ({"times": {"num_steps": 2}, "sample": {"nfe": 2}}, (2,)),
      ({"times": {"num_steps": 1}, "sample": {"nfe": 1}}, (1,)),
    ),
  },
  # What of a row's config is different: a memory that the budget can fill, the
  # last of three blocks told where to jump, the rate of the other rows.
  "fields": {
    "flow_matching": {"optimizer": {"learning_rate": 4e-3}},
    "mean_flow": {"optimizer": {"learning_rate": 4e-3}},
    "frechet_distance_loss": {"loss": {"fill": 2048}},
    "decoupled_mean_flow": {"model": {"second_time_from": 2}},
  },
  "classifier_steps": 1000,
}
# The row of real training images.
REAL = "real images"
# So much farther is still as good.
AS_GOOD = 1.25
QUICK = {
  "seeds": 2,
  "data": {"digits": ({"model": {"patch_size": 4, "depth": 1}}, 12, 100)},
  "methods": ("flow_matching", "mean_flow", "consistency_distillation"),
  "nfe": (1,),
  "classifier_steps": 20,
}


def measure(bench: runner.Bench) -> list[runner.Row]:
  """Train and judge every row on every data set."""
  rows = []
  for name, (changes, steps, num) in bench.settings["data"].items():
    judge = runner.ImageJudge(
      name,
      bench.workdir,
      num=num,
      train_steps=bench.settings["classifier_steps"],
    )
    board = Board(bench, name, changes, steps)
    floor = judge.floor(num, bench.seeds)
    calls = bench.settings["nfe"]
    numbers = {f"{k}_{n}": v for k, v in floor.items() for n in calls}
    real = runner.Row({"data": name, "method": REAL, "from": ""}, numbers)
    found, strips = [], {}
    for method in bench.settings["methods"]:
      row, strips[method] = board.row(method, judge)
      found.append(row)
    # What diverged comes last.
    found.sort(
      key=lambda row: np.nan_to_num(row.numbers["frechet_1"].mean(), nan=np.inf)
    )
    runner.save_images(
      bench.figures / f"{name}.png",
      {row.labels["method"]: strips[row.labels["method"]] for row in found},
      scale=3 if name == "digits" else 1,
    )
    rows += [real, *found]
  return rows


def claims(results: runner.Results) -> list[runner.Claim]:
  """Check the claim about the order of published tables."""
  settings = results.about["settings"]

  def better(left: str, right: str, factor: float = 1.0) -> list[runner.Check]:
    kind = (
      "nearer than" if factor == 1 else f"at most {factor:g} times as far as"
    )
    return [
      runner.at_most(
        f"{data}, one call: {left} is {kind} {right}",
        results.values("frechet_1", data=data, method=left),
        results.values("frechet_1", data=data, method=right),
        factor=factor,
      )
      for data in settings["data"]
      if {left, right} <= set(settings["methods"])
    ]

  pairs = {
    "Consistency distillation is better than consistency training (CT < CD).": (
      ("consistency_distillation", "consistency_training"),
    ),
    "Trajectory models are better than consistency distillation (CD < CTM).": (
      ("consistency_trajectory", "consistency_distillation"),
    ),
    "From scratch, MeanFlow is better than consistency training, plain and "
    "improved.": tuple(
      ("mean_flow", other)
      for other in ("consistency_training", "improved_consistency_training")
    ),
    "MeanFlow from scratch is as good as distillation of a teacher.": tuple(
      ("mean_flow", other, AS_GOOD)
      for other in (
        "consistency_distillation",
        "continuous_consistency_distillation",
      )
    ),
    "One call of a one-step model is better than one of flow matching.": tuple(
      (other, "flow_matching")
      for other in ("mean_flow", "consistency_distillation", "shortcut")
    ),
  }
  limits = (
    "published tables are of photographs after thousands of GPU hours, where "
    "trajectory models have an adversarial term"
  )
  found = []
  for text, sides in pairs.items():
    checks = [check for side in sides for check in better(*side)]
    if checks:
      found.append(runner.Claim(text=text, checks=checks, limits=limits))
      limits = ""
  return found


def best(results: runner.Results, count: int = 3) -> list[str]:
  """Return a table of the best rows in one call, as lines of Markdown."""
  lines = [
    "| data | row | Fréchet distance | recognised |",
    "| --- | --- | --: | --: |",
  ]
  for data in results.about["settings"]["data"]:
    rows = [
      row
      for row in results.select(data=data)
      if row["numbers"]["frechet_1"]["mean"] is not None
    ]
    rows.sort(key=lambda row: row["numbers"]["frechet_1"]["mean"])
    real = [row for row in rows if row["labels"]["method"] == REAL]
    made = [row for row in rows if row["labels"]["method"] != REAL]
    for row in made[:count] + real:
      method, numbers = row["labels"]["method"], row["numbers"]
      distance, share = numbers["frechet_1"], numbers["accuracy_1"]
      name = method if method == REAL else f"`{method}`"
      lines.append(
        f"| {data} | {name} | "
        f"{distance['mean']:.2f} ± {distance['deviation']:.2f} | "
        f"{share['mean']:.0%} |"
      )
  return lines


def figures(results: runner.Results, folder: pathlib.Path) -> None:
  """Draw the distance of every row at each number of calls."""
  settings = results.about["settings"]
  figure, axes = runner.panels(
    len(settings["data"]), width=6.2, height=6.5, columns=2
  )
  for panel, data in zip(axes, settings["data"], strict=True):
    rows = [r for r in results.select(data=data) if r["labels"]["method"]]
    names = [row["labels"]["method"] for row in rows][::-1]
    for number, calls in enumerate(settings["nfe"]):
      found = [
        (y, row["numbers"].get(f"frechet_{calls}"))
        for y, row in enumerate(reversed(rows))
      ]
      known = [(y, x) for y, x in found if x and x["mean"] is not None]
      panel.errorbar(
        [x["mean"] for _, x in known],
        [y + 0.2 * (1 - number) for y, _ in known],
        xerr=[x["deviation"] or 0.0 for _, x in known],
        fmt="osD"[number],
        markersize=4,
        capsize=2,
        label=f"{calls} call{'s' * (calls > 1)}",
      )
    panel.set_yticks(range(len(names)), names, fontsize=8)
    runner.logarithmic(panel)
    panel.set_xlabel("Fréchet distance in features of a classifier")
    panel.set_title(data)
    panel.grid(color="0.92", which="both")
    panel.legend(fontsize=8)
  save_figure(figure, folder / "leaderboard.png")


STUDY = runner.Study(
  name="leaderboard",
  question="How good is every method at 1, 2 and 4 calls after equal training?",
  settings=SETTINGS,
  quick=QUICK,
  measure=measure,
  claims=claims,
  columns=[
    runner.Column(metric="steps", heading="steps", format=",.0f"),
    *(
      runner.Column(
        metric=f"{metric}_{calls}", heading=f"{name}, {calls}", format=form
      )
      for metric, name, form in (
        ("frechet", "Fréchet", ".2f"),
        ("accuracy", "recognised", ".2f"),
      )
      for calls in SETTINGS["nfe"]
    ),
  ],
  figures=figures,
)

if __name__ == "__main__":
  STUDY.main()
