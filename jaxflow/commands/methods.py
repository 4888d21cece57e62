"""`jaxflow methods`: print the table of methods."""

from typing import Any

from jaxflow.commands.command import Command, Values
from jaxflow.commands.console import log


def _run(values: Values, config: Any) -> None:
  from jaxflow.config import methods

  for name, row in methods().items():
    needs = ", ".join(sorted(row.needs)) or "nothing"
    log(f"{name}\n  {row.summary}\n  needs: {needs}\n  {row.paper}")


COMMAND = Command(
  summary="print the methods with their needs and sources",
  run=_run,
  example="jaxflow methods",
  alone=True,
)
