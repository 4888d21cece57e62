"""Classifier-free guidance: by two passes, distilled, and in MeanFlow."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from experiments.runner import (
  Bench,
  Check,
  Claim,
  Column,
  Fits,
  ImageJudge,
  Results,
  Row,
  Study,
  at_least,
  at_most,
  panels,
  save_images,
)
from experiments.runner.figures import draw_lines
from jaxflow import flow_maps, guidance, paths, sampling
from jaxflow.compilation import matmul_flops
from jaxflow.compilation.hlo import Module
from jaxflow.figures.canvas import save_figure
from jaxflow.types import FlowMap, ModelFn

SETTINGS = {
  "seeds": 3,
  # Changes of the digits' network, of all three.
  "model": {},
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
  "model": {"depth": 1, "width": 32},
  "batch_size": 16,
  "steps": 125,
  "scales": (1.0, 4.0),
  "calls": (1, 4),
  "num": 100,
  "classifier_steps": 50,
}
TWO_PASS, DISTILLED, MEAN_FLOW = "two passes", "distilled", "guided MeanFlow"

# (network, scale) -> flow map; the scale is traced.
Maker = Callable[[ModelFn, jax.Array], FlowMap]


def _two_passes(model_fn: ModelFn, scale: jax.Array) -> FlowMap:
  """Guide a network that has seen the null label."""
  return flow_maps.ode_step(
    guidance.classifier_free(model_fn, scale=scale, num_classes=10)
  )


def _one_pass(model_fn: ModelFn, scale: jax.Array) -> FlowMap:
  """Take the network as it is, at scale 1."""
  del scale
  return flow_maps.ode_step(model_fn)


def _told(model_fn: ModelFn, scale: jax.Array) -> FlowMap:
  """Tell the scale to a velocity."""
  return flow_maps.guided_step(model_fn, omega=scale)


def _told_average(model_fn: ModelFn, scale: jax.Array) -> FlowMap:
  """Tell the scale to an average velocity."""
  return flow_maps.guided_velocity(model_fn, omega=scale)


@dataclasses.dataclass(frozen=True)
class Draw:
  """A compiled sampler of one number of calls, at any scale.

  Attributes:
    fits: The networks.
    maker: What makes flow maps of them.
    calls: Steps of the sampler.
    num: Samples of a seed, classes in turn.
  """

  fits: Fits
  maker: Maker
  calls: int
  num: int

  @functools.cached_property
  def compiled(self) -> jax.stages.Compiled:
    """The program `(params, noise, scale) -> samples`."""
    model = self.fits.run.model
    labels = jnp.arange(self.num) % model.num_classes
    times = self.fits.run.plan.sample.grid(self.calls + 1)

    def draw(params, noise, scale):
      network = functools.partial(model.network.apply, params)
      return sampling.sample(
        self.maker(network, scale),
        paths.start(model.path, noise),
        times,
        labels,
      )

    shape = (self.num, *model.shape)
    return (
      jax.jit(draw)
      .lower(
        self.fits.params()[0],
        jax.ShapeDtypeStruct(shape, jnp.float32),
        jax.ShapeDtypeStruct((), jnp.float32),
      )
      .compile()
    )

  @property
  def flops(self) -> float:
    """Operations of all matrix products, a sample."""
    text = self.compiled.as_text()
    assert text is not None
    return matmul_flops(Module.parse(text)) / self.num

  def __call__(self, scale: float) -> np.ndarray:
    """Return samples [S, num, ...]; seed s has the same noise everywhere."""
    shape = (self.num, *self.fits.run.model.shape)
    found = [
      self.compiled(
        params,
        jax.random.normal(jax.random.fold_in(jax.random.key(1), seed), shape),
        jnp.float32(scale),
      )
      for seed, params in zip(self.fits.seeds, self.fits.params(), strict=True)
    ]
    return np.stack(found)


def train(bench: Bench) -> dict[str, tuple[Fits, Maker]]:
  """Train the three networks, for as many steps each."""
  settings = bench.settings
  shared = {
    "model": settings["model"],
    "train": {"steps": settings["steps"], "batch_size": settings["batch_size"]},
  }
  high = {"loss": {"omega_max": max(settings["scales"])}}

  def fit(title, method, *changes, **others):
    config = bench.config(f"digits:{method}", shared, *changes)
    return bench.fit(title, config, **others)

  flow = fit("flow matching", "flow_matching")
  distilled = fit(DISTILLED, "guidance_distillation", high, teacher=flow)
  mean_flow = fit(MEAN_FLOW, "improved_mean_flow", high)
  return {
    TWO_PASS: (flow, _two_passes),
    DISTILLED: (distilled, _told),
    MEAN_FLOW: (mean_flow, _told_average),
  }


def measure(bench: Bench) -> list[Row]:
  """Judge three kinds of guidance at all scales and numbers of calls."""
  settings = bench.settings
  networks = train(bench)
  judge = ImageJudge(
    "digits", bench.workdir, train_steps=settings["classifier_steps"]
  )
  rows, pictures = [], {}
  scales, most = settings["scales"], settings["calls"][-1]
  shown = {TWO_PASS: most, DISTILLED: most, MEAN_FLOW: 1}
  for name, (fits, maker) in networks.items():
    for calls in settings["calls"]:
      draw = Draw(fits, maker, calls, settings["num"])
      plain = Draw(fits, _one_pass, calls, settings["num"])
      for scale in scales:
        # Two passes at scale 1 are one.
        used = plain if (name, scale) == (TWO_PASS, 1.0) else draw
        samples = used(scale)
        labels = {"guidance": name, "calls": calls, "scale": scale}
        cost = {"megaflops": used.flops / 1e6}
        rows.append(Row(labels, {**judge(samples), **cost}))
        if calls == shown[name] and scale in (scales[0], scales[-1]):
          title = f"{name}, calls {calls}, scale {scale:g}"
          pictures[title] = samples[0, :20]
  real = {"guidance": "real digits", "calls": 0, "scale": 0.0}
  rows.append(Row(real, judge.floor(settings["num"], bench.seeds)))
  save_images(bench.figures / "samples.png", pictures)
  return rows


def claims(results: Results) -> list[Claim]:
  """Check the claims about guidance."""
  settings = results.about["settings"]
  scales, most = settings["scales"], settings["calls"][-1]
  higher = [scale for scale in scales if scale > 1]

  def of(metric, name, calls, scale):
    return results.values(metric, guidance=name, calls=calls, scale=scale)

  def less_diverse(at: str, now: Callable, before: Callable) -> list[Check]:
    """Check lower diversity; recall is left out where it was 0 before."""
    names = {"class_contrast": "contrast within a class"}
    if np.any(before("recall") > 0):
      names["recall"] = "recall"
    return [
      at_most(f"{at}: {name} is lower", now(metric), before(metric))
      for metric, name in names.items()
    ]

  def acts(calls: int) -> list[Check]:
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
          at_least(
            f"{at}: accuracy is higher", now("accuracy"), before("accuracy")
          )
        )
    return checks

  def cost(name: str, scale: float) -> np.ndarray:
    return of("megaflops", name, most, scale)

  once = cost(TWO_PASS, 1.0)
  top = max(scales)
  match = settings["match"]

  def matches(scale: float) -> list[Check]:
    at = f"calls {most}, scale {scale:g}"
    two = functools.partial(of, name=TWO_PASS, calls=most, scale=scale)
    one = functools.partial(of, name=DISTILLED, calls=most, scale=scale)
    return [
      at_most(
        f"{at}: its Frechet distance is at most {match['frechet']} times as "
        "large",
        one("frechet"),
        two("frechet"),
        factor=match["frechet"],
      ),
      at_least(
        f"{at}: its accuracy is at most {match['accuracy']} lower",
        one("accuracy"),
        two("accuracy") - match["accuracy"],
      ),
    ]

  def in_one_call(scale: float) -> list[Check]:
    mean = functools.partial(of, name=MEAN_FLOW, calls=1)
    return less_diverse(
      f"one call, scale {scale:g} against 1",
      functools.partial(mean, scale=scale),
      functools.partial(mean, scale=1.0),
    )

  return [
    Claim(
      text="Guidance raises class accuracy and lowers diversity.",
      checks=acts(most),
      limits="text as a condition, where accuracy means likeness to a prompt",
    ),
    Claim(
      text="Guidance does the same in one and in two calls of a flow.",
      checks=[
        check
        for calls in settings["calls"]
        if calls <= 2
        for check in acts(calls)
      ],
    ),
    Claim(
      text="Guided sampling costs twice the FLOPs; distilled guidance costs "
      "them once.",
      checks=[
        at_least(
          "two passes: at least 1.95 times a sampler without guidance",
          cost(TWO_PASS, top),
          once,
          factor=1.95,
        ),
        at_most(
          "two passes: at most 2.05 times",
          cost(TWO_PASS, top),
          once,
          factor=2.05,
        ),
        at_most(
          "distilled: at most 1.05 times",
          cost(DISTILLED, top),
          once,
          factor=1.05,
        ),
      ],
    ),
    Claim(
      text="A distilled network with the scale as an input matches two passes "
      "at every scale.",
      checks=[check for scale in scales for check in matches(scale)],
    ),
    Claim(
      text="Guided MeanFlow is guided in one call: samples are less diverse.",
      checks=[check for scale in higher for check in in_one_call(scale)],
      limits="class accuracy, which is 99.7 % here before it is guided",
    ),
  ]


def figures(results: Results, folder: pathlib.Path) -> None:
  """Draw accuracy, diversity and distance over the scale."""
  figure, axes = panels(4, width=5.2, height=3.7, columns=2)
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


STUDY = Study(
  name="guidance",
  question="What does guidance do in few calls, and what does it cost?",
  settings=SETTINGS,
  quick=QUICK,
  measure=measure,
  claims=claims,
  columns=[
    Column(metric="accuracy", heading="accuracy"),
    Column(metric="recall", heading="recall"),
    Column(metric="class_contrast", heading="contrast within a class"),
    Column(metric="frechet", heading="Frechet distance", format=".2f"),
    Column(metric="megaflops", heading="MFLOP a sample", format=".1f"),
  ],
  figures=figures,
)

if __name__ == "__main__":
  STUDY.main()
