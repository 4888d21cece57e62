"""Classifier-free guidance: by two passes, distilled, and in MeanFlow."""

import dataclasses
import functools
import itertools
import pathlib
from collections.abc import Callable

import numpy as np

from experiments import runner
from experiments.runner.figures import draw_lines
from jaxflow.compilation.programs import sampler
from jaxflow.compilation.report import compile_program
from jaxflow.figures.canvas import save_figure
from jaxflow.parallel import sharding
from jaxflow.runs.run import Run

SETTINGS = {
  "seeds": 3,
  # Changes of the digits' network, of all three.
  "model": {"depth": 3, "width": 64, "num_heads": 2, "patch_size": 2},
  "learning_rate": 4e-3,
  "batch_size": 64,
  "steps": 1000,
  "scales": (1.0, 2.0, 3.0, 4.0),
  "calls": (1, 2, 4, 16),
  # Samples of each seed that are judged.
  "num": 1000,
  "classifier_steps": 1000,
  # What counts as a match: a Frechet distance so many times as large, an
  # accuracy so much lower.
  "match": {"frechet": 1.25, "accuracy": 0.02},
}
QUICK = {
  "seeds": 2,
  "model": {"depth": 1, "width": 32, "patch_size": 2},
  "batch_size": 16,
  "steps": 125,
  "scales": (1.0, 4.0),
  "calls": (1, 4),
  "num": 100,
  "classifier_steps": 50,
}
TWO_PASS, DISTILLED, MEAN_FLOW = "two passes", "distilled", "guided MeanFlow"


def guided(fits: runner.Fits, name: str, scale: float) -> runner.Fits:
  """Return networks that are sampled at a guidance scale."""
  if name == TWO_PASS:
    return fits.changed({"sample": {"guidance": scale}})
  return fits.changed({"flow_map": {"omega": scale}})


def flops_of(run: Run, calls: int) -> float:
  """Return the operations of all matrix products of one sample."""
  program = dataclasses.replace(
    sampler(run, sharding.make_mesh()), function=run.make_sampler(calls)
  )
  return compile_program(program).flops / program.rows


def train(bench: runner.Bench) -> dict[str, runner.Fits]:
  """Train the three networks, for as many steps each."""
  settings = bench.settings
  shared = {
    "model": settings["model"],
    "optimizer": {"learning_rate": settings["learning_rate"]},
    "train": {"steps": settings["steps"], "batch_size": settings["batch_size"]},
  }
  high = {"loss": {"omega_max": max(settings["scales"])}}

  def fit(title, method, *changes, **others):
    config = bench.config(f"digits:{method}", shared, *changes)
    return bench.fit(title, config, **others)

  flow = fit("flow matching", "flow_matching")
  distilled = fit(DISTILLED, "guidance_distillation", high, teacher=flow)
  mean_flow = fit(MEAN_FLOW, "improved_mean_flow", high)
  return {TWO_PASS: flow, DISTILLED: distilled, MEAN_FLOW: mean_flow}


def measure(bench: runner.Bench) -> list[runner.Row]:
  """Judge three kinds of guidance at all scales and numbers of calls."""
  settings = bench.settings
  networks = train(bench)
  judge = runner.ImageJudge(
    "digits", bench.workdir, train_steps=settings["classifier_steps"]
  )
  rows, pictures = [], {}
  scales, most = settings["scales"], settings["calls"][-1]
  shown = {TWO_PASS: most, DISTILLED: most, MEAN_FLOW: 1}
  ways = {
    (name, scale): guided(networks[name], name, scale)
    for name, scale in itertools.product(networks, scales)
  }
  for name, calls, scale in itertools.product(
    networks, settings["calls"], scales
  ):
    fits = ways[name, scale]
    samples = fits.sample(settings["num"], calls, seed=1)
    labels = {"guidance": name, "calls": calls, "scale": scale}
    cost = {"megaflops": flops_of(fits.run, calls) / 1e6}
    rows.append(runner.Row(labels, {**judge(samples), **cost}))
    if calls == shown[name] and scale in (scales[0], scales[-1]):
      title = f"{name}, calls {calls}, scale {scale:g}"
      pictures[title] = samples[0, :20]
  real = {"guidance": "real digits", "calls": 0, "scale": 0.0}
  rows.append(runner.Row(real, judge.floor(settings["num"], bench.seeds)))
  runner.save_images(bench.figures / "samples.png", pictures)
  return rows


