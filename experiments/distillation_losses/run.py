"""One-step students by four losses: how sharp, how good, how complete."""

import pathlib

import numpy as np

from experiments import runner
from experiments.runner.figures import draw_lines
from experiments.runner.spectra import radial_power
from jaxflow import data
from jaxflow.figures.canvas import save_figure
from jaxflow.runs.pair_generation import PairOptions

_L1 = {"distance": {"name": "l1"}}
_PERCEPTUAL = {"perceptual": {"name": "lpips"}, "perceptual_weight": 0.1}
_NO_PERCEPTUAL = {"perceptual": {"name": "none"}, "perceptual_weight": 0.0}
SETTINGS = {
  "seeds": 3,
  # Changes of the digits' network, of teacher and students.
  "model": {"depth": 3, "width": 64, "num_heads": 2, "patch_size": 2},
  # Of the flow that teaches.
  "batch_size": 64,
  "teacher_steps": 1000,
  "teacher_rate": 4e-3,
  # Pairs a seed, and the teacher's calls for each.
  "pairs": 4096,
  "pair_calls": 16,
  # Of every student, which starts from the teacher.
  "steps": 400,
  # Terms of the loss that each student adds or exchanges.
  "students": {
    "L2": _NO_PERCEPTUAL,
    "L1": _L1 | _NO_PERCEPTUAL,
    "L1, perceptual": _L1 | _PERCEPTUAL,
    "L1, perceptual, adversarial": _L1
    | _PERCEPTUAL
    | {"adversarial_weight": 0.02},
  },
  # Of the student with a critic: heads on the teacher's hidden features, which
  # the perceptual term compares too; both learn in every step.
  "discriminator": {"network": {"name": "projected"}, "turns": "joint"},
  # Samples of each seed that are judged.
  "num": 1000,
  "classifier_steps": 1000,
  # What counts as the spectrum of the data: fine power within this share.
  "restored": 0.1,
}
QUICK = {
  "seeds": 2,
  "model": {"depth": 1, "width": 32, "patch_size": 2},
  "batch_size": 16,
  "teacher_steps": 125,
  "pairs": 256,
  "pair_calls": 4,
  "steps": 125,
  "num": 100,
  "classifier_steps": 50,
}
TEACHER, REAL = "teacher", "real digits"


def train(bench: runner.Bench) -> dict[str, runner.Fits]:
  """Train the teacher, and on its pairs every student."""
  settings = bench.settings
  shared = {
    "model": settings["model"],
    "train": {"batch_size": settings["batch_size"]},
  }
  config = bench.config(
    "digits:flow_matching",
    shared,
    {
      "train": {"steps": settings["teacher_steps"]},
      "optimizer": {"learning_rate": settings["teacher_rate"]},
    },
  )
  teacher = bench.fit(TEACHER, config)
  options = PairOptions(num=settings["pairs"], nfe=settings["pair_calls"])
  made = runner.make_pairs(teacher, options)
  networks = {TEACHER: teacher}
  for name, loss in settings["students"].items():
    changes = {"loss": loss, "train": {"steps": settings["steps"]}}
    sees = loss["perceptual"]["name"] != "none"
    if not sees:
      changes["features"] = {"network": {"name": "none"}, "workdir": ""}
    if "adversarial_weight" in loss:
      changes["discriminator"] = settings["discriminator"]
    networks[name] = bench.fit(
      name,
      bench.config("digits:insta_flow", shared, changes),
      init=teacher,
      features=teacher if sees else None,
      pairs=made,
    )
  return networks


def measure(bench: runner.Bench) -> list[runner.Row]:
  """Judge teacher and students; keep the spectrum of each in its row."""
  settings = bench.settings
  networks = train(bench)
  judge = runner.ImageJudge(
    "digits", bench.workdir, train_steps=settings["classifier_steps"]
  )
  real = data.load("digits", "train").data
  rows, pictures = [], {}
  for name, fits in networks.items():
    calls = settings["pair_calls"] if name == TEACHER else 1
    how = {"flow_map": {"solver": {"name": "heun"}}} if name == TEACHER else {}
    samples = fits.changed(how).sample(settings["num"], calls, seed=1)
    labels = {"loss": name, "calls": calls}
    rows.append(runner.Row(labels, judge(samples) | _spectrum(samples)))
    pictures[name] = samples[0, :20]
  parts = np.stack(
    [
      real[np.random.default_rng(s).permutation(len(real))[: settings["num"]]]
      for s in bench.seeds
    ]
  )
  floor = judge.floor(settings["num"], bench.seeds)
  rows.append(runner.Row({"loss": REAL, "calls": 0}, floor | _spectrum(parts)))
  runner.save_images(bench.figures / "samples.png", pictures)
  return rows


