"""Moments of streams, in whatever parts they come, and what collects them."""

import jax
import numpy as np
import pytest

from jaxflow.errors import RunError
from jaxflow.evaluation.collecting import Collector, extraction
from jaxflow.metrics import Moments
from jaxflow.parallel import sharding


def samples_of(seed, num, *, shift=0.0):
  generator = np.random.default_rng(seed)
  mix = generator.standard_normal((6, 6))
  return (generator.standard_normal((num, 6)) @ mix + shift).astype("f4")


def streamed(samples, size):
  """Cut samples into batches; the last repeats what it lacks."""
  for first in range(0, len(samples), size):
    index = np.arange(first, first + size) % len(samples)
    yield first, min(size, len(samples) - first), samples[index]


def collected(samples, size, put=lambda x: x):
  collector = Collector(kept=20)
  for first, count, rows in streamed(samples, size):
    batch = put(rows)
    collector.add(first, count, {"samples": batch, "features/net": batch})
  return collector


@pytest.mark.parametrize("size", [1, 7, 50, 200])
def test_a_stream_has_the_moments_of_the_whole(size):
  # A mean far from zero: a difference of squares would lose all digits.
  samples = samples_of(0, 100, shift=1000.0)
  drawn = collected(samples, size).drawn()
  found = drawn.moments["net"]
  assert found.count == drawn.num == 100
  np.testing.assert_allclose(found.mean, samples.mean(0, "f8"), rtol=1e-14)
  expected = np.cov(samples.astype("f8"), rowvar=False)
  np.testing.assert_allclose(found.covariance, expected, rtol=1e-12)
  np.testing.assert_array_equal(drawn.samples, samples[:20])
  np.testing.assert_array_equal(drawn.features["net"], samples[:20])


@pytest.mark.parametrize("size", [50, 64])
def test_devices_change_nothing(size):
  mesh = sharding.make_mesh()
  divided = size % sharding.row_shards(mesh) == 0
  where = sharding.row_sharding(mesh) if divided else sharding.replicated(mesh)
  samples = samples_of(1, 150)
  there = collected(samples, size, lambda x: jax.device_put(x, where)).drawn()
  here = collected(samples, 150).drawn()
  a, b = there.moments["net"], here.moments["net"]
  np.testing.assert_allclose(a.mean, b.mean, rtol=1e-13, atol=1e-13)
  np.testing.assert_allclose(a.scatter, b.scatter, rtol=1e-12, atol=1e-12)
  np.testing.assert_array_equal(there.samples, here.samples)


def test_a_saved_collection_goes_on():
  samples = samples_of(2, 90)
  logits = np.random.default_rng(0).standard_normal((90, 3)).astype("f4")
  whole, first, second = (Collector(kept=40) for _ in range(3))

  def add(collector, start, stop):
    for i in range(start, stop, 30):
      rows = slice(i, i + 30)
      collector.add(
        i,
        30,
        {
          "samples": samples[rows],
          "finite": np.ones(30, bool),
          "features/net": samples[rows],
          "spatial/net": samples[rows, :2],
          "logits/net": logits[rows],
          "classes/net": -logits[rows],
        },
      )

  add(whole, 0, 90)
  add(first, 0, 30)
  second.load(first.save())
  assert second.seen == 30
  add(second, 30, 90)
  a, b = whole.drawn(np.arange(90)), second.drawn(np.arange(90))
  assert a.num == b.num == 90
  np.testing.assert_array_equal(a.label, np.arange(40))
  np.testing.assert_array_equal(a.features["net"], b.features["net"])
  np.testing.assert_array_equal(a.logits["net"], -logits[:40])
  for name in ("net", "net_spatial"):
    np.testing.assert_array_equal(
      a.moments[name].scatter, b.moments[name].scatter
    )
  np.testing.assert_array_equal(
    a.confidences["net"].sums, b.confidences["net"].sums
  )
  p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
  np.testing.assert_allclose(a.confidences["net"].sums.sum(0), p.sum(0), 1e-6)


@pytest.mark.parametrize("kept", [4, 20])
def test_what_is_not_finite_is_counted_and_stops(kept):
  samples = samples_of(3, 20)
  samples[[7, 9], 1] = np.nan
  collector = Collector(kept=kept)
  look = jax.jit(extraction([]))
  for first, count, rows in streamed(samples, 8):
    collector.add(first, count, look({}, rows))
  with pytest.raises(RunError, match="2 of 20 samples are not finite"):
    collector.drawn()


def test_rows_that_do_not_count_may_be_anything():
  samples = samples_of(4, 4)
  samples[3] = np.nan
  collector = Collector(kept=4)
  collector.add(0, 3, extraction([])({}, jax.numpy.asarray(samples)))
  assert collector.drawn().num == 3


def test_moments_of_one_row_have_no_scatter():
  found = Moments.of([[1.0, 2.0]])
  assert found.count == 1 and not found.scatter.any()
