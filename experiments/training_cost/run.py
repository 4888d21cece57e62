"""What one training step of every method costs, relative to flow matching.

Compiles value and gradient of each loss on one small DiT with unrolled layers
(XLA counts the body of a scan once) and reads the compiled program's FLOPs and
temporary memory; wall time is compared within rounds. MeanFlow as published
stands beside ours, written as its formula.
"""

import pathlib

import numpy as np

from experiments import runner
from experiments.training_cost.steps import (
  compile_all,
  count_all,
  counts,
  memory_with_remat,
  time_ratios,
)
from experiments.training_cost.variants import BASELINE, variants
from jaxflow.figures.canvas import save_figure

# Largest FLOPs relative to the baseline that this library allows itself.
GOALS = {
  "mean_flow": 1.12,
  "mean_flow, omega 1, kappa 0.5": 1.55,
  "mean_flow, central differences": 1.18,
  "alpha_flow": 1.1,
  "solution_flow": 1.1,
  "improved_mean_flow": 2.45,
  "drifting": 1.05,
  "lagrangian": 1.35,
  "shortcut": 1.12,
  "easy_consistency": 1.36,
  "improved_consistency_training": 1.36,
  "continuous_consistency": 1.42,
  "continuous_consistency_distillation": 1.77,
}
# Steps with a teacher, but for mid-training: one of its samples is a trajectory
# of 16 points, and no price of one point.
DISTILLATIONS = (
  "consistency_distillation, euler",
  "consistency_distillation, heun",
  "consistency_distillation, heun, guided teacher",
  "consistency_trajectory, 1 Heun step",
  "continuous_consistency_distillation",
  "progressive_distillation",
  "guidance_distillation",
  "slim_flow",
)
# Steps that are timed with remat too, and that a claim speaks of.
RECOMPUTED = (
  BASELINE,
  "mean_flow",
  "shortcut",
  "consistency_distillation, heun",
  "continuous_consistency",
)
SETTINGS = {
  # Rounds of timing: FLOPs and memory are exact, and the same in all.
  "seeds": 5,
  # Wide enough for matrix products to dominate, as in a network of real size.
  "network": {
    "batch_size": 16,
    "depth": 4,
    "width": 256,
    "num_heads": 4,
    "data_shape": (32, 32, 4),
    "patch_size": 4,
    "num_classes": 1000,
  },
  "variants": tuple(variants(1000)),
  "timed_with_remat": RECOMPUTED,
}
QUICK = {
  # Halved steps need 16 rows.
  "network": SETTINGS["network"] | {"depth": 1},
  "seeds": 2,
  "variants": (
    BASELINE,
    "mean_flow",
    "consistency_distillation, euler",
    "published mean_flow",
  ),
  "timed_with_remat": (BASELINE, "mean_flow"),
}


def measure(bench: runner.Bench) -> list[runner.Row]:
  """Count all variants without and with remat, and time them in turn."""
  settings = bench.settings
  network, names = settings["network"], settings["variants"]
  timed = settings["timed_with_remat"]
  ours = [name for name in names if not name.startswith("published")]
  bench.log(f"compiling {len(names)} steps")
  plain, arguments = compile_all(network, names)
  bench.log(f"compiling {len(ours)} steps with remat")
  fast, others = compile_all(network, timed, remat=True)
  rest = [name for name in ours if name not in timed]
  if bench.quick:
    rest = []
  counted = count_all(network, rest, remat=True)
  scanned = memory_with_remat(network, timed)

  def again(table: dict) -> dict:
    return {f"{name}, remat": value for name, value in table.items()}

  bench.log(f"timing {len(bench.seeds)} rounds")
  ratios = time_ratios(
    plain | again(fast),
    arguments | again(others),
    len(bench.seeds),
    baseline=BASELINE,
  )
  unaltered = {name: counts(step) for name, step in plain.items()}
  counted |= {name: counts(step) for name, step in fast.items()}
  base = unaltered[BASELINE]
  rows = []
  for remat, steps in (("no", unaltered), ("yes", counted)):
    for name in names:
      if name not in steps:
        continue
      step = steps[name]
      numbers = {
        "flops": step.flops,
        "flops_ratio": step.flops / base.flops,
        "temporary_bytes": step.temporary_bytes,
        "temporary_ratio": step.temporary_bytes / base.temporary_bytes,
      }
      if remat == "yes":
        one = unaltered[name]
        numbers["more_flops"] = step.flops / one.flops
        numbers["less_memory"] = step.temporary_bytes / one.temporary_bytes
        if name in scanned:
          numbers["less_memory_scanned"] = scanned[name]
      elif name in GOALS:
        numbers["goal"] = GOALS[name]
      key = name if remat == "no" else f"{name}, remat"
      if key in ratios:
        numbers["time_ratio"] = ratios[key]
      rows.append(runner.Row({"variant": name, "remat": remat}, numbers))
  return rows


