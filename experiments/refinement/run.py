"""What more network calls buy: few-step methods and solvers, 1 to 32 calls."""

import pathlib

import numpy as np

from experiments import runner
from experiments.runner.figures import draw_lines, share_legend
from jaxflow import data
from jaxflow.figures.canvas import save_figure

_KARRAS = {"grid": {"name": "karras"}}


def _sampler(name: str, **options: float) -> dict:
  """Return the fields that choose a sampler."""
  return {"sample": {"sampler": {"name": name, **options}, **_KARRAS}}


SETTINGS = {
  "seeds": 5,
  "train_steps": 4000,
  "num": 2000,
  # Exact points that they are compared with.
  "reference": 10000,
  "calls": (1, 2, 4, 8, 16, 32),
  # What the claims call few and many.
  "few": 8,
  "many": 32,
  # Method and teacher of each network.
  "networks": {
    "flow matching": ("flow_matching", ""),
    "denoiser": ("denoising", ""),
    "consistency distillation": ("consistency_distillation", "flow matching"),
    "consistency training": ("consistency_training", ""),
    "CTM": ("consistency_trajectory", "flow matching"),
    "MeanFlow": ("mean_flow", ""),
    "shortcut": ("shortcut", ""),
  },
  # Network, how it is sampled, and calls of one step.
  "ways": {
    "flow matching, Euler": ("flow matching", {}, 1),
    "flow matching, midpoint": (
      "flow matching",
      {"flow_map": {"name": "ode_step", "solver": {"name": "midpoint"}}},
      2,
    ),
    "flow matching, DPM-Solver++": (
      "flow matching",
      {"sample": {"sampler": {"name": "dpm_solver"}}},
      1,
    ),
    "denoiser, DPM-Solver++": ("denoiser", _sampler("dpm_solver"), 1),
    "consistency distillation": ("consistency distillation", {}, 1),
    "consistency training": ("consistency training", {}, 1),
    "CTM, gamma 0": ("CTM", _sampler("gamma", gamma=0.0), 1),
    "CTM, gamma 0.5": ("CTM", _sampler("gamma", gamma=0.5), 1),
    "CTM, gamma 1": ("CTM", _sampler("gamma", gamma=1.0), 1),
    "MeanFlow": ("MeanFlow", {}, 1),
    "shortcut": ("shortcut", {}, 1),
  },
}
QUICK = {
  "seeds": 2,
  "train_steps": 100,
  "num": 500,
  "reference": 1000,
  "calls": (1, 2),
  "few": 1,
  "many": 2,
  "ways": {
    way: how for way, how in SETTINGS["ways"].items() if way != "CTM, gamma 0.5"
  },
}
CONSISTENCY = ("consistency distillation", "consistency training")
FLOW = "flow matching, Euler"
# A gain below this share is none.
GAIN = 0.05
# So much more is still as good: the quarter of the other experiments.
AS_GOOD = 1.25


def measure(bench: runner.Bench) -> list[runner.Row]:
  """Train every network and sample it in every way."""
  settings, mixture = bench.settings, data.known_mixture("ring")
  judge = runner.PlaneJudge(mixture, num=settings["reference"])
  networks: dict[str, runner.Fits] = {}
  for name, (method, teacher) in settings["networks"].items():
    config = bench.config(
      f"ring:{method}",
      {
        "model": {"width": 64, "depth": 2},
        "train": {"steps": settings["train_steps"]},
      },
    )
    taught = {"teacher": networks[teacher]} if teacher else {}
    networks[name] = bench.fit(name, config, **taught)
  rows, clouds = [], {}
  for way, (name, changes, each) in settings["ways"].items():
    fits, numbers = networks[name].changed(changes), {}
    for calls in settings["calls"]:
      if calls % each:
        continue
      samples = fits.sample(settings["num"], calls, seed=1)
      numbers |= _named(judge(samples), calls)
      if calls in (1, settings["few"]):
        clouds[f"{way}: {calls}"] = samples[0, :1000]
    rows.append(runner.Row({"method": way}, numbers))
  floor = judge.floor(settings["num"], bench.seeds)
  numbers = {}
  for calls in settings["calls"]:
    numbers |= _named(floor, calls)
  rows.append(runner.Row({"method": "real points"}, numbers))
  runner.save_points(bench.figures / "samples.png", clouds)
  return rows


def _named(numbers: dict[str, np.ndarray], calls: int) -> dict[str, np.ndarray]:
  """Say in the names of metrics how many calls they are of."""
  return {
    f"distance_{calls}": numbers["sliced_wasserstein"],
    f"astray_{calls}": 1 - numbers["high_quality"],
  }


