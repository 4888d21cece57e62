"""The share of time that training waits for data."""

import types

import pytest

from jaxflow.training import clock as clocks
from jaxflow.training import loop


def test_share_of_a_lap(monkeypatch):
  now = 100.0
  monkeypatch.setattr(clocks.time, "perf_counter", lambda: now)
  clock = clocks.Clock(step=0, batch_size=8)
  # What was waited for before the start, with the compilation, is left out.
  now = 130.0
  clock.start(10, waited=7.0)
  now = 140.0
  # 20 steps of 8 samples in 10 s, 2.5 s of them waiting.
  assert clock.lap(30, waited=9.5) == pytest.approx((16.0, 0.25))
  now = 145.0
  assert clock.lap(40, waited=9.5)[1] == 0


@pytest.mark.parametrize("first", ["batch", "devices", "both"])
def test_what_busy_devices_hide_is_no_waiting(monkeypatch, first):
  naps = []
  monkeypatch.setattr(loop.time, "sleep", naps.append)

  class Later:
    """Ready at the third look."""

    looks = 0

    @property
    def ready(self):
      self.looks += 1
      return first != "devices" and self.looks > 2

    def is_ready(self):
      self.looks += 1
      return first != "batch" and self.looks > 2

  loop._settle(types.SimpleNamespace(step=Later()), Later())
  # The loop looks at both, sleeps, looks again, and goes on with the third.
  assert len(naps) == 2