def claims(results: runner.Results) -> list[runner.Claim]:
  """Check the claims about the cost of a step."""
  settings = results.about["settings"]
  names = settings["variants"]

  def of(metric: str, name: str, remat: str = "no") -> np.ndarray:
    return results.values(metric, variant=name, remat=remat)

  def between(
    what: str, values: np.ndarray, low: float, high: float
  ) -> runner.Check:
    # Of the mean: rounds of timing scatter on both sides of it.
    mean, middle = values.mean(), (low + high) / 2
    return runner.at_most(
      f"{what}: {mean:.2f} times is between {low:g} and {high:g}",
      np.sign(mean - middle) * (values - middle),
      (high - low) / 2,
    )

  def recomputed(name: str) -> list[runner.Check]:
    return [
      runner.at_most(
        f"{name}, scanned layers: remat takes at least a tenth off the "
        "temporary memory",
        of("less_memory_scanned", name, "yes"),
        0.9,
      ),
      between(
        f"{name}: FLOPs with remat over those without",
        of("more_flops", name, "yes"),
        1.28,
        1.38,
      ),
    ]

  published = "published mean_flow"
  return [
    runner.Claim(
      text="A step of distillation with a teacher costs 3 to 5 times the FLOPs "
      "of one of flow matching.",
      checks=[
        between(f"{name}: FLOPs", of("flops_ratio", name), 3.0, 5.0)
        for name in DISTILLATIONS
        if name in names
      ],
      limits="the training of the teacher, teachers that are larger than the "
      "student, distances in features of another network and discriminators, "
      "each of which adds to a step.",
    ),
    runner.Claim(
      text="A step of MeanFlow costs 16 to 20 % more than one of flow "
      "matching.",
      checks=[
        between("FLOPs here", of("flops_ratio", "mean_flow"), 1.16, 1.2),
        between(
          "FLOPs of the published formula",
          of("flops_ratio", published),
          1.16,
          1.2,
        ),
        between(
          "time of the published formula",
          of("time_ratio", published),
          1.16,
          1.2,
        ),
      ],
      limits="the share of a training step that is not value and gradient: "
      "input, optimizer, averages and exchange between devices make every "
      "ratio smaller.",
    ),
    runner.Claim(
      text="Recomputing blocks in the backward pass (remat) saves memory for "
      "about a third more FLOPs.",
      checks=[
        check
        for name in settings["timed_with_remat"]
        for check in recomputed(name)
      ],
      limits="one program for both: FLOPs are of layers one by one, memory is "
      "of layers in a scan, without which remat saves a tenth at most",
    ),
  ]


def figures(results: runner.Results, folder: pathlib.Path) -> None:
  """Draw FLOPs and memory of every variant, without and with remat."""
  plain = results.select(remat="no")
  order = sorted(plain, key=lambda row: row["numbers"]["flops"]["mean"])
  names = [row["labels"]["variant"] for row in order]
  figure, axes = runner.panels(
    2, width=5.4, height=1.2 + 0.24 * len(names), columns=2
  )
  places = np.arange(len(names))
  for panel, metric, title in (
    (axes[0], "flops_ratio", "FLOPs over flow matching"),
    (axes[1], "temporary_ratio", "temporary memory over flow matching"),
  ):
    runner.logarithmic(panel, base=2)
    for remat, shift, mark in (("no", -0.12, "o"), ("yes", 0.12, "D")):
      found = {
        row["labels"]["variant"]: row["numbers"][metric]["mean"]
        for row in results.select(remat=remat)
      }
      shown = [i for i, name in enumerate(names) if name in found]
      panel.plot(
        [found[names[i]] for i in shown],
        places[shown] + shift,
        mark,
        markersize=5,
        label="with remat" if remat == "yes" else "without remat",
      )
    panel.set_xlabel(title)
    panel.axvline(1, color="0.3", linewidth=0.8)
    panel.grid(color="0.92")
    panel.set_axisbelow(True)
    panel.set_ylim(-0.6, len(names) - 0.4)
  axes[0].axvspan(3, 5, color="0.9", zorder=0, label="3 to 5 times")
  axes[0].set_yticks(places, names, fontsize=7)
  axes[1].set_yticks(places, [""] * len(names))
  axes[0].legend(fontsize=8, loc="lower right")
  save_figure(figure, folder / "cost.png")


STUDY = runner.Study(
  name="training_cost",
  question="What does one training step of each method cost, relative to flow "
  "matching?",
  settings=SETTINGS,
  quick=QUICK,
  measure=measure,
  claims=claims,
  columns=[
    runner.Column(metric="flops_ratio", heading="FLOPs"),
    runner.Column(metric="goal", heading="goal, at most", format=".2f"),
    runner.Column(
      metric="temporary_ratio", heading="temporary memory", format=".2f"
    ),
    runner.Column(metric="time_ratio", heading="time", format=".2f"),
    runner.Column(metric="more_flops", heading="FLOPs by remat", format=".2f"),
    runner.Column(
      metric="less_memory", heading="memory by remat", format=".2f"
    ),
    runner.Column(
      metric="less_memory_scanned",
      heading="memory by remat, scanned layers",
      format=".2f",
    ),
  ],
  figures=figures,
)

if __name__ == "__main__":
  STUDY.main()
