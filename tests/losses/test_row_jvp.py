"""A JVP of some rows, against the JVP of all rows with no tangent in others."""

import functools
from unittest import mock

import fast_compile
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen

from jaxflow import losses, models, paths, rows, times
from jaxflow.losses import row_jvp
from jaxflow.losses.row_jvp import jvp_of_rows

SIZE = 8
close = functools.partial(
  jax.tree.map, functools.partial(np.testing.assert_allclose, rtol=1e-9)
)


def assert_near(found, expected):
  """Of networks, which embed times and take their norms in float32."""

  def leaf(a, b):
    assert abs(a - b).max() <= 2e-6 * abs(b).max()

  jax.tree.map(leaf, found, expected)


def points(shape, null=3):
  keys = jax.random.split(jax.random.key(1), 3)
  xt = jax.random.normal(keys[0], (SIZE, *shape), jnp.float64)
  t, s = jax.random.uniform(keys[1], (2, SIZE), jnp.float64)
  return xt, t, s, jax.random.randint(keys[2], (SIZE,), 0, null + 1)


def by_all_rows(function, given, directions, block):
  """Return the values, and the derivative on the interval rows."""

  def everywhere(d):
    still = len(d) // block[1] * (block[0] - block[1])
    return rows.merge(d, jnp.zeros((still, *d.shape[1:])), block)

  def moved(*first):
    return function(*first, *given[len(directions) :])

  u, du = jax.jvp(
    moved, given[: len(directions)], tuple(map(everywhere, directions))
  )
  return u, rows.split(du, block)[0]


def directions_of(given, block):
  xt, t = rows.split(given[:2], block)[0]
  draw = jax.random.normal(jax.random.key(2), xt.shape, xt.dtype)
  return [draw, jnp.linspace(1, 2, len(t))]


@pytest.fixture
def one_pass():
  """Two calls are a fault."""
  with mock.patch.object(row_jvp, "_jvp", side_effect=AssertionError):
    yield


DIT = {
  **{"depth": 2, "width": 16, "num_heads": 2, "patch_size": 2},
  **{"data_shape": (4, 6, 2), "num_classes": 3},
}
UNET = {"data_shape": (8, 8, 2), "num_classes": 3, "num_blocks": 1}
UNET |= {"multipliers": (1, 2), "attention_resolutions": (4,)}
CONTEXT = {"context": (2, 1, 1, 2), "norm": "rms", "mlp": "swiglu"}
CONTEXT |= {"qk_norm": True, "rotary": True}
NETWORKS = {
  "unrolled": (models.dit, DIT | {"scan_layers": False}),
  "scanned": (models.dit, DIT),
  "remat": (models.dit, DIT | {"remat": True}),
  "unrolled remat": (models.dit, DIT | {"remat": True, "scan_layers": False}),
  "blocks": (models.dit, DIT | {"attention": "blocks"}),
  "two heads": (models.dit, DIT | {"heads": 2, "head_depth": 1}),
  "context": (models.dit, DIT | CONTEXT),
  "mlp": (models.mlp, {"data_shape": (2,), "num_classes": 3}),
  "unet": (models.unet, UNET | {"channels": 16}),
  "mp_unet": (models.mp_unet, UNET | {"channels": 64}),
  "unet2d": (
    models.unet2d,
    {"data_shape": (8, 8, 2), "widths": (32, 32), "layers": 1},
  ),
}


def with_parameters(network, key=None):
  """Return the network of parameters that are not zero anywhere."""
  noise = np.random.default_rng(7)
  params = jax.tree.map(
    lambda p: jnp.asarray(0.3 * noise.standard_normal(p.shape)),
    jax.eval_shape(network.init, jax.random.key(0)),
  )
  return functools.partial(network.apply, params, key=key)


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_take_one_pass(name, x64, one_pass):
  make, options = NETWORKS[name]
  function = with_parameters(make(**options))
  given = points(options["data_shape"])
  block = (4, 1)
  directions = directions_of(given, block)

  @jax.jit
  def both(given, directions):
    return (
      jvp_of_rows(function, given, directions, block),
      by_all_rows(function, given, directions, block),
    )

  assert_near(*both(given, directions))


def test_dropout_drops_the_same_units(x64, one_pass):
  network = models.dit(**DIT, dropout=0.5)
  function = with_parameters(network, key=jax.random.key(3))
  given = points(DIT["data_shape"])
  directions = directions_of(given, (2, 1))
  assert_near(
    jvp_of_rows(function, given, directions, (2, 1)),
    by_all_rows(function, given, directions, (2, 1)),
  )


def test_networks_of_others(x64, one_pass):
  """Linen's scanned layers, with rows in the second place."""

  class Layer(linen.Module):
    @linen.compact
    def __call__(self, x, t):
      return jnp.tanh(linen.Dense(3, param_dtype=float)(x) + t), x.sum()

  class Net(linen.Module):
    @linen.compact
    def __call__(self, xt, t, s, cond):
      scan = linen.scan(
        Layer,
        variable_axes={"params": 0},
        split_rngs={"params": True},
        length=3,
        in_axes=linen.broadcast,
      )
      x, _ = scan()(xt.T.T, t[:, None])
      return linen.relu(x.T).T * jnp.where(cond > 0, s, 1)[:, None]

  given = points((3,))
  net = Net()
  params = net.init(jax.random.key(0), *given)
  directions = directions_of(given, (4, 2))
  function = functools.partial(net.apply, params)
  found = jvp_of_rows(function, given, directions, (4, 2))
  close(found, by_all_rows(function, given, directions, (4, 2)))


