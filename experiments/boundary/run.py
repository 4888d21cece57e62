"""Consistency models with five boundary conditions, and with none."""

import pathlib

import numpy as np

from experiments import runner
from experiments.runner.figures import draw_lines
from experiments.runner.ring_report import (
  STEPS,
  student_config,
  teacher_config,
)
from jaxflow import data
from jaxflow.figures.canvas import save_figure

SETTINGS = {
  "seeds": 5,
  "teacher_steps": STEPS,
  # Training is stopped and judged at each of these.
  "steps": (300, 600, 1200, 2400, 4800),
  # Of the target. The report's 0.999 forgets its first weights so slowly that
  # what is known at the least noise does not reach the greatest in this time.
  "target_decay": 0.95,
  "num": 2000,
  # Of each condition: how f is made of the network, and the weight of the loss
  # that asks f to be the identity at the least noise.
  "conditions": {
    "none": ("free", 0.0),
    "loss only": ("free", 1.0),
    "hard": ("hard_boundary", 0.0),
    "linear skip": ("linear_skip", 0.0),
    "EDM skip": ("edm_skip", 0.0),
    "linear skip and loss": ("linear_skip", 1.0),
  },
}
QUICK = {"seeds": 2, "teacher_steps": 300, "steps": (50, 100), "num": 300}


def measure(bench: runner.Bench) -> list[runner.Row]:
  """Train every condition for every number of steps."""
  settings, mixture = bench.settings, data.known_mixture("ring")
  judge = bench.judge()
  teacher = bench.fit(
    "teacher", teacher_config(bench, steps=settings["teacher_steps"])
  )
  rows, clouds = [], {}
  for condition, (flow_map, weight) in settings["conditions"].items():
    changes = {
      "flow_map": {"name": flow_map},
      "loss": {"boundary_weight": weight},
      "ema": {
        "target": {"name": "constant", "decay": settings["target_decay"]}
      },
      "sample": {"ema": "sampling"},
    }
    *snapshots, last = settings["steps"]
    student = bench.fit(
      condition,
      student_config(bench, changes, steps=last),
      teacher=teacher,
      snapshots=snapshots,
    )
    for steps in settings["steps"]:
      samples = student.at(steps).sample(settings["num"], 1)
      # A network that forgets its input sends all noise to one place.
      spread = samples.std(axis=1).mean(axis=1)
      numbers = {**judge(samples), "spread": spread}
      rows.append(runner.Row({"boundary": condition, "steps": steps}, numbers))
    clouds[condition] = samples[0]
  floor = judge.floor(settings["num"], bench.seeds)
  exact = np.stack(
    [mixture.sample(settings["num"], seed=s)[0] for s in bench.seeds]
  )
  floor["spread"] = exact.std(axis=1).mean(axis=1)
  rows.append(runner.Row({"boundary": "real points", "steps": 0}, floor))
  runner.save_points(bench.figures / "samples.png", clouds)
  return rows


def claims(results: runner.Results) -> list[runner.Claim]:
  """Check the claims about boundary conditions."""
  settings = results.about["settings"]
  last = settings["steps"][-1]

  def at_end(metric, condition):
    return results.values(metric, boundary=condition, steps=last)

  real = results.values("spread", boundary="real points")

  def collapses(condition: str) -> runner.Check:
    return runner.at_most(
      f"{condition}: the spread of samples is under a tenth of the data's",
      at_end("spread", condition),
      real,
      factor=0.1,
    )

  def keeps(condition: str) -> runner.Check:
    return runner.at_least(
      f"{condition}: the spread of samples is at least half of the data's",
      at_end("spread", condition),
      real,
      factor=0.5,
    )

  built_in = ("hard", "linear skip", "EDM skip")
  return [
    runner.Claim(
      text="Without a boundary condition a consistency model collapses.",
      checks=[collapses("none")],
    ),
    runner.Claim(
      text="Any boundary condition, built in or as a loss, prevents it.",
      checks=[keeps(name) for name in ("loss only", *built_in)],
    ),
    runner.Claim(
      text="A boundary that is built in is better than one that is a loss.",
      checks=[
        runner.at_most(
          f"{name} has the smaller sliced Wasserstein distance",
          at_end("sliced_wasserstein", name),
          at_end("sliced_wasserstein", "loss only"),
        )
        for name in built_in
      ],
    ),
  ]


def figures(results: runner.Results, folder: pathlib.Path) -> None:
  """Draw distance and spread along training."""
  figure, axes = runner.panels(2, width=5.2, height=4, columns=2)
  settings = results.about["settings"]
  names = {
    "sliced_wasserstein": "sliced Wasserstein distance to the mixture",
    "spread": "standard deviation of samples",
  }
  for panel, (metric, title) in zip(axes, names.items(), strict=True):
    lines = {
      condition: [
        (steps, results.values(metric, boundary=condition, steps=steps))
        for steps in settings["steps"]
      ]
      for condition in settings["conditions"]
    }
    real = results.values(metric, boundary="real points").mean()
    draw_lines(
      panel,
      lines,
      x="training steps",
      y=title,
      levels={"real points": float(real)},
      ticks=settings["steps"],
    )
  save_figure(figure, folder / "training.png")


STUDY = runner.Study(
  name="boundary",
  question="Does a consistency model collapse without a boundary condition?",
  settings=SETTINGS,
  quick=QUICK,
  measure=measure,
  claims=claims,
  columns=[
    runner.Column(metric="sliced_wasserstein", heading="sliced Wasserstein"),
    runner.Column(
      metric="mode_coverage", heading="modes covered", format=".2f"
    ),
    runner.Column(metric="spread", heading="spread"),
  ],
  figures=figures,
)

if __name__ == "__main__":
  STUDY.main()
