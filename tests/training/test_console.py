"""What training prints, in a pipe and on a terminal."""

import os
import pathlib
import pty
import re
import subprocess
import sys

import tiny

from jaxflow.config.presets import load_file
from jaxflow.runs.train import train

REPOSITORY = pathlib.Path(__file__).parents[2]
# Movements of the cursor, colours.
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
NAMES = (
  *("loss", "raw", "raw flow", "raw interval", "gradient norm"),
  "learning rate",
)


def assert_tells_a_run(lines, workdir):
  """Each line is there once, in order."""
  assert lines[0].startswith("mean_flow on ring: ")
  assert (
    "16,384 samples of 2, 8 device(s), 5 steps per dispatch, from step 0"
    in (lines[0])
  )
  assert lines[1] == "compiling the training step ..."
  assert re.fullmatch(r"compiled in \d+\.\d s", lines[2])
  numbers = "".join(rf"  {name} \d\S*" for name in NAMES)
  assert re.fullmatch(rf"step  1/40{numbers}", lines[3]), lines[3]
  for number, line in enumerate(lines[4:8], 1):
    speed = r"  [\d,]+(\.\d)? samples/s"
    assert re.fullmatch(
      rf"step {10 * number}/40{numbers}{speed}  ETA \d+:\d\d", line
    ), line
  assert lines[7].endswith("ETA 0:00")
  assert re.fullmatch(
    rf"done: {workdir} at step 40 \(last loss 0\.\d+\)\. Next: jaxflow sample "
    rf"--workdir={workdir} --out=samples\.png",
    lines[8],
  )
  assert len(lines) == 9


def test_lines_in_a_pipe(tmp_path):
  result = tiny.run(*tiny.train_command(tmp_path, "run", "mean_flow"))
  assert result.code == 0, result.err
  assert "\x1b" not in result.out
  assert_tells_a_run(result.out.splitlines(), tmp_path / "run")
  # What it tells to do next can be done.
  command = result.out.splitlines()[-1].split("Next: jaxflow ")[1].split()
  command[-1] = f"--out={tmp_path / 'samples.png'}"
  assert tiny.run(*command).code == 0
  again = tiny.run(*tiny.train_command(tmp_path, "run", "mean_flow"))
  assert again.out.splitlines()[-1] == (
    f"nothing to do: {tmp_path / 'run'} is trained to step 40. Next: jaxflow "
    f"sample --workdir={tmp_path / 'run'} --out=samples.png"
  )


def test_a_run_in_memory_has_no_command_to_go_on_with(tmp_path):
  config = load_file(f"{tiny.config_file(tmp_path)}:flow_matching")
  lines = []
  train(config, None, log=lines.append)
  assert re.fullmatch(r"done: step 40 \(last loss \d\.\d+\)", lines[-1])


def test_a_bar_on_a_terminal(tmp_path):
  main, terminal = pty.openpty()
  process = subprocess.Popen(
    [
      *(sys.executable, "-m", "jaxflow"),
      *tiny.train_command(tmp_path, "run", "mean_flow"),
    ],
    cwd=REPOSITORY,
    env={
      **os.environ,
      "PYTHONPATH": str(REPOSITORY),
      **{"TERM": "xterm", "COLUMNS": "240", "LINES": "40"},
    },
    stdin=terminal,
    stdout=terminal,
    stderr=subprocess.PIPE,
  )
  os.close(terminal)
  out = b""
  # It ends with an error: the terminal has no other side any more.
  try:
    while chunk := os.read(main, 4096):
      out += chunk
  except OSError:
    pass
  os.close(main)
  assert process.wait() == 0, process.stderr.read().decode()
  process.stderr.close()
  text = out.decode()
  # A bar is drawn over its predecessor: lines end with \r\n, bars do not.
  pieces = re.split(r"[\r\n]+", ESCAPES.sub("", text))
  bars = [piece for piece in pieces if "━" in piece]
  assert bars and bars[0].startswith("step 0/40 ")
  assert re.search(r"step 40/40 ━+ 100% loss 0\.\d+ .* ETA 0:00", bars[-1])
  assert all("ETA " in bar for bar in bars)
  lines = [x.rstrip() for x in pieces if x.strip() and "━" not in x]
  assert_tells_a_run(lines, tmp_path / "run")
