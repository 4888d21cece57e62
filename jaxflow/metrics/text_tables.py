"""Tables as text, the same on every terminal."""

import io

from rich.console import Console
from rich.table import Table


def render(grid: Table) -> str:
  """Write a table in 100 columns without colour, in notebooks too."""
  buffer = io.StringIO()
  console = Console(
    file=buffer,
    width=100,
    color_system=None,
    force_jupyter=False,
    markup=False,
    emoji=False,
  )
  console.print(grid)
  lines = buffer.getvalue().splitlines()
  return "\n".join(line.rstrip() for line in lines).strip("\n")
