"""`jaxflow methods`: print the table of methods."""

from collections.abc import Mapping
from typing import Any

from jaxflow import catalogue, plugins
from jaxflow.commands.command import Command, Values
from jaxflow.commands.console import log


def _run(values: Values, config: Any) -> None:
  rows: Mapping[str, Any] = catalogue.entries()
  if plugins.are_there():
    from jaxflow.config import methods

    rows = methods()
  for name, row in rows.items():
    needs = ", ".join(sorted(row.needs)) or "nothing"
    log(f"{name}\n  {row.summary}\n  needs: {needs}\n  {row.paper}")


COMMAND = Command(
  summary="print the methods with their needs and sources",
  run=_run,
  example="jaxflow methods",
  alone=True,
)
