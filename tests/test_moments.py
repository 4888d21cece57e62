"""Moments of streams: float64 formulas, and what travels between devices."""

import json
import re

import jax
import numpy as np
import pytest
import tiny

from jaxflow.errors import RunError, UsageError
from jaxflow.evaluation.moments import batch_moments, moments
from jaxflow.training import sharding


def samples_of(seed, num, *, shift=0.0):
  generator = np.random.default_rng(seed)
  mix = generator.standard_normal((6, 6))
  return (generator.standard_normal((num, 6)) @ mix + shift).astype("f4")


def streamed(samples, size):
  """Cut samples into batches; the last repeats what it lacks."""
  for first in range(0, len(samples), size):
    index = np.arange(first, first + size) % len(samples)
    yield samples[index], min(size, len(samples) - first)


@pytest.mark.parametrize("size", [7, 50, 200])
def test_a_stream_has_the_moments_of_the_whole(size):
  # A mean far from zero: the difference of squares would lose all digits.
  samples = samples_of(0, 100, shift=1000.0)
  found = moments(streamed(samples, size))
  assert found.count == 100
  np.testing.assert_allclose(found.mean, samples.mean(0, "f8"), rtol=1e-6)
  expected = np.cov(samples.astype("f8"), rowvar=False)
  np.testing.assert_allclose(found.covariance, expected, rtol=1e-4, atol=1e-4)


def test_what_cannot_be_reduced():
  with pytest.raises(UsageError, match="no batch"):
    moments([])
  with pytest.raises(UsageError, match="5000 numbers, more than 4096"):
    moments([(np.zeros((2, 5000)), 2)])
  with pytest.raises(RunError, match="not finite"):
    moments([(np.array([[1.0], [np.nan]]), 2)])
  # Rows that do not count may be anything.
  assert moments([(np.array([[1.0], [np.nan]]), 1)]).mean == [1.0]


def test_no_sample_leaves_its_device():
  mesh = sharding.make_mesh()
  rows = sharding.row_sharding(mesh)
  batch = jax.ShapeDtypeStruct((64, 6), np.float32, sharding=rows)
  program = batch_moments.lower(batch, 64).compile().as_text()
  moved = re.findall(r" = \w+\[([\d,]*)\]\S* all-(\w+)", program)
  moved += re.findall(r"(\w+\[[\d,]*\])\S*\) all-(\w+)", program)
  assert {kind for _, kind in moved} == {"reduce"}
  assert not re.search(r"all-gather|all-to-all|permute", program)


def test_evaluation_streams(tmp_path):
  workdir = tiny.train(tmp_path, "run", "flow_matching", "train.steps=5")
  config = json.loads((workdir / "config.json").read_text())
  config["evaluation"]["frechet_num"] = 300
  config["sample"]["batch_size"] = 128
  (workdir / "config.json").write_text(json.dumps(config))
  result = tiny.run("evaluate", f"--workdir={workdir}", "--nfe=4")
  assert result.code == 0, result.err
  assert "frechet" in result.out
  (row,) = json.loads((workdir / "evaluation.json").read_text())
  score = row["scores"]["frechet"]
  # Real points and held-out ones have the same law, an untrained net's not.
  assert 0 <= score["real"] < 0.1 < score["value"]
