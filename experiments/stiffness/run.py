"""How stiff the ODEs of diffusion and of linear flow are, and what it costs."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from experiments import runner
from experiments.runner.exact import exact_velocity
from experiments.runner.fields import follow, joined, refined, steepness
from experiments.runner.figures import draw_lines, share_legend
from jaxflow import data, flow_maps, paths, predictions, sampling
from jaxflow.config import registry
from jaxflow.figures.canvas import save_figure

SETTINGS = {
  "seeds": 5,
  # Trajectories of each seed; of how many the Jacobian is taken.
  "num": 500,
  "jacobians": 200,
  # The reference: kept times, and Heun steps between two of them.
  "times": 250,
  "substeps": 8,
  "paths": {
    "linear": {"name": "linear"},
    "VP": {"name": "variance_preserving", "t_min": 1e-3},
    "VE": {"name": "variance_exploding"},
  },
  # On which grid the reference is solved.
  "reference": {"linear": "uniform", "VP": "uniform", "VE": "karras"},
  # Path, grid, solver.
  "solvers": (
    ("linear", "uniform", "euler"),
    ("linear", "uniform", "heun"),
    ("linear", "uniform", "dpm_solver"),
    ("VP", "uniform", "euler"),
    ("VP", "uniform", "heun"),
    ("VP", "log_snr", "heun"),
    ("VP", "uniform", "dpm_solver"),
    ("VP", "log_snr", "dpm_solver"),
    ("VE", "uniform", "euler"),
    ("VE", "karras", "euler"),
    ("VE", "karras", "heun"),
    ("VE", "karras", "dpm_solver"),
    ("VE", "log_snr", "dpm_solver"),
  ),
  "calls": (2, 4, 6, 10, 14, 20, 32, 64, 128, 256),
  # Half a standard deviation of a mode.
  "error": 0.05,
  "train_steps": 4000,
  # The network of each path.
  "networks": {
    "linear": ("flow_matching", {}),
    "VP": ("flow_matching", {"loss": {"prediction": "noise"}}),
    "VE": ("denoising", {}),
  },
}
QUICK = {
  "seeds": 2,
  "num": 50,
  "jacobians": 10,
  "times": 20,
  "substeps": 2,
  "calls": (10, 20),
  "train_steps": 100,
  "solvers": (
    ("linear", "uniform", "euler"),
    ("VP", "uniform", "euler"),
    ("VP", "log_snr", "dpm_solver"),
    ("VE", "uniform", "euler"),
    ("VE", "karras", "euler"),
    ("VE", "karras", "dpm_solver"),
  ),
}
FIELDS = ("exact", "network")
# What the claims compare: the usual grid of each path.
USUAL = {"VP": "uniform", "VE": "karras"}
USUAL_FAST = {"VP": "log_snr", "VE": "karras"}


def grid_of(path: paths.Path, name: str, steps: int) -> jax.Array:
  """Return so many steps of a named grid of a path."""
  ends = {"t_min": path.t_min, "t_max": path.t_max}
  grid = registry.make("grid", {"name": name}, field="grid", path=path, **ends)
  return grid(steps + 1)


def fields_of(bench: runner.Bench, mixture) -> dict:
  """Return path and field of every kind of field and every path."""
  settings, found = bench.settings, {}
  for name, options in settings["paths"].items():
    path = registry.make("path", options, field="path")
    found["exact", name] = path, exact_velocity(mixture, path)
    method, changes = settings["networks"][name]
    config = bench.config(
      f"ring:{method}",
      {
        "path": options,
        "model": {"width": 64, "depth": 2},
        "train": {"steps": settings["train_steps"]},
      },
      changes,
    )
    fits = bench.fit(name, config)
    found["network", name] = path, joined(fits.velocities())
  return found


@functools.partial(jax.jit, static_argnames=("path", "solver"))
def solve(field, start, times, *, path, solver):
  """Solve the ODE of a field [S] from points [S, N, 2] over a grid."""

  def one(velocity, x):
    key = jax.random.key(0)  # Nothing is drawn.
    if solver in registry.KINDS["sampler"]:
      sampler = registry.make("sampler", {"name": solver}, field="sampler")
      function = predictions.as_prediction(
        velocity, path, source="velocity", target="data"
      )
    else:
      sampler = sampling.Jumps()
      step = registry.make("solver", {"name": solver}, field="solver")
      function = flow_maps.ode_step(velocity, solver=step)
    return sampler(function, x, times, path=path, key=key)

  return jax.vmap(one)(field, start)


def steps_of(solver: str, calls: int) -> int:
  """Return how many steps of a solver make so many calls."""
  return calls // 2 if solver == "heun" else calls


def calls_for(errors: np.ndarray, calls: np.ndarray, goal: float) -> np.ndarray:
  """Return how many calls reach an error, NaN where none do.

  Args:
    errors: [S, n], of growing numbers of calls.
    calls: [n].
    goal: The error.
  """
  found = []
  for row in errors:
    above = np.flatnonzero(row > goal)
    last = above[-1] if len(above) else -1
    if last == -1:
      found.append(float(calls[0]))
    elif last == len(row) - 1:
      found.append(np.nan)
    else:
      # On a straight line between two points of the logarithms.
      span = slice(last, last + 2)
      x, y = np.log(calls[span]), np.log(row[span])
      share = (y[0] - np.log(goal)) / (y[0] - y[1])
      found.append(float(np.exp(x[0] + share * (x[1] - x[0]))))
  return np.array(found)


def measure(bench: runner.Bench) -> list[runner.Row]:
  """Measure steepness along t, and errors of every solver."""
  settings, mixture = bench.settings, data.known_mixture("ring")
  noise = jnp.stack(
    [
      jax.random.normal(jax.random.key(100 + s), (settings["num"], 2))
      for s in bench.seeds
    ]
  )
  steep, errors = [], []
  for (kind, name), (path, field) in fields_of(bench, mixture).items():
    labels = {"field": kind, "path": name}
    start = paths.start(path, noise)
    times = grid_of(path, settings["reference"][name], settings["times"])
    fine = refined(times, settings["substeps"])
    points = follow(field, start, fine)
    steep += _steep_rows(bench, labels, path, field, points, times)
    for at, grid, solver in settings["solvers"]:
      if at != name:
        continue
      found = []
      for calls in settings["calls"]:
        steps = steps_of(solver, calls)
        end = solve(
          field, start, grid_of(path, grid, steps), path=path, solver=solver
        )
        away = jnp.linalg.norm(end - points[:, -1], axis=-1)
        found.append(np.asarray(away.mean(axis=1)))
      all_errors = np.stack(found, axis=1)
      numbers = {
        f"error_{calls}": all_errors[:, i]
        for i, calls in enumerate(settings["calls"])
      }
      numbers["calls"] = calls_for(
        all_errors, np.array(settings["calls"]), settings["error"]
      )
      errors.append(
        runner.Row({**labels, "grid": grid, "solver": solver}, numbers)
      )
  return steep + errors


def _steep_rows(bench, labels, path, field, points, times) -> list[runner.Row]:
  """Return the steepness in the clock of every grid of a path."""
  settings = bench.settings
  some = points[:, :, : settings["jacobians"]]
  slopes = np.asarray(steepness(field, some, times), np.float64)
  at = np.asarray(times, np.float64)
  grids = dict.fromkeys(
    grid for name, grid, _ in settings["solvers"] if name == labels["path"]
  )
  rows = []
  for grid in grids:
    # The clock u runs from 0 to 1, however many steps there are.
    clock = np.linspace(0, 1, 4001)
    dense = np.asarray(grid_of(path, grid, 4000), np.float64)
    speed = np.abs(np.gradient(dense, clock))
    pace = np.interp(at, dense[::-1], speed[::-1])
    per_clock = slopes * pace[None, :, None]
    total = -np.trapezoid(slopes, at, axis=1)
    numbers = {
      "steepest": per_clock.max(axis=1).mean(axis=1),
      "mean": total.mean(axis=1),
    }
    moments = np.interp(at, dense[::-1], clock[::-1])
    for share in np.linspace(0, 1, 41):
      k = int(np.abs(moments - share).argmin())
      numbers[f"at_{share:.3f}"] = per_clock[:, k].mean(axis=1)
    rows.append(runner.Row({**labels, "grid": grid}, numbers))
  return rows


def claims(results: runner.Results) -> list[runner.Claim]:
  """Check the claims about stiffness."""
  calls_named = "calls until the error is 0.05"

  def steep(metric, field, path):
    # In the path's own time. The mean is the same in the clock of any grid.
    return results.values(metric, field=field, path=path, grid="uniform")

  def stiffer(metric: str, says: str, path: str, field: str) -> runner.Check:
    left = steep(metric, field, "linear")
    right = steep(metric, field, path)
    return runner.at_most(
      f"{field}: {says} is smaller than on {path}", left, right
    )

  def error(metric, field, path, grid, solver):
    return results.values(
      metric, field=field, path=path, grid=grid, solver=solver
    )

  def linear(metric, field):
    return error(metric, field, "linear", "uniform", "euler")

  both = [(field, path) for field in FIELDS for path in USUAL]
  return [
    runner.Claim(
      text=(
        "The ODE of a diffusion is stiffer than that of linear flow: its"
        " Lipschitz constant is larger."
      ),
      checks=[
        stiffer(metric, says, path, field)
        for metric, says in (
          ("steepest", "the largest Lipschitz constant of linear flow"),
          ("mean", "the mean Lipschitz constant of linear flow"),
        )
        for field, path in both
      ],
    ),
    runner.Claim(
      text=(
        "With Euler steps linear flow needs fewer calls than a diffusion for"
        " the same error."
      ),
      checks=[
        runner.at_most(
          f"{field}: {calls_named}, fewer than on {path}, {USUAL[path]} grid",
          linear("calls", field),
          error("calls", field, path, USUAL[path], "euler"),
        )
        for field, path in both
      ],
    ),
    runner.Claim(
      text=(
        "DPM-Solver++ closes the gap: with 10 to 20 calls a diffusion is as"
        " exact as linear flow with as many Euler steps."
      ),
      checks=[
        runner.at_most(
          f"{field}: {path}, DPM-Solver++ has the smaller error, {calls} calls",
          error(f"error_{calls}", field, path, USUAL_FAST[path], "dpm_solver"),
          linear(f"error_{calls}", field),
        )
        for calls in (10, 20)
        for field, path in both
      ],
    ),
  ]


def figures(results: runner.Results, folder: pathlib.Path) -> None:
  """Draw steepness along the clock, and errors against calls."""
  settings = results.about["settings"]
  figure, axes = runner.panels(2, width=5.2, height=4, columns=2)
  for panel, field in zip(axes, FIELDS, strict=True):
    lines = {}
    for row in results.select(field=field):
      labels = row["labels"]
      if "solver" in labels:
        continue
      lines[f"{labels['path']}, {labels['grid']}"] = [
        (float(name[3:]), [x for x in number["values"] if x is not None])
        for name, number in row["numbers"].items()
        if name.startswith("at_")
      ]
    draw_lines(
      panel,
      lines,
      x="share of the steps that are done (noise to data)",
      y="Lipschitz constant per length of the grid",
      log="y",
    )
    panel.set_title(f"{field} velocity")
  share_legend(figure, axes, columns=3)
  save_figure(figure, folder / "steepness.png")
  figure, axes = runner.panels(2, width=5.2, height=5, columns=2)
  for panel, field in zip(axes, FIELDS, strict=True):
    lines = {}
    for at, grid, solver in settings["solvers"]:
      lines[f"{at}, {grid}, {solver}"] = [
        (
          calls,
          results.values(
            f"error_{calls}", field=field, path=at, grid=grid, solver=solver
          ),
        )
        for calls in settings["calls"]
      ]
    draw_lines(
      panel,
      lines,
      x="calls of the velocity",
      y="mean distance to the exact end",
      ticks=settings["calls"],
    )
    panel.set_title(f"{field} velocity")
  share_legend(figure, axes, columns=4)
  save_figure(figure, folder / "errors.png")


STUDY = runner.Study(
  name="stiffness",
  question=(
    "Is the ODE of a diffusion stiffer than linear flow, and does it matter?"
  ),
  settings=SETTINGS,
  quick=QUICK,
  measure=measure,
  claims=claims,
  columns=[
    runner.Column(metric="steepest", heading="largest Lipschitz", format=".1f"),
    runner.Column(metric="mean", heading="mean Lipschitz", format=".2f"),
    runner.Column(metric="error_10", heading="error, 10 calls"),
    runner.Column(metric="error_20", heading="error, 20 calls"),
    runner.Column(metric="error_64", heading="error, 64 calls", format=".4f"),
    runner.Column(
      metric="calls", heading="calls for 0.05", format=".1f", missing="over 256"
    ),
  ],
  figures=figures,
)

if __name__ == "__main__":
  STUDY.main()
