"""Speed of training, of counted steps alone."""

import pytest

from jaxflow.training import clock


@pytest.fixture
def now(monkeypatch):
  """Return the time in seconds, which a test sets."""
  time = [100.0]
  monkeypatch.setattr(clock.time, "perf_counter", lambda: time[0])
  return time


def test_steps_of_a_first_dispatch_do_not_count(now):
  watch = clock.Clock(step=0, batch_size=8)
  now[0] += 10.0  # 5 steps in 1 s, behind 9 s of compiling.
  watch.skip(10.0, 5)
  now[0] += 2.0  # 20 steps.
  speed, _ = watch.lap(25)
  assert speed == 8 * 20 / 2.0
  # A last dispatch of its own length, compiled as well, has no speed.
  now[0] += 4.0
  watch.skip(4.0, 3)
  assert watch.lap(28)[0] == 0
  assert watch.seconds() == 16.0
