"""The grey of one-step flow matching, and three ways out of it."""

import pathlib

import numpy as np

from experiments import runner
from experiments.runner.figures import draw_lines
from jaxflow import data
from jaxflow.figures.canvas import save_figure
from jaxflow.methods import METHODS
from jaxflow.runs.pair_generation import PairOptions

SETTINGS = {
  "seeds": 3,
  "data": "fashion_mnist",
  "model": {"width": 64, "depth": 3, "num_heads": 2, "patch_size": 4},
  "batch_size": 32,
  # Of flow matching; of each repair, which starts from it.
  "flow_steps": 4000,
  "steps": 2000,
  "learning_rate": 1e-3,
  "pairs": 4096,
  "pair_calls": 16,
  "calls": (1, 2, 4, 16),
  # Samples of each seed that are judged.
  "num": 1000,
  "classifier_steps": 400,
  # What counts as far below the data, as most, as restored.
  "far_below": 0.25,
  "most": 0.5,
  "restored": 0.9,
}
QUICK = {
  "seeds": 2,
  "data": "digits",
  "model": {"patch_size": 2, "depth": 1, "width": 32},
  "batch_size": 16,
  "flow_steps": 125,
  "steps": 125,
  "pairs": 256,
  "pair_calls": 4,
  "calls": (1, 4),
  "num": 100,
  "classifier_steps": 50,
}
FLOW, LONGER, REAL = "flow matching", "flow matching, longer", "real images"
REPAIRS = {
  "ReFlow": "reflow",
  "MeanFlow": "mean_flow",
  "distillation": "knowledge_distillation",
}


def train(bench: runner.Bench) -> dict[str, runner.Fits]:
  """Train the flow, and every repair of it for as many steps."""
  settings = bench.settings

  def config(method: str, *changes):
    return bench.config(
      f"{settings['data']}:{method}",
      {
        "model": settings["model"],
        "train": {
          "batch_size": settings["batch_size"],
          "steps": settings["flow_steps"],
        },
      },
      *changes,
    )

  flow = bench.fit(FLOW, config("flow_matching"))
  options = PairOptions(num=settings["pairs"], nfe=settings["pair_calls"])
  made = runner.make_pairs(flow, options)
  changes = {
    "train": {"steps": settings["steps"]},
    "optimizer": {"learning_rate": settings["learning_rate"]},
  }
  longer = config("flow_matching", changes)
  networks = {
    FLOW: flow,
    LONGER: bench.fit(LONGER, longer, init=flow),
  }
  for name, method in REPAIRS.items():
    networks[name] = bench.fit(
      name,
      config(method, changes),
      init=flow,
      pairs=made if "pairs" in METHODS[method].needs else None,
    )
  return networks


def measure(bench: runner.Bench) -> list[runner.Row]:
  """Judge all networks by contrast and by distance."""
  settings = bench.settings
  networks = train(bench)
  judge = runner.ImageJudge(
    settings["data"],
    bench.workdir,
    num=settings["num"],
    train_steps=settings["classifier_steps"],
  )
  real = data.load(settings["data"], "train")
  label = np.arange(settings["num"]) % real.num_classes
  means = np.stack(
    [real.data[real.label == y].mean(axis=0) for y in range(real.num_classes)]
  )

  def to_mean(samples):
    """Root mean square distance of a pixel to the mean of its class."""
    return np.sqrt(((samples - means[label]) ** 2).mean(axis=(1, 2, 3, 4)))

  rows, pictures = [], {}
  for name, fits in networks.items():
    for calls in settings["calls"]:
      # The distilled student knows the whole jump only.
      if name == "distillation" and calls > 1:
        continue
      samples = fits.sample(settings["num"], calls, seed=1)
      labels = {"method": name, "calls": calls}
      numbers = judge(samples) | {"to_mean": to_mean(samples)}
      rows.append(runner.Row(labels, numbers))
      if name == FLOW or calls == 1:
        pictures[f"{name}, calls {calls}"] = samples[0, :20]
  fresh = _fresh(real, label, bench.seeds)
  floor = judge.floor(settings["num"], bench.seeds)
  floor["to_mean"] = to_mean(fresh)
  rows.append(runner.Row({"method": REAL, "calls": 0}, floor))
  pictures[REAL] = fresh[0, :20]
  runner.save_images(bench.figures / "samples.png", pictures, scale=2)
  return rows


