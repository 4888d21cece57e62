"""Noise is a standard normal in every dtype, wherever it is drawn."""

import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from source import LIBRARY

from jaxflow import couplings, paths
from jaxflow.sampling.steps import unit_noise

SHAPE = (1000, 500)
DTYPES = pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])


def of_batch(key, dtype):
  return couplings.noise_of({"data": jnp.zeros(SHAPE, dtype)}, key)


def annealed(key, dtype):
  pairs = {"data": jnp.zeros(SHAPE, dtype), "noise": jnp.zeros(SHAPE, dtype)}
  return couplings.Annealed().at(jnp.array(0.0))(pairs, key)


def of_sampler(key, dtype):
  return unit_noise(key, SHAPE, dtype)


def of_rows(key, dtype):
  return unit_noise(jax.random.split(key, SHAPE[0]), SHAPE, dtype)


@DTYPES
@pytest.mark.parametrize("draw", [of_batch, annealed, of_sampler, of_rows])
def test_moments(draw, dtype):
  noise = draw(jax.random.key(0), dtype)
  assert noise.dtype == dtype
  x = np.asarray(noise, np.float64)
  # Five standard errors of the mean, variance and fourth moment of so many.
  error = 5 / np.sqrt(x.size)
  assert abs(x.mean()) < error
  assert abs(x.var() - 1) < error * np.sqrt(2)
  assert abs((x**4).mean() - 3) < error * np.sqrt(96)
  assert len(np.unique(x)) > 1500


def test_float32_and_float64_draws_stay(x64):
  for dtype in (jnp.float32, jnp.float64):
    key = jax.random.key(1)
    for shape in ((), (5,), (2, 4, 3, 1)):
      np.testing.assert_array_equal(
        paths.standard_normal(key, shape, dtype),
        jax.random.normal(key, shape, dtype),
      )


def test_nothing_else_draws_normal_numbers_of_another_type():
  """`jax.random.normal` with a dtype stands in `standard_normal` alone."""
  places = []
  for file in sorted(pathlib.Path(LIBRARY).rglob("*.py")):
    text = file.read_text()
    for call in re.finditer(r"random\.normal\(([^()]*)\)", text):
      if call[1].count(",") > 1:
        places.append(f"{file.name}: {call[0]}")
  assert places == ["paths.py: random.normal(key, flat, wide)"]