def claims(results: runner.Results) -> list[runner.Claim]:
  """Check the claims about guidance."""
  settings = results.about["settings"]
  scales, most = settings["scales"], settings["calls"][-1]
  higher = [scale for scale in scales if scale > 1]

  def of(metric, name, calls, scale):
    return results.values(metric, guidance=name, calls=calls, scale=scale)

  def less_diverse(
    at: str, now: Callable, before: Callable
  ) -> list[runner.Check]:
    """Check lower diversity; recall is left out where it was 0 before."""
    names = {"class_contrast": "contrast within a class"}
    if np.any(before("recall") > 0):
      names["recall"] = "recall"
    return [
      runner.at_most(f"{at}: {name} is lower", now(metric), before(metric))
      for metric, name in names.items()
    ]

  def acts(calls: int) -> list[runner.Check]:
    """Check the effects of guidance at one number of calls."""
    checks = []
    for scale in higher:
      now = functools.partial(of, name=TWO_PASS, calls=calls, scale=scale)
      before = functools.partial(of, name=TWO_PASS, calls=calls, scale=1.0)
      at = f"calls {calls}, scale {scale:g} against 1"
      checks += less_diverse(at, now, before)
      # What is all right before cannot get better.
      if np.any(before("accuracy") < 1):
        checks.append(
          runner.at_least(
            f"{at}: accuracy is higher", now("accuracy"), before("accuracy")
          )
        )
    return checks

  def cost(name: str, scale: float) -> np.ndarray:
    return of("megaflops", name, most, scale)

  once = cost(TWO_PASS, 1.0)
  top = max(scales)
  match = settings["match"]

  def matches(scale: float) -> list[runner.Check]:
    at = f"calls {most}, scale {scale:g}"
    two = functools.partial(of, name=TWO_PASS, calls=most, scale=scale)
    one = functools.partial(of, name=DISTILLED, calls=most, scale=scale)
    return [
      runner.at_most(
        f"{at}: its Frechet distance is at most {match['frechet']} times as "
        "large",
        one("frechet"),
        two("frechet"),
        factor=match["frechet"],
      ),
      runner.at_least(
        f"{at}: its accuracy is at most {match['accuracy']} lower",
        one("accuracy"),
        two("accuracy") - match["accuracy"],
      ),
    ]

  def in_one_call(scale: float) -> list[runner.Check]:
    mean = functools.partial(of, name=MEAN_FLOW, calls=1)
    return less_diverse(
      f"one call, scale {scale:g} against 1",
      functools.partial(mean, scale=scale),
      functools.partial(mean, scale=1.0),
    )

  return [
    runner.Claim(
      text="Guidance raises class accuracy and lowers diversity.",
      checks=acts(most),
      limits="text as a condition, where accuracy means likeness to a prompt",
    ),
    runner.Claim(
      text="Guidance does the same in one and in two calls of a flow.",
      checks=[
        check
        for calls in settings["calls"]
        if calls <= 2
        for check in acts(calls)
      ],
    ),
    runner.Claim(
      text="Guided sampling costs twice the FLOPs; distilled guidance costs "
      "them once.",
      checks=[
        runner.at_least(
          "two passes: at least 1.95 times a sampler without guidance",
          cost(TWO_PASS, top),
          once,
          factor=1.95,
        ),
        runner.at_most(
          "two passes: at most 2.05 times",
          cost(TWO_PASS, top),
          once,
          factor=2.05,
        ),
        runner.at_most(
          "distilled: at most 1.05 times",
          cost(DISTILLED, top),
          once,
          factor=1.05,
        ),
      ],
    ),
    runner.Claim(
      text="A distilled network with the scale as an input matches two passes "
      "at every scale.",
      checks=[check for scale in scales for check in matches(scale)],
    ),
    runner.Claim(
      text="Guided MeanFlow is guided in one call: samples are less diverse.",
      checks=[check for scale in higher for check in in_one_call(scale)],
      limits="class accuracy, which is 99.7 % here before it is guided",
    ),
  ]


def figures(results: runner.Results, folder: pathlib.Path) -> None:
  """Draw accuracy, diversity and distance over the scale."""
  figure, axes = runner.panels(4, width=5.2, height=3.7, columns=2)
  settings = results.about["settings"]
  scales, calls = settings["scales"], settings["calls"]
  shown = [(TWO_PASS, number) for number in calls]
  shown += [(DISTILLED, calls[-1]), (MEAN_FLOW, 1)]
  names = {
    "accuracy": "accuracy of the class asked for",
    "recall": "recall of held-out digits",
    "class_contrast": "contrast within a class",
    "frechet": "Frechet distance in classifier features",
  }
  for panel, (metric, title) in zip(axes, names.items(), strict=True):
    lines = {
      f"{name}, calls {number}": [
        (
          scale,
          results.values(metric, guidance=name, calls=number, scale=scale),
        )
        for scale in scales
      ]
      for name, number in shown
    }
    real = results.values(metric, guidance="real digits").mean()
    draw_lines(
      panel,
      lines,
      x="guidance scale",
      y=title,
      log="",
      levels={"real digits": float(real)},
      ticks=scales,
    )
    if panel is not axes[0]:
      panel.get_legend().remove()
  save_figure(figure, folder / "scales.png")


STUDY = runner.Study(
  name="guidance",
  question="What does guidance do in few calls, and what does it cost?",
  settings=SETTINGS,
  quick=QUICK,
  measure=measure,
  claims=claims,
  columns=[
    runner.Column(metric="accuracy", heading="accuracy"),
    runner.Column(metric="recall", heading="recall"),
    runner.Column(metric="class_contrast", heading="contrast within a class"),
    runner.Column(metric="frechet", heading="Frechet distance", format=".2f"),
    runner.Column(metric="megaflops", heading="MFLOP a sample", format=".1f"),
  ],
  figures=figures,
)

if __name__ == "__main__":
  STUDY.main()
