"""Accuracy: whether a classifier finds the class that a sample was given."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxflow.errors import UsageError
from jaxflow.metrics.estimates import Estimate, mean_of
from jaxflow.metrics.points import Points, as_points


class NeighbourClassifier:
  """A k-nearest-neighbour classifier of real data.

  Its accuracy on held-out real data is the ceiling for generated samples.

  Args:
    data: real samples of the training split, [N, ...].
    label: their classes, whole numbers, [N].
    k: number of voting neighbours, from 1 to N.

  Raises:
    UsageError: the lengths differ, a sample is not finite, or k is out of
      range.

  Example:
    >>> data, label = [[0.0], [0.1], [5.0], [5.1]], [0, 0, 1, 1]
    >>> classifier = NeighbourClassifier(data, label, k=1)
    >>> found = classifier.accuracy([[0.2], [4.9], [4.8]], [0, 1, 0])
    >>> round(found.value, 3), round(found.error, 3)
    (0.667, 0.333)
  """

  def __init__(self, data: ArrayLike, label: ArrayLike, k: int = 3):
    from sklearn.neighbors import KNeighborsClassifier

    points = as_points("data", data)
    if not 1 <= k <= len(points):
      raise UsageError(f"k is {k}; give a number from 1 to {len(points)}")
    self._classifier = KNeighborsClassifier(k)
    self._classifier.fit(points, _as_labels(label, points))

  def accuracy(self, samples: ArrayLike, label: ArrayLike) -> Estimate:
    """Compute the share of samples [M, ...] that are classified as labelled.

    The label [M] is the class for which each sample was generated. The error is
    the binomial one.

    Raises:
      UsageError: the lengths or the shapes differ, or a sample is not finite.
    """
    points = as_points("samples", samples)
    width = self._classifier.n_features_in_
    if points.shape[1] != width:
      raise UsageError(
        f"samples have {points.shape[1]} numbers each and the data {width}; "
        "give samples of the shape of the data"
      )
    seen = self._classifier.predict(points)
    return mean_of(seen == _as_labels(label, points))


def class_accuracy(logits: ArrayLike, label: ArrayLike) -> Estimate:
  """Compute the share of samples that a network classifies as labelled.

  Its logits are [N, C]. The label [N] is the class for which each sample was
  generated. The error is the binomial one.

  Raises:
    UsageError: the lengths differ, or a logit is not finite.

  Example:
    >>> class_accuracy([[1.0, 0.0], [0.0, 1.0]], [0, 0]).value
    0.5
  """
  rows = as_points("logits", logits)
  return mean_of(rows.argmax(axis=1) == _as_labels(label, rows))


def _as_labels(label: ArrayLike, points: Points) -> NDArray[np.generic]:
  """Return the labels [N]; raise UsageError unless each point has one."""
  labels = np.asarray(label)
  if labels.shape != (len(points),):
    raise UsageError(
      f"label has shape {labels.shape}; give one for each of the "
      f"{len(points)} samples"
    )
  return labels
