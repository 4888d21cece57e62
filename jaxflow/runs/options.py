"""Options of long work: dataclasses whose fields carry a help text."""

import dataclasses
from typing import Any


def option(default: Any, text: str) -> Any:
  """Return a field of a dataclass; `text` is the help of its flag."""
  return dataclasses.field(default=default, metadata={"help": text})
