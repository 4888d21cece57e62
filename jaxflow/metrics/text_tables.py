"""Tables as text, the same on every terminal."""

import io
import math

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


def with_error(value: float | None, error: float | None) -> str:
  """Write a number to the second digit of its standard error, and the error.

  Small numbers share a power of 10. A number without an error has 4 digits,
  None is "".

  Example:
    >>> with_error(17.394, 0.5189), with_error(5.4321e-4, 9.1e-5)
    ('17.39 ± 0.52', '(5.43 ± 0.91)e-4')
  """
  if value is None:
    return ""
  if error is None or not (math.isfinite(value) and error > 0):
    return f"{value:.4g}" if error is None else f"{value:.4g} ± {error:.2g}"
  if not math.isfinite(error):
    return f"{value:.4g} ± {error}"
  power = math.floor(math.log10(max(abs(value), error)))
  power = power if power < -3 else 0
  value, error = value / 10.0**power, error / 10.0**power
  # The exponent after rounding: 0.0996 has the two digits 0.10.
  digits = max(0, 1 - int(f"{error:.1e}".partition("e")[2]))
  text = f"{value:.{digits}f} ± {error:.{digits}f}"
  return f"({text})e{power}" if power else text
