"""How often training from scratch diverges, and what prevents it."""

import pathlib
from typing import Any

import numpy as np
from scipy.stats import beta

from experiments import runner
from experiments.runner.figures import draw_lines
from jaxflow.figures.canvas import save_figure

# Standard deviation of the points in each direction.
SIGMA_DATA = 0.7
# A constant c next to which every tangent g is small: g / (|g| + c) is then g
# up to a factor, to which Adam is blind if its own constant is smaller still.
SCALE = 1e4
BARE = {
  "loss": {"c": SCALE, "warmup": 0.0, "log_weight": {"name": "none"}},
  "optimizer": {"eps": 1e-8 / SCALE},
}
NETWORK = {
  "model": {"width": 64, "depth": 2},
  "optimizer": {"schedule": "constant"},
  "train": {"batch_size": 256, "steps_per_dispatch": 25, "log_every": 25},
}

SETTINGS = {
  "seeds": 5,
  "steps": 1200,
  "num": 2000,
  # The config's, and five and twenty-five times as much.
  "learning_rates": (2e-3, 1e-2, 5e-2),
  # Row of METHODS, and what is different from its config.
  "methods": {
    "CT": ("consistency_training", {}),
    "iCT": ("improved_consistency_training", {}),
    "ECM": ("easy_consistency", {}),
    "continuous, bare": ("continuous_consistency", BARE),
    "continuous, as published": ("continuous_consistency", {}),
    "MeanFlow": ("mean_flow", {}),
  },
  # Of each method, what is tried at the highest rate: changes of the config,
  # and from which network training starts.
  "fixes": {
    "continuous, bare": {
      "tangent normalised": ({"loss": {"c": 0.1}}, None),
      "tangent warm-up": ({"loss": {"warmup": 0.25}}, None),
      "gradient clipped": ({"optimizer": {"clip_norm": 1 / SCALE}}, None),
      "rate warm-up": ({"optimizer": {"warmup_steps": 300}}, None),
      "from a flow model": ({}, "angular flow"),
    },
    "continuous, as published": {
      "gradient clipped": ({"optimizer": {"clip_norm": 1.0}}, None),
      "from a flow model": ({}, "angular flow"),
    },
    "MeanFlow": {
      "tangent clipped": ({"loss": {"tangent_clip": 1.0}}, None),
      "gradient clipped": ({"optimizer": {"clip_norm": 1.0}}, None),
      "from a flow model": ({}, "flow"),
    },
    "CT": {
      "gradient clipped": ({"optimizer": {"clip_norm": 1.0}}, None),
      "from a denoiser": ({}, "denoiser"),
    },
    "iCT": {"from a denoiser": ({}, "denoiser")},
    "ECM": {"from a denoiser": ({}, "denoiser")},
  },
  # Networks to start from, trained at the config's rate.
  "pretrained": {
    "angular flow": (
      "flow_matching",
      {
        "path": {
          "name": "trigonometric",
          "t_max": np.pi / 2,
          "noise_std": SIGMA_DATA,
        },
        "parameterization": {"name": "normalized"},
        "times": {
          "name": "arctan_log_normal",
          "mean": -1.0,
          "std": 1.4,
          "sigma_data": SIGMA_DATA,
        },
      },
    ),
    "flow": ("flow_matching", {}),
    "denoiser": ("denoising", {}),
  },
}
QUICK = {
  "seeds": 2,
  "steps": 50,
  "num": 200,
  "learning_rates": (5e-2,),
  "methods": {
    name: SETTINGS["methods"][name] for name in ("CT", "continuous, bare")
  },
  "fixes": {
    "continuous, bare": {"from a flow model": ({}, "angular flow")},
  },
  "pretrained": {
    "angular flow": SETTINGS["pretrained"]["angular flow"],
  },
}


def config_of(bench: runner.Bench, method: str, *changes: dict[str, Any]):
  """Return the config of a row of METHODS on the ring, with changes."""
  steps = {"train": {"steps": bench.settings["steps"]}}
  return bench.config(f"ring:{method}", NETWORK, steps, *changes)


