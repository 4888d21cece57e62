"""Consistency distillation by three solvers' steps on grids of five sizes."""

import functools
import itertools
import math
import pathlib

import jax
import numpy as np

from experiments import runner
from experiments.runner.exact import exact_velocity
from experiments.runner.figures import draw_lines
from jaxflow import data, flow_maps, paths, sampling, solvers, times
from jaxflow.figures.canvas import save_figure
from jaxflow.types import Array, ModelFn

SETTINGS = {
  "seeds": 5,
  "network": {"model": {"width": 64, "depth": 2}},
  "teacher_steps": 4000,
  "student_steps": 4000,
  "points": (4, 8, 16, 32, 64, 128),
  "orders": {"euler": 1, "midpoint": 2, "heun": 2},
  # Points that are carried from the noise to the data.
  "num": 2000,
  # Steps of the solution that stands for the exact one, by Heun's method.
  "fine": 1000,
}
QUICK = {
  "seeds": 2,
  "teacher_steps": 300,
  "student_steps": 100,
  "points": (8, 16),
  "orders": {"euler": 1, "heun": 2},
  "num": 200,
  "fine": 100,
}
RULE, STUDENT = "exact rule", "student"
# How far a measured order may be from that of theory.
NEAR = 0.25


def measure(bench: runner.Bench) -> list[runner.Row]:
  """Measure the rule that students are taught, then the students."""
  settings = bench.settings
  teacher = bench.fit(
    "teacher",
    bench.config(
      "ring:flow_matching",
      settings["network"],
      {"train": {"steps": settings["teacher_steps"]}},
    ),
  )
  path = teacher.run.model.path
  exact = exact_velocity(data.known_mixture("ring"), path)
  noise = [
    jax.random.normal(jax.random.key(700 + seed), (settings["num"], 2))
    for seed in bench.seeds
  ]
  starts = [paths.start(path, x) for x in noise]
  limits = {"t_min": path.t_min, "t_max": path.t_max}
  fine = times.uniform_grid(settings["fine"] + 1, **limits)
  true = [_walk(exact, x, fine, solver=solvers.heun) for x in starts]
  taught = [
    _walk(velocity, x, fine, solver=solvers.heun)
    for velocity, x in zip(teacher.velocities(), starts, strict=True)
  ]
  rows = []
  for solver in settings["orders"]:
    for points in settings["points"]:
      grid = times.uniform_grid(points, **limits)
      step = getattr(solvers, solver)
      ends = [_walk(exact, x, grid, solver=step) for x in starts]
      labels = {"solver": solver, "points": points}
      numbers = {"error": _errors(ends, true), "typical": _middle(ends, true)}
      rows.append(runner.Row({"what": RULE, **labels}, numbers))
      student = _student(bench, teacher, solver, points)
      jump = student.run.make_sampler(1)
      ends = [
        jump(params, x, jax.random.key(0), None)
        for params, x in zip(student.params(), noise, strict=True)
      ]
      numbers = {
        "error": _errors(ends, taught),
        "typical": _middle(ends, taught),
        "to the mixture": _errors(ends, true),
      }
      rows.append(runner.Row({"what": STUDENT, **labels}, numbers))
  numbers = {
    "error": _errors(taught, true),
    "typical": _middle(taught, true),
  }
  labels = {"what": "teacher against the mixture", "solver": "", "points": ""}
  rows.sort(key=lambda row: row.labels["what"])
  return [*rows, runner.Row(labels, numbers)]


def _student(
  bench: runner.Bench, teacher: runner.Fits, solver: str, points: int
) -> runner.Fits:
  """Distil the teacher by one solver on one grid."""
  settings = bench.settings
  config = bench.config(
    "ring:consistency_distillation",
    settings["network"],
    {
      "loss": {"solver": {"name": solver}},
      "times": {"num_points": points},
      "train": {"steps": settings["student_steps"]},
    },
  )
  return bench.fit(f"{solver}, {points} points", config, teacher=teacher)


@functools.partial(jax.jit, static_argnames="solver")
def _walk(
  velocity: ModelFn, start: Array, grid: Array, *, solver: solvers.Solver
) -> Array:
  """Take one step of a solver between neighbours of a grid, to its end.

  A function that gives neighbours on such a walk the same end, and is the
  identity at its end, gives every point the end of this walk.
  """
  return sampling.sample(
    flow_maps.ode_step(velocity, solver=solver), start, grid
  )


def _errors(ends: list[Array], true: list[Array]) -> np.ndarray:
  """Return the root mean square distance of ends, one a seed."""
  return np.sqrt((_distances(ends, true) ** 2).mean(axis=1))


