"""One network on several paths, against `network_conversions`."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
import references

from jaxflow import flow_maps, paths, predictions
from jaxflow.predictions import conversions


def angular_path(sigma_data):
  return paths.Trigonometric(t_max=math.pi / 2, noise_std=sigma_data)


PRECISIONS = pytest.mark.parametrize(
  ("dtype", "tolerance"), [(jnp.float64, 1e-9), (jnp.float32, 1e-4)]
)


@PRECISIONS
@pytest.mark.parametrize("kind", ["linear", "linear_normalized", "vp", "trig"])
def test_edm_network_on_other_paths(kind, dtype, tolerance, x64):
  case = references.load("network_conversions", dtype)
  with np.load(references.FOLDER / "network_conversions.npz") as archive:
    table = {
      k.removeprefix(f"{kind}/"): jnp.asarray(archive[k], dtype)
      for k in archive.files
      if k.startswith(f"{kind}/")
    }
  sigma_data, level = case.hyper["sigma_data"], case.given["sigma"]
  raw = case.network("edm")
  denoiser = predictions.edm_denoiser(raw, sigma_data=sigma_data)
  source = denoiser(case.given["x_edm"], level, level, None)
  path, unit, wanted = {
    "linear": (paths.Linear(), 1.0, "velocity"),
    "linear_normalized": (
      paths.Linear(noise_std=sigma_data),
      sigma_data,
      "velocity",
    ),
    "vp": (paths.VariancePreserving(), 1.0, "noise"),
    "trig": (angular_path(sigma_data), sigma_data, "velocity"),
  }[kind]
  # In `linear_normalized` the table is in units of sigma_data; `trig/x` is not.
  scale = 1.0 if kind == "trig" else unit
  x, t = table["x"] * scale, table["t"]
  np.testing.assert_allclose(
    conversions.time_at(path, level), t, rtol=tolerance / 100
  )
  np.testing.assert_allclose(
    conversions.noise_level(path, t), level, rtol=tolerance
  )
  velocity = conversions.on_path(
    denoiser, source=paths.VarianceExploding(), target=path, prediction="data"
  )
  data = predictions.as_prediction(
    velocity, path, source="velocity", target="data"
  )
  np.testing.assert_allclose(
    data(x, t, t, None), source, rtol=tolerance, atol=tolerance
  )
  value = predictions.as_prediction(
    velocity, path, source="velocity", target=wanted
  )
  expected = {
    "velocity": table.get("velocity"),
    "noise": case.out["noise_prediction"],
  }[wanted]
  if kind == "trig":
    expected = table["F"]
    direct = predictions.trigonometric_from_edm(raw, path=path)
    np.testing.assert_allclose(
      direct(x, t, t, None) / unit, expected, rtol=tolerance, atol=tolerance
    )
  if dtype == jnp.float64:
    np.testing.assert_allclose(
      value(x, t, t, None) / unit, expected, rtol=1e-9, atol=1e-9
    )


@PRECISIONS
def test_linear_network_on_the_angular_path(dtype, tolerance, x64):
  case = references.load("network_conversions", dtype)
  table = references.table("network_conversions")
  x, t, expected = (
    jnp.asarray(table[f"trig_from_linear/{k}"], dtype) for k in ("x", "t", "F")
  )
  for sigma_data in (1.0, 0.5):
    network = predictions.trigonometric_from_linear(
      case.network("linear"), path=angular_path(sigma_data)
    )
    value = network(sigma_data * x, t, t, None) / sigma_data
    assert value.dtype == dtype
    np.testing.assert_allclose(value, expected, rtol=tolerance, atol=tolerance)


def test_angular_networks_are_finite_at_the_ends():
  t = jnp.array([0.0, math.pi / 2])
  x = jnp.ones((2, 3))

  def net(xt, t, s, cond):
    return xt + paths.expand(t, xt)

  for network in (
    predictions.trigonometric_from_edm(net, path=angular_path(0.5)),
    predictions.trigonometric_from_linear(net, path=angular_path(1.0)),
  ):
    at_time = functools.partial(network, x, s=t, cond=None)
    value, slope = jax.jvp(lambda t, f=at_time: f(t), (t,), (jnp.ones(2),))
    assert jnp.isfinite(value).all() and jnp.isfinite(slope).all()


@pytest.mark.parametrize("unit", [1.0, 0.5])
def test_angular_networks_are_converted_ones_without_the_singular_ends(
  unit, x64
):
  def net(xt, t, s, cond):
    return jnp.sin(xt) + paths.expand(t, xt)

  path = angular_path(unit)
  t, x = jnp.array([0.2, 0.7, 1.3]), jnp.arange(6.0).reshape(3, 2) / 5
  from_edm = conversions.on_path(
    net,
    source=paths.VarianceExploding(),
    target=path,
    prediction="edm",
    sigma_data=unit,
  )
  # A flow on data / sd has points and velocities that are sd times smaller.
  from_linear = conversions.on_path(
    lambda xt, t, s, cond: unit * net(xt / unit, t, s, cond),
    source=paths.Linear(noise_std=unit),
    target=path,
  )
  for wrap, expected in (
    (predictions.trigonometric_from_edm, from_edm),
    (predictions.trigonometric_from_linear, from_linear),
  ):
    np.testing.assert_allclose(
      wrap(net, path=path)(x, t, t, None), expected(x, t, t, None), rtol=1e-9
    )


def test_angular_networks_refuse_other_paths():
  for wrap in (
    predictions.trigonometric_from_edm,
    predictions.trigonometric_from_linear,
  ):
    with pytest.raises(ValueError, match="stands on the angular path"):
      wrap(lambda xt, t, s, cond: xt, path=paths.Trigonometric(t_max=1.0))


@pytest.mark.parametrize("noise_std", [1.0, 0.5])
def test_rotation_on_the_circle_is_trigonometric(noise_std, x64):
  path = paths.Trigonometric(t_max=math.pi / 2, noise_std=noise_std)
  x = jax.random.normal(jax.random.key(0), (8, 2))
  t, s = jnp.linspace(0.2, 1.5, 8), jnp.linspace(0.0, 1.5, 8)

  def network(x, t, s, cond):
    return jnp.sin(x) + t[:, None]

  np.testing.assert_allclose(
    flow_maps.rotation(network, path=path)(x, t, s, None),
    flow_maps.trigonometric(network)(x, t, s, None),
    rtol=1e-12,
    atol=1e-14,
  )


def test_unknown_inverse():
  class Cubic:
    t_min, t_max = 0.0, 1.0

  with pytest.raises(ValueError, match="Cubic has no known inverse"):
    conversions.time_at(Cubic(), jnp.ones(1))  # pyright: ignore


PATHS = {
  "linear": paths.Linear(),
  "trigonometric": angular_path(0.6),
  "variance_preserving": paths.VariancePreserving(),
  "variance_exploding": paths.VarianceExploding(),
}


@pytest.mark.parametrize("target", PATHS)
@pytest.mark.parametrize("source", PATHS)
def test_any_teacher_on_any_path_is_exact(source, target, x64):
  data = functools.partial(oracle.Gaussian, mean=[0.3, -0.2], std=0.6)
  given, wanted = data(PATHS[source]), data(PATHS[target])
  # Levels that all four paths have.
  level = jnp.array([0.02, 0.3, 1.0, 7.0, 70.0])
  t = conversions.time_at(PATHS[target], level)
  x = jax.random.normal(jax.random.key(0), (5, 2), jnp.float64)
  x = wanted.centre(t) + wanted.spread(t)[:, None] * x
  for prediction in ("velocity", "data", "noise"):
    teacher = conversions.on_path(
      getattr(given, prediction),
      source=PATHS[source],
      target=PATHS[target],
      prediction=prediction,
    )
    np.testing.assert_allclose(
      teacher(x, t, t, None), wanted.velocity(x, t), rtol=1e-9, atol=1e-9
    )


@pytest.mark.parametrize("target", PATHS)
@pytest.mark.parametrize("source", PATHS)
def test_a_teacher_is_finite_at_the_ends_of_other_paths(source, target):
  given = oracle.Gaussian(PATHS[source], [0.3, -0.2], 0.6)
  path = PATHS[target]
  # The velocity of this path is infinite at the data.
  singular = "variance_preserving"
  prediction = "noise" if source == singular else "velocity"
  teacher = conversions.on_path(
    getattr(given, prediction),
    source=PATHS[source],
    target=path,
    prediction=prediction,
  )
  t = jnp.array([1e-4 if target == singular else path.t_min, path.t_max])
  assert jnp.isfinite(teacher(jnp.ones((2, 2)), t, t, None)).all()


def test_a_raw_edm_denoiser_teaches_the_linear_path(x64):
  edm = paths.VarianceExploding()
  exact = oracle.Gaussian(edm, [0.0, 0.0], 0.5)
  # The preconditioned denoiser of N(0, sd^2) is exact where F = 0.
  teacher = conversions.on_path(
    lambda x, t, s, cond: 0 * x,
    source=edm,
    target=paths.Linear(),
    prediction="edm",
  )
  t = jnp.array([0.1, 0.5, 0.9])
  x = jnp.arange(6.0).reshape(3, 2)
  np.testing.assert_allclose(
    teacher(x, t, t, None),
    oracle.Gaussian(paths.Linear(), exact.mean, 0.5).velocity(x, t),
    rtol=1e-9,
    atol=1e-12,
  )


@pytest.mark.parametrize(
  ("prediction", "t"), [("data", 0.0), ("noise", 1.0), ("score", 1.0)]
)
def test_a_teacher_is_near_the_truth_where_its_prediction_is_singular(
  prediction, t
):
  path = paths.Linear()
  exact = oracle.Gaussian(path, [0.3, -0.2], 0.6)
  given = {"data": exact.data, "noise": exact.noise, "score": exact.score}
  teacher = conversions.on_path(
    given[prediction], source=path, target=path, prediction=prediction
  )
  t = jnp.full(2, t)
  x = jnp.array([[0.5, 1.0], [-1.0, 0.2]])
  np.testing.assert_allclose(
    teacher(x, t, t, None), exact.velocity(x, t), atol=0.02
  )
