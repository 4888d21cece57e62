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
  # In 40 steps Adam moves a parameter by up to 40 times the rate.
  assert 0 < np.abs(after - before).max() < 1e-3
  # The loss has trained through the flow map, at this scale.
  other = [x for x in (*guided, *flags) if x != scale]
  result = tiny.run(
    *tiny.train_command(
      tmp_path, "second", row, *other, "flow_map.omega=2.5", "train.steps=60"
    )
  )
  assert result.code == 2
  assert "flow_map.omega=1.5, not 2.5" in result.err


def test_pixels_are_of_pictures(tmp_path):
  points = ["features.network.name=pixels", "loss.fill=32"]
  command = tiny.train_command(
    tmp_path, "run", "frechet_distance_loss", *points
  )
  result = tiny.run(*command)
  assert result.code == 2
  (line,) = result.err.splitlines()
  assert "features.network" in line and "samples are no pictures" in line


def test_pixels_of_scaled_images_have_the_range_of_the_data(tmp_path):
  """Their channels are from 0 to 1 and from 10 to 30: all have one range."""
  data = np.random.default_rng(0).random((40, 4, 4, 2))
  data[0, 0, 0], data[0, 0, 1] = 0, 1
  file = tmp_path / "images.npy"
  np.save(file, (data * [1, 20] + [0, 10]).astype(np.float32))
  flags = ["data.name=arrays", f"data.file={file}", "model.name=dit"]
  flags += ["model.width=16", "model.depth=1", "model.num_heads=2"]
  flags += ["features.network.name=pixels", "loss.fill=32", "train.steps=10"]
  tiny.train(tmp_path, "run", "frechet_distance_loss", *flags)
  plan = jaxflow.load(tmp_path / "run").run.plan
  scaling = plan.data.scaling
  given = np.full((1, 4, 4, 2), [-5.0, 50.0])
  x = jnp.asarray(scaling.normalise(given), jnp.float32)
  (seen,) = plan.roles.features.apply({}, x)
  restored = scaling.restore(np.asarray(seen).reshape(given.shape))
  # Of numbers up to 50 in float32.
  np.testing.assert_allclose(restored, np.full_like(given, [0, 30]), atol=1e-4)


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
