"""Consistency models with five targets: averages, itself, no stop-gradient."""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments import runner
from experiments.runner.figures import draw_lines
from experiments.targets.losses import unstopped_loss
from jaxflow.config import Config
from jaxflow.figures.canvas import save_figure

# The two trainings, and one whose steps are ten times as large.
DISTILLATION, LARGE = "distillation", "distillation, 10 x learning rate"
TRAINING = "training without a teacher"
SELF, UNSTOPPED = "the network itself", "no stop-gradient"
GAUSSIAN = "one Gaussian"
SETTINGS = {
  "seeds": 3,
  "teacher_steps": 4000,
  "steps": 3000,
  # The network is judged at each of these too; fluctuation is that of the last
  # six, the end among them.
  "snapshots": (200, 400, 800, 1400, 2000, 2200, 2400, 2600, 2800),
  "num": 2000,
  "trainings": {DISTILLATION: 1e-3, LARGE: 1e-2, TRAINING: 1e-3},
  # Decays of the target's average; 0 is the network itself, with its gradient
  # stopped.
  "targets": {
    SELF: 0.0,
    "EMA 0.9": 0.9,
    "EMA 0.99": 0.99,
    "EMA 0.999": 0.999,
    UNSTOPPED: 0.0,
  },
  "network": {"model": {"width": 64, "depth": 2}},
  # What the config file has not for a training. Unweighted, little of what is
  # learnt near the data reaches the noise in so few steps.
  "changes": {TRAINING: {"loss": {"weight": {"name": "inverse_gap"}}}},
}
QUICK = {
  "seeds": 2,
  "teacher_steps": 200,
  "steps": 200,
  "snapshots": (100, 150),
  "num": 300,
  "trainings": {DISTILLATION: 1e-3, TRAINING: 1e-3},
  "targets": {SELF: 0.0, "EMA 0.99": 0.99, UNSTOPPED: 0.0},
}
# How much more distance is still no loss.
SUFFICES = 1.1
LAST = 6


def measure(bench: runner.Bench) -> list[runner.Row]:
  """Train all targets in all trainings, and judge them along the way."""
  settings = bench.settings
  judge = bench.judge()
  teacher = bench.fit(
    "teacher",
    bench.config(
      "ring:flow_matching",
      settings["network"],
      {"train": {"steps": settings["teacher_steps"]}},
    ),
  )
  rows = []
  for training, rate in settings["trainings"].items():
    for target, decay in settings["targets"].items():
      config = _config(bench, training, rate, decay)
      others: dict[str, Any] = (
        {} if training == TRAINING else {"teacher": teacher}
      )
      if target == UNSTOPPED:
        others["loss"] = unstopped_loss
      fits = bench.fit(
        f"{training}, {target}",
        config,
        snapshots=settings["snapshots"],
        **others,
      )
      numbers = _numbers(fits, judge, settings)
      rows.append(runner.Row({"training": training, "target": target}, numbers))
  for name, known in (
    (GAUSSIAN, judge.one_gaussian(settings["num"], bench.seeds)),
    ("real points", judge.floor(settings["num"], bench.seeds)),
  ):
    rows.append(runner.Row({"training": name, "target": ""}, known))
  return rows


def _config(
  bench: runner.Bench, training: str, rate: float, decay: float
) -> Config:
  """Return the config of a training with a target."""
  settings = bench.settings
  changes = {
    "ema": {"target": {"name": "constant", "decay": decay}},
    "optimizer": {"learning_rate": rate, "schedule": "constant"},
    "sample": {"ema": "sampling"},
    "train": {"steps": settings["steps"], "log_every": 100},
  }
  method = "training" if training == TRAINING else "distillation"
  return bench.config(
    f"ring:consistency_{method}",
    settings["network"],
    changes,
    settings["changes"].get(training, {}),
  )


