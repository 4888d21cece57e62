"""What rounding the weights does to samples of one, two and more calls."""

import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import runner
from experiments.runner.figures import draw_lines
from jaxflow.errors import RunError
from jaxflow.figures.canvas import save_figure
from jaxflow.flow_maps import ode_step
from jaxflow.methods import METHODS
from jaxflow.types import Array, PyTree

FULL = "float32"
SETTINGS = {
  "seeds": 3,
  # What the networks have in place of the config's.
  "model": {"depth": 3, "width": 64, "num_heads": 2, "patch_size": 2},
  # What of a method's config is different.
  "fields": {
    method: {"optimizer": {"learning_rate": 4e-3}}
    for method in ("flow_matching", "mean_flow")
  },
  "steps": {
    "flow_matching": 800,
    "consistency_distillation": 500,
    "mean_flow": 1000,
  },
  "calls": {
    "flow_matching": (2, 4, 8),
    "consistency_distillation": (1, 2),
    "mean_flow": (1, 2),
  },
  # As many samples as there are training digits.
  "num": 1437,
  "formats": ("bfloat16", "float8_e4m3fn", "int8", "int4"),
  "classifier_steps": 1000,
}
QUICK = {
  "seeds": 2,
  "model": {"width": 32, "depth": 1, "patch_size": 2},
  "steps": {"flow_matching": 4, "consistency_distillation": 4},
  "calls": {"flow_matching": (1, 2), "consistency_distillation": (1,)},
  "num": 100,
  "formats": ("bfloat16", "float8_e4m3fn", "int4"),
  "classifier_steps": 20,
}
SHORT = {"float8_e4m3fn": "float8"}
NAMES = {
  "flow_matching": "flow matching",
  "consistency_distillation": "consistency student",
  "mean_flow": "MeanFlow",
}


def rounded(kernel: Array, name: str) -> Array:
  """Return a matrix as a format keeps it, in float32 again.

  Formats of 8 and 4 bits are symmetric, with one scale for each output: the
  largest absolute weight of the column is the largest number of the format.

  Args:
    kernel: Weights [inputs, outputs].
    name: A dtype of `SETTINGS["formats"]`.

  Raises:
    RunError: If the library that rounds is missing.
  """
  if name == "bfloat16":
    return kernel.astype(jnp.bfloat16).astype(kernel.dtype)
  try:
    import qwix
  except ImportError as error:
    raise RunError(
      "quantisation needs qwix: pip install -e '.[quantisation]'"
    ) from error
  kept = qwix.quantize(kernel, name, channelwise_axes=(kernel.ndim - 1,))
  return qwix.dequantize(kept)


def quantised(params: PyTree, name: str) -> PyTree:
  """Return parameters with all matrices rounded; the rest stays as it is.

  Args:
    params: Of a network.
    name: A dtype of `SETTINGS["formats"]`, or `FULL`.
  """
  if name == FULL:
    return params

  def leaf(path, x):
    return rounded(x, name) if path[-1].key == "kernel" else x

  return jax.tree_util.tree_map_with_path(leaf, params)


def error_of_weights(params: PyTree, name: str) -> float:
  """Return the root mean square error of all matrices over their own."""
  pairs = zip(
    jax.tree.leaves(params),
    jax.tree.leaves(quantised(params, name)),
    strict=True,
  )
  moved, size = 0.0, 0.0
  for old, new in pairs:
    if old.ndim == 2:
      moved += float(jnp.sum((new - old) ** 2))
      size += float(jnp.sum(old**2))
  return float(np.sqrt(moved / size))