def looped(x, t):
  """Carry what begins to move, whole numbers and a count; end in two places."""
  weights = jnp.arange(1.0, 4.0)

  def step(carry, w):
    y, count, z = carry
    y = jax.lax.cond(count > 1, jnp.sin, jnp.cos, y * w + z * t[:, None])
    return (y, count + 1, z + x), (y.sum(1), count, w)

  carry = jnp.ones_like(x), 0, jnp.zeros_like(x)
  (y, count, z), (sums, counts, _) = jax.lax.scan(
    step, carry, weights, reverse=True
  )
  whole = jax.lax.while_loop(
    lambda c: c[1] < 2, lambda c: (c[0] * y, c[1] + 1), (z, 0)
  )[0]
  return whole + sums.T[:, :1], counts.sum() + count + 0 * jnp.sign(t)


def drop_in_branch(x, t):
  def drop(x):
    # Rows do not see each other, in number.
    return x * jax.random.uniform(jax.random.key(0), (1, 3))

  return jax.lax.cond(t.size > 0, drop, jnp.zeros_like, x) * t[:, None]


@pytest.mark.parametrize(
  ("function", "passes"),
  [
    (looped, 1),
    (lambda x, t: jax.jit(jnp.square)(x) * t[:, None], 1),
    # No row moves, and whole numbers do not.
    (lambda x, t: (jnp.ones_like(x), jnp.argmax(x, 1), x), 1),
    # The place of a row is a constant of its own in every row.
    (lambda x, t: x**2 * jnp.arange(len(x))[:, None], 1),
    # Rows join another axis as its slower part, and products keep it.
    (lambda x, t: (2 * x.reshape(-1) + 1).reshape(x.shape) ** 2, 1),
    # They are its faster part, or another operation may have moved them.
    (lambda x, t: (2 * x.T.reshape(-1)).reshape(3, -1).T ** 2, 2),
    (lambda x, t: jnp.sin(x.reshape(-1)).reshape(x.shape) * t[:, None], 2),
    # Draws within an operation that is derived as a whole.
    (drop_in_branch, 2),
    # Another program for other sizes, and one more operation.
    (lambda x, t: jnp.sin(x) if len(x) == SIZE else jnp.sin(x) + 0 * x, 2),
    # As many operations, but others.
    (lambda x, t: jnp.sin(x) if len(x) == SIZE else 1.0 * jnp.sin(x), 2),
  ],
)
@pytest.mark.parametrize("block", [(4, 1), (4, 3)], ids=str)
def test_functions(function, passes, block, x64):
  given = points((3,))[:2]
  calls = []

  def watched(x, t):
    calls.append(len(x))
    return function(x, t)

  directions = directions_of(given, block)
  u, du = jvp_of_rows(watched, given, directions, block)
  few = SIZE // block[0] * block[1]
  assert calls == [SIZE, few] + [few, SIZE - few] * (passes - 1)
  expected_u, expected_du = by_all_rows(function, given, directions, block)
  close(u, expected_u)
  for found, expected in zip(
    jax.tree.leaves(du), jax.tree.leaves(expected_du), strict=True
  ):
    if expected.dtype != jax.dtypes.float0:
      np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-15)


def test_all_rows_are_interval_rows(x64):
  given = points((3,))[:2]
  directions = directions_of(given, (1, 1))
  found = jvp_of_rows(looped, given, directions, (1, 1))
  expected = by_all_rows(looped, given, directions, (1, 1))
  close(found[0], expected[0])
  close(found[1][0], expected[1][0])


@pytest.mark.parametrize("one", [True, False])
def test_no_gradient_passes_the_derivative(one, x64):
  x = jnp.array([1.0, 2.0, 3.0, 4.0])

  def sums(w):
    def function(x):
      return w * x**3 if one else w * (x.reshape(2, -1) ** 3).reshape(-1)

    y, dy = jvp_of_rows(function, (x,), [jnp.ones(2)], (2, 1))
    return jnp.stack([y.sum(), dy.sum()])

  assert jax.jacrev(sums)(2.0).tolist() == [1 + 8 + 27 + 64, 0]
  assert sums(2.0)[1] == 2 * 3 * (1 + 9)


def step_of(network, block):
  params = jax.eval_shape(network.init, jax.random.key(0))
  batch = {
    "data": jax.ShapeDtypeStruct((16, *DIT["data_shape"]), jnp.float32),
    "cond": jax.ShapeDtypeStruct((16,), jnp.int32),
  }

  def mean_loss(params, batch):
    return losses.mean_flow_loss(
      functools.partial(network.apply, params),
      jax.random.key(0),
      batch,
      path=paths.Linear(),
      sample_times=times.SortedPair(law=times.Uniform()),
      block=block,
    )[0].mean()

  lowered = jax.jit(jax.value_and_grad(mean_loss)).lower(params, batch)
  return lowered.compile(compiler_options=fast_compile.OPTIONS)


def test_a_step_has_fewer_programs_and_no_more_products():
  """Of two calls one derives a quarter of the rows, the other has the rest."""
  network = models.dit(**{**DIT, "width": 64}, scan_layers=False)
  found = step_of(network, (4, 1))
  with mock.patch.object(row_jvp._Split, "are_alike", return_value=False):
    two = step_of(network, (4, 1))

  def fusions(step):
    return step.as_text().count(" fusion(")

  def flops(step):
    return step.cost_analysis()["flops"]

  assert fusions(found) < 0.75 * fusions(two)
  # Numbers that are no products, at the interval rows, are computed twice.
  assert flops(found) < 1.02 * flops(two)
