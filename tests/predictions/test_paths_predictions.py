"""Paths and conversions against the table of `conversions`."""

import itertools
import math

import jax.numpy as jnp
import numpy as np
import pytest
import references

from jaxflow import paths, predictions

PATHS = {
  "linear": paths.Linear(),
  "trigonometric": paths.Trigonometric(),
  "trigflow": paths.Trigonometric(t_max=math.pi / 2),
  "variance_preserving": paths.VariancePreserving(),
  "variance_exploding": paths.VarianceExploding(),
}
KINDS = ("data", "noise", "velocity", "v", "score")
# In float32 only the inner three of five times: at the ends a conversion
# divides by a small alpha or sigma.
PRECISIONS = [
  pytest.param(jnp.float64, 1e-9, slice(None), id="float64"),
  pytest.param(jnp.float32, 1e-4, slice(1, 4), id="float32"),
]


def table_of(name, dtype, times):
  """Return the rows of one path, and a comparison relative to a sample."""
  table = {
    k.removeprefix(f"{name}/"): jnp.asarray(v[times], dtype)
    for k, v in references.table("conversions").items()
    if k.startswith(f"{name}/")
  }
  return table, PATHS[name]


def check(value, expected, tolerance, dtype, label=""):
  """Errors are relative to the largest element of a time's row."""
  assert value.dtype == dtype and value.shape == expected.shape
  scale = jnp.abs(expected.reshape(len(expected), -1)).max(1)
  error = jnp.abs((value - expected).reshape(len(expected), -1)).max(1)
  assert (error <= tolerance * scale).all(), (label, error / scale)


@pytest.mark.parametrize(("dtype", "tolerance", "times"), PRECISIONS)
@pytest.mark.parametrize("name", PATHS)
def test_coefficients(name, dtype, tolerance, times, x64):
  table, path = table_of(name, dtype, times)
  c = paths.coefficients(path, table["t"])
  for field in c._fields:
    check(getattr(c, field), table[f"coef_{field}"], tolerance, dtype, field)
  t = table["t"]
  # log SNR is 0 inside a path: there the error counts as it is.
  np.testing.assert_allclose(
    paths.log_snr(path, t), table["log_snr"], rtol=tolerance, atol=tolerance
  )
  check(paths.half_g2(path, t), table["half_g2"], tolerance, dtype, "half_g2")


@pytest.mark.parametrize(("dtype", "tolerance", "times"), PRECISIONS)
@pytest.mark.parametrize("name", PATHS)
def test_points_and_velocities(name, dtype, tolerance, times, x64):
  table, path = table_of(name, dtype, times)
  pair = table["data"], table["noise"], table["t"]
  check(paths.interpolate(path, *pair), table["xt"], tolerance, dtype)
  check(paths.velocity(path, *pair), table["value_velocity"], tolerance, dtype)


@pytest.mark.parametrize(("dtype", "tolerance", "times"), PRECISIONS)
@pytest.mark.parametrize("name", PATHS)
def test_all_conversions(name, dtype, tolerance, times, x64):
  table, path = table_of(name, dtype, times)
  for source, target in itertools.product(KINDS, KINDS):
    value = predictions.convert(
      path,
      table[f"value_{source}"],
      table["xt"],
      table["t"],
      source=source,
      target=target,
    )
    expected = table[f"value_{target}"]
    check(value, expected, tolerance, dtype, f"{source} to {target}")


def test_converted_network(x64):
  table, path = table_of("variance_preserving", jnp.float64, slice(None))
  network = predictions.as_prediction(
    lambda xt, t, s, cond: table["value_v"],
    path,
    source="v",
    target="score",
  )
  value = network(table["xt"], table["t"], table["t"], None)
  check(value, table["value_score"], 1e-9, jnp.float64)


def test_unknown_prediction():
  one = jnp.ones(1)
  with pytest.raises(ValueError, match="'epsilon' is unknown: use data"):
    predictions.row(paths.Linear(), one, "epsilon")


@pytest.mark.parametrize(
  ("name", "scale"),
  [
    ("linear", 1.0),
    ("trigonometric", 1.0),
    ("trigflow", 1.0),
    # alpha(1)^2 = exp(-(0.1 + 19.9 / 2)) by the integral of the noise rate.
    ("variance_preserving", math.sqrt(1 - math.exp(-10.05))),
    ("variance_exploding", 80.0),
  ],
)
def test_start(name, scale):
  noise = jnp.array([[1.0, -2.0], [0.5, 0.0]])
  expected = scale * np.array([[1.0, -2.0], [0.5, 0.0]])
  np.testing.assert_allclose(
    paths.start(PATHS[name], noise), expected, rtol=1e-6
  )


@pytest.mark.parametrize("path", PATHS.values(), ids=str)
def test_points_of_any_shape(path):
  data, noise = jnp.ones((2, 4, 4, 3)), jnp.zeros((2, 4, 4, 3))
  t = jnp.array([0.25, 0.5]) * path.t_max
  xt = paths.interpolate(path, data, noise, t)
  assert xt.shape == data.shape
  np.testing.assert_allclose(xt[:, 0, 0, 0], path.alpha(t), rtol=1e-6)
