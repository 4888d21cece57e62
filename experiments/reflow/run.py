"""Rounds of ReFlow: how straight, how good, and what real data are for."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from experiments import runner
from experiments.runner.fields import acceleration, follow, joined, refined
from experiments.runner.figures import draw_lines, share_legend
from jaxflow import couplings, data, solvers
from jaxflow.figures.canvas import save_figure
from jaxflow.metrics import trajectories
from jaxflow.runs.pair_generation import PairOptions

SETTINGS = {
  "seeds": 5,
  # Steps of the first flow; of each of its teachers.
  "teacher_steps": 4000,
  "teachers": {"full": 4000, "stopped early": 200},
  "rounds": 3,
  # Of each round.
  "steps": 3000,
  # Share of pairs among the rows: in the first round, in the last.
  "shares": {
    "pairs only": (1.0, 1.0),
    "pairs and real": (0.4, 0.9),
    "real only": (0.0, 0.0),
  },
  "pairs": 16384,
  "pair_calls": 100,
  "num": 2000,
  # Exact points that they are compared with.
  "reference": 10000,
  "many_calls": 64,
  # Of straightness, curvature and truncation: trajectories and Euler steps.
  "trajectories": 256,
  "euler_steps": 32,
  "substeps": 8,
}
QUICK = {
  "seeds": 2,
  "teacher_steps": 300,
  "teachers": {"full": 300, "stopped early": 100},
  "rounds": 1,
  "steps": 100,
  "pairs": 1024,
  "pair_calls": 20,
  "num": 500,
  "reference": 1000,
  "many_calls": 16,
  "trajectories": 32,
  "euler_steps": 8,
  "substeps": 2,
}
_SHARED = {"model": {"width": 64, "depth": 2}}
FIRST, DISTILLED, LONGER = "first flow", "distilled", "distilled, longer"
# What counts as near, and as no drift.
NEAR, KEPT, RATIO = 1.25, 1.1, 1.1


class Reflow:
  """Trains and measures flows of one network.

  Args:
    bench: Where.
    first: The first flow.
  """

  def __init__(self, bench: runner.Bench, first: runner.Fits):
    self._bench = bench
    settings = bench.settings
    # One function for the networks of all rounds: programs compile once.
    self._velocity = first.velocities()[0].func
    self._judge = runner.PlaneJudge(
      data.known_mixture("ring"), num=settings["reference"]
    )
    self._noise = jnp.stack(
      [
        jax.random.normal(jax.random.key(500 + s), (settings["num"], 2))
        for s in bench.seeds
      ]
    )

  def field(self, fits: runner.Fits) -> list[jax.tree_util.Partial]:
    """Return the velocity of every seed."""
    return [
      jax.tree_util.Partial(self._velocity, params) for params in fits.params()
    ]

  def pairs_of(self, fits: runner.Fits, number: int) -> pathlib.Path:
    """Make noise and data with the flow of a round, fresh noise each."""
    settings = self._bench.settings
    options = PairOptions(
      num=settings["pairs"],
      solver="heun",
      nfe=settings["pair_calls"],
      seed=number,
    )
    return runner.make_pairs(fits, options)

  def train(
    self, title: str, fits: runner.Fits, made: pathlib.Path, share: float
  ) -> runner.Fits:
    """Train the next round from the networks of this one."""
    bench = self._bench
    config = bench.config(
      "ring:reflow",
      _SHARED,
      {
        "data": {"synthetic_share": share},
        "train": {"steps": bench.settings["steps"]},
      },
    )
    return bench.fit(title, config, init=fits, pairs=made if share else None)

  def distil(
    self, title: str, fits: runner.Fits, made: pathlib.Path, steps: int
  ) -> runner.Fits:
    """Train a one-step generator on pairs, from the flow that made them."""
    config = self._bench.config(
      "ring:knowledge_distillation", _SHARED, {"train": {"steps": steps}}
    )
    return self._bench.fit(title, config, init=fits, pairs=made)

  def samples(self, fits: runner.Fits, solver: str, steps: int) -> np.ndarray:
    """Draw samples [S, N, 2], of all flows from the same noise."""
    step = {"name": "ode_step", "solver": {"name": solver}}
    num, calls = self._bench.settings["num"], solvers.EVALUATIONS[solver]
    return fits.changed({"flow_map": step}).sample(num, steps * calls)

  def quality(self, fits: runner.Fits, *, jumps_only: bool = False) -> dict:
    """Judge samples of one Euler step, of two, and of many calls."""
    many = self._bench.settings["many_calls"]
    ways = {"1": ("euler", 1), "2": ("euler", 2), "many": ("heun", many // 2)}
    numbers = {}
    for name, way in list(ways.items())[: 1 if jumps_only else None]:
      found = self._judge(self.samples(fits, *way))
      numbers |= {f"{metric}_{name}": found[metric] for metric in found}
    return numbers

  def shape(self, fits: runner.Fits) -> dict:
    """Measure how straight the trajectories are, and what Euler misses."""
    settings, velocities = self._bench.settings, self.field(fits)
    noise = self._noise[:, : settings["trajectories"]]
    times = jnp.linspace(1.0, 0.0, settings["euler_steps"] + 1)
    parts = settings["substeps"]
    found = {}
    for velocity, x in zip(velocities, noise, strict=True):
      number = trajectories(velocity, x, times=times, substeps=parts)
      for name, estimate in number.estimates().items():
        found.setdefault(name, []).append(estimate.value)
    field = joined(velocities)
    points = follow(field, noise, refined(times, parts))[:, :-1]
    bend = acceleration(field, points, times[:-1]).mean(axis=(1, 2))
    step = 1 / settings["euler_steps"]
    numbers = {name: np.array(values) for name, values in found.items()}
    return numbers | {"predicted": np.asarray(step**2 / 2 * bend, np.float64)}

  def row(self, fits: runner.Fits, **labels: str | int) -> runner.Row:
    """Measure a flow."""
    return runner.Row(labels, {**self.quality(fits), **self.shape(fits)})

  def floor(self) -> runner.Row:
    """Judge as many real points."""
    settings = self._bench.settings
    found = self._judge.floor(settings["num"], self._bench.seeds)
    return runner.Row(
      {"teacher": "real points", "training": "", "round": ""},
      {f"{k}_many": v for k, v in found.items()},
    )

  def paths(self, fits: runner.Fits, count: int = 60) -> np.ndarray:
    """Return trajectories of the first seed, [times, count, 2]."""
    times = refined(jnp.linspace(1.0, 0.0, 41), 2)
    points = follow(joined(self.field(fits)), self._noise[:, :count], times)
    return np.asarray(points[0])


def measure(bench: runner.Bench) -> list[runner.Row]:
  """Train and measure all rounds of all teachers."""
  settings = bench.settings
  snapshots = sorted(settings["teachers"].values())
  config = bench.config(
    "ring:flow_matching",
    _SHARED,
    {"train": {"steps": settings["teacher_steps"]}},
  )
  first = bench.fit(FIRST, config, snapshots=snapshots[:-1])
  reflow = Reflow(bench, first)
  rows, clouds, drawn = [], {}, {}
  for teacher, steps in settings["teachers"].items():
    zero = first.at(steps)
    rows.append(reflow.row(zero, teacher=teacher, training=FIRST, round=0))
    clouds[f"{teacher}, round 0"] = reflow.samples(zero, "heun", 32)[0]
    made = {0: reflow.pairs_of(zero, 0)}
    once = None
    for name, (start, end) in settings["shares"].items():
      # What real data alone do needs one teacher.
      if not end and teacher != "full":
        continue
      fits, own = zero, made[0]
      for number in range(1, settings["rounds"] + 1):
        share = couplings.synthetic_share(
          number, settings["rounds"], start=start, end=end
        )
        fits = reflow.train(
          f"{teacher}, {name}, round {number}", fits, own, share
        )
        labels = {"teacher": teacher, "training": name, "round": number}
        rows.append(reflow.row(fits, **labels))
        if end:
          own = reflow.pairs_of(fits, number)
        if share == 1 and number == 1:
          once, made[1] = fits, own
        if teacher == "full" and share == 1:
          drawn[f"round {number}"] = reflow.paths(fits)
      clouds[f"{teacher}, {name}"] = reflow.samples(fits, "heun", 32)[0]
    if teacher == "full":
      drawn = {"round 0": reflow.paths(zero), **drawn}
      rows += _distilled(reflow, settings, zero, once, made)
  rows.append(reflow.floor())
  runner.save_points(bench.figures / "samples.png", clouds)
  _save_paths(bench.figures / "paths.png", drawn)
  return rows


def _distilled(reflow, settings, zero, once, made) -> list[runner.Row]:
  """Distil the first flow, as long or twice, and the first round."""
  steps = settings["steps"]
  rows = []
  for training, number, fits, length in (
    (DISTILLED, 0, zero, steps),
    (LONGER, 0, zero, 2 * steps),
    (DISTILLED, 1, once, steps),
  ):
    student = reflow.distil(
      f"{training}, round {number}", fits, made[number], length
    )
    labels = {"teacher": "full", "training": training, "round": number}
    rows.append(runner.Row(labels, reflow.quality(student, jumps_only=True)))
  return rows


def _save_paths(path: pathlib.Path, drawn: dict[str, np.ndarray]) -> None:
  """Write trajectories [times, N, 2], a panel each."""
  figure, axes = runner.panels(len(drawn), width=2.7, height=2.8, columns=4)
  for panel, (title, points) in zip(axes, drawn.items(), strict=True):
    panel.plot(points[..., 0], points[..., 1], linewidth=0.6, color="C0")
    panel.plot(*points[0].T, ".", color="0.5", markersize=3)
    panel.plot(*points[-1].T, ".", color="C3", markersize=3)
    panel.set_title(title, fontsize=9)
    panel.set_xlim(-2.6, 2.6)
    panel.set_ylim(-2.6, 2.6)
    panel.set_aspect("equal")
    panel.set_xticks([])
    panel.set_yticks([])
  save_figure(figure, path)


def claims(results: runner.Results) -> list[runner.Claim]:
  """Check the claims about ReFlow."""
  settings = results.about["settings"]
  last = settings["rounds"]
  rounds = range(1, last + 1)

  def of(metric, number, training="pairs only", teacher="full"):
    name = training if number or "distilled" in training else FIRST
    return results.values(metric, teacher=teacher, training=name, round=number)

  distance = "sliced_wasserstein"
  return [
    runner.Claim(
      text="Each round of ReFlow makes the paths straighter.",
      checks=[
        runner.at_most(
          f"{teacher}: round {number} is straighter than round {number - 1}",
          of("straightness", number, teacher=teacher),
          of("straightness", number - 1, teacher=teacher),
        )
        for teacher in settings["teachers"]
        for number in rounds
      ],
    ),
    runner.Claim(
      text="The error of one Euler step is h^2/2 times the second derivative.",
      checks=[
        check
        for number in (0, *rounds)
        for check in (
          runner.at_most(
            f"round {number}: at most 1.1 times the prediction",
            of("truncation", number),
            of("predicted", number),
            factor=RATIO,
          ),
          runner.at_most(
            f"round {number}: at least the prediction / 1.1",
            of("predicted", number),
            of("truncation", number),
            factor=RATIO,
          ),
        )
      ],
    ),
    runner.Claim(
      text=(
        "One round of ReFlow is enough for one-step samples nearly as good as"
        " those of many steps."
      ),
      checks=[
        runner.at_most(
          "after one round one call is within a quarter of many calls of"
          f" {whose}",
          of(f"{distance}_1", 1),
          of(f"{distance}_many", number),
          factor=NEAR,
        )
        for number, whose in ((1, "the same flow"), (0, "the first flow"))
      ],
      limits="images, where one-step samples also need distillation",
    ),
    runner.Claim(
      text="Rounds on synthetic pairs alone drift away from the data.",
      checks=[
        runner.at_least(
          f"{teacher}: many calls are more than a tenth worse after round"
          f" {last} than of the first flow",
          of(f"{distance}_many", last, teacher=teacher),
          of(f"{distance}_many", 0, teacher=teacher),
          factor=KEPT,
        )
        for teacher in settings["teachers"]
      ],
    ),
    runner.Claim(
      text="With real data mixed in, rounds stay nearer to the data than on "
      "pairs alone.",
      checks=[
        runner.at_most(
          f"{teacher}: many calls after round {last} are nearer with real data",
          of(f"{distance}_many", last, "pairs and real", teacher),
          of(f"{distance}_many", last, teacher=teacher),
        )
        for teacher in settings["teachers"]
      ],
    ),
    runner.Claim(
      text="Distilling after ReFlow is better than distilling the first flow.",
      checks=[
        runner.at_most(
          f"one call of the student is better than of the first flow's{says}",
          of(f"{distance}_1", 1, DISTILLED),
          of(f"{distance}_1", 0, training),
        )
        for training, says in (
          (DISTILLED, ", as long distilled"),
          (LONGER, ", distilled as long as both"),
        )
      ],
    ),
  ]


def figures(results: runner.Results, folder: pathlib.Path) -> None:
  """Draw straightness and quality by round."""
  settings = results.about["settings"]
  figure, axes = runner.panels(3, width=4.3, height=3.8, columns=3)
  names = {
    "straightness": "straightness (0: lines)",
    "sliced_wasserstein_1": "sliced Wasserstein, 1 call",
    "sliced_wasserstein_many": (
      f"sliced Wasserstein, {settings['many_calls']} calls"
    ),
  }
  real = results.values("sliced_wasserstein_many", teacher="real points")
  for panel, (metric, title) in zip(axes, names.items(), strict=True):
    lines = {}
    for teacher in settings["teachers"]:
      for training in settings["shares"]:
        rows = results.select(teacher=teacher, training=training)
        if not rows:
          continue
        rows += results.select(teacher=teacher, training=FIRST)
        lines[f"{teacher}: {training}"] = [
          (row["labels"]["round"], row["numbers"][metric]["values"])
          for row in rows
        ]
    exact = "wasserstein" in metric
    draw_lines(
      panel,
      lines,
      x="rounds of ReFlow",
      y=title,
      log="y",
      levels={"real points": float(real.mean())} if exact else None,
      ticks=range(settings["rounds"] + 1),
    )
  share_legend(figure, [axes[1], axes[0], axes[2]], columns=3)
  save_figure(figure, folder / "rounds.png")


STUDY = runner.Study(
  name="reflow",
  question="What does a round of ReFlow buy, and what are real data for?",
  settings=SETTINGS,
  quick=QUICK,
  measure=measure,
  claims=claims,
  columns=[
    runner.Column(metric="straightness", heading="straightness", format=".4f"),
    runner.Column(metric="curvature", heading="curvature", format=".4f"),
    runner.Column(metric="truncation", heading="Euler error", format=".5f"),
    runner.Column(metric="predicted", heading="h²/2 \\|x''\\|", format=".5f"),
    runner.Column(metric="sliced_wasserstein_1", heading="SW, 1 call"),
    runner.Column(metric="sliced_wasserstein_2", heading="SW, 2 calls"),
    runner.Column(metric="sliced_wasserstein_many", heading="SW, many calls"),
    runner.Column(metric="high_quality_1", heading="good, 1 call"),
    runner.Column(metric="high_quality_many", heading="good, many calls"),
  ],
  figures=figures,
)

if __name__ == "__main__":
  STUDY.main()
