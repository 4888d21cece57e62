"""The parameters of one network as the first ones of another.

Arrays of the same path and shape are taken over; blocks may be stacked in one
network and not in the other. What has no array in the source starts anew, with
the initial values of its own.

Two inputs, t - s and the guidance, start without effect where the source does
not have them. Their embeddings end in a layer "output", which starts at zero;
in an array whose rows belong to several inputs (`Network.rows`), theirs do. So
the network computes the source's function whatever these inputs are, and
gradients reach the new parameters.
"""

import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from jaxflow.types import Array, PyTree

Rows = Mapping[str, Mapping[str, int]]

_SILENT = re.compile(r"((?:.*/)?(?:interval|guidance))(?:/|$)")
_LAST = re.compile(r".*/output/")
_STACKED = re.compile(r"(.*/|)stacked/(.*)")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fitted:
  """What one network takes of another.

  Attributes:
    params: The parameters.
    kept: How many numbers of them are the source's.
    silent: Inputs that start without effect, by path.
    anew: Other modules that start with initial values of their own.
    left: Modules of the source that have no place.
    new: Arrays in which something is new, but for embeddings that have no
      effect because of the layer behind them.
  """

  params: PyTree
  kept: int
  silent: tuple[str, ...]
  anew: tuple[str, ...]
  left: tuple[str, ...]
  new: tuple[str, ...]


def fitted(
  params: PyTree,
  fresh: PyTree,
  *,
  rows: Rows | None = None,
  fresh_rows: Rows | None = None,
) -> Fitted:
  """Take all of a network's parameters that fit another network.

  Args:
    params: Parameters of the source.
    fresh: Initial parameters of the other network.
    rows: `Network.rows` of the source.
    fresh_rows: `Network.rows` of the other network.

  Example:
    >>> from jaxflow.models import mlp
    >>> one, two = mlp(width=8, second_time=False), mlp(width=8)
    >>> params = one.init(jax.random.key(0))
    >>> found = fitted(params, two.init(jax.random.key(1)),
    ...                rows=one.rows, fresh_rows=two.rows)
    >>> found.silent, found.anew
    (('hidden_0/kernel/interval',), ())
    >>> x, t = jnp.ones((1, 2)), jnp.ones(1)
    >>> same = two.apply(found.params, x, t, 0 * t, None)
    >>> bool(jnp.allclose(same, one.apply(params, x, t, t, None)))
    True
  """
  source = _by_path(params)
  pieces = dict(_pieces(source, rows or {}))
  leaves, structure = jax.tree_util.tree_flatten_with_path(fresh)
  names = [path_name(path) for path, _ in leaves]
  own = dict(zip(names, (x for _, x in leaves), strict=True))
  silent = _silent_inputs(name for name, _ in _pieces(own, fresh_rows or {}))
  used: set[str] = set()
  modules: dict[str, set[str]] = {"silent": set(), "anew": set()}
  kept, made, new = 0, [], []
  for name in names:
    parts = []
    for piece, x in _pieces({name: own[name]}, fresh_rows or {}):
      found = pieces.get(piece)
      if found is not None and found.shape == x.shape:
        used.add(piece)
        kept += x.size
        parts.append(found)
        continue
      match = _SILENT.match(piece)
      if found is None and match and match[1] in silent:
        modules["silent"].add(match[1])
        last = _LAST.match(piece) or piece == match[1]
        parts.append(jnp.zeros_like(x) if last else x)
        new += [name] if last else []
        continue
      modules["anew"].add(_shown(piece, own))
      parts.append(x)
      new.append(name)
    if _STACKED.fullmatch(name):
      made.append(jnp.stack(parts))
    else:
      made.append(parts[0] if len(parts) == 1 else jnp.concatenate(parts))
  left = {_shown(piece, source) for piece in pieces.keys() - used}
  return Fitted(
    params=structure.unflatten(made),
    kept=kept,
    silent=tuple(sorted(modules["silent"])),
    anew=tuple(sorted(modules["anew"])),
    left=tuple(sorted(left - modules["anew"])),
    new=tuple(dict.fromkeys(new)),
  )


def path_name(path: tuple) -> str:
  """Return the path of an array in a tree, `blocks/block_0/kernel`."""
  return jax.tree_util.keystr(path, simple=True, separator="/")


def _by_path(tree: PyTree) -> dict[str, Array]:
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return {path_name(path): x for path, x in leaves}


def _pieces(arrays: Mapping[str, Array], rows: Rows) -> Iterator:
  """Yield arrays by path, in parts what belongs to several blocks or inputs.

  They are `blocks/block_0/kernel` of stacked blocks, and `path/input`.
  """
  for name, x in arrays.items():
    if match := _STACKED.fullmatch(name):
      for i, layer in enumerate(x):
        yield f"{match[1]}block_{i}/{match[2]}", layer
      continue
    ends = np.cumsum(list(rows.get(name, {}).values()))
    if not len(ends):
      yield name, x
      continue
    for part, end in zip(rows[name], ends, strict=True):
      yield f"{name}/{part}", x[end - rows[name][part] : end]


def _silent_inputs(pieces: Iterable[str]) -> set[str]:
  """Return the paths of inputs that can start without effect."""
  found = {name: _SILENT.match(name) for name in pieces}
  return {
    match[1]
    for name, match in found.items()
    if match and (_LAST.match(name) or match[1] == name)
  }


def _shown(piece: str, arrays: Mapping[str, Array]) -> str:
  """Return the module of an array, or the input of an array of several."""
  array, _, _ = piece.rpartition("/")
  # The array itself where it has no module.
  return piece if array in arrays else array or piece
