"""The 2-D report in full: what one call of a consistency model is worth."""

import dataclasses
import functools
import pathlib
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from experiments import runner
from experiments.ring import baselines
from experiments.ring.methods import Methods
from experiments.runner.ring_report import STEPS, student_config, teacher_config
from jaxflow import data, paths
from jaxflow.compilation.of_config import assumed_plan
from jaxflow.figures import save_arrows, save_points, save_trajectories
from jaxflow.figures.canvas import save_figure
from jaxflow.methods import METHODS
from jaxflow.reports.timing import time_together
from jaxflow.training import optimizers

SETTINGS = {
  "seeds": 5,
  # Of teacher and student each: 300 epochs.
  "steps": STEPS,
  "num": 2000,
  # Of the student's target: the report's decay, and the one usual for images.
  "decays": (0.999, 0.95),
  # Of the report's sampler, and of fewer and of better steps.
  "teacher_calls": {"euler": (10, 20, 50, 100), "heun": (10, 20)},
  # How many samples are drawn at once where time is measured.
  "batches": (1, 2000),
  "arrows": 60,
  # Every method and the baselines, with fewer seeds and steps.
  "methods": tuple(METHODS),
  "methods_seeds": 3,
  "methods_steps": 2000,
  "network": {"model": {"width": 64, "depth": 2, "time_features": 64}},
  "calls": {
    "others": (1, 4),
    "flow_matching": (1, 4, 20),
    "score_matching": (1, 4, 100),
    "denoising": (4, 36),
  },
  "starts": {
    "flow_matching": ("flow_matching", {}),
    "mean_flow": ("mean_flow", {}),
    "easy_consistency": ("easy_consistency", {}),
    "flow_matching_labelled": (
      "flow_matching",
      {"data": {"conditional": True}, "loss": {"label_dropout": 0.1}},
    ),
  },
  "pairs": {"of": "flow_matching", "num": 16_384, "nfe": 40},
  # What changes from stage to stage, and for which calls a stage is meant.
  "stages": {
    "progressive_distillation": [
      ({"times": {"num_steps": 8}, "sample": {"nfe": 8}}, ()),
      ({"times": {"num_steps": 4}, "sample": {"nfe": 4}}, (4,)),
      ({"times": {"num_steps": 2}, "sample": {"nfe": 2}}, ()),
      ({"times": {"num_steps": 1}, "sample": {"nfe": 1}}, (1,)),
    ],
  },
}
QUICK = {
  "seeds": 2,
  "steps": 300,
  "num": 500,
  "teacher_calls": {"euler": (20, 100), "heun": (20,)},
  "batches": (500,),
  "methods": ("slim_flow",),
  "methods_seeds": 2,
  "methods_steps": 200,
  "calls": {"others": (1,)},
  "pairs": {"of": "flow_matching", "num": 1024, "nfe": 8},
  "stages": {"slim_flow": [({}, (1,))]},
}
# What counts as similar: a quarter more distance, a twentieth fewer modes and
# points near a mode.
FARTHER, FEWER = 1.25, 0.95
REPORT_CALLS = 100
TEACHER, STUDENT = "score model, Euler", "consistency model"
HEUN = "score model, Heun on Karras times"


def measure(bench: runner.Bench) -> list[runner.Row]:
  """Train and measure the report, then all methods and the baselines."""
  judge = bench.judge()
  num = bench.settings["num"]
  rows = _report(bench, judge)
  few = dataclasses.replace(
    bench,
    settings={**bench.settings, "seeds": bench.settings["methods_seeds"]},
  )
  rows += _methods(few, judge) + _baselines(few, judge)
  bench.trained = few.trained
  floor = judge.floor(num, bench.seeds)
  return [*rows, _row("real points", 0, floor)]


def _row(model: str, calls: int, numbers, built_on: str = "") -> runner.Row:
  return runner.Row(
    {"model": model, "built on": built_on, "calls": calls}, numbers
  )


def _report(bench: runner.Bench, judge: runner.PlaneJudge) -> list[runner.Row]:
  """Measure the score model and its consistency model."""
  settings = bench.settings
  num, steps = settings["num"], settings["steps"]
  teacher = bench.fit(TEACHER, teacher_config(bench, steps=steps))
  report, *others = [
    _student(bench, teacher, decay) for decay in settings["decays"]
  ]
  times = _times(
    bench, {TEACHER: (teacher, REPORT_CALLS), STUDENT: (report, 1)}
  )
  ways = {
    "euler": (TEACHER, teacher),
    "heun": (
      HEUN,
      teacher.changed(
        {
          "flow_map": {"solver": {"name": "heun"}},
          "sample": {"grid": {"name": "karras"}},
        }
      ),
    ),
  }
  rows = []
  for solver, (name, fits) in ways.items():
    for calls in settings["teacher_calls"][solver]:
      timed = times[name] if solver == "euler" and calls == REPORT_CALLS else {}
      numbers = judge(fits.sample(num, calls))
      rows.append(_row(name, calls, {**numbers, **timed}))
  numbers = {**judge(report.sample(num, 1)), **times[STUDENT]}
  rows.append(_row(STUDENT, 1, numbers, "teacher"))
  for decay, student in zip(settings["decays"][1:], others, strict=True):
    numbers = judge(student.sample(num, 1))
    rows.append(_row(_with_target(decay), 1, numbers, "teacher"))
  _pictures(bench, teacher, report)
  return rows