def _numbers(
  fits: runner.Fits, judge: runner.PlaneJudge, settings: dict[str, Any]
) -> dict[str, np.ndarray]:
  """Judge the average at the end, and the network itself along the way."""
  samples = fits.sample(settings["num"], 1)
  numbers = judge(samples)
  numbers["spread"] = samples.std(axis=1).mean(axis=1)
  online = fits.changed({"sample": {"ema": "online"}})
  along = {
    steps: judge(online.at(steps).sample(settings["num"], 1))[
      "sliced_wasserstein"
    ]
    for steps in (*settings["snapshots"], settings["steps"])
  }
  numbers |= {f"online at {steps}": x for steps, x in along.items()}
  numbers["online"] = along[settings["steps"]]
  numbers["fluctuation"] = _fluctuation(
    list(along)[-LAST:], np.stack(list(along.values())[-LAST:])
  )
  norms = fits.log["gradient_norm"]
  half = norms[:, norms.shape[1] // 2 :]
  numbers["gradient norm"] = half.mean(axis=1)
  numbers["diverged"] = fits.diverged.astype(float)
  return numbers


def _fluctuation(steps: Sequence[int], values: np.ndarray) -> np.ndarray:
  """Return how far values [T, S] are from a line in steps [T], one a seed.

  Progress is no fluctuation, so the line is taken out; NaN where a value is.
  """
  line = np.stack([np.ones(len(steps)), np.asarray(steps, float)], axis=1)
  fine = np.isfinite(values).all(axis=0)
  known = np.where(fine, values, 0.0)
  rest = known - line @ np.linalg.lstsq(line, known, rcond=None)[0]
  size = np.sqrt((rest**2).sum(axis=0) / (len(steps) - 2))
  return np.where(fine, size, np.nan)


def claims(results: runner.Results) -> list[runner.Claim]:
  """Check the claims about targets."""
  settings = results.about["settings"]
  averages = [
    name for name in settings["targets"] if name not in (SELF, UNSTOPPED)
  ]
  cases = [
    (training, name) for training in settings["trainings"] for name in averages
  ]

  def of(metric, training, target):
    return results.values(metric, training=training, target=target)

  distance = "sliced_wasserstein"
  bound = results.values(distance, training=GAUSSIAN).mean()

  def learns(training: str, target: str) -> bool:
    """Tell whether a run learnt: an untrained one cannot fluctuate."""
    return float(of(distance, training, target).mean()) < bound

  return [
    runner.Claim(
      text="An average of the network as target stabilises training.",
      checks=[
        runner.at_most(
          f"{training}, {name}: quality fluctuates less than with the network "
          "itself as target",
          of("fluctuation", training, name),
          of("fluctuation", training, SELF),
        )
        for training, name in cases
        if learns(training, name)
      ],
    ),
    runner.Claim(
      text="The network itself, its gradient stopped, suffices as target.",
      checks=[
        runner.at_most(
          f"{training}: its distance is at most {SUFFICES:g} times that of "
          f"{name}",
          of(distance, training, SELF),
          of(distance, training, name),
          factor=SUFFICES,
        )
        for training, name in cases
      ],
      limits="networks and data sets in which a target of no delay may fail",
    ),
    runner.Claim(
      text="Without stop-gradient a consistency model collapses or is worse.",
      checks=[
        runner.at_most(
          f"{training}: with stop-gradient the distance is smaller",
          of(distance, training, SELF),
          of(distance, training, UNSTOPPED),
        )
        for training in settings["trainings"]
      ],
    ),
  ]


def figures(results: runner.Results, folder: pathlib.Path) -> None:
  """Draw the distance of the network itself along training."""
  settings = results.about["settings"]
  trainings = settings["trainings"]
  figure, axes = runner.panels(len(trainings), width=4.6, height=4)
  floor, bound = (
    results.values("sliced_wasserstein", training=name).mean()
    for name in ("real points", GAUSSIAN)
  )
  for panel, training in zip(axes, trainings, strict=True):
    lines = {
      target: [
        (
          steps,
          results.values(
            f"online at {steps}", training=training, target=target
          ),
        )
        for steps in (*settings["snapshots"], settings["steps"])
      ]
      for target in settings["targets"]
    }
    draw_lines(
      panel,
      lines,
      x="training steps",
      y="sliced Wasserstein distance to the mixture",
      log="y",
      levels={"real points": float(floor), GAUSSIAN: float(bound)},
    )
    panel.set_title(training, fontsize=10)
  save_figure(figure, folder / "targets.png")


STUDY = runner.Study(
  name="targets",
  question="Does a consistency model need a target network?",
  settings=SETTINGS,
  quick=QUICK,
  measure=measure,
  claims=claims,
  columns=[
    runner.Column(metric="sliced_wasserstein", heading="sliced Wasserstein"),
    runner.Column(metric="online", heading="without averaging"),
    runner.Column(metric="fluctuation", heading="its fluctuation"),
    runner.Column(metric="spread", heading="spread"),
    runner.Column(
      metric="gradient norm", heading="gradient norm", format=".2g"
    ),
    runner.Column(metric="diverged", heading="share diverged", format=".2f"),
  ],
  figures=figures,
)

if __name__ == "__main__":
  STUDY.main()
