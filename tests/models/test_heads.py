"""Networks of several heads and of guidance inputs."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from jaxflow import models
from jaxflow.config import default_config, resolve
from jaxflow.errors import UsageError

SHAPE = (4, 4, 1)
small_dit = functools.partial(
  models.dit, data_shape=SHAPE, depth=3, width=16, num_heads=2, num_classes=3
)
small_mlp = functools.partial(
  models.mlp, data_shape=SHAPE, width=16, num_classes=3
)
NAMES = "omega", "t_start", "t_end"


def randomised(network):
  """Random parameters: unlike at the start, no gate and no output is zero."""
  noise = np.random.default_rng(7)
  return jax.tree.map(
    lambda p: jnp.asarray(0.3 * noise.standard_normal(p.shape, p.dtype)),
    jax.eval_shape(network.init, jax.random.key(0)),
  )


def given(**changes):
  xt = jax.random.normal(jax.random.key(1), (2, *SHAPE))
  t, s = jnp.array([0.9, 0.5]), jnp.array([0.1, 0.5])
  cond = {
    "label": jnp.array([0, 3]),
    "omega": jnp.array([1.0, 4.0]),
    "t_start": jnp.array([0.0, 0.3]),
    "t_end": jnp.array([1.0, 0.6]),
  }
  return xt, t, s, cond | changes


@pytest.mark.parametrize("scan_layers", [False, True])
@pytest.mark.parametrize("head_depth", [0, 2, 3])
def test_the_first_head_is_the_network_without_others(head_depth, scan_layers):
  network = small_dit(heads=2, head_depth=head_depth, scan_layers=scan_layers)
  params = randomised(network)
  first, second = jax.jit(network.apply)(params, *given())
  assert first.shape == second.shape == (2, *SHAPE)
  rest = {k: v for k, v in params.items() if k != "head_1"}
  alone = jax.jit(small_dit(scan_layers=scan_layers).apply)(rest, *given())
  np.testing.assert_allclose(first, alone, rtol=1e-5, atol=1e-5)
  # The second head is the network with the head's blocks and output.
  extra = dict(params["head_1"])
  if head_depth and not scan_layers:
    blocks = dict(rest["blocks"])
    for i in range(head_depth):
      blocks[f"block_{3 - head_depth + i}"] = extra["blocks"][f"block_{i}"]
    extra["blocks"] = blocks
  if not (head_depth and scan_layers):
    other = jax.jit(small_dit(scan_layers=scan_layers).apply)(
      rest | extra, *given()
    )
    np.testing.assert_allclose(second, other, rtol=1e-5, atol=1e-5)
  assert np.abs(first - second).max() > 0.1


@pytest.mark.parametrize("make", [small_dit, small_mlp])
def test_every_guidance_input_matters(make):
  network = make(guidance_inputs=True)
  params = randomised(network)
  apply = jax.jit(network.apply)
  here = apply(params, *given())
  for name in NAMES:
    there = apply(params, *given(**{name: jnp.array([1.5, 1.5])}))
    assert np.abs(here - there).max() > 1e-3
  without = make()
  params = randomised(without)
  apply = jax.jit(without.apply)
  np.testing.assert_array_equal(
    apply(params, *given()), apply(params, *given(omega=jnp.ones(2)))
  )


@pytest.mark.parametrize("make", [small_dit, small_mlp])
def test_null_label_and_no_label_are_one(make):
  network = make(guidance_inputs=True, heads=2)
  params = randomised(network)
  apply = jax.jit(network.apply)
  none = apply(params, *given(label=None))
  null = apply(params, *given(label=jnp.array([3, 3])))
  jax.tree.map(np.testing.assert_array_equal, none, null)


def test_mlp_heads():
  network = small_mlp(heads=3)
  heads = network.apply(randomised(network), *given())
  assert [h.shape for h in heads] == [(2, *SHAPE)] * 3
  assert np.abs(heads[0] - heads[2]).max() > 0.1


@pytest.mark.parametrize("make", [small_dit, small_mlp])
def test_guidance_that_is_not_given(make):
  network = make(guidance_inputs=True)
  xt, t, s, cond = given()
  with pytest.raises(UsageError, match=r"no key 'omega'.*give them"):
    jax.eval_shape(
      lambda key: network.apply(network.init(key), xt, t, s, cond["label"]),
      jax.random.key(0),
    )


@pytest.mark.parametrize(
  ("make", "options", "message"),
  [
    (small_dit, {"heads": 0}, "heads=0: give 1 or more"),
    (small_mlp, {"heads": 0}, "heads=0: give 1 or more"),
    (small_dit, {"head_depth": 2}, "head_depth=2: give .* 0 with one"),
    (small_dit, {"heads": 2, "head_depth": 4}, "head_depth=4: give 0 to"),
  ],
)
def test_wrong_options(make, options, message):
  with pytest.raises(UsageError, match=message):
    make(**options)


def config_of(method, num_classes=10, **changes):
  config = default_config(method, data="digits", model="mlp")
  for field, value in changes.items():
    section, _, name = field.partition("__")
    config[section][name] = value
  return resolve(config, shape=(8, 8, 1), num_classes=num_classes, teacher=None)


def test_the_first_head_samples_with_the_configured_guidance():
  run = tiny.run_of(
    config_of("improved_mean_flow", flow_map__omega=3.0, flow_map__t_end=0.5)
  )
  model = run.model
  params = randomised(model.network)
  noise = jax.random.normal(jax.random.key(0), (2, 8, 8, 1))
  label = jnp.array([0, 9])
  x = run.make_sampler(1)(params, noise, jax.random.key(1), label)
  cond = {"label": label, "omega": 3.0 * jnp.ones(2)}
  cond |= {"t_start": jnp.zeros(2), "t_end": 0.5 * jnp.ones(2)}
  u, _ = model.network.apply(params, noise, jnp.ones(2), jnp.zeros(2), cond)
  np.testing.assert_allclose(x, noise - u, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"loss__label_dropout": 0.0}, "loss.omega_max=8.0: .* null condition"),
    ({"num_classes": 0}, r"label_dropout=0\.1: the data have no labels"),
  ],
)
def test_guidance_that_cannot_be_learned(changes, message):
  with pytest.raises(UsageError, match=message):
    tiny.run_of(config_of("improved_mean_flow", **changes))


def test_guidance_of_the_sampler_is_not_for_guidance_inputs():
  with pytest.raises(UsageError, match=r"sample.guidance=2\.0: .*omega"):
    tiny.run_of(config_of("improved_mean_flow", sample__guidance=2.0))


def test_times_are_told_which_rows_the_loss_bootstraps():
  config = config_of(
    "shortcut",
    loss__block=(4, 2),
    loss__num_steps=8,
    flow_map__num_steps=8,
  )
  pair = tiny.run_of(config).model.loss_options["sample_times"]
  assert (pair.block, pair.num_steps) == ((4, 2), 8)


def test_trained_and_sampled_steps_must_agree():
  with pytest.raises(UsageError, match=r"flow_map.num_steps=128: .*=8"):
    tiny.run_of(config_of("shortcut", loss__num_steps=8))