def _times(bench: runner.Bench, models: dict[str, tuple[runner.Fits, int]]):
  """Time jitted samplers; milliseconds a call, the median of each seed."""
  calls = {}
  for size in bench.settings["batches"]:
    noise = jax.random.normal(jax.random.key(0), (size, 2))
    for name, (fits, nfe) in models.items():
      sampler = fits.run.make_sampler(nfe)
      for seed, params in enumerate(fits.params()):
        calls[name, size, seed] = functools.partial(
          sampler, params, noise, jax.random.key(0), None
        )
  laps = time_together(calls)
  return {
    name: {
      f"milliseconds of {size}": [
        1e3 * np.median(laps[name, size, seed])
        for seed in range(len(fits.seeds))
      ]
      for size in bench.settings["batches"]
    }
    for name, (fits, _) in models.items()
  }


def _student(
  bench: runner.Bench, teacher: runner.Fits, decay: float
) -> runner.Fits:
  """Distil the report's consistency model with a decay of the target."""
  config = student_config(
    bench,
    {"ema": {"target": {"name": "constant", "decay": decay}}},
    steps=bench.settings["steps"],
  )
  return bench.fit(_with_target(decay), config, teacher=teacher)


def _with_target(decay: float) -> str:
  """Return the name of the consistency model with such a target."""
  return f"{STUDENT}, target EMA {decay:g}"


def _pictures(
  bench: runner.Bench, teacher: runner.Fits, student: runner.Fits
) -> None:
  """Write the four figures of the report, of the first seed."""
  folder, num = bench.figures, bench.settings["num"]
  real = data.known_mixture("ring").sample(num, seed=1)[0]
  save_points(
    teacher.sample(num, REPORT_CALLS)[0], folder / "samples.png", real
  )
  save_points(student.sample(num, 1)[0], folder / "one_step_samples.png", real)
  path = teacher.run.model.path
  noise = jax.random.normal(jax.random.key(2), (bench.settings["arrows"], 2))
  start = paths.start(path, noise)
  network, flow_map = teacher.velocities()[0], teacher.run.model.flow_map
  times = jnp.linspace(path.t_max, path.t_min, REPORT_CALLS + 1)

  @jax.jit
  def follow(network, start):
    def step(x, pair):
      t, s = (jnp.broadcast_to(time, x.shape[:1]) for time in pair)
      after = flow_map(network)(x, t, s, None)
      return after, after

    return jax.lax.scan(step, start, (times[:-1], times[1:]))[1]

  points = np.concatenate([start[None], follow(network, start)])
  save_trajectories(points, times, folder / "trajectories.png")
  jump = student.run.make_sampler(1)
  ends = jump(student.params()[0], noise, jax.random.key(0), None)
  save_arrows(noise, ends, folder / "one_step_arrows.png")


def _methods(bench: runner.Bench, judge: runner.PlaneJudge) -> list[runner.Row]:
  """Measure every method, after equally many steps of its own."""
  rows, methods = [], Methods(bench=bench)
  for method in bench.settings["methods"]:
    for fits, every, built_on in methods.train(method):
      for calls in filter(fits.allows, every):
        numbers = judge(fits.sample(bench.settings["num"], calls))
        rows.append(_row(method, calls, numbers, built_on))
  return sorted(
    rows, key=lambda row: (row.labels["model"], row.labels["calls"])
  )


def _baselines(
  bench: runner.Bench, judge: runner.PlaneJudge
) -> list[runner.Row]:
  """Measure a VAE and a flow, trained as the methods are."""
  settings = bench.settings
  plan, _ = assumed_plan(bench.config("ring:flow_matching"))
  steps, rows = settings["methods_steps"], []
  for name, baseline in (
    ("VAE", baselines.vae()),
    ("coupling flow", baselines.coupling_flow()),
  ):
    _, optimizer = optimizers.make_optimizer(plan.optimizer, steps=steps)
    params = baselines.train(
      baseline,
      data.load("ring", "train").data,
      bench.seeds,
      optimizer,
      steps=steps,
      batch_size=plan.train.batch_size,
    )
    samples = baselines.draw(baseline, params, bench.seeds, settings["num"])
    rows.append(_row(name, 1, judge(samples)))
    bench.log(f"{name}: {steps:,} steps")
  return rows


