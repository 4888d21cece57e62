"""Mode coverage and sample quality for a known mixture of Gaussians.

Distances to a mode are in units of its standard deviation. A sample belongs to
the nearest mode and hits it at a distance of at most 3. With well-separated
modes in two dimensions, a sample of the mixture itself hits its mode with
probability 1 - exp(-9 / 2) = 0.989.
"""

from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxflow.errors import UsageError
from jaxflow.metrics.estimates import Estimate, mean_of
from jaxflow.metrics.points import as_pair

_REACH = 3.0
_REPLICATES = 200


class Mixture(Protocol):
  """A known mixture of isotropic Gaussians."""

  @property
  def means(self) -> Any:
    """Centres of the modes, [K, D]."""

  @property
  def stds(self) -> Any:
    """Standard deviation of each mode along each axis, [K], positive."""

  @property
  def weights(self) -> Any:
    """Probability of each mode, [K], with sum 1."""


def mode_coverage(
  samples: ArrayLike, mixture: Mixture, *, share: float = 0.5, seed: int = 0
) -> Estimate:
  """Compute the share of modes that receive enough of the samples [N, D].

  A mode expects N * weight samples. It counts if at least `share` of that many
  samples hit it; `share` lies in (0, 1]. The bootstrap gives the error.

  Raises:
    UsageError: the samples do not fit the mixture, are not finite, or the share
      is out of range.

  References:
    Efron, Bootstrap methods: another look at the jackknife, 1979.

  Example:
    >>> from types import SimpleNamespace
    >>> mixture = SimpleNamespace(
    ...   means=[[1.0, 0.0], [-1.0, 0.0]], stds=[0.1, 0.1], weights=[0.5, 0.5]
    ... )
    >>> mode_coverage([[1.0, 0.1], [0.9, 0.0]], mixture)
    Estimate(value=0.5, error=0.0, degrees=None)
  """
  if not 0 < share <= 1:
    raise UsageError(f"share is {share}; give a number above 0 and up to 1")
  nearest, hit = _assign(samples, mixture)
  num = len(nearest)
  expected = num * np.asarray(mixture.weights, np.float64)

  def covered(index: NDArray[np.intp]) -> float:
    counts = np.bincount(nearest[index], hit[index], minlength=len(expected))
    return float(np.mean(counts >= share * expected))

  generator = np.random.default_rng(seed)
  draws = [
    covered(generator.integers(num, size=num)) for _ in range(_REPLICATES)
  ]
  error = float(np.std(draws, ddof=1))
  return Estimate(value=covered(np.arange(num)), error=error)


def high_quality(samples: ArrayLike, mixture: Mixture) -> Estimate:
  """Compute the share of samples within 3 standard deviations of a mode.

  The samples are [N, D]. The error is the binomial one.

  Raises:
    UsageError: the samples do not fit the mixture or are not finite.

  References:
    Srivastava et al., VEEGAN, 2017, arXiv:1705.07761.

  Example:
    >>> from types import SimpleNamespace
    >>> mixture = SimpleNamespace(
    ...   means=[[1.0, 0.0], [-1.0, 0.0]], stds=[0.1, 0.1], weights=[0.5, 0.5]
    ... )
    >>> high_quality([[1.0, 0.1], [0.0, 0.0]], mixture)
    Estimate(value=0.5, error=0.5, degrees=None)
  """
  return mean_of(_assign(samples, mixture)[1])


def _assign(
  samples: ArrayLike, mixture: Mixture
) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
  """Return each sample's nearest mode [N], and whether it hits the mode [N]."""
  from sklearn.metrics import pairwise_distances

  points, means = as_pair("samples", samples, "means", mixture.means)
  deviations = pairwise_distances(points, means) / np.asarray(mixture.stds)
  return deviations.argmin(axis=1), deviations.min(axis=1) <= _REACH
