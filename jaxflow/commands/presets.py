"""`jaxflow presets`: print the configs that can be given by name."""

import textwrap
from typing import Any

from jaxflow import config_files
from jaxflow.commands.command import Command, Values
from jaxflow.commands.console import log


def _run(values: Values, config: Any) -> None:
  from jaxflow.config import methods, presets

  for name in config_files.names():
    file = config_files.find(name)
    found = presets.methods_of(file)
    listed = "all" if found == list(methods()) else ", ".join(found) or "none"
    wrapped = textwrap.wrap(
      f"methods: {listed}", 80, initial_indent="  ", subsequent_indent="    "
    )
    lines = [name, f"  {config_files.summary(file)}", f"  {file}", *wrapped]
    log("\n".join(lines))


COMMAND = Command(
  summary="print the configs for --config=NAME:METHOD and their methods",
  run=_run,
  notes="""\
Files in the folder configs/ go before those of the same name that come with the
library.""",
  example="jaxflow presets",
  alone=True,
)