def claims(results: runner.Results) -> list[runner.Claim]:
  """Check the report's three claims, and the classical baselines."""
  settings = results.about["settings"]

  def of(metric, model, calls):
    return results.values(metric, model=model, calls=calls)

  near = "sliced_wasserstein"
  # The short form has another method.
  distilled = "consistency_distillation"
  if distilled not in settings["methods"]:
    distilled = settings["methods"][0]
  title = distilled.replace("_", " ")
  distance = of(near, TEACHER, REPORT_CALLS)
  students = [STUDENT, *map(_with_target, settings["decays"][1:])]

  def as_near(model: str) -> runner.Check:
    return runner.at_most(
      f"{model}: one call is at most {FARTHER:g} times as far from the ring as "
      f"{REPORT_CALLS} Euler steps",
      of(near, model, 1),
      distance,
      factor=FARTHER,
    )

  return [
    runner.Claim(
      text="A consistency model replaces about 100 network calls by one.",
      checks=[
        runner.at_least(
          "its teacher needs them: 20 Euler steps are farther from the ring by "
          f"a factor {FARTHER:g} than {REPORT_CALLS}",
          of(near, TEACHER, 20),
          distance,
          factor=FARTHER,
        ),
        *map(as_near, students),
      ],
    ),
    runner.Claim(
      text="A consistency model samples over 60 times faster.",
      checks=[
        runner.at_most(
          f"drawing {size} at a time, it takes a sixtieth of the time",
          of(f"milliseconds of {size}", STUDENT, 1),
          of(f"milliseconds of {size}", TEACHER, REPORT_CALLS),
          factor=1 / 60,
        )
        for size in settings["batches"]
      ],
      limits="times are of one CPU, with a network of 8,578 parameters",
    ),
    runner.Claim(
      text="The quality of one call is similar to that of 100 Euler steps.",
      checks=[
        as_near(STUDENT),
        *(
          runner.at_least(
            f"at least {FEWER:.0%} as many {what}",
            of(metric, STUDENT, 1),
            of(metric, TEACHER, REPORT_CALLS),
            factor=FEWER,
          )
          for metric, what in (
            ("mode_coverage", "modes are covered"),
            ("high_quality", "points are near a mode"),
          )
        ),
      ],
    ),
    runner.Claim(
      text=f"In one call, {title} beats a VAE and a normalizing flow.",
      checks=[
        runner.at_most(
          f"it is nearer to the ring than the {name}",
          of(near, distilled, 1),
          of(near, name, 1),
        )
        for name in ("VAE", "coupling flow")
      ],
      limits="it has a teacher, which they have not; larger VAEs and flows",
    ),
  ]


def figures(results: runner.Results, folder: pathlib.Path) -> None:
  """Draw the distance of all methods by their number of calls."""
  rows = [
    row
    for row in results.rows
    if row["labels"]["model"] in (*METHODS, "VAE", "coupling flow")
  ]
  models = sorted(
    {row["labels"]["model"] for row in rows},
    # By the fewest calls of each.
    key=lambda model: min(
      (
        row["labels"]["calls"],
        row["numbers"]["sliced_wasserstein"]["mean"] or np.inf,
      )
      for row in rows
      if row["labels"]["model"] == model
    ),
    reverse=True,
  )
  figure, (axes,) = runner.panels(1, width=8, height=1.4 + 0.27 * len(models))
  for calls in sorted({row["labels"]["calls"] for row in rows}):
    _dots(axes, [r for r in rows if r["labels"]["calls"] == calls], models)
  floor = results.values("sliced_wasserstein", model="real points").mean()
  axes.axvline(
    floor, color="0.6", linestyle="--", linewidth=1, label="real points"
  )
  axes.set_xscale("log")
  axes.set_yticks(range(len(models)), models, fontsize=8)
  axes.set_xlabel("sliced Wasserstein distance to the mixture")
  axes.grid(color="0.92", which="both")
  axes.legend(fontsize=8)
  save_figure(figure, folder / "methods.png")


def _dots(axes, rows: Sequence, models: Sequence[str]) -> None:
  """Draw rows of one number of calls, with bars of one deviation."""
  calls = rows[0]["labels"]["calls"]
  numbers = [row["numbers"]["sliced_wasserstein"] for row in rows]
  axes.errorbar(
    [number["mean"] or np.nan for number in numbers],
    [models.index(row["labels"]["model"]) for row in rows],
    xerr=[number["deviation"] or 0.0 for number in numbers],
    fmt={1: "o", 4: "s"}.get(calls, "^"),
    markersize=5,
    capsize=2,
    label="1 call" if calls == 1 else f"{calls} calls",
  )


STUDY = runner.Study(
  name="ring",
  question="What does one call of a consistency model replace, on the ring?",
  settings=SETTINGS,
  quick=QUICK,
  measure=measure,
  claims=claims,
  columns=[
    runner.Column(metric="sliced_wasserstein", heading="sliced Wasserstein"),
    runner.Column(
      metric="mode_coverage", heading="modes covered", format=".2f"
    ),
    runner.Column(metric="high_quality", heading="near a mode", format=".3f"),
    runner.Column(metric="milliseconds of 1", heading="ms for 1", format=".2f"),
    runner.Column(
      metric="milliseconds of 2000", heading="ms for 2,000", format=".2f"
    ),
  ],
  figures=figures,
)

if __name__ == "__main__":
  STUDY.main()
