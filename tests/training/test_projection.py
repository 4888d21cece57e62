"""Projections of parameters that networks declare, EDM2's for one."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny
from test_training import ROWS, SGD, parabola, points, values

from jaxflow import models, paths, times
from jaxflow.config import default_config, resolve
from jaxflow.methods import METHODS
from jaxflow.runs.run import Run
from jaxflow.training import ema
from jaxflow.training.state import init_state
from jaxflow.training.step import make_loss_fn, make_train_step

SHAPE = (4, 4, 1)
network = functools.partial(
  models.mp_unet,
  data_shape=SHAPE,
  channels=64,
  multipliers=(1,),
  num_blocks=1,
  attention_resolutions=(),
)


def test_parameters_and_averages_are_behind_the_projection():
  """Half of p + (data - p) / 2: 0 -> 1 -> 1.25, of data 4."""
  laws = {"mean": ema.Constant(decay=0.5)}
  step = make_train_step(
    *(parabola, SGD, laws), seed=0, project=lambda p: p / 2
  )
  state = init_state(jnp.zeros(()), SGD, laws)
  state, metrics = jax.jit(step)(state, values([4.0], [4.0]))
  assert float(state.params) == 1.25
  # 0 -> 0.5 -> 0.875.
  assert float(state.ema["mean"]) == 0.875
  # The gradient is of the projected parameters: -4, then -3.
  assert float(metrics["gradient_norm"]) == 3.5


def test_a_step_that_is_not_finite_projects_nothing():
  step = make_train_step(parabola, SGD, {}, seed=0, project=lambda p: p / 2)
  state = init_state(jnp.full((), 6.0), SGD, {})
  state, _ = jax.jit(step)(state, values([np.nan]))
  assert float(state.params) == 6.0


def magnitudes(params):
  """The magnitude of the weights of each output, by path."""
  found = {}
  for path, x in jax.tree_util.tree_leaves_with_path(params):
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    if name.endswith(("kernel", "table")) and not name.startswith("guidance"):
      wide = np.asarray(x, np.float64).reshape(-1, x.shape[-1])
      found[name] = np.sqrt(np.square(wide).mean(0))
  return found


def test_weights_have_magnitude_one_behind_every_step():
  net = network(num_classes=3)
  options = {
    "path": paths.Linear(),
    "sample_times": times.Uniform(),
    "null_cond": 3,
  }
  loss_fn = make_loss_fn(METHODS["flow_matching"], net.apply, options)
  adam, laws = optax.adam(0.1), {}
  rng = np.random.default_rng(0)
  batch = {
    "data": rng.standard_normal((2, 1, 4, *SHAPE)).astype(np.float32),
    "label": rng.integers(0, 3, (2, 1, 4)),
  }
  params = jax.tree.map(
    lambda x: x + 0.5 * (x.ndim == 0), net.init(jax.random.key(0))
  )
  state = init_state(params, adam, laws)
  ends = {}
  for name, project in (("free", None), ("forced", net.project)):
    step = make_train_step(loss_fn, adam, laws, seed=0, project=project)
    ends[name] = jax.jit(step)(state, batch)[0].params
  found = magnitudes(ends["forced"])
  assert {"input/kernel", "label/table", "encoder_0/conv_1/kernel"} < set(found)
  for name, size in found.items():
    # 1e-4 is added to the magnitude.
    np.testing.assert_allclose(size, 1, atol=3e-4, err_msg=name)
  # Adam moves every number by up to 0.1 a step, sideways and outward.
  free = magnitudes(ends["free"])
  assert max(np.abs(x - 1).max() for x in free.values()) > 0.01
  assert ends["forced"]["gain"] != params["gain"]
  np.testing.assert_array_equal(
    ends["forced"]["waves"]["phases"], params["waves"]["phases"]
  )


def test_the_output_does_not_depend_on_the_projection():
  net = network(num_classes=3, guidance_inputs=True)
  rng = np.random.default_rng(1)
  # Every number times its own factor; gains are not zero.
  params = jax.tree.map(
    lambda x: x * rng.uniform(0.5, 3, x.shape) + 0.5 * (x.ndim == 0),
    net.init(jax.random.key(0)),
  )
  unit = net.project(params)
  for part in ("guidance", "gain", "waves"):
    jax.tree.map(np.testing.assert_array_equal, unit[part], params[part])
  xt = jnp.asarray(rng.standard_normal((2, *SHAPE)), jnp.float32)
  t = jnp.array([0.3, 0.8])
  cond = {"label": jnp.array([1, 3]), "omega": 1 + t, "t_start": t, "t_end": t}
  one, two = (jax.jit(net.apply)(p, xt, t, 0 * t, cond) for p in (params, unit))
  assert np.abs(one - two).max() < 2e-3 * np.abs(one).max()
  assert max(np.abs(x - 1).max() for x in magnitudes(params).values()) > 0.5


@pytest.fixture(scope="module")
def run():
  config = default_config("flow_matching", data="ring", model="mlp")
  config.model.update(width=8, depth=1, time_features=8)
  return tiny.run_of(resolve(config, shape=(2,), num_classes=0, teacher=None))


def replaced(run, *, only="", adapter=None):
  """The run with a network whose projection halves, and another plan."""
  halve = functools.partial(jax.tree.map, lambda x: x / 2)
  network = dataclasses.replace(run.model.network, project=halve)
  return Run(
    dataclasses.replace(
      run.plan,
      model=dataclasses.replace(run.plan.model, network=network),
      train=dataclasses.replace(run.plan.train, only=only),
      adapter=adapter,
    )
  )


def test_only_what_learns_is_projected(run):
  params = run.model.network.init(jax.random.key(0))
  everything = replaced(run).projection(params)
  jax.tree.map(lambda x, y: np.testing.assert_array_equal(x, y / 2),
               everything, params)  # fmt: skip
  some = replaced(run, only="^output").projection(params)
  np.testing.assert_array_equal(
    some["output"]["kernel"], params["output"]["kernel"] / 2
  )
  np.testing.assert_array_equal(
    some["hidden_0"]["kernel"], params["hidden_0"]["kernel"]
  )
  adapter = models.lora(rank=1, on="hidden")
  assert replaced(run, adapter=adapter).projection is None


def test_a_network_without_projection_compiles_the_same_program(run):
  def text(step, run):
    params = run.model.network.init(jax.random.key(0))
    state = run.init(params, {}, jax.random.key(0))
    batch = points(0, 2, 1, ROWS)
    return jax.jit(step).lower(state, batch).as_text()

  assert run.projection is None
  bare = make_train_step(
    run.loss_fn(), run.optimizer, run.plan.emas, seed=run.plan.seed
  )
  plain = text(run.train_step(), run)
  assert plain == text(bare, run)
  halved = replaced(run)
  assert text(halved.train_step(), halved) != plain
