"""Options of long work: dataclasses whose fields carry a help text."""

import dataclasses
from typing import Any


def option(default: Any, text: str) -> Any:
  """Return a field of a dataclass that describes itself.

  Args:
    default: Its default.
    text: What it is, in lower case and without a full stop; the command line
      shows it as the help of the flag of this name.

  Example:
    >>> @dataclasses.dataclass
    ... class Options:
    ...   num: int = option(64, "how many samples")
    >>> dataclasses.fields(Options)[0].metadata["help"]
    'how many samples'
  """
  return dataclasses.field(default=default, metadata={"help": text})
