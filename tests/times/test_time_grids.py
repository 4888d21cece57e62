"""Grids of a path, a list or another grid against tables and definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import references

from jaxflow import paths, times
from jaxflow.times import grids

TABLE = references.table("schedules")
PATHS = [
  paths.Linear(),
  paths.Trigonometric(),
  paths.VariancePreserving(),
  paths.VarianceExploding(),
]


def test_grid_of_the_edm_sampler(x64):
  expected = TABLE["grid/edm_sampler"]
  value = grids.extended_grid(len(expected), grid=times.karras_grid)
  np.testing.assert_allclose(value, expected, rtol=1e-12)


def test_noise_ratios_of_karras_on_a_line(x64):
  expected = TABLE["grid/linear_karras_eta"]
  value = grids.karras_ratio_grid(
    len(expected), path=paths.Linear(), t_min=0.006, t_max=0.994
  )
  np.testing.assert_allclose(value, expected, rtol=1e-12)


def test_log_snr_on_the_edm_path(x64):
  expected = TABLE["grid/log_snr"]
  value = grids.log_snr_grid(
    len(expected), path=paths.VarianceExploding(), t_min=0.002, t_max=80.0
  )
  np.testing.assert_allclose(value, expected, rtol=1e-12)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: type(path).__name__)
def test_log_snr_is_equally_spaced(path, x64):
  low, high = 0.01 * path.t_max, 0.98 * path.t_max
  value = grids.log_snr_grid(12, path=path, t_min=low, t_max=high)
  assert (value[0], value[-1]) == (high, low)
  gaps = np.diff(paths.log_snr(path, value))
  np.testing.assert_allclose(gaps, gaps[0], rtol=1e-10)


# (18.4)
INVERSES = [
  lambda ratio: ratio / (1 + ratio),
  lambda ratio: 2 / np.pi * np.arctan(ratio),
  lambda ratio: (-0.1 + np.sqrt(0.01 + 39.8 * np.log1p(ratio**2))) / 19.9,
  lambda ratio: ratio,
]


@pytest.mark.parametrize(
  ("path", "inverse"), list(zip(PATHS, INVERSES, strict=True))
)
def test_time_of_a_noise_ratio(path, inverse, x64):
  ratio = np.array([0.01, 0.3, 1.0, 7.0, 60.0])
  value = jax.jit(lambda r: grids.time_of_ratio(path, r))(ratio)
  np.testing.assert_allclose(value, inverse(ratio), rtol=1e-12)


@pytest.mark.parametrize("path", PATHS[:2])
@pytest.mark.parametrize("grid", [grids.log_snr_grid, grids.karras_ratio_grid])
def test_infinite_log_snr_is_named(grid, path):
  for ends, name in (((0.0, 0.9), "t_min"), ((0.1, 1.0), "t_max")):
    with pytest.raises(ValueError, match=f"{name} .* infinite"):
      grid(4, path=path, t_min=ends[0], t_max=ends[1])


def test_given_grid_has_the_points_that_are_asked():
  value = grids.given_grid(3, values=(80.0, 0.5, 0.0))
  assert value.tolist() == [80.0, 0.5, 0.0]
  with pytest.raises(ValueError, match=r"4 steps need 5 times.*ask for 2 step"):
    grids.given_grid(5, values=(80.0, 0.5, 0.0))
  with pytest.raises(ValueError, match="do not decrease"):
    grids.given_grid(3, values=(1.0, 0.5, 0.5))


def test_one_step_of_an_extended_grid():
  value = grids.extended_grid(2, grid=times.karras_grid)
  np.testing.assert_allclose(value, jnp.array([80.0, 0.0]), rtol=1e-6)
