"""What commands print."""

import os
import sys


def say(text: str) -> None:
  """Print a line, once a job."""
  from jaxflow.parallel import processes

  if processes.is_main():
    print_line(text)


def print_line(text: str) -> None:
  """Print a line; a reader that has left (`| head`) stops nothing."""
  try:
    print(text, flush=True)
  except BrokenPipeError:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