def _middle(ends: list[Array], true: list[Array]) -> np.ndarray:
  """Return the median distance of ends, one a seed."""
  return np.median(_distances(ends, true), axis=1)


def _distances(ends: list[Array], true: list[Array]) -> np.ndarray:
  """Return the distances of ends, [S, N]."""
  return np.linalg.norm(np.stack(ends) - np.stack(true), axis=2)


def claims(results: runner.Results) -> list[runner.Claim]:
  """Check the claims about orders, and about grids."""
  settings = results.about["settings"]
  points, orders = settings["points"], settings["orders"]

  def error(what, solver, points):
    return results.values("error", what=what, solver=solver, points=points)

  def has_order(what: str, solver: str, few: int, many: int) -> runner.Check:
    ratio = error(what, solver, few) / error(what, solver, many)
    order = np.log(ratio) / math.log((many - 1) / (few - 1))
    return runner.at_most(
      f"{solver}, {few} to {many} points: the measured order "
      f"({np.mean(order):.2f}) is {orders[solver]} within {NEAR:g}",
      np.abs(order - orders[solver]),
      NEAR,
    )

  ends = dict.fromkeys([tuple(points[:2]), tuple(points[-2:])])
  return [
    runner.Claim(
      text="What a student is taught is of first order in the grid for Euler's "
      "step, of second order for midpoint and Heun.",
      checks=[
        # An order is a limit: of the finest grids.
        has_order(RULE, solver, *points[-2:])
        for solver in orders
      ],
    ),
    runner.Claim(
      text="Trained students show these orders.",
      checks=[
        has_order(STUDENT, solver, *pair) for solver in orders for pair in ends
      ],
      limits="networks and trainings whose own error is smaller",
    ),
    runner.Claim(
      text="With Heun's step half as many grid points do for the same student "
      "error as with Euler's.",
      checks=[
        runner.at_most(
          f"Heun with {few} points is at most as far as Euler with {many}",
          error(STUDENT, "heun", few),
          error(STUDENT, "euler", many),
        )
        for few, many in itertools.pairwise(points)
      ],
    ),
    runner.Claim(
      text="More grid points always make a better student.",
      checks=[
        runner.at_most(
          f"{solver}: {many} points are better than {few}",
          error(STUDENT, solver, many),
          error(STUDENT, solver, few),
        )
        for solver in orders
        for few, many in itertools.pairwise(points)
      ],
      limits="equal numbers of training steps only",
    ),
  ]


def figures(results: runner.Results, folder: pathlib.Path) -> None:
  """Draw the errors of rule and students by the points of the grid."""
  figure, axes = runner.panels(2, width=5.2, height=4.2, columns=2)
  settings = results.about["settings"]
  points = settings["points"]
  titles = {
    RULE: "what is taught, with the exact velocity",
    STUDENT: "trained students, against their teacher's map",
  }
  for panel, (what, title) in zip(axes, titles.items(), strict=True):
    lines = {
      solver: [
        (n, results.values("error", what=what, solver=solver, points=n))
        for n in points
      ]
      for solver in settings["orders"]
    }
    draw_lines(
      panel,
      lines,
      x="points of the grid",
      y="root mean square error of the map",
      ticks=points,
    )
    panel.set_title(title, fontsize=10)
  low, high = (
    min(axis.get_ylim()[0] for axis in axes),
    max(axis.get_ylim()[1] for axis in axes),
  )
  for panel in axes:
    panel.set_ylim(low, high)
  _slopes(axes[0], points, results)
  save_figure(figure, folder / "errors.png")


def _slopes(axes, points, results: runner.Results) -> None:
  """Draw lines of order 1 and 2 through the first error of Euler."""
  first = results.values(
    "error", what=RULE, solver="euler", points=points[0]
  ).mean()
  steps = np.array(points) - 1.0
  for order, style in ((1, "--"), (2, ":")):
    level = first * (steps[0] / steps) ** order
    axes.plot(points, level, style, color="0.5", label=f"order {order}")
  axes.legend(fontsize=8)


STUDY = runner.Study(
  name="teacher_steps",
  question="Which teacher step, on how many grid points, distils best?",
  settings=SETTINGS,
  quick=QUICK,
  measure=measure,
  claims=claims,
  columns=[
    runner.Column(metric="error", heading="error of the map", format=".4f"),
    runner.Column(metric="typical", heading="median", format=".4f"),
    runner.Column(
      metric="to the mixture", heading="to the mixture", format=".4f"
    ),
  ],
  figures=figures,
)

if __name__ == "__main__":
  STUDY.main()
