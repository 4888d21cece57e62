"""Exported samplers take the conditions that a network declares, by name."""

import jax.numpy as jnp
import numpy as np
import pytest

import jaxflow
from jaxflow.config import default_config, update
from jaxflow.errors import UsageError
from jaxflow.exports.sampler import exported_sampler
from jaxflow.models import Network


def run_of(name):
  """Return a run of a velocity that is a part of its condition."""
  null = {name: np.zeros(2, np.float32), "sign": np.int32(0)}
  cond = {
    name: np.ones((8, 2), np.float32),
    "sign": np.ones(8, np.int32),
  }

  def apply(params, x, t, s, cond, key=None):
    del t, s, key
    value = cond[name] * jnp.float32(cond["sign"])[:, None]
    return value + params["w"] * jnp.zeros_like(x)

  network = Network(lambda key: {"w": jnp.ones(())}, apply, null_cond=null)
  config = default_config("flow_matching", data="given", model="given")
  update(config, {"train": {"steps": 1, "batch_size": 8}})
  update(config, {"sample": {"nfe": 1}})
  data = {"data": np.zeros((8, 2), np.float32), "cond": cond}
  return jaxflow.train(
    config, data=data, network=network, log=lambda line: None
  )


def test_each_array_is_an_input():
  """One Euler step from noise at t = 1 subtracts the velocity."""
  trained = run_of("text")
  params = trained.params
  sampler = exported_sampler(trained.run, params)
  inputs = [(x.name, x.shape, x.dtype) for x in sampler.inputs]
  assert inputs == [
    ("noise", ("batch", 2), "float32"),
    ("sign", ("batch",), "int32"),
    ("text", ("batch", 2), "float32"),
  ]
  noise = np.float32([[1, 2], [3, 4], [5, 6]])
  text, sign = np.float32([[1, 1], [2, 2], [3, 3]]), np.int32([1, -1, 2])
  samples = sampler.function(sampler.weights, noise, sign, text)
  np.testing.assert_allclose(samples, noise - text * sign[:, None], rtol=1e-6)


def test_a_name_that_is_taken():
  trained = run_of("noise")
  params = trained.params
  with pytest.raises(UsageError, match=r"^cond: its name 'noise' is that of"):
    exported_sampler(trained.run, params)
