"""Noise that lies near its data: optimal transport within groups of rows.

Among n rows with data x and fresh noise z, row i gets the noise z_p(i) of the
permutation p that minimises

  sum_i ||x_i - z_p(i)||^2.                                               (1)

Every noise is used once, so noise and data keep their laws, and only the joint
law changes: paths cross less. A factor of the noise, which paths have, changes
no p: sums of squares do not depend on it, only -2 sum_i <x_i, z_p(i)> does.

References:
  Pooladian et al. 2023 (arXiv:2304.14772); Tong et al. 2023
  (arXiv:2302.00482), section 3.3.
"""

from typing import Any

import numpy as np

from jaxflow.errors import UsageError


def assignment(
  data: np.ndarray, noise: np.ndarray, label: np.ndarray | None = None
) -> np.ndarray:
  """Return the permutation p of eq. (1), `[n]`.

  Args:
    data: Samples `[n, ...]`.
    noise: Noise `[n, ...]`.
    label: Classes `[n]`, between which no noise is exchanged; None for one.

  Example:
    >>> x = np.array([[0.0], [5.0], [1.0]])
    >>> assignment(x, noise=np.array([[2.0], [1.0], [3.0]])).tolist()
    [1, 2, 0]
  """
  # Half a second to import, which other runs need not wait for.
  from scipy.optimize import linear_sum_assignment

  # In float64: a tie of float32 could be broken by the size of a product.
  x, z = (v.reshape(len(v), -1).astype(np.float64) for v in (data, noise))
  inner = x @ z.T
  order = np.arange(len(x))
  if not np.isfinite(inner).all():
    return order  # Training names what is not finite.
  classes = np.zeros(len(x)) if label is None else label
  for one in np.unique(classes):
    (rows,) = np.nonzero(classes == one)
    within = inner[np.ix_(rows, rows)]
    order[rows] = rows[linear_sum_assignment(within, maximize=True)[1]]
  return order


def check_groups(local: np.ndarray, whole: int, rows: int) -> None:
  """Raise UsageError unless groups lie in one process, and divide a batch.

  Args:
    local: Rows of a (micro-)batch that this process has.
    whole: Rows of a whole (micro-)batch.
    rows: Rows of a group.

  Example:
    >>> check_groups(np.arange(4), 8, 2)
  """
  found = np.bincount(local // rows) if len(local) else np.zeros(1)
  if whole % rows == 0 and {*found} <= {0, rows}:
    return
  raise UsageError(
    f"data.coupling.rows={rows} does not divide the {len(local)} rows that a "
    f"process has of the {whole} of a (micro-)batch: give a divisor, or 0 for "
    "independent noise"
  )


def check_classes(cond: Any, leading: tuple[int, ...]) -> None:
  """Raise UsageError unless a condition is one class for each row.

  Args:
    cond: The condition of a batch.
    leading: The shape of a batch of numbers, one for each row.

  Example:
    >>> check_classes(np.array([1, 0]), (2,))
  """
  kind = getattr(getattr(cond, "dtype", None), "kind", "")
  if kind in "iu" and kind and cond.shape == leading:
    return
  raise UsageError(
    "data.coupling.within_class=True: the conditions of these data are no "
    "classes; set it to False, which changes the law of the noise under a "
    "condition, or data.coupling.rows to 0"
  )
