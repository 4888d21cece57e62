"""Errors whose message is all a user needs: value, argument and remedy."""

import contextlib
import re
from collections.abc import Iterator

__all__ = ["NotFiniteError", "RunError", "UsageError", "named"]


class UsageError(ValueError):
  """A value that the user gave is wrong; exit code 2.

  The message is one line: the argument's name, its value and the remedy.
  """


class RunError(RuntimeError):
  """A correct request could not be carried out; exit code 1."""


class NotFiniteError(RunError):
  """Samples, or numbers computed from them, are not finite."""


@contextlib.contextmanager
def named(**names: str) -> Iterator[None]:
  """Say how the user calls an argument, in usage errors raised inside.

  A library function begins its message with the argument that is wrong. Its
  caller knows which flag or config field the value came from.

  Args:
    **names: Flag or field by the name of an argument.

  Raises:
    UsageError: The error raised inside, under the user's name.

  Example:
    >>> with named(num="--num"):
    ...   raise UsageError("num=0: give at least 1")
    Traceback (most recent call last):
    ...
    jaxflow.errors.UsageError: --num=0: give at least 1
  """
  try:
    yield
  except UsageError as error:
    text = str(error)
    # A name with dots is a field of a config already.
    found = re.match(r"\w+(?![\w.])", text)
    if found is None or found[0] not in names:
      raise
    renamed = names[found[0]] + text[found.end() :]
    raise type(error)(renamed) from error
