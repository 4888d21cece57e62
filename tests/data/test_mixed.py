"""Fresh noise, and batches that mix pairs with real data."""

import numpy as np
import pytest

from jaxflow.data import Batches, FreshNoise, Mixed, from_arrays
from jaxflow.errors import UsageError

# Pair i has data i and noise -i; real sample i has data 1000 + i.
PAIRS, REAL = 50, 30


def numbered(first, num, *, noise=False):
  values = np.arange(first, first + num, dtype=np.float32)[:, None]
  label = np.arange(num) % 10
  return from_arrays(
    values, label, num_classes=10, noise=-values if noise else None
  )


def streams(**options):
  make = {"batch_size": 24, "seed": 3, **options}
  pairs = Batches(numbered(1, PAIRS, noise=True), **make)
  return pairs, Batches(numbered(1000, REAL), **make)


def mixed(share=0.4, **options):
  return Mixed(*streams(**options), share=share)


def assert_same(a, b):
  assert a.keys() == b.keys()
  for name in a:
    np.testing.assert_array_equal(a[name], b[name])


def test_data_sets_carry_noise():
  batch = next(Batches(numbered(1, 9, noise=True), batch_size=4, seed=0))
  assert set(batch) == {"data", "noise", "cond"}
  np.testing.assert_array_equal(batch["noise"], -batch["data"])


def test_noise_must_fit_the_data():
  data = np.zeros((3, 2))
  with pytest.raises(UsageError, match=r"noise has shape \(3, 1\)"):
    from_arrays(data, noise=np.zeros((3, 1)))
  with pytest.raises(UsageError, match=r"value at \[1, 0\] is nan"):
    from_arrays(data, noise=np.array([[0, 0], [np.nan, 0], [0, 0]]))


def test_a_pair_keeps_its_noise_and_real_data_never_has_it():
  stream = mixed(share=0.4)
  synthetic = 0
  for _ in range(100):
    batch = next(stream)
    paired = batch["data"] < 1000
    np.testing.assert_array_equal(
      batch["noise"][paired], -batch["data"][paired]
    )
    assert np.abs(batch["noise"][~paired]).max() < 6  # Unit noise.
    number = np.where(paired, batch["data"] - 1, batch["data"] - 1000)
    np.testing.assert_array_equal(batch["cond"], number[:, 0] % 10)
    synthetic += paired.sum()
  # Five standard errors of 2,400 draws at 0.4: 0.05.
  assert abs(synthetic / 2400 - 0.4) < 0.05


def test_mixed_rows_are_those_of_both_streams():
  pairs, real = streams()
  pairs, real = next(pairs), next(FreshNoise(real))
  batch = next(mixed())
  paired = batch["data"][:, 0] < 1000
  for part, rows in ((pairs, paired), (real, ~paired)):
    assert rows.any()
    assert_same(
      {k: v[rows] for k, v in batch.items()},
      {k: v[rows] for k, v in part.items()},
    )


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_the_ends_of_the_share(share):
  paired = next(mixed(share))["data"] < 1000
  assert paired.all() if share else not paired.any()
  with pytest.raises(UsageError, match=r"share=1\.5"):
    mixed(1.5)


def test_fresh_noise_is_standard_normal_and_new_in_each_batch():
  stream = FreshNoise(Batches(numbered(0, 10), batch_size=1000, seed=0))
  first, second = next(stream)["noise"], next(stream)["noise"]
  assert first.dtype == np.float32 and first.shape == (1000, 1)
  assert not np.isin(first, second).any()
  both = np.concatenate([first, second])
  # Four standard errors of a mean and of a variance of 2,000 draws.
  assert abs(both.mean()) < 4 / 2000**0.5
  assert abs(both.var() - 1) < 4 * (2 / 2000) ** 0.5


@pytest.mark.parametrize(
  "make", [mixed, lambda **o: FreshNoise(streams(**o)[1])]
)
def test_a_batch_depends_on_seed_and_number_only(make):
  stream = make()
  expected = [next(stream) for _ in range(6)]
  resumed = make()
  next(resumed)
  resumed.set_state({"position": 4})
  assert_same(next(resumed), expected[4])
  assert resumed.get_state() == {"position": 5}
  # Stacked: batches 2 and 3 at once, in micro-batches.
  stacked = make(stack=(2, 3))
  stacked.set_state({"position": 2})
  batch = next(stacked)
  for name, rows in batch.items():
    assert rows.shape[:3] == (2, 3, 8)
    for k in range(2):
      whole = rows[k].reshape(24, *rows.shape[3:])
      np.testing.assert_array_equal(whole, expected[2 + k][name])
  # A process that holds some of the rows.
  some = np.array([0, 5, 6])
  part = next(make(rows=some))
  for name, rows in expected[0].items():
    np.testing.assert_array_equal(part[name], rows[some])


@pytest.mark.parametrize(
  "make", [mixed, lambda **o: FreshNoise(streams(**o)[1])]
)
def test_a_process_draws_only_blocks_in_which_it_has_rows(make, monkeypatch):
  # Blocks 0..63, 64..127, 128..191 and the rest, of 58 rows.
  size, rows = 250, np.array([3, 63, 64, 200, 249])
  whole, drawn, make_generator = (
    make(batch_size=size),
    [],
    np.random.default_rng,
  )
  expected = [next(whole) for _ in range(2)]

  def counted(seed):
    # Permutations have no purpose, and no block.
    if len(seed) == 4:
      drawn.append(seed)
    return make_generator(seed)

  monkeypatch.setattr(np.random, "default_rng", counted)
  stream = make(batch_size=size, rows=rows)
  for number in range(2):
    drawn.clear()
    batch = next(stream)
    purposes = {seed[2] for seed in drawn}
    assert sorted(drawn) == [
      (3, number, purpose, block)
      for purpose in sorted(purposes)
      for block in (0, 1, 3)
    ]
    assert_same(batch, {k: v[rows] for k, v in expected[number].items()})
  # Of two micro-batches of 125 rows it holds two rows each: 1, 124, 126, 249.
  drawn.clear()
  stacked = make(batch_size=size, rows=np.array([1, 124]), stack=(2, 2))
  batch = next(stacked)
  assert {seed[1:2] + seed[3:] for seed in drawn} == {
    (number, block) for number in (0, 1) for block in (0, 1, 3)
  }
  assert len(drawn) == 6 * len(purposes)
  for number in range(2):
    for name, values in batch.items():
      np.testing.assert_array_equal(
        values[number].reshape(4, *values.shape[3:]),
        expected[number][name][[1, 124, 126, 249]],
      )
