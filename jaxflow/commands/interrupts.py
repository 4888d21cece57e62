"""Ctrl-C and SIGTERM, from the first moment of a command on.

Before a command has begun there is nothing to save: Ctrl-C ends the process at
once. Later the first signal is raised or, in training, saves the run. Python
hears signals between its own instructions only, and some calls of libraries
take minutes, so a thread sees to it that further signals end the process. An
interrupt that comes in a finalizer or in a callback of a weak reference, which
Python would print and forget, is raised once more.
"""

import os
import signal
import sys
import threading
import types
from collections.abc import Sized
from typing import NoReturn

# Seconds after the second signal within which the process may end by itself.
_GRACE = 5.0
# Set by whoever says that the process is interrupted, before the line.
SAID = threading.Event()
# Seconds until an interrupt that was lost is raised once more.
_PAUSE = 0.01


def listen() -> None:
  """Let Ctrl-C end the process at once, and further signals in any case."""
  # A shell lets jobs in the background ignore the Ctrl-C of others.
  if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
    signal.signal(signal.SIGINT, _leave)
  read, write = os.pipe()
  os.set_blocking(write, False)
  signal.set_wakeup_fd(write, warn_on_full_buffer=False)
  lost: list[object] = []
  threading.Thread(target=_watch, args=[read, lost], daemon=True).start()
  report = sys.unraisablehook

  def raise_again(error: "sys.UnraisableHookArgs") -> None:
    if not issubclass(error.exc_type, KeyboardInterrupt):
      report(error)
      return
    lost.append(error.exc_type)
    # A signal to the main thread wakes it from a call that waits.
    main = threading.main_thread().ident
    timer = threading.Timer(_PAUSE, signal.pthread_kill, [main, signal.SIGINT])
    timer.daemon = True
    timer.start()

  sys.unraisablehook = raise_again


def begin() -> None:
  """Let Ctrl-C raise KeyboardInterrupt: from here on there is work to end."""
  if signal.getsignal(signal.SIGINT) is _leave:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _watch(read: int, lost: Sized) -> None:
  """End the process soon after the second signal, at once after the third.

  A signal that was lost and comes once more counts once.
  """
  count = 0
  while numbers := os.read(read, 1):
    count += numbers[0] in (signal.SIGINT, signal.SIGTERM)
    if count - len(lost) == 2:
      timer = threading.Timer(_GRACE, _end, numbers)
      timer.daemon = True
      timer.start()
    elif count - len(lost) > 2:
      _end(*numbers)


def _leave(number: int, frame: types.FrameType | None) -> NoReturn:
  """Handle Ctrl-C while there is nothing to end."""
  del frame
  _end(number)


def _end(number: int) -> NoReturn:
  """End the process with a line, without unwinding what is being imported."""
  if not SAID.is_set():
    SAID.set()
    os.write(2, b"jaxflow: interrupted\n")
  os._exit(128 + number)
