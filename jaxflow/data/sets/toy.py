"""Gaussian mixtures: data whose density, score and modes are known exactly.

A mixture of K isotropic Gaussians in D dimensions has the density

  p(x) = sum_k weights[k] * N(x; means[k], stds[k]^2 I).

Its parameters are kept beside its samples, so that an oracle can compute the
exact velocity and an evaluator can count the modes that a model covers.
"""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class Mixture:
  """A mixture of isotropic Gaussians.

  Attributes:
    means: Centres [K, D].
    stds: Standard deviations [K], positive.
    weights: Probabilities [K], summing to 1.
  """

  means: np.ndarray
  stds: np.ndarray
  weights: np.ndarray

  def log_density(self, points: np.ndarray) -> np.ndarray:
    """Return the logarithm of the density, nats [N], at points [N, D].

    Example:
      >>> alone = Mixture(np.zeros((1, 2)), np.ones(1), np.ones(1))
      >>> round(float(alone.log_density(np.zeros((1, 2)))[0]), 4)
      -1.8379
    """
    from scipy.special import logsumexp

    points = np.asarray(points, np.float64)
    squares = ((points[:, None] - self.means[None]) ** 2).sum(axis=2)
    each = -squares / (2 * self.stds**2)[None]
    constants = np.log(2 * np.pi * self.stds**2) * points.shape[1] / 2
    logs = np.log(self.weights) - constants
    return np.asarray(logsumexp(each + logs[None], axis=1))

  def sample(self, num: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw samples [num, D], float32, and their components [num], int32.

    The same seed gives the same samples.

    Example:
      >>> data, component = ring_mixture().sample(3, seed=0)
      >>> data.shape, component.shape
      ((3, 2), (3,))
    """
    generator = np.random.default_rng(seed)
    component = generator.choice(len(self.weights), size=num, p=self.weights)
    noise = generator.standard_normal((num, self.means.shape[1]))
    data = self.means[component] + self.stds[component, None] * noise
    return data.astype(np.float32), component.astype(np.int32)


def ring_mixture(
  *, components: int = 8, radius: float = 1.0, std: float = 0.1
) -> Mixture:
  """Return equally likely Gaussians, evenly spaced on a circle in the plane.

  Args:
    components: Number of Gaussians K; the first lies on the positive x axis
      and the others follow counter-clockwise.
    radius: Radius of the circle around the origin.
    std: Standard deviation of each Gaussian along each axis.

  Example:
    >>> ring_mixture(components=2).means.round(6).tolist()
    [[1.0, 0.0], [-1.0, 0.0]]
  """
  angle = 2 * np.pi * np.arange(components) / components
  means = radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)
  stds = np.full(components, std)
  weights = np.full(components, 1 / components)
  return Mixture(means, stds, weights)
