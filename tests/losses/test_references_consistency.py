"""Consistency training, in discrete and continuous time, against numbers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import oracle
import pytest
import references

from jaxflow import flow_maps, losses, paths, times, weights

FLOW_MAPS = {
  "edm_skip": flow_maps.edm_skip,
  "edm": flow_maps.edm_denoiser,
}


def flow_map_of(hyper):
  return functools.partial(
    FLOW_MAPS[hyper["parameterization"]], sigma_data=hyper["sigma_data"]
  )


def discrete(case, networks, scaled=False):
  hyper = case.hyper
  distance = {
    "l1": weights.l1,
    "l2": weights.l2,
    "huber": weights.huber(hyper.get("huber_c", 1.0)),
  }[hyper["distance"]]
  if scaled:
    distance = weights.scaled_huber(0.00054)
  weight = hyper["weight"]
  return losses.consistency_loss(
    networks["net"],
    jax.random.key(0),
    references.batch_of(case),
    path=references.path_of(hyper),
    sample_times=lambda key, n: (case.given["t"], case.given["s"]),
    flow_map=flow_map_of(hyper),
    target_fn=networks.get("target"),
    distance=distance,
    # The EDM weight (t^2 + sd^2) / (t sd)^2 is SNR + sd^-2.
    weight=weights.karras(hyper["sigma_data"])
    if weight == "edm"
    else getattr(weights, weight),
  )


def continuous(case, networks):
  hyper = case.hyper
  return losses.continuous_time_consistency_loss(
    networks["net"],
    jax.random.key(0),
    references.batch_of(case),
    path=references.path_of(hyper),
    sample_times=lambda key, n: case.given["t"],
    flow_map=flow_map_of(hyper),
    **references.derivative_of(hyper),
  )


CASES = references.cases("ct_", "ict_", "ecm_")


def adapter_of(name):
  return continuous if name.startswith("ct_continuous") else discrete


def test_every_case_is_run():
  assert len(CASES) == 4 + 2 + 3


@pytest.mark.parametrize("name", CASES)
def test_float64(name, x64):
  references.check_float64(name, adapter_of(name))


@pytest.mark.parametrize("name", CASES)
def test_float32(name):
  references.check_float32(name, adapter_of(name))


@pytest.mark.parametrize("name", references.cases("ict_"))
def test_huber_constant_follows_the_size_of_a_sample(name, x64):
  references.check_float64(name, functools.partial(discrete, scaled=True))


EXPLODING = paths.VarianceExploding(t_min=0.0)


def test_target_is_the_data_where_s_is_0():
  """And the gradient is finite, also where t = 0 and both sides agree."""
  data = jnp.array([[3.0, 4.0], [1.0, 2.0]])
  t = jnp.array([1.0, 0.0])

  def loss(scale):
    # F = scale c_in x, and ln(0) makes NaN of it and of its derivative.
    def net(x, time, s, cond):
      return scale * (x + paths.expand(0 * time + 0 * s, x))

    value, _ = losses.consistency_loss(
      net,
      jax.random.key(0),
      {"data": data, "noise": jnp.zeros_like(data)},
      path=EXPLODING,
      sample_times=lambda key, n: (t, 0 * t),
      flow_map=functools.partial(flow_maps.edm_denoiser, sigma_data=1.0),
      distance=weights.huber(0.0),
      weight=weights.inverse_gap,
    )
    return value.sum(), value

  # D = x / 2 + scale x / 2 at t = sd = 1: the distance to x = (3, 4) is
  # 5 (1 - scale) / 2. At t = 0 it is 0.
  (_, value), slope = jax.value_and_grad(loss, has_aux=True)(0.0)
  np.testing.assert_allclose(value, [2.5, 0.0])
  np.testing.assert_allclose(slope, -2.5, rtol=1e-6)
  # At scale = 1 the distance is 0, where the norm has no derivative.
  (_, value), slope = jax.value_and_grad(loss, has_aux=True)(1.0)
  assert (value.tolist(), slope) == ([0.0, 0.0], 0.0)


def gaussian(std=0.7):
  path = paths.VarianceExploding()
  return path, oracle.Gaussian(path, jnp.array([0.5, -1.0]), std)


def data_of(exact, size, seed=3):
  drawn = jax.random.normal(jax.random.key(seed), (size, 2))
  return {"data": jnp.asarray(exact.mean)[None] + exact.std * drawn}


def exact_network(exact, weight=0.0):
  """Return the flow map to t_min, with an error of the size `weight`."""

  def net(x, t, s, cond):
    return exact.flow_map(x, t, s) + weight * jnp.sin(x) * paths.expand(t, x)

  return net


def test_exact_teacher_leaves_no_derivative(x64):
  path, exact = gaussian()
  loss, metrics = losses.continuous_time_consistency_loss(
    exact_network(exact),
    jax.random.key(0),
    data_of(exact, 64),
    path=path,
    sample_times=times.Karras(),
    flow_map=flow_maps.free,
    teacher=exact.velocity,
  )
  assert loss.shape == (64,)
  assert metrics["raw"] < 1e-20 and jnp.abs(loss).max() < 1e-9


def test_gradient_vanishes_in_expectation_without_a_teacher(x64):
  path, exact = gaussian()
  size = 40_000

  def gradients(weight):
    """Return the gradient of each sample by the weight of an error of f."""

    def loss(weight, row):
      value, _ = losses.continuous_time_consistency_loss(
        exact_network(exact, weight),
        jax.random.key(0),
        jax.tree.map(lambda x: x[None], row),
        path=path,
        sample_times=lambda key, n: jnp.full(n, 0.5),
        flow_map=flow_maps.free,
      )
      return value[0]

    batch = data_of(exact, size)
    batch["noise"] = jax.random.normal(jax.random.key(5), (size, 2))
    return jax.vmap(jax.grad(loss), (None, 0))(weight, batch)

  at_exact, away = gradients(0.0), gradients(0.3)
  error = at_exact.std() / np.sqrt(size)
  assert error < 0.01
  assert abs(at_exact.mean()) < 4 * error
  assert abs(away.mean()) > 20 * error


def test_continuous_gradient_is_the_limit_of_many_points(x64):
  """Of the summed squares, whose gradient is 2 (t - s) times that of (3)."""
  path, exact = gaussian()
  batch = data_of(exact, 8)
  batch["noise"] = jax.random.normal(jax.random.key(5), (8, 2))
  t, gap = jnp.linspace(0.1, 2.0, 8), 1e-6

  def net(weight):
    return exact_network(exact, weight)

  common = {"path": path, "flow_map": flow_maps.free}

  def pseudo(weight):
    return losses.continuous_time_consistency_loss(
      net(weight),
      jax.random.key(0),
      batch,
      sample_times=lambda key, n: t,
      **common,
    )[0].sum()

  def squares(weight):
    return losses.consistency_loss(
      net(weight),
      jax.random.key(0),
      batch,
      sample_times=lambda key, n: (t, t - gap),
      distance=weights.l2_sum,
      **common,
    )[0].sum()

  expected = jax.grad(squares)(0.3) / (2 * gap)
  np.testing.assert_allclose(jax.grad(pseudo)(0.3), expected, rtol=1e-4)
