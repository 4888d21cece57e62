"""Errors whose message is all a user needs: value, argument and remedy."""

import contextlib
import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

__all__ = [
  "NotFiniteError",
  "PlugInError",
  "RunError",
  "UsageError",
  "arguments_for",
  "check_range",
  "did_you_mean",
  "inside",
  "named",
  "option_of",
]

# Begins an error of another process of a job.
_ELSEWHERE = r"((?:process \d+: )?)"


class UsageError(ValueError):
  """A value that the user gave is wrong; exit code 2.

  The message is one line: the argument's name, its value and the remedy.
  """


class PlugInError(UsageError):
  """A config names code that must not run, or that is not there."""


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
    >>> with named(data="--data"):
    ...   raise UsageError("data.name='x' is unknown")
    Traceback (most recent call last):
    ...
    jaxflow.errors.UsageError: data.name='x' is unknown
  """
  # A name with dots is a field of a config already.
  with _renamed(r"\w+(?![\w.])", lambda name: names.get(name, name)):
    yield


@contextlib.contextmanager
def arguments_for(fields: Mapping[str, str]) -> Iterator[None]:
  """Name arguments for config fields, anywhere in usage errors raised inside.

  Args:
    fields: Arguments by field.

  Raises:
    UsageError: The error raised inside, with the arguments' names.

  Example:
    >>> with arguments_for({"data.config": "subset"}):
    ...   raise UsageError("data.config='x' is not read; remove data.config")
    Traceback (most recent call last):
    ...
    jaxflow.errors.UsageError: subset='x' is not read; remove subset
  """
  try:
    yield
  except UsageError as error:
    # A field is no part of another, such as data.dir of data.dir.x.
    pattern = r"\b[a-z_]+(\.[a-z_]+)+\b"
    text = re.sub(pattern, lambda x: fields.get(x[0], x[0]), str(error))
    if text == str(error):
      raise
    raise type(error)(text) from error


@contextlib.contextmanager
def inside(section: str) -> Iterator[None]:
  """Say which config section arguments come from, in usage errors.

  Only a message that begins with `argument=value` is changed.

  Args:
    section: The section whose options are the arguments.

  Raises:
    UsageError: The error raised inside, with the section's name in front.

  Example:
    >>> with inside("optimizer"):
    ...   raise UsageError("schedule='x' is unknown")
    Traceback (most recent call last):
    ...
    jaxflow.errors.UsageError: optimizer.schedule='x' is unknown
  """
  with _renamed(r"[\w.]+(?==)", lambda name: f"{section}.{name}"):
    yield


@contextlib.contextmanager
def option_of(place: str) -> Iterator[None]:
  """Raise a UsageError of a section where a function refuses an option."""
  try:
    yield
  except UsageError:  # It names the option by itself.
    raise
  except ValueError as error:
    raise UsageError(f"{place}: {error}") from error


@contextlib.contextmanager
def _renamed(pattern: str, rename: Callable[[str], str]) -> Iterator[None]:
  """Change the name with which a usage error begins."""
  try:
    yield
  except UsageError as error:
    found = re.match(rf"{_ELSEWHERE}({pattern})(.*)", str(error), re.DOTALL)
    if found is None or rename(found[2]) == found[2]:
      raise
    raise type(error)(found[1] + rename(found[2]) + found[3]) from error


def check_range(limit: Any, **values: Any) -> None:
  """Raise UsageError if a value is outside of an `options.Range`."""
  for name, value in values.items():
    try:
      allowed = limit.allows(value)
    except TypeError:  # It is no number.
      allowed = False
    if not allowed:
      raise UsageError(f"{name}={value}: give {limit.text}")


def did_you_mean(name: str, choices: Iterable[str]) -> str:
  """Return a question that names the nearest choice, or "" if none is near.

  Example:
    >>> did_you_mean("rign", ["ring", "digits"])
    "did you mean 'ring'? "
  """
  near = difflib.get_close_matches(name, list(choices), n=1)
  return f"did you mean {near[0]!r}? " if near else ""


def unknown(what: str, name: Any, known: Iterable[str]) -> UsageError:
  """Return an error that names the choices, and the nearest of them.

  Example:
    >>> str(unknown("name", "rign", ["ring", "digits"]))
    "name='rign' is unknown: did you mean 'ring'? choose one of ring, digits"
  """
  known = list(known)
  return UsageError(
    f"{what}={name!r} is unknown: {did_you_mean(str(name), known)}choose one "
    f"of {', '.join(known)}"
  )
