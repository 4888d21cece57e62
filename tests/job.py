"""Runs commands in one process of a job: `python job.py COMMANDS.json`.

The file holds a list of command lines, without the program's name.
"""

import json
import pathlib
import sys

import jax

from jaxflow.commands import main

jax.config.update("jax_numpy_rank_promotion", "raise")

if __name__ == "__main__":
  commands = json.loads(pathlib.Path(sys.argv[1]).read_text())
  sys.exit(max(main.run(["jaxflow", *command]) for command in commands))
