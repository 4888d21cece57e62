"""Conditions: pytrees of arrays that a network declares by the null one.

A network gets a condition of one sample with a batch axis before each of its
arrays. The null condition stands for none. It has no batch axis, and by its
structure, shapes and types it says what every condition looks like:

  labels        an int32, the number of classes
  vectors       float32 [K], all NaN
  of a network  whatever `Network.null_cond` is: {"tokens": ..., "mask": ...}
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxflow.types import PyTree

# Of the dict that `guidance.inputs` makes, and of files of samples.
_TAKEN = ("label", "samples")
# How many differences a message lists.
_LISTED = 4


def leaves(cond: PyTree) -> dict[str, Any]:
  """Return the arrays of a condition by name; a lone one is called "cond".

  Example:
    >>> leaves({"text": [1, 2], "size": 3})
    {'size': 3, 'text/0': 1, 'text/1': 2}
    >>> leaves(4)
    {'cond': 4}
  """
  found, _ = jax.tree_util.tree_flatten_with_path(cond)
  name = jax.tree_util.keystr
  return {
    name(path, simple=True, separator="/") or "cond": x for path, x in found
  }


def layout(cond: PyTree) -> dict[str, list[Any]]:
  """Return type and shape of each array of a condition, as JSON has them.

  Types are those that JAX makes of them.

  Example:
    >>> layout({"tokens": np.zeros(4, np.int32)})
    {'tokens': ['int32', [4]]}
  """
  return {k: [_type(x).name, [*np.shape(x)]] for k, x in leaves(cond).items()}


def from_leaves(arrays: Mapping[str, Any], null_cond: PyTree) -> PyTree:
  """Return the condition of arrays that are named as `leaves` names them.

  Samples beside them, as `jaxflow sample` writes them, are left out.

  Raises:
    ValueError: A name is missing, or one is not declared.

  Example:
    >>> from_leaves({"size": 3, "samples": 0}, {"size": 0})
    {'size': 3}
  """
  names = [*leaves(null_cond)]
  if {*names} != {*arrays} - {"samples"}:
    raise ValueError(
      f"it has {', '.join(arrays) or 'nothing'}: give {', '.join(names)}"
    )
  return jax.tree.unflatten(
    jax.tree.structure(null_cond), [arrays[name] for name in names]
  )


def describe(cond: PyTree) -> str:
  """Return names, types and shapes of a condition as text.

  Example:
    >>> describe({"tokens": np.zeros(4, np.int32), "size": np.float32(1)})
    'size float32 [], tokens int32 [4]'
    >>> describe(None)
    'none'
  """
  told = [f"{k} {kind} {dims}" for k, (kind, dims) in layout(cond).items()]
  return ", ".join(told) or "none"


def difference(found: PyTree, null_cond: PyTree) -> str:
  """Say how the condition of one sample differs from what is declared.

  Example:
    >>> null_cond = {"tokens": np.zeros(4, np.int32)}
    >>> difference({"tokens": np.zeros(5, np.int32)}, null_cond)
    'tokens has the shape [5], not [4]'
    >>> difference({"tokens": np.zeros(4, np.int32)}, null_cond)
    ''
  """
  mine, wanted = layout(found), layout(null_cond)
  parts = [f"{k} is missing" for k in wanted if k not in mine]
  parts += [f"{k} is not declared" for k in mine if k not in wanted]
  for name in [k for k in mine if k in wanted]:
    for what, its, own in zip(
      ("type", "shape"), mine[name], wanted[name], strict=True
    ):
      if its != own:
        parts.append(f"{name} has the {what} {its}, not {own}")
  same = jax.tree.structure(found) == jax.tree.structure(null_cond)
  if not parts and not same:
    parts = [
      f"{jax.tree.structure(found)}, not {jax.tree.structure(null_cond)}"
    ]
  more = f"; {len(parts) - _LISTED} more" * (len(parts) > _LISTED)
  return "; ".join(parts[:_LISTED]) + more


def same(cond: PyTree, other: PyTree) -> bool:
  """Return whether two null conditions are one, NaN equal to NaN.

  Example:
    >>> same(np.float32(np.nan), np.float32(np.nan)), same(1, None)
    (True, False)
  """
  pairs = zip(jax.tree.leaves(cond), jax.tree.leaves(other), strict=False)
  return not difference(cond, other) and all(
    np.array_equal(a, b, equal_nan=_is_real(a)) for a, b in pairs
  )


def declared(null_cond: PyTree) -> PyTree:
  """Return a null condition as arrays of the types that networks see.

  Raises:
    ValueError: It has no array, or one of no such type, or a name that is
      taken.
  """
  for key in _TAKEN if isinstance(null_cond, dict) else ():
    if key in null_cond:
      raise ValueError(f"the name {key!r} is taken: call it otherwise")
  try:
    count = len(jax.tree.leaves(null_cond))
    names = leaves(null_cond)
  except ValueError as error:  # Its keys cannot be sorted.
    raise ValueError("its keys are of several types: give texts") from error
  if not count:
    raise ValueError("it has no array: leave it out, or give one")
  if len(names) < count:
    raise ValueError("two of its arrays have one name: leave '/' out of keys")
  found = narrowed(jax.tree.map(np.asarray, null_cond))
  empty = [name for name, x in leaves(found).items() if not x.size]
  if empty:
    raise ValueError(f"its array {empty[0]} is empty: leave it out")
  return found


def shapes(null_cond: PyTree, *leading: int, sharding: Any = None) -> PyTree:
  """Return the shapes of conditions, with leading axes; None without.

  Example:
    >>> shapes({"tokens": np.zeros(4, np.int32)}, 8)["tokens"].shape
    (8, 4)
  """
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(
      (*leading, *np.shape(x)), _type(x), sharding=sharding
    ),
    null_cond,
  )


def of_samples(cond: PyTree, null_cond: PyTree, num: int) -> PyTree:
  """Return the conditions of samples: rows in turn, or one for all.

  Args:
    cond: Arrays of N rows each, N <= num, or those of one sample.
    null_cond: The null condition.
    num: Number of samples.

  Raises:
    ValueError: The conditions are others than is declared.

  Example:
    >>> of_samples(np.int32([3, 4]), np.int32(9), 3).tolist()
    [3, 4, 3]
  """
  cond = _arrays(cond, null_cond)
  own = leaves(null_cond)
  # Those without an axis of rows are one for all samples.
  single = [k for k, x in leaves(cond).items() if x.ndim == np.ndim(own[k])]
  if len(single) == len(own):
    cond = jax.tree.map(lambda x: x[None], cond)
  elif single and not difference(_first(cond, single), null_cond):
    rest = [k for k in own if k not in single]
    raise ValueError(
      f"{single[0]} is of one sample and {rest[0]} has rows: give rows of all"
    )
  empty = [k for k, x in leaves(cond).items() if x.ndim and not len(x)]
  if empty:
    raise ValueError(f"{empty[0]} is empty: give {describe(null_cond)}")
  if text := difference(_first(cond), null_cond):
    raise ValueError(
      f"{text}; a sample has {describe(null_cond)}: give these, a row a sample"
    )
  counts = {k: len(x) for k, x in leaves(cond).items()}
  count = max(counts.values())
  if len({*counts.values()}) > 1 or count > num:
    raise ValueError(
      f"rows of {counts}: give the same number of each, at most {num}, the "
      "number of samples"
    )
  return narrowed(rows(cond, np.arange(num) % count))


def narrowed(cond: PyTree) -> PyTree:
  """Return arrays of the types that JAX makes of them: 32 bits for 64.

  Raises:
    ValueError: A number is too large for that, or an array holds no numbers.

  Example:
    >>> narrowed(np.int64([3])).dtype.name
    'int32'
    >>> narrowed({"size": np.int64([2**40])})
    Traceback (most recent call last):
    ...
    ValueError: size has 1099511627776, which int32 does not hold
  """
  names = iter(leaves(cond))
  return jax.tree.map(lambda x: _narrowed(x, next(names)), cond)


def _narrowed(x: Any, name: str) -> np.ndarray:
  x = np.asarray(x)
  _check_numbers(x, name)
  with np.errstate(over="ignore"):
    made = x.astype(_type(x))
  kept = (
    made == x if x.dtype.kind in "iu" else np.isfinite(made) | ~np.isfinite(x)
  )
  if not kept.all():
    raise ValueError(
      f"{name} has {x[~kept].flat[0]}, which {made.dtype} does not hold"
    )
  return made


def _check_numbers(x: np.ndarray, name: str) -> None:
  """Raise ValueError unless an array holds whole or real numbers, or flags."""
  kinds = jnp.integer, jnp.floating
  if not (x.dtype == bool or any(jnp.issubdtype(x.dtype, k) for k in kinds)):
    raise ValueError(f"{name} is of type {x.dtype}: give whole or real numbers")


def _arrays(cond: PyTree, null_cond: PyTree) -> PyTree:
  """Return what is given as arrays where the null condition has them."""
  tree, names = jax.tree.structure(null_cond), leaves(null_cond)
  try:
    found = tree.flatten_up_to(cond)
  except (ValueError, TypeError):
    raise ValueError(
      f"{difference(cond, null_cond)}; a sample has {describe(null_cond)}: "
      "give these, a row a sample"
    ) from None
  arrays = []
  for name, x in zip(names, found, strict=True):
    try:
      arrays.append(np.asarray(x))
    except ValueError as error:
      raise ValueError(f"{name} has rows of several lengths") from error
    _check_numbers(arrays[-1], name)
  return tree.unflatten(arrays)


def _first(cond: PyTree, single: Sequence[str] = ()) -> PyTree:
  """Return the first row of each array, but of those that have none."""
  names = iter(leaves(cond))
  return jax.tree.map(
    lambda x: x[0] if next(names) not in single and x.ndim else x, cond
  )


def check_values(cond: PyTree, null_cond: PyTree) -> None:
  """Raise ValueError where a value is not finite; NaN may stand for none.

  Example:
    >>> check_values(np.float32([np.nan]), np.float32(0))
    Traceback (most recent call last):
    ...
    ValueError: cond has values that are not finite
  """
  for name, x in leaves(cond).items():
    may_be_nan = np.isnan(leaves(null_cond)[name]).any()
    if np.isinf(x).any() or (np.isnan(x).any() and not may_be_nan):
      raise ValueError(f"{name} has values that are not finite")


def num_bytes(null_cond: PyTree) -> int:
  """Return the memory of the condition of one sample."""
  return sum(np.asarray(x).nbytes for x in jax.tree.leaves(null_cond))


def rows(cond: PyTree, index: Any) -> PyTree:
  """Return some rows of conditions; None stays None.

  Example:
    >>> rows({"size": np.array([3, 4, 5])}, [2, 0])["size"].tolist()
    [5, 3]
  """
  return jax.tree.map(lambda x: x[index], cond)


def joined(parts: Sequence[PyTree]) -> PyTree:
  """Join rows of conditions.

  Example:
    >>> joined([{"size": np.array([i])} for i in (3, 4)])["size"].tolist()
    [3, 4]
  """
  return jax.tree.map(lambda *x: np.concatenate(x), *parts)


def _type(x: Any) -> np.dtype:
  """Return the type that JAX makes of an array; texts keep theirs."""
  dtype = getattr(x, "dtype", None) or np.asarray(x).dtype
  try:
    return jax.dtypes.canonicalize_dtype(dtype)
  except TypeError:
    return dtype


def _is_real(x: Any) -> bool:
  return jnp.issubdtype(_type(x), jnp.floating)
