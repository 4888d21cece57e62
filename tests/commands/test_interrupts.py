"""Signals that come early, or while a library does not listen."""

import signal
import subprocess
import sys
import time

import pytest

# Hashing releases Python's lock and hears no signal for minutes.
_DEAF = """
import hashlib
from jaxflow.commands import interrupts
interrupts.listen()
interrupts.begin()
{}
print("ready", flush=True)
hashlib.pbkdf2_hmac("sha256", b"a", b"b", 2_000_000_000)
"""
# Python prints and forgets an exception that is raised in a finalizer.
_LOST = """
import signal, time
from jaxflow.commands import interrupts
interrupts.listen()
interrupts.begin()
class Finalized:
  def __del__(self):
    signal.raise_signal(signal.SIGINT)
    time.sleep(0.01)
try:
  Finalized()
  print("lost", flush=True)
  time.sleep(60)
except KeyboardInterrupt:
  print("raised", flush=True)
  time.sleep(8)  # One signal is one signal: nothing ends the process.
  print("alive", flush=True)
"""
_BACKGROUND = """
import time
from jaxflow.commands import interrupts
interrupts.listen()
interrupts.begin()
print("ready", flush=True)
time.sleep(2)
print("done", flush=True)
"""
_NOTED = "import signal; signal.signal(signal.SIGTERM, lambda *x: None)"


def start(*arguments):
  # Tests that a script runs in the background ignore it, and so would these.
  own = signal.signal(signal.SIGINT, signal.default_int_handler)
  try:
    return subprocess.Popen(
      [sys.executable, *arguments],
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
  finally:
    signal.signal(signal.SIGINT, own)


@pytest.mark.parametrize("delay", [0.3, 0.8, 1.6])
@pytest.mark.parametrize("times", [1, 3])
def test_interrupted_in_the_first_seconds(delay, times, tmp_path):
  folder = tmp_path / "run"
  process = start(
    *("-m", "jaxflow", "train", "--config=ring:flow_matching"),
    *(f"--workdir={folder}", "--config.train.steps=100000"),
  )
  # Before its first line Python itself has no handler.
  time.sleep(delay)
  for _ in range(times):
    process.send_signal(signal.SIGINT)
    time.sleep(0.02)
  _, err = process.communicate(timeout=120)
  assert process.returncode in (0, 130, -signal.SIGINT)
  if process.returncode == 130:
    assert err.count("interrupted") == 1
    assert "Traceback" not in err and "Exception" not in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
  ("number", "times"),
  [(signal.SIGINT, 2), (signal.SIGINT, 3), (signal.SIGTERM, 2)],
)
def test_further_signals_end_a_process_that_does_not_listen(number, times):
  noted = _NOTED if number == signal.SIGTERM else ""
  process = start("-c", _DEAF.format(noted))
  try:
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(1)
    began = time.monotonic()
    for _ in range(times):
      process.send_signal(number)
      time.sleep(0.1)
    _, err = process.communicate(timeout=60)
  finally:
    process.kill()
  assert process.returncode == 128 + number
  assert err == "jaxflow: interrupted\n"
  # At once after the third, within five seconds of grace after the second.
  assert (time.monotonic() - began < 4) == (times == 3)


def test_an_interrupt_that_python_would_forget_is_raised_once_more():
  process = start("-c", _LOST)
  out, err = process.communicate(timeout=60)
  assert (process.returncode, err) == (0, "")
  assert out.split() == ["lost", "raised", "alive"]


def test_a_signal_that_a_shell_ignores_for_the_job_is_ignored():
  code = "import signal, sys, os; signal.signal(signal.SIGINT, signal.SIG_IGN)"
  run = "os.execv(sys.executable, [sys.executable, '-c', sys.argv[1]])"
  process = start("-c", f"{code}; {run}", _BACKGROUND)
  assert process.stdout is not None
  assert process.stdout.readline() == "ready\n"
  process.send_signal(signal.SIGINT)
  out, err = process.communicate(timeout=60)
  assert (process.returncode, out, err) == (0, "done\n", "")


def test_one_signal_is_not_enough():
  process = start("-c", _DEAF.format(""))
  try:
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
      process.communicate(timeout=8)
  finally:
    process.kill()
    process.communicate()
