"""Timing functions side by side, with a clock that the test turns."""

import numpy as np
import pytest

from jaxflow.errors import UsageError
from jaxflow.reports import timing
from jaxflow.reports.costs import Latency
from jaxflow.reports.timing import excess, time_together


class Machine:
  """A clock, and functions that take time on a machine that gets slower."""

  def __init__(self, monkeypatch, slower=0.0):
    self.now, self.slower, self.order = 0.0, slower, []
    monkeypatch.setattr(timing.time, "perf_counter", lambda: self.now)

  def function(self, name, seconds):
    def call():
      self.order.append(name)
      self.now += seconds * (1 + self.slower * self.now)
      return np.zeros(1)

    return call


def test_summary():
  # Of 1 ... 100 the 95 % quantile lies 0.95 * 99 = 94.05 places after the 1.
  times = Latency.of(np.arange(1, 101)[::-1])
  assert times.median == 50.5
  assert times.p95 == pytest.approx(95.05)
  assert times.num == 100


def test_rounds_call_each_function_once(monkeypatch):
  machine = Machine(monkeypatch)
  calls = {name: machine.function(name, 0.1) for name in "abc"}
  laps = time_together(calls, seconds=3.0, least=5, most=100)
  # A round takes 0.3 s; the tenth ends at 3 s.
  assert {name: x.shape for name, x in laps.items()} == dict.fromkeys(
    "abc", (10,)
  )
  np.testing.assert_allclose(np.stack(list(laps.values())), 0.1, rtol=1e-9)
  assert machine.order[:6] == list("aabbcc")  # Nobody times these.
  rounds = np.reshape(machine.order[6:], (-1, 3))
  assert {"".join(sorted(x)) for x in rounds} == {"abc"}
  assert len({"".join(x) for x in rounds}) > 1


@pytest.mark.parametrize(
  ("seconds", "agree", "rounds"),
  [(0.0, bool, 5), (1e9, bool, 8), (1e9, lambda answer: False, 5)],
)
def test_limits_of_rounds(monkeypatch, seconds, agree, rounds):
  machine = Machine(monkeypatch)
  calls = {"a": machine.function("a", 0.1)}
  laps = time_together(calls, seconds=seconds, least=5, most=8, agree=agree)
  assert len(laps["a"]) == rounds


def test_wrong_number_of_rounds():
  with pytest.raises(UsageError, match=r"least=9: give 1 to most=8"):
    time_together({}, least=9, most=8)


def test_excess_of_a_machine_that_gets_slower(monkeypatch):
  machine = Machine(monkeypatch, slower=0.5)
  calls = {
    "sampler": machine.function("sampler", 0.0042),
    "network": machine.function("network", 0.001),
  }
  laps = time_together(calls, seconds=4.0, least=20, most=10_000)
  assert laps["network"][-1] > 2 * laps["network"][0]
  value, error = excess(laps["sampler"], laps["network"], times=4)
  assert value == pytest.approx(0.05, abs=0.002)
  assert error < 1e-3


def test_excess_and_its_error():
  # Ratios 0.9, 1.0, ..., 1.3: quartiles 1.0 and 1.2, of a normal law
  # 1.349 deviations apart.
  value, error = excess([9, 10, 11, 12, 13], [5, 5, 5, 5, 5], times=2)
  assert value == pytest.approx(0.1)
  assert error == pytest.approx((np.pi / 2 / 5) ** 0.5 * 0.2 / 1.349)
