"""Sources that stay on disk, threads that read ahead, mirrored images."""

import json
import threading
import time

import jax
import numpy as np
import pytest

from jaxflow import data as jdata
from jaxflow.data import Batches, FreshNoise, from_arrays, in_memory
from jaxflow.errors import RunError, UsageError

NUM = 20


def numbered(num=NUM):
  """Image i is [[i, -i]] and has label i."""
  data = np.arange(num, dtype=np.float32)[:, None, None, None]
  data = np.concatenate([data, -data], axis=2)
  return from_arrays(data, np.arange(num), num_classes=num)


class Slow:
  """A source that answers late, and out of order."""

  name, split = "slow", "train"

  def __init__(self, broken=None):
    self.dataset = numbered()
    self.num_classes, self.shape = NUM, self.dataset.shape
    self.broken = broken
    self.threads = set()

  def __len__(self):
    return NUM

  def take(self, index):
    self.threads.add(threading.current_thread())
    time.sleep(0.002 * (int(index[0]) % 3))
    if self.broken in index:
      raise RunError(f"sample {self.broken} cannot be read")
    return self.dataset.take(index)


def streams(source, **options):
  return Batches(source, **{"batch_size": 8, "seed": 5, **options})


def assert_same(a, b):
  assert a.keys() == b.keys()
  for name in a:
    assert a[name].dtype == b[name].dtype
    np.testing.assert_array_equal(a[name], b[name])


def test_take_copies_samples_in_the_order_asked_for():
  noise = np.arange(6.0).reshape(3, 2)
  dataset = from_arrays(-noise, np.array([4, 3, 2]), num_classes=5, noise=noise)
  rows = dataset.take(np.array([2, 0, 2]))
  np.testing.assert_array_equal(rows["noise"], [[4, 5], [0, 1], [4, 5]])
  np.testing.assert_array_equal(rows["data"], -rows["noise"])
  np.testing.assert_array_equal(rows["cond"], [2, 4, 2])
  rows["data"][:] = 7
  assert dataset.data.max() == 0


@pytest.mark.parametrize("source", [numbered(), Slow()])
def test_sources_without_labels(source):
  plain = jdata.without_labels(source)
  assert (len(plain), plain.num_classes, plain.shape) == (NUM, 0, (1, 2, 1))
  assert (plain.name, plain.split) == (source.name, source.split)
  rows = plain.take(np.array([3]))
  assert list(rows) == ["data"]
  assert rows["data"].ravel().tolist() == [3, -3]


def test_part_of_a_source_in_memory():
  part = in_memory(Slow(), 7, seed=1)
  chosen = part.label.tolist()
  assert len(set(chosen)) == 7 and chosen == sorted(chosen)
  np.testing.assert_array_equal(part.data[:, 0, 0, 0], chosen)
  assert (part.name, part.num_classes) == ("slow", NUM)
  assert in_memory(Slow(), 100).label.tolist() == list(range(NUM))


# Pieces of 8, 4 and 1 row; batches of 8 of 20 samples cross an epoch.
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(
  "options",
  [
    {},
    {"stack": (3, 2)},
    {"stack": (1, 2), "rows": np.array([1, 3])},
    {"batch_size": 37, "flip": True},
    {"batch_size": 64, "flip": True},
  ],
)
def test_threads_change_no_batch(threads, options):
  plain = streams(numbered(), **options)
  ahead = streams(Slow(), threads=threads, **options)
  for _ in range(4):
    assert_same(next(ahead), next(plain))
    assert ahead.get_state() == plain.get_state()
  assert ahead._source.threads != {threading.current_thread()}
  # A checkpoint of either is continued by the other.
  state = json.loads(json.dumps(plain.get_state()))
  later = [next(plain) for _ in range(3)]
  ahead.set_state(state)
  for expected in later:
    assert_same(next(ahead), expected)
  plain.set_state(ahead.get_state())
  assert_same(next(plain), next(ahead))
  ahead.close()


def test_fresh_noise_goes_with_threads():
  plain = FreshNoise(streams(numbered()))
  ahead = FreshNoise(streams(Slow(), threads=2))
  assert_same(next(ahead), next(plain))
  ahead.close()


def test_what_a_thread_raises_comes_with_its_batch():
  order = np.concatenate(
    [next(stream)["cond"] for stream in [streams(numbered())] for _ in range(2)]
  )
  # In the second batch, and not in the first.
  broken = order[12]
  assert broken not in order[:8]
  stream = streams(Slow(broken), threads=3)
  np.testing.assert_array_equal(next(stream)["cond"], order[:8])
  for _ in range(2):
    with pytest.raises(RunError, match=f"sample {broken} cannot be read"):
      next(stream)
    assert stream.get_state() == {"position": 1}
  stream.close()


def test_half_of_the_images_are_mirrored():
  stream = streams(numbered(), batch_size=1000, flip=True)
  plain = streams(numbered(), batch_size=1000)
  flags = []
  for _ in range(2):
    batch, expected = next(stream), next(plain)["data"]
    mirrored = (batch["data"] != expected).any((1, 2, 3))
    np.testing.assert_array_equal(
      batch["data"][mirrored], expected[mirrored][:, :, ::-1]
    )
    flags.append(mirrored)
  # Sample 0 is its own mirror image: 19 of 20 can be seen. Five standard
  # errors of 2,000 draws.
  share = np.mean(flags) * NUM / (NUM - 1)
  assert abs(share - 0.5) < 5 * 0.5 / 2000**0.5
  # Drawn anew for each batch, half of them are the same.
  assert 0.4 < np.mean(flags[0] == flags[1]) < 0.6


def test_points_cannot_be_mirrored():
  with pytest.raises(UsageError, match=r"data\.flip=True: .*\(2,\)"):
    streams(jdata.load("ring", "train"), flip=True)


def device():
  return jax.sharding.SingleDeviceSharding(jax.devices()[0])


def test_waiting_is_measured():
  class Late(Batches):
    def __next__(self):
      time.sleep(0.3)
      return super().__next__()

  stream = jdata.Prefetch(Late(numbered(), batch_size=4, seed=0), device())
  next(stream)
  # The thread may have begun a little before the clock.
  assert stream.waited > 0.1
  # It goes on with the second batch, for which nobody waits.
  while not stream.ready:
    time.sleep(0.005)
  before = stream.waited
  next(stream)
  assert stream.waited - before < 0.1
  stream.close()


def test_error_in_the_background_is_raised_again():
  stream = jdata.Prefetch(streams(Slow(broken=0), threads=2), device())
  with pytest.raises(RunError, match="sample 0 cannot be read"):
    for _ in range(4):
      next(stream)
  stream.close()


def test_close_stops_all_threads():
  before = set(threading.enumerate())
  stream = jdata.Prefetch(streams(Slow(), threads=3), device())
  next(stream)
  assert len(set(threading.enumerate()) - before) > 1
  stream.close()
  for thread in set(threading.enumerate()) - before:
    thread.join(timeout=10)
  assert set(threading.enumerate()) <= before


def test_wrong_number_of_threads():
  with pytest.raises(UsageError, match="threads=-1"):
    streams(numbered(), threads=-1)