def trained(bench: runner.Bench) -> dict[str, runner.Fits]:
  """Train all methods; the first, flow matching, is the teacher."""
  found: dict[str, runner.Fits] = {}
  for method, steps in bench.settings["steps"].items():
    config = bench.config(
      f"digits:{method}",
      {
        "model": bench.settings["model"],
        "optimizer": {"warmup_steps": min(100, steps // 2)},
        "train": {"steps": steps},
      },
      bench.settings["fields"].get(method, {}),
    )
    taught = "teacher" in METHODS[method].needs
    found[method] = bench.fit(
      method,
      config,
      teacher=found["flow_matching"] if taught else None,
    )
  return found


def measure(bench: runner.Bench) -> list[runner.Row]:
  """Judge every network in every format, from the same noise."""
  settings = bench.settings
  fits = trained(bench)
  judge = runner.ImageJudge(
    "digits",
    bench.workdir / "classifier",
    train_steps=settings["classifier_steps"],
  )
  rows = []
  for method, found in fits.items():
    for calls in settings["calls"][method]:
      exact = found.sample(settings["num"], calls)
      full = judge(exact)
      for name in (FULL, *settings["formats"]):
        network = found.mapped(lambda x, name=name: quantised(x, name))
        samples = (
          exact if name == FULL else network.sample(len(exact[0]), calls)
        )
        moved, size = (
          np.sqrt(np.square(x).mean(axis=(1, 2, 3, 4)))
          for x in (samples - exact, exact)
        )
        numbers = judge(samples)
        numbers["change"] = moved / size
        numbers["frechet_ratio"] = numbers["frechet"] / full["frechet"]
        numbers["weights"] = np.array(
          [error_of_weights(x, name) for x in found.params()]
        )
        labels = {"method": NAMES[method], "calls": calls, "weights": name}
        rows.append(runner.Row(labels, numbers))
  floor = judge.floor(settings["num"], bench.seeds)
  rows.append(runner.Row({"method": "real digits"}, floor))
  save_pictures(bench, fits)
  return rows


def save_pictures(bench: runner.Bench, fits: dict[str, runner.Fits]) -> None:
  """Write samples of the first seed, from the same noise in every format."""
  pictures = {}
  for method, found in fits.items():
    calls = usual_calls(bench.settings)[method]
    for name in (FULL, "float8_e4m3fn", "int4"):
      network = found.mapped(lambda x, name=name: quantised(x, name))
      title = f"{NAMES[method]}, {SHORT.get(name, name)}"
      pictures[title] = network.sample(12, calls)[0]
  runner.save_images(bench.figures / "samples.png", pictures, scale=5)


def usual_calls(settings: Mapping[str, Any]) -> dict[str, int]:
  """Return the calls each method is made for: most where an ODE is solved."""
  return {
    method: numbers[-1 if METHODS[method].flow_map is ode_step else 0]
    for method, numbers in settings["calls"].items()
  }


def claims(results: runner.Results) -> list[runner.Claim]:
  """Check the claims about rounded weights."""
  settings = results.about["settings"]
  calls, formats = settings["calls"], settings["formats"]

  def of(metric: str, method: str, number: int, name: str) -> np.ndarray:
    return results.values(
      metric, method=NAMES[method], calls=number, weights=name
    )

  low = [name for name in formats if name != "bfloat16"]
  most = calls["flow_matching"][-1]
  usual = usual_calls(settings)

  def more_than_flow(method: str) -> list:
    checks = [
      runner.at_most(
        f"{name}: samples of flow matching, {_calls(most)}, change less than "
        f"those of the {NAMES[method]}, {_calls(usual[method])}",
        of("change", "flow_matching", most, name),
        of("change", method, usual[method], name),
      )
      for name in low
    ]
    return [
      *checks,
      runner.at_most(
        f"int4: the Frechet distance of flow matching, {_calls(most)}, grows "
        f"by a smaller factor than that of the {NAMES[method]}, "
        f"{_calls(usual[method])}",
        of("frechet_ratio", "flow_matching", most, "int4"),
        of("frechet_ratio", method, usual[method], "int4"),
      ),
    ]

  averaging = [
    runner.at_most(
      f"{NAMES[method]}, {name}: samples of {last} calls change less than "
      f"those of {first}",
      of("change", method, last, name),
      of("change", method, first, name),
    )
    for method, (first, *_, last) in (
      item for item in calls.items() if len(item[1]) > 1
    )
    for name in low
  ]
  return [
    *(
      runner.Claim(
        text=f"Rounded weights hurt {title} more than flow matching.",
        checks=more_than_flow(method),
      )
      for method, title in (
        ("consistency_distillation", "a consistency model"),
        ("mean_flow", "a one-call MeanFlow model"),
      )
      if method in calls
    ),
    runner.Claim(
      text="Sampling in more calls averages the errors of rounding out.",
      checks=averaging,
    ),
    runner.Claim(
      text="Weights in bfloat16, float8 or int8 leave the Frechet distance "
      "within a twentieth.",
      checks=[
        runner.at_most(
          f"{NAMES[method]}, {_calls(number)}, {name}: the Frechet distance "
          "grows by at most a twentieth",
          of("frechet_ratio", method, number, name),
          1.05,
        )
        for method, number in usual.items()
        for name in formats
        if name in ("bfloat16", "float8_e4m3fn", "int8")
      ],
      limits="networks of tens of billions of parameters, whose outliers are "
      "what makes rounding hard, and photographs.",
    ),
  ]


def _calls(number: int) -> str:
  return "1 call" if number == 1 else f"{number} calls"


def figures(results: runner.Results, folder: pathlib.Path) -> None:
  """Draw change of samples and Frechet distance over the error of weights."""
  figure, axes = runner.panels(2, width=5.4, height=4.4, columns=2)
  settings = results.about["settings"]
  for panel, metric, title in (
    (axes[0], "change", "relative change of samples (RMS)"),
    (axes[1], "frechet_ratio", "Frechet distance over that of float32"),
  ):
    lines = {}
    for method, numbers in settings["calls"].items():
      for calls in numbers:
        name = f"{NAMES[method]}, {_calls(calls)}"
        lines[name] = [
          (
            results.values("weights", **labels).mean(),
            results.values(metric, **labels),
          )
          for labels in (
            {"method": NAMES[method], "calls": calls, "weights": weights}
            for weights in settings["formats"]
          )
        ]
    draw_lines(
      panel,
      lines,
      x="weights, by their relative error (RMS)",
      y=title,
      log="xy" if metric == "change" else "x",
    )
    first = next(iter(lines.values()))
    names = [
      f"{SHORT.get(name, name)}\n{error:.2g}"
      for name, (error, _) in zip(settings["formats"], first, strict=True)
    ]
    panel.set_xticks([error for error, _ in first], names)
    panel.minorticks_off()
  save_figure(figure, folder / "change.png")


STUDY = runner.Study(
  name="quantisation",
  question="Do rounded weights hurt one-call models more than flow matching?",
  settings=SETTINGS,
  quick=QUICK,
  measure=measure,
  claims=claims,
  columns=[
    runner.Column(metric="weights", heading="error of weights", format=".4f"),
    runner.Column(metric="change", heading="change of samples", format=".4f"),
    runner.Column(metric="frechet", heading="Frechet", format=".2f"),
    runner.Column(metric="frechet_ratio", heading="over float32", format=".3f"),
    runner.Column(metric="accuracy", heading="accuracy", format=".3f"),
  ],
  figures=figures,
)

if __name__ == "__main__":
  STUDY.main()
