"""One layer of a network's parameters, found by a regular expression."""

import re
from collections.abc import Callable

import jax

from jaxflow.errors import UsageError, did_you_mean
from jaxflow.types import Array, PyTree


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
  names = [
    jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in leaves
  ]
  values = [leaf for _, leaf in leaves]
  index = names.index(_only_match(names, pattern))

  def put(layer):
    return structure.unflatten([*values[:index], layer, *values[index + 1 :]])

  return put, values[index]


def _only_match(names: list[str], pattern: str) -> str:
  try:
    found = [name for name in names if re.fullmatch(pattern, name)]
  except re.error as error:
    raise UsageError(
      f"pattern={pattern!r} is no regular expression ({error}): give the path "
      f"of one array, {names[-1]} for instance"
    ) from error
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
