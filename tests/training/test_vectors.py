"""What an optimizer moves as vectors: the same training, number for number."""

import functools
from unittest import mock

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxflow
from jaxflow import paths, times
from jaxflow.config import make_plan, update
from jaxflow.config.stand_ins import resolve_alone
from jaxflow.losses import mean_flow_loss
from jaxflow.models import dit
from jaxflow.parallel import sharding
from jaxflow.runs import run as run_lib
from jaxflow.runs.run import Run
from jaxflow.training import ema as ema_lib
from jaxflow.training import vectors
from jaxflow.training.optimizers import OptimizerOptions, treats_numbers_alone
from jaxflow.training.state import init_state
from jaxflow.training.step import make_train_step
from jaxflow.training.vectors import MOST, Packing

PARAMS = {
  "a": jnp.arange(6.0).reshape(2, 3),
  "b": {"c": jnp.array(6.0), "d": jnp.arange(7.0, 10.0)},
}
LAWS = {
  "sampling": ema_lib.Constant(decay=0.9),
  "target": ema_lib.CountRamp(decay=0.99),
}
OPTIMIZERS = {
  "adam": optax.adam(1e-2),
  "adamw": optax.adamw(1e-2, weight_decay=0.1),
  "radam": optax.radam(1e-2),
  "clipped": optax.chain(optax.clip_by_global_norm(0.1), optax.adam(1e-2)),
}


def test_a_tree_is_a_vector_and_back():
  packing = Packing.of(PARAMS)
  tree = {"mean": PARAMS, "count": jnp.array(3), "none": ()}
  packed = packing.pack(tree)
  (vector,) = packed["mean"]
  np.testing.assert_array_equal(vector, np.arange(10.0))
  assert packed["count"] is tree["count"]
  chex.assert_trees_all_equal(packing.unpack(packed, tree), tree)


def test_the_smallest_are_a_vector_and_others_stay():
  """Of 6, 1 and 3 numbers, 4 are the most that fit into 5."""
  with mock.patch.object(vectors, "MOST", 5):
    packing = Packing.of(PARAMS)
  vector, large = packing.pack(PARAMS)
  np.testing.assert_array_equal(vector, np.arange(6.0, 10.0))
  assert large is PARAMS["a"]
  chex.assert_trees_all_equal(packing.unpack([vector, large], PARAMS), PARAMS)


@pytest.mark.parametrize(
  "params",
  [
    {"a": jnp.ones(3)},
    {"a": jnp.ones(3), "b": jnp.ones(3, jnp.bfloat16)},
    {"a": jax.ShapeDtypeStruct((MOST + 1,), jnp.float32), "b": jnp.ones(1)},
  ],
)
def test_others_stay_as_they_are(params):
  packing = Packing.of(params)
  chex.assert_trees_all_equal_shapes(packing.pack(params), params)
  assert packing == Packing()


@pytest.mark.parametrize(
  ("name", "most"),
  [
    *((name, MOST) for name in OPTIMIZERS),
    ("adam", 500),
    ("adamw", 500),
    ("radam", 500),
  ],
)
def test_a_training_is_the_same(x64, monkeypatch, name, most):
  """In float64; norms are sums in another order."""
  monkeypatch.setattr(vectors, "MOST", most)
  network = dit(
    data_shape=(4, 4, 1), depth=2, width=16, num_heads=2, num_classes=3
  )
  params = jax.jit(network.init)(jax.random.key(0))
  params = jax.tree.map(lambda x: x.astype(jnp.float64), params)
  batch = {
    "data": jax.random.normal(jax.random.key(1), (3, 1, 4, 4, 4, 1)),
    "cond": jnp.arange(12).reshape(3, 1, 4) % 3,
  }

  def loss_fn(params, state, key, batch):
    # The target and a frozen network must still be found by their arrays.
    chex.assert_trees_all_equal_shapes(
      params, state.ema["target"], state.frozen["teacher"]
    )
    return mean_flow_loss(
      functools.partial(network.apply, params),
      key,
      batch,
      path=paths.Linear(),
      sample_times=times.SortedPair(law=times.Uniform()),
      block=(1, 1),
    )

  vector, *large = jax.eval_shape(Packing.of(params).pack, params)
  assert bool(large) == (most < MOST)
  state = init_state(params, OPTIMIZERS[name], LAWS, frozen={"teacher": params})

  def trained(packs):
    # Parameters of a skipped step stay, of vectors too.
    step = make_train_step(loss_fn, OPTIMIZERS[name], LAWS, seed=0, packs=packs)
    bad = {**batch, "data": batch["data"].at[1, 0, 0].set(jnp.nan)}
    # There is such a vector where it packs, and nowhere else.
    program = str(jax.make_jaxpr(step)(state, bad))
    assert (f"f64[{vector.size}]" in program) == packs
    return jax.jit(step)(state, bad)

  (whole, metrics), (other, others) = trained(False), trained(True)
  assert jax.tree.structure(whole) == jax.tree.structure(other)
  assert int(other.skipped) == 1 and int(other.updates) == 2
  close = functools.partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-14)
  jax.tree.map(close, other, whole)
  jax.tree.map(close, others, metrics)
  moved = jax.tree.map(lambda a, b: jnp.abs(a - b).max(), whole, state)
  assert max(jax.tree.leaves(moved.params)) > 1e-3


@pytest.mark.parametrize(
  ("name", "alone"),
  [("adam", True), ("adamw", True), ("radam", True), ("muon", False)],
)
def test_muon_needs_whole_matrices(name, alone):
  assert treats_numbers_alone(OptimizerOptions(name=name)) == alone


@pytest.mark.parametrize(
  ("changes", "packs"),
  [
    ({}, True),
    ({"optimizer": {"name": "muon"}}, False),
    ({"train": {"only": "patch"}}, False),
    ({"mesh": {"data": 1, "fsdp": 2}}, False),
  ],
)
def test_runs_that_pack(changes, packs):
  config = jaxflow.preset("digits:flow_matching")
  update(config, changes)
  config, _ = resolve_alone(config, shape=(8, 8, 1), num_classes=10)
  axes = {"data": 1, **changes.get("mesh", {})}
  with mock.patch.object(run_lib, "make_train_step") as made:
    run, mesh = Run(make_plan(config)), sharding.make_mesh(**axes)
    run.jitted_step(run.template(mesh), mesh)
  assert made.call_args.kwargs["packs"] == packs


@pytest.mark.parametrize(
  ("axes", "divides"),
  [({"data": 8}, False), ({"fsdp": 2}, True), ({"tensor": 2}, True)],
)
def test_a_mesh_that_splits_parameters_keeps_them(axes, divides):
  assert sharding.divides_parameters(sharding.make_mesh(**axes)) == divides


def test_parameters_of_the_loss_keep_all_arrays():
  """Averages are of the network alone, and the optimizer moves both."""

  def loss_fn(params, state, key, batch):
    error = jnp.sum(params["a"] ** 2) + jnp.sum(
      state.loss_params["w"]["a"] ** 2
    )
    return jnp.full(2, error), {}

  optimizer = OPTIMIZERS["adam"]
  state = init_state(
    PARAMS, optimizer, LAWS, loss_params={"w": {"a": jnp.ones(2)}}
  )
  step = make_train_step(loss_fn, optimizer, LAWS, seed=0, packs=True)
  after, _ = jax.jit(step)(state, {"data": jnp.zeros((1, 1, 2, 1))})
  assert (after.loss_params["w"]["a"] < 1).all()
