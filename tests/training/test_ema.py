"""The laws of an average against the table of `ema`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import references

from jaxflow.training import ema

TABLE = references.table("ema")
PARAMETERS = references.hyper("ema")
LAWS = {
  "constant_0.9": ema.Constant(decay=0.9),
  "constant_0.999": ema.Constant(decay=0.999),
  "warmup_0.9": ema.CountRamp(decay=0.9),
  "warmup_0.999": ema.CountRamp(decay=0.999),
  "half_life": ema.HalfLife(
    images=PARAMETERS["half_life_images"],
    batch_size=PARAMETERS["batch"],
    ramp=PARAMETERS["ramp_up"],
  ),
  "power_0.05": ema.Power(width=0.05),
  "power_0.1": ema.Power(width=0.1),
}


def averages(law, dtype):
  """Return the average after each update of the table's sequence."""
  values = jnp.asarray(TABLE["in/values"], dtype)
  count = jnp.arange(1, len(values))

  def step(average, given):
    k, value = given
    params = {"a": value, "b": (2 * value,)}
    average = ema.update(average, params, law(k))
    return average, average

  first = {"a": values[0], "b": (2 * values[0],)}
  return jax.lax.scan(step, first, (count, values[1:]))[1]


@pytest.mark.parametrize("name", LAWS)
def test_float64(name, x64):
  result = averages(LAWS[name], jnp.float64)
  expected = TABLE[f"out/{name}"]
  np.testing.assert_allclose(result["a"], expected, rtol=1e-9, atol=1e-12)
  np.testing.assert_allclose(
    result["b"][0], 2 * expected, rtol=1e-9, atol=1e-12
  )


@pytest.mark.parametrize("name", LAWS)
def test_float32(name):
  result = averages(LAWS[name], jnp.float32)
  assert result["a"].dtype == jnp.float32
  np.testing.assert_allclose(
    result["a"], TABLE[f"out/{name}"], rtol=1e-5, atol=1e-5
  )


def test_half_life_decay(x64):
  expected = TABLE["out/half_life_beta"]
  decay = LAWS["half_life"](jnp.arange(1, len(expected) + 1))
  np.testing.assert_allclose(decay, expected, rtol=1e-12)
  assert decay[0] == 0


@pytest.mark.parametrize("width", [0.05, 0.1])
def test_power_gamma(width):
  gamma = ema.Power(width=width).gamma
  np.testing.assert_allclose(gamma, TABLE[f"out/power_{width}_gamma"])
  # The profile (gamma + 1) x^gamma on [0, 1] has this variance.
  variance = (gamma + 1) / ((gamma + 2) ** 2 * (gamma + 3))
  np.testing.assert_allclose(variance, width**2, rtol=1e-9)


@pytest.mark.parametrize("name", ["half_life", "power_0.1"])
def test_first_update_forgets_the_initial_parameters(name):
  assert LAWS[name](jnp.array(1)) == 0