def claims(results: runner.Results) -> list[runner.Claim]:
  """Check the claims about more steps."""
  settings = results.about["settings"]
  few, many = settings["few"], settings["many"]

  def of(metric, method, calls):
    return results.values(f"{metric}_{calls}", method=method)

  def improves(method: str, calls: int, fewer: int) -> runner.Check:
    return runner.at_most(
      f"{method}: {calls} calls are nearer than {fewer}",
      of("distance", method, calls),
      of("distance", method, fewer),
    )

  def saturates(method: str) -> runner.Check:
    return runner.at_most(
      f"{method}: from {few} to {many} calls the distance falls by less than"
      " a twentieth",
      (1 - GAIN) * of("distance", method, few),
      of("distance", method, many),
    )

  def beats(metric: str, one: tuple, other: tuple) -> runner.Check:
    what = {"distance": "is nearer", "astray": "has fewer points astray"}
    return runner.at_most(
      f"{one[0]} with {one[1]} {what[metric]} than {other[0]} with {other[1]}",
      of(metric, *one),
      of(metric, *other),
    )

  def as_good(metric: str, one: tuple, other: tuple) -> runner.Check:
    what = {
      "distance": "is at most {} as far",
      "astray": "has at most {} as many points astray",
    }
    return runner.at_most(
      f"{one[0]} with {one[1]} {what[metric].format(f'{AS_GOOD:g} times')} as "
      f"{other[0]} with {other[1]}",
      of(metric, *one),
      of(metric, *other),
      factor=AS_GOOD,
    )

  return [
    runner.Claim(
      text="More steps improve consistency models.",
      checks=[
        improves(method, calls, 1)
        for method in CONSISTENCY
        for calls in (2, few)
      ],
    ),
    runner.Claim(
      text="CTM with gamma 0 improves with more steps.",
      checks=[
        improves("CTM, gamma 0", 2, 1),
        improves("CTM, gamma 0", few, 2),
        improves("CTM, gamma 0", many, few),
      ],
    ),
    runner.Claim(
      text=(
        "CTM with gamma 1, renoising, gets worse or saturates with more steps."
      ),
      checks=[saturates("CTM, gamma 1")],
    ),
    runner.Claim(
      text="With many steps gamma 0 is better than gamma 1.",
      checks=[
        beats(metric, ("CTM, gamma 0", calls), ("CTM, gamma 1", calls))
        for metric in ("distance", "astray")
        for calls in (few, many)
      ],
    ),
    runner.Claim(
      text=(
        f"One call of MeanFlow or of a shortcut model is as good as {few} of"
        " flow matching."
      ),
      checks=[
        as_good(metric, (method, 1), (FLOW, few))
        for method in ("MeanFlow", "shortcut")
        for metric in ("distance", "astray")
      ],
    ),
    runner.Claim(
      text=(
        "Consistency models are better with one call, saturate, and flow"
        " matching overtakes them with enough calls."
      ),
      checks=[
        check
        for method in CONSISTENCY
        for check in (
          beats("distance", (method, 1), (FLOW, 1)),
          saturates(method),
          beats("distance", (FLOW, many), (method, many)),
          beats("astray", (FLOW, many), (method, many)),
        )
      ],
    ),
  ]


def figures(results: runner.Results, folder: pathlib.Path) -> None:
  """Draw distance and points astray against calls."""
  settings = results.about["settings"]
  figure, axes = runner.panels(2, width=6, height=5.2, columns=2)
  names = {
    "distance": "sliced Wasserstein distance to the mixture",
    "astray": "share of samples beyond 3 deviations of every mode",
  }
  for panel, (metric, title) in zip(axes, names.items(), strict=True):
    lines = {}
    for method in settings["ways"]:
      (row,) = results.select(method=method)
      lines[method] = [
        (calls, results.values(f"{metric}_{calls}", method=method))
        for calls in settings["calls"]
        if f"{metric}_{calls}" in row["numbers"]
      ]
    real = results.values(f"{metric}_1", method="real points").mean()
    draw_lines(
      panel,
      lines,
      x="network calls",
      y=title,
      levels={"real points": float(real)},
      ticks=settings["calls"],
    )
  share_legend(figure, axes, columns=4)
  save_figure(figure, folder / "quality.png")


STUDY = runner.Study(
  name="refinement",
  question="What do more network calls buy, for which method?",
  settings=SETTINGS,
  quick=QUICK,
  measure=measure,
  claims=claims,
  columns=[
    *(
      runner.Column(metric=f"distance_{n}", heading=f"SW, {n}")
      for n in SETTINGS["calls"]
    ),
    *(
      runner.Column(metric=f"astray_{n}", heading=f"astray, {n}")
      for n in (1, 2, 8, 32)
    ),
  ],
  figures=figures,
)

if __name__ == "__main__":
  STUDY.main()
