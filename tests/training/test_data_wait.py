"""The share of time that training waits for data."""

import types

import jax.numpy as jnp
import pytest

from jaxflow.training import clock as clocks
from jaxflow.training import loop
from jaxflow.training.step import FIRST


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


def test_steps_before_one_of_another_length_count(monkeypatch):
  """A step takes a second on devices that nobody waits for; compiling 9 s."""
  lengths, size, logged = [25, 25, 25, 25, 20], 8, []
  now, running, compiled = [0.0], [0.0], set()

  def wait(value):
    now[0] += running[0]
    running[0] = 0.0
    return value

  monkeypatch.setattr(loop.time, "perf_counter", lambda: now[0])
  monkeypatch.setattr(loop.jax, "block_until_ready", wait)

  class State:
    """It is there once the devices are done."""

    skipped, updates = 0, 1

    def __init__(self, step):
      self.step = step

    @property
    def skipped_in_row(self):
      return wait(0)

  class Batches:
    """Dispatches of the lengths."""

    ready, waited = True, 0.0

    def __next__(self):
      return {"data": jnp.zeros(lengths.pop(0))}

    def get_state(self):
      return None

  def train_step(state, batch):
    count = len(batch["data"])
    now[0] += 0.0 if count in compiled else 9.0
    compiled.add(count)
    running[0] += count
    losses = {"loss": 1.0, f"{FIRST}loss": 1.0}
    return State(state.step + count), {**losses, "skipped": 0}

  loop.train(
    State(0),
    train_step,
    Batches(),
    steps=sum(lengths),
    batch_size=size,
    log_every=250,
    checkpoint_every=250,
    sample_every=0,
    max_skipped=100,
    learning_rate=lambda step: 0.0,
    checkpoints=types.SimpleNamespace(
      folder=None, save=lambda *_: None, wait=lambda: None, steps=list
    ),
    callbacks=types.SimpleNamespace(on_log=lambda *x: logged.append(x)),
    on_sample=lambda *_: None,
    on_steps=lambda *_: None,
    interrupted=lambda: False,
    fault=lambda batch: "",
  )
  # 75 steps in 75 s; those of the two that were compiled do not count.
  assert logged[-1][1]["samples_per_second"] == pytest.approx(size)