def _spectrum(samples: np.ndarray) -> dict[str, np.ndarray]:
  """Return the power of every ring of frequencies, one value a seed."""
  found = [radial_power(images) for images in samples]
  return {
    f"power_{frequency:g}": np.array([power[number] for _, power in found])
    for number, frequency in enumerate(found[0][0])
  }


def claims(results: runner.Results) -> list[runner.Claim]:
  """Check the claims about the four losses."""
  l2, l1, perceptual, adversarial = results.about["settings"]["students"]
  restored = results.about["settings"]["restored"]

  def of(metric, name):
    return results.values(metric, loss=name)

  def sharper(one: str, other: str) -> runner.Check:
    return runner.at_least(
      f"{one} has more fine power than {other}",
      of("fine_power", one),
      of("fine_power", other),
    )

  rings = [
    key
    for key in results.rows[0]["numbers"]
    if key.startswith("power_") and key != "power_0"
  ]

  def off(name: str) -> np.ndarray:
    """How far from the data's power, where it is farthest, one a seed."""
    ratios = [of(key, name) / of(key, REAL) for key in rings]
    return np.abs(np.array(ratios) - 1).max(axis=0)

  return [
    runner.Claim(
      text="L2 alone blurs.",
      checks=[sharper(REAL, l2), sharper(TEACHER, l2)],
      limits="photographs, whose fine detail is far less predictable",
    ),
    runner.Claim(text="L1 is sharper than L2.", checks=[sharper(l1, l2)]),
    runner.Claim(
      text="A perceptual term sharpens further.",
      checks=[sharper(perceptual, l1)],
      limits="features of a network trained on a million photographs",
    ),
    runner.Claim(
      text="An adversarial term restores the spectrum.",
      checks=[
        runner.at_most(
          "its power is nearer to the data's than without the term, at the "
          "frequency where it is farthest",
          off(adversarial),
          off(perceptual),
        ),
        runner.at_most(
          f"its power differs from the data's by at most {restored:.0%} at "
          "every frequency above 0",
          off(adversarial),
          restored,
        ),
      ],
    ),
    runner.Claim(
      text="An adversarial term loses coverage.",
      checks=[
        runner.at_most(
          f"its recall is lower than that of {other}",
          of("recall", adversarial),
          of("recall", other),
        )
        for other in (l2, perceptual)
      ],
    ),
  ]


def figures(results: runner.Results, folder: pathlib.Path) -> None:
  """Draw the spectra as shares of the data's."""
  figure, (axes,) = runner.panels(1, width=7, height=4.2)
  names = [row["labels"]["loss"] for row in results.rows]
  keys = [k for k in results.rows[0]["numbers"] if k.startswith("power_")]
  real = {key: results.values(key, loss=REAL).mean() for key in keys}
  lines = {
    name: [
      (float(key.removeprefix("power_")), results.values(key, loss=name) / base)
      for key, base in real.items()
    ]
    for name in names
    if name != REAL
  }
  draw_lines(
    axes,
    lines,
    x="spatial frequency, cycles per pixel",
    y="power of samples / power of real digits",
    log="",
    levels={REAL: 1.0},
  )
  save_figure(figure, folder / "spectra.png")


STUDY = runner.Study(
  name="distillation_losses",
  question="Which loss makes a one-step student sharp, and at what cost?",
  settings=SETTINGS,
  quick=QUICK,
  measure=measure,
  claims=claims,
  columns=[
    runner.Column(metric="fine_power", heading="fine power", format=".4f"),
    runner.Column(metric="frechet", heading="Frechet distance", format=".2f"),
    runner.Column(metric="sliced_wasserstein", heading="sliced Wasserstein"),
    runner.Column(metric="precision", heading="precision"),
    runner.Column(metric="recall", heading="recall"),
    runner.Column(metric="accuracy", heading="accuracy"),
  ],
  figures=figures,
)

if __name__ == "__main__":
  STUDY.main()
