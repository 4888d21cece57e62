"""Parameters of one network as the first ones of another."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxflow import models
from jaxflow.models import fitted

IMAGE = {"data_shape": (4, 4, 1), "num_classes": 3}
DIT = {**IMAGE, "depth": 2, "width": 8, "num_heads": 1}
NETWORKS = {
  "dit": (models.dit, DIT),
  "dit, scanned": (models.dit, {**DIT, "scan_layers": True}),
  "dit, own embeddings": (models.dit, {**DIT, "own_embeddings": True}),
  "dit, scanned, own embeddings": (
    models.dit,
    {**DIT, "scan_layers": True, "own_embeddings": True},
  ),
  "mlp": (models.mlp, {**IMAGE, "width": 8, "time_features": 4}),
  "mp_unet": (
    models.mp_unet,
    {
      **{**IMAGE, "channels": 64, "multipliers": (1,), "num_blocks": 1},
      "attention_resolutions": (),
    },
  ),
  "unet": (
    models.unet,
    {
      **{**IMAGE, "channels": 8, "multipliers": (1,), "num_blocks": 1},
      "attention_resolutions": (),
    },
  ),
  "unet2d": (
    models.unet2d,
    {**IMAGE, "widths": (8,), "layers": 1, "groups": 4, "attention": ()},
  ),
}


def make(name, **changes):
  maker, options = NETWORKS[name]
  return maker(**{"second_time": False, **options, **changes})


def randomised(network, seed=0):
  """Parameters of which none is zero: blocks of fresh networks do nothing."""
  shapes = jax.eval_shape(network.init, jax.random.key(0))
  draw = np.random.default_rng(seed)
  return jax.tree.map(
    lambda x: jnp.asarray(0.3 * draw.normal(size=x.shape), x.dtype), shapes
  )


def fit(source, params, network, fresh):
  rows = {"rows": source.rows, "fresh_rows": network.rows}
  return fitted(params, fresh, **rows)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_second_time_and_guidance_start_without_effect(name):
  one, two = make(name), make(name, second_time=True, guidance_inputs=True)
  params, fresh = randomised(one), randomised(two, seed=1)
  found = fit(one, params, two, fresh)
  assert (found.anew, found.left) == ((), ())
  assert {x.rpartition("/")[2] for x in found.silent} == {
    "interval",
    "guidance",
  }
  assert found.kept == sum(x.size for x in jax.tree.leaves(params))
  x = jax.random.normal(jax.random.key(3), (3, 4, 4, 1))
  t, label = jnp.array([0.9, 0.5, 0.1]), jnp.array([0, 2, 3])
  expected = jax.jit(one.apply)(params, x, t, t, label)
  assert jnp.abs(expected).max() > 1e-2

  @jax.jit
  def value_and_gradient(params, s, omega):
    cond = {"label": label, "omega": omega, "t_start": 0 * t, "t_end": t}

    def loss(params):
      value = two.apply(params, x, t, s, cond)
      return (value**2).mean(), value

    return jax.grad(loss, has_aux=True)(params)

  for s, omega in ((t, jnp.ones(3)), (0.3 * t, jnp.array([1.0, 2.0, 5.0]))):
    gradient, value = value_and_gradient(found.params, s, omega)
    np.testing.assert_allclose(value, expected, atol=2e-6)
  # They can learn: of each new input, some numbers.
  leaves = jax.tree_util.tree_leaves_with_path(gradient)
  for part, rows in (("interval", slice(20, 24)), ("guidance", slice(24, 36))):
    new = [x for path, x in leaves if part in jax.tree_util.keystr(path)]
    # Those of the perceptron are rows of its first kernel.
    new = new or [gradient["hidden_0"]["kernel"][rows]]
    assert max(jnp.abs(x).max() for x in new) > 0
  # Fresh networks of two times are other functions.
  _, value = value_and_gradient(fresh, t, jnp.ones(3))
  assert not jnp.allclose(value, expected, atol=1e-3)


def by_name(blocks):
  """Return blocks one by one."""
  return models.unstack_blocks(blocks) if "stacked" in blocks else blocks


@pytest.mark.parametrize("stacked", [False, True])
def test_blocks_may_be_stacked_in_one_network_only(stacked):
  one, two = (make("dit", scan_layers=x) for x in (stacked, not stacked))
  params = randomised(one)
  found = fit(one, params, two, randomised(two, seed=1))
  turn = models.unstack_blocks if stacked else models.stack_blocks
  expected = {**params, "blocks": turn(params["blocks"])}
  jax.tree.map(np.testing.assert_array_equal, found.params, expected)
  assert (found.silent, found.anew, found.left) == ((), (), ())


@pytest.mark.parametrize("stacked", [False, True])
@pytest.mark.parametrize("scanned", [False, True])
def test_more_blocks_are_new(scanned, stacked):
  one = make("dit", scan_layers=stacked)
  two = make("dit", depth=3, scan_layers=scanned)
  params, fresh = randomised(one), randomised(two, seed=1)
  found = fit(one, params, two, fresh)
  first = {**params, "blocks": by_name(params["blocks"])}
  blocks = {**first["blocks"], "block_2": by_name(fresh["blocks"])["block_2"]}
  whole = {**found.params, "blocks": by_name(found.params["blocks"])}
  expected = {**first, "blocks": blocks}
  jax.tree.map(np.testing.assert_array_equal, whole, expected)
  assert all(x.startswith("blocks/block_2/") for x in found.anew)
  back = fit(two, found.params, one, randomised(one, seed=2))
  jax.tree.map(np.testing.assert_array_equal, back.params, params)
  assert back.anew == () and back.left == found.anew


def test_rows_of_an_input_come_and_go():
  """A perceptron reads data, times and label in rows of one kernel."""
  one, two = make("mlp"), make("mlp", num_classes=0, second_time=True)
  params, fresh = randomised(one), randomised(two, seed=1)
  kernel = params["hidden_0"]["kernel"]
  # 16 of the data, 4 of a time, 8 of the label.
  found = fit(one, params, two, fresh)
  grown = jnp.concatenate([kernel[:20], jnp.zeros((4, 8))])
  np.testing.assert_array_equal(found.params["hidden_0"]["kernel"], grown)
  assert found.silent == ("hidden_0/kernel/interval",)
  assert found.left == ("hidden_0/kernel/label", "label")
  back = fit(two, found.params, one, params)
  np.testing.assert_array_equal(back.params["hidden_0"]["kernel"], kernel)
  assert back.anew == ("hidden_0/kernel/label", "label")
  assert back.left == ("hidden_0/kernel/interval",)


def test_any_pytree_fits():
  params = [jnp.ones(2), (jnp.ones(3),)]
  found = fitted(params, [jnp.zeros(2), (jnp.zeros(4),)])
  assert found.params[0].tolist() == [1, 1]
  assert found.params[1][0].tolist() == [0, 0, 0, 0]
  assert (found.kept, found.anew, found.left) == (2, ("1",), ())
