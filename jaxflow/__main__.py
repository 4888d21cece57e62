"""The command `jaxflow`, also as `python -m jaxflow`."""

import gc
import sys

from jaxflow.commands import interrupts


def main() -> None:
  """Run the command line and exit with its code."""
  interrupts.listen()
  # Imports make objects that stay. To look for garbage among them, again and
  # again, takes a fifth of the time until the first sample.
  gc.disable()
  # Imports take long enough to be interrupted.
  from jaxflow.commands.main import run

  sys.exit(run(sys.argv))


if __name__ == "__main__":
  main()
