"""Class probabilities of many samples, as sums that can be merged.

The Inception score of a split is exp(E KL(p(y | x) || p(y))). It needs only the
sums of p and of sum p log p:

  log score = sum p log p / n - sum_y q log q,   q = sum p / n.           (1)

References:
  Salimans et al., Improved techniques for training GANs, 2016,
  arXiv:1606.03498, section 4.
"""

import dataclasses

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxflow.errors import UsageError
from jaxflow.metrics.estimates import Estimate, mean_of
from jaxflow.metrics.points import as_points


@dataclasses.dataclass(frozen=True, kw_only=True)
class Confidences:
  """Sums over the samples of each split, float64.

  Sample i belongs to split i mod S, so a stream may have any length.

  Attributes:
    counts: number of samples, [S].
    sums: sum of the class probabilities, [S, C].
    information: sum of sum p log p, [S].

  Example:
    >>> sure = Confidences.empty(2, splits=1)
    >>> sure = sure.update([[99.0, 0.0], [0.0, 99.0]], [0, 1])
    >>> round(inception_score(sure).value, 6)
    2.0
  """

  counts: NDArray[np.float64]
  sums: NDArray[np.float64]
  information: NDArray[np.float64]

  @classmethod
  def empty(cls, classes: int, *, splits: int = 10) -> "Confidences":
    """Return sums over no samples."""
    return cls(
      counts=np.zeros(splits),
      sums=np.zeros((splits, classes)),
      information=np.zeros(splits),
    )

  def arrays(self) -> dict[str, NDArray[np.float64]]:
    """Return the three sums by name."""
    return dict(vars(self))

  def update(self, logits: ArrayLike, index: ArrayLike) -> "Confidences":
    """Return the sums with more samples: logits [B, C] and indices [B].

    Raises:
      UsageError: the shapes do not fit, or a number is not finite.
    """
    from scipy import special

    rows = as_points("logits", logits)
    split = np.asarray(index) % len(self.counts)
    shape = len(split), self.sums.shape[1]
    if rows.shape != shape:
      raise UsageError(
        f"logits have shape {rows.shape}; give {shape}, one row for each index"
      )
    logs = special.log_softmax(rows, axis=1)
    p = np.exp(logs)
    added = Confidences.empty(rows.shape[1], splits=len(self.counts))
    np.add.at(added.counts, split, 1)
    np.add.at(added.sums, split, p)
    np.add.at(added.information, split, (p * logs).sum(axis=1))
    return self.merge(added)

  def merge(self, other: "Confidences") -> "Confidences":
    """Return the sums of both sets of samples together."""
    if self.sums.shape != other.sums.shape:
      raise UsageError(
        f"confidences of shape {self.sums.shape} and {other.sums.shape}: give "
        "as many splits and classes"
      )
    others = other.arrays()
    return Confidences(**{k: v + others[k] for k, v in self.arrays().items()})


def inception_score(confidences: Confidences) -> Estimate:
  """Compute the Inception score, eq. (1), as the mean over the splits.

  Papers print the standard deviation over the splits instead of the standard
  error; it is sqrt(S) times as large.

  Raises:
    UsageError: a split has no sample.

  Example:
    >>> blind = Confidences.empty(4).update(np.zeros((20, 4)), np.arange(20))
    >>> inception_score(blind)
    Estimate(value=1.0, error=0.0, degrees=9)
  """
  from scipy import special

  if not confidences.counts.all():
    raise UsageError(
      f"{int(confidences.counts.sum())} samples leave a split empty; give at "
      f"least {len(confidences.counts)}"
    )
  marginal = confidences.sums / confidences.counts[:, None]
  entropy = special.entr(marginal).sum(axis=1)
  scores = np.exp(confidences.information / confidences.counts + entropy)
  return dataclasses.replace(mean_of(scores), degrees=len(scores) - 1)
