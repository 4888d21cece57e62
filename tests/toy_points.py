"""Points in the plane whose law is known: blobs, and a ring of modes."""

import math
from types import SimpleNamespace

import numpy as np

RING = SimpleNamespace(
  means=[
    [math.cos(angle), math.sin(angle)]
    for angle in np.arange(8) * 2 * math.pi / 8
  ],
  stds=np.full(8, 0.05),
  weights=np.full(8, 1 / 8),
)


def normal(seed, *shape):
  return np.random.default_rng(seed).standard_normal(shape)


def blobs(seed, count):
  """Make `count` points round each of three far corners."""
  centres = np.array([[0.0, 0.0], [20.0, 0.0], [0.0, 20.0]])
  label = np.repeat(np.arange(3), count)
  data = centres[label] + normal(seed, 3 * count, 2)
  return SimpleNamespace(data=data, label=label, num_classes=3)


def ring(seed, count):
  """Make unlabelled points of RING, `count` from each mode."""
  means = np.repeat(np.asarray(RING.means), count, axis=0)
  data = means + RING.stds[0] * normal(seed, 8 * count, 2)
  return SimpleNamespace(data=data, label=None, num_classes=None)
