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
    average = ema.update(average, params, law, k)
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


def gains_in_float64(law, k):
  """Return 1 - beta_k in float64, from METHODS.md's 21.1 to 21.4."""
  if isinstance(law, ema.Power):
    return 1 - (1 - 1 / k) ** (law.gamma + 1)
  if isinstance(law, ema.HalfLife):
    seen = np.minimum(law.images, law.ramp * (k - 1) * law.batch_size)
    return 1 - 0.5 ** (law.batch_size / np.maximum(seen, 1e-8))
  ramp = isinstance(law, ema.CountRamp)
  return np.maximum(1 - law.decay, 9 / (10 + k) if ramp else 0 * k)


SLOW = {
  "constant_0.99999": ema.Constant(decay=0.99999),
  "constant_0.999999": ema.Constant(decay=0.999999),
  "ramp_0.999999": ema.CountRamp(decay=0.999999),
  "half_life": ema.HalfLife(images=1e8, batch_size=128, ramp=1e9),
  "power_0.1": ema.Power(width=0.1),
  "power_0.28": ema.Power(width=0.28),
}


@pytest.mark.parametrize("noise", [0, 0.1])
@pytest.mark.parametrize("name", SLOW)
def test_slow_averages_move_in_float32(name, noise):
  # The parameters jump by a thousandth: a float32 sum would stand still.
  law, count = SLOW[name], np.arange(1, 100_001)
  rng = np.random.default_rng(0)
  first = rng.normal(size=16).astype(np.float32)
  jump = np.where(count > 20_000, 1e-3, 0)[:, None] * rng.choice([-1, 1], 16)
  jitter = 1e-3 * noise * rng.normal(size=(len(count), 16))
  values = (first * (1 + jump) + jitter).astype(np.float32)

  def step(average, given):
    k, value = given
    return ema.update(average, value, law, k), None

  result = jax.jit(lambda *given: jax.lax.scan(step, first, given)[0])(
    jnp.asarray(count, jnp.int32), values
  )
  expected = first.astype(np.float64)
  for gain, value in zip(gains_in_float64(law, count), values, strict=True):
    expected += gain * (value - expected)
  assert result.dtype == jnp.float32
  # A random walk of units in the last place, at most 1.2e-7 each.
  np.testing.assert_allclose(result, expected, rtol=3e-5, atol=3e-6)
  moved = (np.abs(result - first) / np.abs(expected - first)).mean()
  np.testing.assert_allclose(moved, 1, atol=0.05)


@pytest.mark.parametrize(
  "law",
  [
    ema.Constant(decay=0.999999),
    ema.CountRamp(decay=0.999999),
    ema.HalfLife(images=1e8, batch_size=128, ramp=1e9),
    ema.Power(width=0.1),
  ],
)
def test_gains_keep_their_digits_in_float32(law):
  count = np.array([1, 2, 1000, 1_000_000, 10_000_000])
  np.testing.assert_allclose(
    law.gain(jnp.asarray(count)), gains_in_float64(law, count), rtol=2e-6
  )


@pytest.mark.parametrize("decay", [0.0, 1.0])
def test_the_ends_are_kept_to_the_bit(decay):
  rng = np.random.default_rng(0)
  first, value = rng.normal(size=(2, 1000)).astype(np.float32)
  value *= 1e4
  law = ema.Constant(decay=decay)
  result = ema.update(first, value, law, jnp.array(7))
  np.testing.assert_array_equal(result, first if decay else value)


def test_float32_averages_stay_float32_under_x64(x64):
  value = jnp.ones(3, jnp.float32)
  result = ema.update(value, 2 * value, ema.Power(), jnp.array(7))
  assert result.dtype == jnp.float32
