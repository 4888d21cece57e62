"""The description of a command in its file."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from absl import flags

__all__ = ["Command"]


def _no_flags(values: flags.FlagValues) -> None:
  del values


@dataclasses.dataclass(frozen=True, kw_only=True)
class Command:
  """A command of the command line.

  Attributes:
    summary: Its purpose, in a few words.
    run: Carries it out, `(values of its flags, config or None) -> exit code`.
    define: Defines its flags.
    example: A command line.
    notes: Further explanation.
    required: Flags that must be given, with a placeholder for the value in the
      usage line.
    takes_config: Whether it reads a config, `--config=CONFIG:METHOD`, whose
      fields flags can change.
    fixed: Sections and fields of that config that the command sets itself.
    changes: Sections and fields of a run's config that flags can change; the
      command gets None where no flag does.
    interruptible: Whether it saves and returns where others would be ended.
    resumable: Whether it goes on where it was interrupted.
    alone: Whether it has no use for the other processes of a job.
  """

  summary: str
  run: Callable[[flags.FlagValues, Any], int]
  define: Callable[[flags.FlagValues], None] = _no_flags
  example: str = ""
  notes: str = ""
  required: Mapping[str, str] = dataclasses.field(default_factory=dict)
  takes_config: bool = False
  fixed: tuple[str, ...] = ()
  changes: tuple[str, ...] = ()
  interruptible: bool = False
  resumable: bool = False
  alone: bool = False
