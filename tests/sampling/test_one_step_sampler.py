"""The compiled one-step sampler is one network call and the update."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxflow import models, sampling
from jaxflow.methods import METHODS
from jaxflow.paths import Linear

BATCH, SHAPE = 4, (8, 8, 4)
METHOD_NAMES = ["mean_flow", "shortcut", "consistency_distillation"]
NETWORK = models.dit(
  data_shape=SHAPE,
  depth=2,
  width=64,
  num_heads=4,
  num_classes=10,
  second_time=True,
)
every_method = pytest.mark.parametrize("method", METHOD_NAMES)


@pytest.fixture(scope="module")
def params():
  """Parameters without the zeros of the initialisation."""
  shapes = jax.eval_shape(NETWORK.init, jax.random.key(0))
  leaves, tree = jax.tree.flatten(shapes)
  draw = np.random.default_rng(0)
  values = [
    jnp.asarray(0.1 * draw.normal(size=x.shape), x.dtype) for x in leaves
  ]
  return tree.unflatten(values)


def given(seed=0):
  """Noise, a key and labels."""
  key, noise_key = jax.random.split(jax.random.key(seed))
  noise = jax.random.normal(noise_key, (BATCH, *SHAPE))
  return noise, key, jnp.arange(BATCH)


def make(method, steps, when_traced=lambda: None):
  """Make the sampler of a method."""

  def flow_map_of(params):
    def model_fn(xt, t, s, cond):
      when_traced()
      return NETWORK.apply(params, xt, t, s, cond)

    return METHODS[method].flow_map(model_fn)

  return sampling.make_sampler(
    flow_map_of,
    sampler=METHODS[method].sampler,
    path=Linear(),
    times=jnp.linspace(1.0, 0.0, steps + 1),
  )


def compiled_sampler(method, steps, params):
  return make(method, steps).lower(params, *given()).compile()


@pytest.fixture(scope="module")
def compiled_forward(params):
  """One plain network call."""

  def forward(params, noise, cond):
    t = jnp.ones(BATCH)
    return NETWORK.apply(params, noise, t, jnp.zeros(BATCH), cond)

  noise, _, cond = given()
  return jax.jit(forward).lower(params, noise, cond).compile()


def count(compiled, *names):
  """Count the operations of these names in a compiled program."""
  pattern = rf" (?:{'|'.join(names)})\("
  return len(re.findall(pattern, compiled.as_text()))


PRODUCTS = "dot", "convolution", "custom-call"
# A threefry generator shifts and mixes bits.
RANDOM = "rng", "rng-bit-generator", "shift-right-logical", "xor"


@every_method
def test_one_step_is_one_forward_and_the_update(
  method, params, compiled_forward
):
  sampler = compiled_sampler(method, 1, params)
  assert count(sampler, *PRODUCTS) == count(compiled_forward, *PRODUCTS) > 0
  flops = compiled_forward.cost_analysis()["flops"]
  assert flops <= sampler.cost_analysis()["flops"] <= 1.01 * flops
  # The network's own loop over its blocks.
  loops = count(compiled_forward, "while")
  assert count(sampler, "while", "conditional", *RANDOM) == loops == 1


def test_more_steps_have_what_one_step_must_not(params, compiled_forward):
  sampler = compiled_sampler("consistency_distillation", 4, params)
  # The first jump, and the body of the loop over the others; the product that
  # chooses the labels' rows is the same for all.
  products = count(compiled_forward, *PRODUCTS)
  assert count(sampler, *PRODUCTS) == 2 * products - 1
  assert count(sampler, "while") > 0
  assert count(sampler, *RANDOM) > 0


@every_method
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_n_steps_call_the_network_n_times(method, steps, params):
  calls = []

  def count_call():
    jax.debug.callback(lambda: calls.append(1))

  make(method, steps, count_call)(params, *given()).block_until_ready()
  jax.effects_barrier()
  assert len(calls) == steps


@every_method
def test_one_step_is_the_formula(method, params):
  noise, key, cond = given()
  samples = make(method, 1)(params, noise, key, cond)
  t, s = jnp.ones(BATCH), jnp.zeros(BATCH)
  expected = noise - 1.0 * NETWORK.apply(params, noise, t, s, cond)
  assert np.abs(expected - noise).max() > 0.1
  np.testing.assert_allclose(samples, expected, rtol=1e-5, atol=1e-5)


@every_method
def test_the_second_call_does_not_compile_again(method, params):
  traces = []
  sampler = make(method, 1, lambda: traces.append(1))
  first = sampler(params, *given(0))
  others = jax.tree.map(lambda x: x + 1, params)
  second = sampler(others, *given(1))
  assert traces == [1]
  assert not np.array_equal(first, second)
