"""Parts of a network's parameters, found by a regular expression."""

import re
from collections.abc import Callable, Sequence
from typing import Any

import jax

from jaxflow.errors import UsageError, did_you_mean
from jaxflow.types import Array, PyTree


def matching(params: PyTree, pattern: str) -> PyTree:
  """Return a tree of bools: whether a pattern is found in an array's path.

  Raises:
    UsageError: If it is found in none.

  Example:
    >>> matching({"mlp": {"kernel": 0.0}, "output": 0.0}, "^output")
    {'mlp': {'kernel': False}, 'output': True}
  """
  leaves, structure = jax.tree_util.tree_flatten_with_path(params)
  names = _names(leaves)
  found = [x is not None for x in _searched(re.search, names, pattern)]
  if not any(found):
    raise UsageError(
      f"pattern={pattern!r} is found in no parameter: "
      f"{did_you_mean(pattern, names)}there are {', '.join(names[:8])}"
      f"{', ...' if len(names) > 8 else ''}"
    )
  return structure.unflatten(found)


def stopped_but(params: PyTree, pattern: str) -> PyTree:
  """Return parameters of which those in whose path a pattern is found learn.

  No gradient goes to the others, so none is computed.
  """
  return jax.tree.map(
    lambda learns, x: x if learns else jax.lax.stop_gradient(x),
    matching(params, pattern),
    params,
  )


def _names(leaves: Sequence[tuple[Any, Any]]) -> list[str]:
  """Return the paths of arrays, `blocks/0/kernel`."""
  return [
    jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in leaves
  ]


def _searched(
  search: Callable[[str, str], Any], names: list[str], pattern: str
) -> list[Any]:
  """Search names for a pattern; raise UsageError if it is none."""
  try:
    return [search(pattern, name) for name in names]
  except re.error as error:
    raise UsageError(
      f"pattern={pattern!r} is no regular expression ({error}): give the path "
      f"of one array, {names[-1]} for instance"
    ) from error


def split(
  params: PyTree, pattern: str
) -> tuple[Callable[[Array], PyTree], Array]:
  """Take one array out of parameters.

  Returns:
    A function that puts an array in that place, and the array that is there.
    No gradient goes to the parameters through either.

  Raises:
    UsageError: If the pattern matches no array, or several.
  """
  params = jax.lax.stop_gradient(params)
  leaves, structure = jax.tree_util.tree_flatten_with_path(params)
  names = _names(leaves)
  values = [leaf for _, leaf in leaves]
  index = names.index(_only_match(names, pattern))

  def put(layer):
    return structure.unflatten([*values[:index], layer, *values[index + 1 :]])

  return put, values[index]


def _only_match(names: list[str], pattern: str) -> str:
  matches = _searched(re.fullmatch, names, pattern)
  found = [x for x, match in zip(names, matches, strict=True) if match]
  if len(found) == 1:
    return found[0]
  if found:
    raise UsageError(
      f"pattern={pattern!r} matches {len(found)} arrays: give the path of one, "
      f"for instance of {', '.join(found[:8])}"
    )
  raise UsageError(
    f"pattern={pattern!r} matches no array: {did_you_mean(pattern, names)}give "
    f"the path of one, for instance {names[-1]}"
  )