def _fresh(
  real: data.Dataset, label: np.ndarray, seeds: tuple[int, ...]
) -> np.ndarray:
  """Return real images [S, N, ...] of the classes [N], with repetition."""
  every = []
  for seed in seeds:
    generator = np.random.default_rng(seed)
    rows = [generator.choice(np.flatnonzero(real.label == y)) for y in label]
    every.append(real.data[rows])
  return np.stack(every)


def claims(results: runner.Results) -> list[runner.Claim]:
  """Check the claims about one call, of a few, and of the repairs."""
  settings = results.about["settings"]
  far, most, restored = (
    settings[name] for name in ("far_below", "most", "restored")
  )
  last = settings["calls"][-1]

  def flow(metric, calls):
    return results.values(metric, method=FLOW, calls=calls)

  def real(metric):
    return results.values(metric, method=REAL)

  def regains(metric: str, what: str, calls: int) -> runner.Check:
    """Check the share of the way to the data that `calls` calls go."""
    start = flow(metric, 1)
    way = real(metric) - start
    gone = flow(metric, calls) - start
    return runner.at_least(
      f"{calls} calls go {most:.0%} of the way from one call to the data: "
      f"{what}",
      gone * np.sign(way),
      np.abs(way),
      factor=most,
    )

  few = [calls for calls in settings["calls"] if 1 < calls <= 4]
  repairs = [
    runner.Claim(
      text=f"{name[0].upper()}{name[1:]} restores the contrast in one call.",
      checks=[
        runner.at_least(
          f"contrast within a class is at least {restored} of the data's",
          results.values("class_contrast", method=name, calls=1),
          real("class_contrast"),
          factor=restored,
        ),
        runner.at_most(
          f"its Frechet distance is at most that of flow matching in {few[-1]} "
          "calls, trained as long",
          results.values("frechet", method=name, calls=1),
          results.values("frechet", method=LONGER, calls=few[-1]),
        ),
      ],
    )
    for name in REPAIRS
  ]
  return [
    runner.Claim(
      text="One call of flow matching gives the grey mean of a class.",
      checks=[
        runner.at_most(
          f"{name}: {says}",
          results.values(metric, method=name, calls=1),
          real(metric),
          factor=far,
        )
        for name in (FLOW, LONGER)
        for metric, says in (
          (
            "class_contrast",
            f"contrast within a class is at most {far} of the data's",
          ),
          (
            "to_mean",
            f"samples are at most {far} as far from the mean of their class "
            "as data are",
          ),
        )
      ],
    ),
    *(
      runner.Claim(
        text=f"{calls} calls of flow matching repair most of the grey.",
        checks=[
          regains(metric, what, calls)
          for metric, what in (
            ("class_contrast", "contrast within a class"),
            ("frechet", "Frechet distance"),
          )
        ],
        limits=f"more calls than {last}, large networks",
      )
      for calls in few
    ),
    *repairs,
  ]


def figures(results: runner.Results, folder: pathlib.Path) -> None:
  """Draw contrast and distance over the number of calls."""
  figure, axes = runner.panels(2, width=5.2, height=3.9, columns=2)
  calls = results.about["settings"]["calls"]
  names = {
    "class_contrast": "contrast within a class",
    "frechet": "Frechet distance in classifier features",
  }
  for panel, (metric, title) in zip(axes, names.items(), strict=True):
    lines = {}
    for name in (FLOW, LONGER, *REPAIRS):
      lines[name] = [
        (row["labels"]["calls"], results.values(metric, **row["labels"]))
        for row in results.select(method=name)
      ]
    level = float(results.values(metric, method=REAL).mean())
    draw_lines(
      panel,
      lines,
      x="network calls",
      y=title,
      log="xy" if metric == "frechet" else "x",
      levels={REAL: level},
      ticks=calls,
    )
  save_figure(figure, folder / "calls.png")


STUDY = runner.Study(
  name="grey",
  question="Why is one step of flow matching grey, and what repairs it?",
  settings=SETTINGS,
  quick=QUICK,
  measure=measure,
  claims=claims,
  columns=[
    runner.Column(metric="class_contrast", heading="contrast within a class"),
    runner.Column(metric="contrast", heading="contrast"),
    runner.Column(metric="to_mean", heading="distance to the class's mean"),
    runner.Column(metric="fine_power", heading="fine power", format=".4f"),
    runner.Column(metric="frechet", heading="Frechet distance", format=".1f"),
    runner.Column(metric="accuracy", heading="accuracy", format=".2f"),
    runner.Column(metric="recall", heading="recall", format=".2f"),
  ],
  figures=figures,
)

if __name__ == "__main__":
  STUDY.main()