def of_log(fits: runner.Fits) -> dict[str, np.ndarray]:
  """Return norms along training: medians of the last quarter, and a peak.

  `peak` is the largest norm of a gradient after the first tenth of training.
  """
  log = fits.log
  found = {}
  with np.errstate(all="ignore"):
    for name in ("tangent_norm", "gradient_norm"):
      if name in log:
        last = log[name][:, -max(1, log[name].shape[1] // 4) :]
        found[name] = np.array([np.median(x[np.isfinite(x)]) for x in last])
    after = log["gradient_norm"][:, log["gradient_norm"].shape[1] // 10 :]
    finite = np.where(np.isfinite(after), after, 0.0)
    found["peak"] = finite.max(axis=1)
  return found


def measure(bench: runner.Bench) -> list[runner.Row]:
  """Train every method at every rate, and every fix at the highest."""
  settings = bench.settings
  judge = bench.judge()
  num, seeds = settings["num"], bench.seeds
  bound = judge.one_gaussian(num, seeds)
  rows = []

  def judged(title, method, changes, rate, fix="none", init=None):
    config = config_of(
      bench, method, *changes, {"optimizer": {"learning_rate": rate}}
    )
    fits = bench.fit(f"{title}, rate {rate:g}, fix {fix}", config, init=init)
    numbers = judge(fits.sample(num, 1))
    worse = ~(numbers["sliced_wasserstein"] < bound["sliced_wasserstein"])
    numbers["diverged"] = (fits.diverged | worse).astype(float)
    numbers["skipped"] = np.nanmax(fits.log["skipped"], axis=1)
    numbers |= of_log(fits)
    rows.append(
      runner.Row({"method": title, "rate": rate, "fix": fix}, numbers)
    )

  for title, (method, change) in settings["methods"].items():
    for rate in settings["learning_rates"]:
      judged(title, method, [change], rate)
  pretrained = {
    name: bench.fit(name, config_of(bench, method, change))
    for name, (method, change) in settings["pretrained"].items()
  }
  for title, fixes in settings["fixes"].items():
    method, change = settings["methods"][title]
    for fix, (extra, start) in fixes.items():
      judged(
        title,
        method,
        [change, extra],
        settings["learning_rates"][-1],
        fix,
        None if start is None else pretrained[start],
      )
  rows.append(
    runner.Row({"method": "one Gaussian", "rate": "", "fix": ""}, bound)
  )
  floor = judge.floor(num, seeds)
  rows.append(
    runner.Row({"method": "real points", "rate": "", "fix": ""}, floor)
  )
  return rows


def claims(results: runner.Results) -> list[runner.Claim]:
  """Check the claims about the stability of training from scratch."""
  settings = results.about["settings"]
  rates, named = settings["learning_rates"], settings["methods"]
  bare, published = "continuous, bare", "continuous, as published"

  def every(title: str) -> np.ndarray:
    """Whether the runs of all rates and seeds diverged."""
    return np.concatenate(
      [
        results.values("diverged", method=title, rate=rate, fix="none")
        for rate in rates
      ]
    )

  def at_highest(title: str, fix: str) -> np.ndarray:
    return results.values("diverged", method=title, rate=rates[-1], fix=fix)

  def fewer(says: str, left: np.ndarray, right: np.ndarray) -> runner.Check:
    """Sign test on pairs of runs of one seed and rate."""
    here = int(np.sum((left > 0) & (right == 0)))
    pairs = int(np.sum(left != right))
    # Bounds of 95 % confidence on the share; between them nothing is decided.
    least = beta.ppf(0.05, here, pairs - here + 1) if here else 0.0
    most = beta.ppf(0.95, here + 1, pairs - here) if here < pairs else 1.0
    return runner.at_most(
      f"{says}: {here} of the first alone, {pairs - here} of the second",
      max(least, min(most, 0.5)),
      0.5,
    )

  def helps(title: str, fix: str) -> runner.Check:
    return fewer(
      f"{title}, highest rate: fewer runs diverge with '{fix}' than without",
      at_highest(title, fix),
      at_highest(title, "none"),
    )

  def rare(title: str) -> runner.Check:
    # Five runs that agree have no deviation, and yet say little: the share of
    # a law under which so few of all diverge with a probability of 5 %.
    runs = every(title)
    failed = runs.sum()
    bound = 1.0
    if failed < len(runs):
      bound = beta.ppf(0.95, failed + 1, len(runs) - failed)
    return runner.at_most(
      f"{title}, {len(runs)} runs at all rates: with 95 % confidence fewer "
      "than one in five diverge",
      bound,
      0.2,
    )

  discrete = [name for name in ("CT", "iCT", "ECM") if name in named]
  fixes = settings["fixes"]
  found = [
    runner.Claim(
      text="Continuous-time consistency training from scratch diverges more "
      "often than training in discrete time.",
      checks=[
        fewer(
          f"all rates: fewer runs of {name} diverge than of '{bare}'",
          every(name),
          every(bare),
        )
        for name in discrete
      ],
      limits="runs that end in infinities, of which there was none: diverged "
      "is here what ends worse than one Gaussian",
    ),
    runner.Claim(
      text="Starting from a pretrained flow model makes continuous-time "
      "consistency training diverge less often.",
      checks=[
        helps(title, "from a flow model")
        for title in (bare, published)
        if "from a flow model" in fixes.get(title, {})
      ],
    ),
  ]
  if published in named:
    found += _claims_on_fixes(every, fewer, helps, rare)
  return found


def _claims_on_fixes(every, fewer, helps, rare) -> list[runner.Claim]:
  """Return the claims on what helps training from scratch."""
  bare, published = "continuous, bare", "continuous, as published"
  return [
    runner.Claim(
      text="Normalising the tangent makes continuous-time training from "
      "scratch diverge less often.",
      checks=[
        helps(bare, "tangent normalised"),
        fewer(
          f"all rates: fewer runs of '{published}' diverge than of '{bare}'",
          every(published),
          every(bare),
        ),
      ],
    ),
    runner.Claim(
      text="Clipping the gradient makes continuous-time training from scratch "
      "diverge less often.",
      checks=[helps(title, "gradient clipped") for title in (bare, published)],
    ),
    runner.Claim(
      text="A warm-up of the tangent makes continuous-time training from "
      "scratch diverge less often.",
      checks=[helps(bare, "tangent warm-up")],
    ),
    runner.Claim(
      text="MeanFlow is stable from scratch.",
      checks=[rare("MeanFlow")],
    ),
  ]


def figures(results: runner.Results, folder: pathlib.Path) -> None:
  """Draw what diverged and how near the rest came, for every rate."""
  figure, axes = runner.panels(2, width=5.4, height=4.2, columns=2)
  settings = results.about["settings"]
  rates = settings["learning_rates"]
  bound = results.values("sliced_wasserstein", method="one Gaussian").mean()
  real = results.values("sliced_wasserstein", method="real points").mean()
  for panel, metric, title in (
    (axes[0], "diverged", "share of runs that diverge"),
    (axes[1], "sliced_wasserstein", "sliced Wasserstein, one call"),
  ):
    lines = {}
    for number, name in enumerate(settings["methods"]):
      points = []
      for rate in rates:
        values = results.values(metric, method=name, rate=rate, fix="none")
        # Side by side, so that equal values stay visible.
        at = rate * 1.06 ** (number - 2.5)
        if metric == "diverged":
          points.append((at, [values.mean()]))
        elif np.isfinite(values).any():
          points.append((at, values[np.isfinite(values)]))
      lines[name] = points
    distance = metric == "sliced_wasserstein"
    draw_lines(
      panel,
      lines,
      x="learning rate",
      y=title,
      log="x",
      levels={"one Gaussian": bound, "real points": real} if distance else None,
      ticks=rates,
    )
    if distance:
      panel.set_ylim(bottom=0)
  save_figure(figure, folder / "rates.png")


STUDY = runner.Study(
  name="stability",
  question="Which training from scratch diverges, and what prevents it?",
  settings=SETTINGS,
  quick=QUICK,
  measure=measure,
  claims=claims,
  columns=[
    runner.Column(
      metric="diverged", heading="worse than one Gaussian", format=".2f"
    ),
    runner.Column(metric="sliced_wasserstein", heading="sliced Wasserstein"),
    runner.Column(
      metric="mode_coverage", heading="modes covered", format=".2f"
    ),
    runner.Column(metric="tangent_norm", heading="tangent norm", format=".3g"),
    runner.Column(
      metric="gradient_norm", heading="gradient norm", format=".3g"
    ),
    runner.Column(metric="peak", heading="largest gradient", format=".3g"),
  ],
  figures=figures,
)

if __name__ == "__main__":
  STUDY.main()
