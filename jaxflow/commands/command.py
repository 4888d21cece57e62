"""The description of a command in its file."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from absl.flags import FlagValues as Values


def numbers(text: str) -> tuple[int, ...]:
  """Read whole numbers with commas between."""
  return tuple(map(int, text.split(",")))


def checkpoint(text: str) -> int | str:
  """Read the step of a checkpoint, or "best"."""
  return text if text == "best" else int(text)


@dataclasses.dataclass(frozen=True)
class Flag:
  """A flag of a command.

  Attributes:
    name: Its name.
    help: What it is, in lower case and without a full stop.
    default: Its value where it is not given.
    kind: Reads its value from text; None stands for the type of the default,
      or for text where that is None.
  """

  name: str
  help: str
  default: Any = None
  kind: Callable[[str], Any] | None = None


# Flags of several commands.
WORKDIR = Flag("workdir", "the folder of a run")
STEP = Flag(
  "step", "the checkpoint (default: the latest), or best", kind=checkpoint
)

# The sections of a config that decide how a trained run is sampled.
SAMPLING = ("sample", "flow_map")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Command:
  """A command of the command line.

  Attributes:
    summary: Its purpose, in a few words.
    run: Carries it out, `(values of its flags, config or None) -> exit code`;
      None stands for 0.
    flags: Its flags.
    options: Returns dataclasses of `runs.options`, whose fields are flags too.
      It imports them, which `--help` of other commands need not wait for.
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
  run: Callable[[Values, Any], int | None]
  flags: tuple[Flag, ...] = ()
  options: Callable[[], tuple[type[Any], ...]] = tuple
  example: str = ""
  notes: str = ""
  required: Mapping[str, str] = dataclasses.field(default_factory=dict)
  takes_config: bool = False
  fixed: tuple[str, ...] = ()
  changes: tuple[str, ...] = ()
  interruptible: bool = False
  resumable: bool = False
  alone: bool = False
