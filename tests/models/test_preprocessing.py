"""How images reach the networks of evaluation, by their definitions."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxflow.errors import UsageError
from jaxflow.models import preprocessing

SIZES = [((5, 7), 11), ((13, 4), 6), ((8, 8), 8), ((1, 2), 3), ((32, 32), 299)]
resizes = pytest.mark.parametrize(("size", "side"), SIZES)
protocols = pytest.mark.parametrize(
  ("name", "side", "low", "high"),
  [
    ("adm", 299, -1.0, 127 / 128),
    ("pytorch_fid", 299, -1.0, 1.0),
    ("efficientnet_lite", 224, -127 / 128, 1.0),
    ("native", 8, -1.0, 127 / 128),
  ],
)


def images(size, seed=0):
  values = np.random.default_rng(seed).integers(0, 256, (2, *size, 3))
  return values.astype(np.float32)


def at(row, place):
  """Return a row of numbers [n, ...] read between two of its places."""
  place = min(max(place, 0), len(row) - 1)
  low = math.floor(place)
  high = min(low + 1, len(row) - 1)
  return row[low] + (place - low) * (row[high] - row[low])


def looped(image, side, *, half_pixel, part):
  """Return the first pixels a side of a resized image, one after the other."""

  def place(i, before):
    if half_pixel:
      return (i + 0.5) * before / side - 0.5
    return i * before / side

  height, width, _ = image.shape
  return [
    [
      at([at(row, place(j, width)) for row in image], place(i, height))
      for j in range(part)
    ]
    for i in range(part)
  ]


@resizes
@pytest.mark.parametrize("half_pixel", [True, False])
def test_resizing_by_its_definition(size, side, half_pixel):
  x = images(size)
  seen = preprocessing.resize(x, side, half_pixel=half_pixel)
  assert seen.shape == (2, side, side, 3)
  part = min(side, 16)
  expected = looped(
    x[1].astype(np.float64), side, half_pixel=half_pixel, part=part
  )
  # The products are float32, of numbers up to 255.
  np.testing.assert_allclose(seen[1, :part, :part], expected, atol=1e-3)


@resizes
def test_resizing_equals_torch(size, side):
  torch = pytest.importorskip("torch")
  x = images(size)
  expected = torch.nn.functional.interpolate(
    torch.as_tensor(x.transpose(0, 3, 1, 2)),
    (side, side),
    mode="bilinear",
    align_corners=False,
  )
  seen = preprocessing.resize(x, side, half_pixel=True)
  np.testing.assert_allclose(
    seen, expected.numpy().transpose(0, 2, 3, 1), atol=1e-3
  )


def test_eight_bits_are_those_of_an_image_file():
  x = np.linspace(-1.2, 1.2, 1001).astype(np.float32)
  expected = (x * np.float32(127.5) + 128).clip(0, 255).astype(np.uint8)
  np.testing.assert_array_equal(
    preprocessing.quantise(jnp.asarray(x)), expected
  )


def test_images_of_files_come_back_as_they_were():
  files = np.arange(256)
  x = jnp.asarray(files / 127.5 - 1, jnp.float32)
  np.testing.assert_array_equal(preprocessing.quantise(x), files)


@protocols
def test_black_and_white_are_scaled_as_stated(name, side, low, high):
  black = -jnp.ones((1, 8, 8, 1))
  x = jnp.concatenate([black, -black])
  seen = preprocessing.prepare(x, preprocessing.PROTOCOLS[name])
  assert seen.shape == (2, side, side, 1)
  np.testing.assert_allclose(seen[0], low, atol=1e-6)
  np.testing.assert_allclose(seen[1], high, atol=1e-6)


def test_gray_images_become_colours():
  gray = jax.random.uniform(jax.random.key(0), (2, 3, 3, 1))
  colours = preprocessing.rgb(gray, "Inception")
  np.testing.assert_array_equal(colours, np.repeat(gray, 3, axis=3))
  with pytest.raises(UsageError, match=r"\(3, 3, 2\): Inception sees images"):
    preprocessing.rgb(jnp.ones((1, 3, 3, 2)), "Inception")
