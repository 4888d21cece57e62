"""Low-rank adapters: a trained network learns through small matrices.

A kernel W [..., in, out] becomes

  W + alpha / rank  A B,   A [..., in, rank],   B [rank, out].            (1)

A starts with normal numbers of variance 1 / n, n the inputs of an output, and B
at zero: at first the network is what it was. A stack of kernels has an A and a
B for each. The sum is made once a training step, in float32, whatever the
network: its derivatives forward and backward are those of the network, and the
merged weights are the ones that were trained.

References:
  Hu et al., 2021, arXiv:2106.09685, section 4.1.
"""

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from jaxflow.errors import UsageError, did_you_mean
from jaxflow.models.fitting import path_name
from jaxflow.options import Count, Positive
from jaxflow.types import Array, PyTree

# A part of the path of arrays that have one axis more, that of the layers.
_STACKED = re.compile(r"(^|/)stacked/")


@dataclass(frozen=True)
class Adapter:
  """Small parameters that change the parameters of a network.

  Attributes:
    init: `init(key, params) -> learned`, nested dicts of float32 arrays whose
      paths begin with the paths of the arrays that they change; `params` may
      be shapes.
    merge: `merge(params, learned) -> params`, equal to `params` for those that
      `init` returns.
  """

  init: Callable[[Array, PyTree], PyTree]
  merge: Callable[[PyTree, PyTree], PyTree]


def lora(
  *,
  rank: Count = 16,
  alpha: Positive = 16.0,
  on: str = "attention",
  whole: str = "",
) -> Adapter:
  """Make an adapter of low rank, eq. (1).

  Args:
    rank: Columns of A, and rows of B.
    alpha: Scale of the product, times the rank.
    on: Regular expression that is found in the paths of the kernels that have
      an A and a B. Of arrays with fewer than two axes it finds none.
    whole: Regular expression of further arrays, which learn as a whole, as the
      difference from what they were; "" for none.

  Raises:
    UsageError: In `init`, if a pattern is none or is found nowhere, or if the
      adapter would be no smaller than the kernels.

  Example:
    >>> from jaxflow.models import mlp
    >>> network, adapter = mlp(width=16), lora(rank=2, on="hidden")
    >>> params = network.init(jax.random.key(0))
    >>> learned = adapter.init(jax.random.key(1), params)
    >>> jax.tree.map(jnp.shape, learned["hidden_1"])
    {'kernel': {'in': (16, 2), 'out': (2, 16)}}
    >>> merged = adapter.merge(params, learned)
    >>> same = jax.tree.map(jnp.array_equal, merged, params)
    >>> all(jax.tree.leaves(same))
    True
  """
  scale = alpha / rank

  def init(key: Array, params: PyTree) -> PyTree:
    arrays = {
      path_name(path): x
      for path, x in jax.tree_util.tree_leaves_with_path(params)
    }
    kernels = [k for k, x in arrays.items() if x.ndim - _layers(k) >= 2]
    entire = _found(arrays, whole=whole) if whole else []
    found = _found(kernels, on=on)
    low = [k for k in found if k not in entire]
    learned = {}
    for name, own in zip(low, jax.random.split(key, len(low)), strict=True):
      a, b = _shapes(name, arrays[name].shape, rank)
      std = 1 / math.sqrt(math.prod(a[_layers(name) : -1]))
      learned[f"{name}/in"] = std * jax.random.normal(own, a)
      learned[f"{name}/out"] = jnp.zeros(b)
    size = sum(x.size for x in learned.values())
    full = sum(arrays[name].size for name in low)
    if low and size >= full:
      raise UsageError(
        f"rank={rank}: the adapter would have {size:,} numbers, its kernels "
        f"{full:,}: give a smaller rank, or train without an adapter"
      )
    learned |= {f"{k}/change": jnp.zeros(arrays[k].shape) for k in entire}
    return _nested(learned)

  def merge(params: PyTree, learned: PyTree) -> PyTree:
    def merged(path: tuple, x: Array) -> Array:
      own = _at(learned, path_name(path))
      if not own:
        return x
      if "change" in own:
        return x + own["change"]
      # Of float32, on devices that would round its factors otherwise.
      product = jnp.matmul(own["in"], own["out"], precision="highest")
      return x + scale * product

    return jax.tree.map_with_path(merged, params)

  return Adapter(init, merge)


def _layers(name: str) -> int:
  """Return how many axes of an array count layers."""
  return 1 if _STACKED.search(name) else 0


def _shapes(
  name: str, shape: tuple[int, ...], rank: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
  """Return the shapes of A and B."""
  layers = shape[: _layers(name)]
  # One B for all places of a convolution.
  ones = (1,) * (len(shape) - 3) if layers else ()
  return (*shape[:-1], rank), (*layers, *ones, rank, shape[-1])


def _found(names: Iterable[str], **given: str) -> list[str]:
  """Return the names in which the one given pattern is found."""
  ((option, pattern),) = given.items()
  names = list(names)
  try:
    found = [name for name in names if re.search(pattern, name)]
  except re.error as error:
    raise UsageError(
      f"{option}={pattern!r} is no regular expression ({error}): give a part "
      f"of a path, of {names[-1]} for instance"
    ) from error
  if not found:
    some = ", ".join(names[:8]) + ", ..." * (len(names) > 8)
    raise UsageError(
      f"{option}={pattern!r} is found in no path: "
      f"{did_you_mean(pattern, names)}there are {some}"
    )
  return found


def _nested(arrays: dict[str, Array]) -> PyTree:
  """Return arrays as nested dicts, by the parts of their paths."""
  tree = {}
  for name, x in arrays.items():
    *outer, last = name.split("/")
    place = tree
    for part in outer:
      place = place.setdefault(part, {})
    place[last] = x
  return tree


def _at(tree: PyTree, name: str) -> PyTree:
  """Return what nested dicts hold at a path, {} for nothing."""
  for part in name.split("/"):
    tree = tree.get(part, {})
  return tree
