"""Tables as text, the same on every terminal."""

import io

from rich.console import Console
from rich.table import Table

WIDTH = 100


def render(grid: Table) -> str:
  """Print a table without colour, whatever the terminal or notebook.

  Args:
    grid: The table.

  Returns:
    Lines of at most 100 columns.

  Example:
    >>> grid = Table("metric")
    >>> "metric" in render(grid)
    True
  """
  buffer = io.StringIO()
  console = Console(
    file=buffer,
    width=WIDTH,
    color_system=None,
    force_jupyter=False,
    markup=False,
    emoji=False,
  )
  console.print(grid)
  lines = buffer.getvalue().splitlines()
  return "\n".join(line.rstrip() for line in lines).strip("\n")
