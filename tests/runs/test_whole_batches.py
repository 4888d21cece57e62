"""Rows that compare whole batches, or fill a memory, refuse what is in vain."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

import jaxflow
from jaxflow import losses, paths

DRIFTING = "loss.group=16"
CASES = [
  # 40 steps of 16 rows are 640 samples.
  ("frechet_distance_loss", ["loss.fill=640"], "loss.fill=640 leaves nothing"),
  ("frechet_distance_loss", ["loss.fill=0"], "loss.fill=0: give 1 or more"),
  (
    "frechet_distance_loss",
    ["loss.fill=64", "data.coupling.rows=16"],
    "data.coupling.rows=16: 'frechet_distance_loss' compares a batch",
  ),
  (
    "drifting",
    [DRIFTING, "data.order=shuffled", "data.coupling.rows=16"],
    "data.coupling.rows=16: 'drifting' compares a batch",
  ),
  (
    "drifting",
    [
      *(DRIFTING, "data.order=shuffled"),
      *("loss.kept_positives=4", "loss.positives=8"),
    ],
    "kept_positives=4: the memory holds fewer than positives=8",
  ),
  (
    "drifting",
    [DRIFTING, "data.order=shuffled", "loss.kept_negatives=4"],
    "kept_negatives=4: the memory holds fewer than negatives=8",
  ),
  (
    "adversarial_flow",
    ["discriminator.network.timed=False"],
    "discriminator.network.timed=False: 'adversarial_flow' shows it points",
  ),
  (
    "adversarial_flow",
    ["discriminator.times.name=uniform"],
    "discriminator.times.name='loss_pairs'",
  ),
]


@pytest.mark.parametrize(("row", "flags", "words"), CASES)
def test_one_line_says_why(tmp_path, row, flags, words):
  result = tiny.run(*tiny.train_command(tmp_path, "run", row, *flags))
  assert result.code == 2
  (line,) = result.err.splitlines()
  assert words in line


def test_a_memory_that_is_filled_leaves_training(tmp_path):
  tiny.train(tmp_path, "run", "frechet_distance_loss", "loss.fill=160")
  filled = [float(row["filled"]) for row in tiny.rows(tmp_path / "run")]
  # Of the first step, and means of a dispatch, the last five steps of ten: 16
  # rows of 160 a step.
  assert filled == pytest.approx([0.1, 0.8, 1, 1, 1])


@pytest.mark.parametrize(
  ("row", "flags"),
  [
    ("frechet_distance_loss", ["loss.fill=32"]),
    (
      "frechet_distance_loss",
      ["loss.fill=32", "features.network.name=pixels"],
    ),
    ("adversarial_flow", []),
  ],
)
def test_it_starts_from_a_network_with_guidance(tmp_path, row, flags):
  """The scale is that of samples; the published start is such a network."""
  first, second = tmp_path / "first", tmp_path / "second"
  scale = "flow_map.omega=1.5"
  start = ["loss.label_dropout=0.0", scale]
  tiny.train(tmp_path, "first", "pixel_mean_flow", *start)
  guided = [
    *("model.heads=2", "model.guidance_inputs=True"),
    *("parameterization.name=from_data", "flow_map.name=guided_velocity"),
    *(scale, f"init.workdir={first}", "optimizer.learning_rate=1e-6"),
  ]
  tiny.train(tmp_path, "second", row, *guided, *flags)
  before, after = (jaxflow.load(x).sample(4, nfe=1) for x in (first, second))
  assert 0 < np.abs(after - before).max() < 1e-3


def test_noise_is_of_samples_not_of_rows():
  batch = {"data": jnp.zeros((4, 1)), "noise": jnp.zeros((4, 1))}
  with pytest.raises(ValueError, match="noise has 4 rows: give one for each"):
    losses.drifting_loss(
      lambda xt, t, s, cond: xt,
      jax.random.key(0),
      batch,
      path=paths.Linear(),
      group=2,
      group_samples=1,
    )
