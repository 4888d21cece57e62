"""`jaxflow methods`: print the table of methods."""

from typing import Any

from absl import flags

from jaxflow.commands.command import Command
from jaxflow.commands.console import say

__all__ = ["COMMAND"]


def _run(values: flags.FlagValues, config: Any) -> int:
  del values, config

  from jaxflow.methods import METHODS

  for name, row in METHODS.items():
    needs = ", ".join(sorted(row.needs)) or "nothing"
    say(f"{name}\n  {row.summary}\n  needs: {needs}\n  {row.paper}")
  return 0


COMMAND = Command(
  summary="print the methods with their needs and sources",
  run=_run,
  example="jaxflow methods",
  alone=True,
)
