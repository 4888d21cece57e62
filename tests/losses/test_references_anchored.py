"""Flow-anchored consistency equals its reference numbers."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import references

from jaxflow import losses, times

TABLE = references.table("schedules_2026")
CASES = references.cases("facm")


def adapter(case, networks):
  hyper, given = case.hyper, case.given
  return losses.flow_anchored_consistency_loss(
    networks["net"],
    jax.random.key(0),
    references.batch_of(case),
    path=references.path_of(hyper),
    sample_times=lambda key, n: given["t"],
    teacher=networks["teacher"] if hyper["teacher"] else None,
    expanded=hyper["network"] == "expanded",
    relaxation=hyper["relaxation"],
    norm_power=hyper["norm_power"],
    norm_eps=hyper["norm_eps"],
    omega=hyper["omega"],
    guidance_start=hyper["t_start"],
    guidance_end=hyper["t_end"],
    null_cond=hyper["num_classes"],
  )


@pytest.mark.parametrize("name", CASES)
def test_float64(name, x64):
  references.check_float64(name, adapter)


@pytest.mark.parametrize("name", CASES)
def test_float32(name):
  references.check_float32(name, adapter)


def test_every_case_is_run():
  assert len(CASES) == 2


@pytest.mark.parametrize("name", CASES)
def test_metrics(name, x64):
  case = references.load(name)
  _, metrics, _ = references.evaluate(case, adapter)
  norm = jnp.sqrt((case.mid["du"] ** 2).sum((1, 2, 3))).mean()
  for metric, expected in (
    ("raw", case.mid["raw"].mean()),
    ("raw_flow", case.mid["flow"].mean()),
    ("tangent_norm", norm),
  ):
    np.testing.assert_allclose(metrics[metric], expected, rtol=1e-9)


def guided(x, t, s, label):
  """A network whose outputs tell its label and both of its times."""
  return jnp.sin(x) * (1 + label + t + 2 * s)[:, None]


@pytest.mark.parametrize("expanded", [False, True])
def test_the_network_guides_itself(expanded, x64):
  """Without a teacher; outside of the interval by the sample's label."""
  keys = jax.random.split(jax.random.key(0))
  data, noise = (jax.random.normal(key, (4, 3)) for key in keys)
  t = jnp.array([0.1, 0.4, 0.8, 0.4])
  label = jnp.array([0, 1, 2, 5])
  xt = (1 - t[:, None]) * data + t[:, None] * noise
  v = noise - data
  # Of the flow branch: at t twice, or at -t twice.
  time = -t if expanded else t
  other = jnp.where((t >= 0.2) & (t <= 0.6), 5, label)
  own = guided(xt, time, time, other)
  expected = jnp.where((label == 5)[:, None], v, own + 3.0 * (v - own))

  # The velocity that a teacher who needs no guidance would have said.
  def loss(**options):
    return losses.flow_anchored_consistency_loss(
      guided,
      jax.random.key(0),
      {"data": data, "noise": noise, "cond": label},
      path=references.path_of({"path": {"name": "linear"}}),
      sample_times=lambda key, n: t,
      expanded=expanded,
      null_cond=5,
      **options,
    )[0]

  found = loss(omega=3.0, guidance_start=0.2, guidance_end=0.6)
  taught = loss(teacher=lambda x, t, s, cond: expected)
  np.testing.assert_allclose(found, taught, rtol=1e-12)
  assert (jnp.abs(found - loss()) > 1e-3).tolist() == [True, True, True, False]


def test_times(x64):
  law = times.ArctanLogNormal(
    mean=-0.8, std=1.6, sigma_data=1.0, scale=2 / math.pi
  )
  value = law.transform(jnp.asarray(TABLE["draws/normal"]))
  np.testing.assert_allclose(value, TABLE["facm/t"], rtol=1e-12)
