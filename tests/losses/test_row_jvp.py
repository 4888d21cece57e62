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

# Four blocks: a wrong row of two or three blocks may be the right one.
SIZE = 16
close = functools.partial(
  jax.tree.map, functools.partial(np.testing.assert_allclose, rtol=1e-9)
)


def assert_near(found, expected):
  """Of networks, which embed times and take their norms in float32."""

  def leaf(a, b):
    assert abs(a - b).max() <= 1e-5 * abs(b).max()

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
      x = jnp.tanh(linen.Dense(3, param_dtype=float)(x) + t)
      return x, x.sum(1)

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


TABLE = jnp.arange(24.0).reshape(8, 3)


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
    return x * jax.random.uniform(jax.random.key(0), (len(x), 1))

  return jax.lax.cond(TABLE.sum() > 0, drop, jnp.zeros_like, x)


def as_experts(x, t):
  """Put rows in another order and back."""
  order = jnp.argsort(t)
  return jnp.sin(x[order])[jnp.argsort(order)]


def over_rows(x, t):
  def row(i, y):
    return y.at[i].set(jnp.sin(x[i]) * t[i])

  return jax.lax.fori_loop(0, len(x), row, jnp.zeros_like(x))


def padded(x, t):
  wide = jnp.pad(x, ((0, 128 - len(x)), (0, 0)))
  return jnp.sin(wide)[: len(x)] * t[:, None]


def numbered_in_branch(x, t):
  def numbered(x):
    return x * jnp.arange(len(x))[:, None]

  return jax.lax.cond(TABLE.sum() > 0, numbered, jnp.zeros_like, x)


def watched_by_caller(x, t):
  jax.debug.callback(lambda x: None, x)
  return jnp.sin(x) * t[:, None]


@jax.custom_jvp
def numbered_rule(x):
  return x * np.arange(1.0, len(x) + 1)[:, None]


@numbered_rule.defjvp
def _(primals, tangents):
  (x,), (dx,) = primals, tangents
  return numbered_rule(x), dx * np.arange(1.0, len(x) + 1)[:, None]


ONE_PASS = {
  "loops": looped,
  "jit": lambda x, t: jax.jit(jnp.square)(x) * t[:, None],
  # No row moves, and integers do not.
  "still": lambda x, t: (jnp.ones_like(x), jnp.argmax(x, 1), x),
  # The place of a row is a constant, another one in every row.
  "numbered": lambda x, t: x**2 * jnp.arange(len(x))[:, None],
  # Rows are the slower part of an axis.
  "tokens": lambda x, t: jnp.sin(2 * x.reshape(-1) + 1).reshape(x.shape) ** 2,
  "transposed": lambda x, t: (jnp.sin(x.T)[::-1] * t[None]).T,
  "looked up": lambda x, t: x * TABLE[(8 * t).astype(int)],
  "own": lambda x, t: jnp.take_along_axis(x * x, jnp.argsort(x, 1), 1),
  "columns": lambda x, t: x[:, jnp.array([2, 0])] * x[:, 1:] * t[:, None],
  "mapped": lambda x, t: jax.vmap(lambda x, t: jnp.outer(x, x)[0] * t)(x, t),
  "softmax": lambda x, t: jax.nn.softmax(x, 1) @ TABLE[:3] * t[:, None],
  "branch": lambda x, t: jax.lax.cond(TABLE.sum() > 0, jnp.sin, jnp.cos, x),
  "relu": lambda x, t: jax.nn.relu(x) * jax.nn.logsumexp(x, 1)[:, None],
  "sorted": lambda x, t: (
    jnp.cumsum(jnp.sort(x, 1), 1) + jnp.pad(x, ((0, 0),) * 2)
  ),
}
TWO_CALLS = {
  "faster part": lambda x, t: (2 * x.T.reshape(-1)).reshape(3, -1).T ** 2,
  "reshaped": lambda x, t: jnp.sin(x.T.reshape(-1, 3)).reshape(3, -1).T,
  "by number": lambda x, t: jnp.sin(x)[jnp.arange(len(x)), 1] * t,
  "written by number": lambda x, t: x.at[jnp.arange(len(x)), 1].set(t),
  "reversed": lambda x, t: jnp.sin(x[::-1])[::-1],
  "experts": as_experts,
  "loop over rows": over_rows,
  "map over rows": lambda x, t: jax.lax.map(
    lambda a: jnp.sin(a[0]) * a[1], (x, t)
  ),
  "padded": padded,
  # Numbers and draws within an operation that is derived as a whole.
  "numbered in a branch": numbered_in_branch,
  "draws in a branch": drop_in_branch,
  # Numbers of rows that no operation makes.
  "numbered in numpy": lambda x, t: x * np.arange(1.0, len(x) + 1)[:, None],
  "numbered in a rule": lambda x, t: numbered_rule(x),
  "products in a branch": lambda x, t: jax.lax.cond(
    TABLE.sum() > 0, lambda x: x @ TABLE[:3], jnp.cos, x
  ),
  "seen by the caller": watched_by_caller,
  # Other programs for other sizes.
  "other operation": lambda x, t: jnp.sin(x) if len(x) == SIZE else jnp.cos(x),
  "other power": lambda x, t: x**2 if len(x) == SIZE else x**3,
  "other number": lambda x, t: x * len(x),
  "more": lambda x, t: jnp.sin(x) if len(x) == SIZE else 2 * jnp.sin(x),
}


@pytest.mark.parametrize("block", [(4, 1), (4, 3)], ids=str)
@pytest.mark.parametrize("name", [*ONE_PASS, *TWO_CALLS])
def test_functions(name, block, x64):
  function = (ONE_PASS | TWO_CALLS)[name]
  given = points((3,))[:2]
  calls = []

  def watched(x, t):
    calls.append(len(x))
    return function(x, t)

  directions = directions_of(given, block)
  u, du = jvp_of_rows(watched, given, directions, block)
  few = SIZE // block[0] * block[1]
  again = [] if name in ONE_PASS else [few, SIZE - few]
  assert calls == [SIZE, few, *again]
  if name.startswith(("other", "more", "numbered in", "draws")):
    return  # It is not the same function for all rows.
  expected_u, expected_du = by_all_rows(function, given, directions, block)
  close(u, expected_u)
  for found, expected in zip(
    jax.tree.leaves(du), jax.tree.leaves(expected_du), strict=True
  ):
    if expected.dtype != jax.dtypes.float0:
      np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-15)


def test_products_are_not_computed_twice(x64):
  """Attention in blocks has a derivative of its own, with its values."""
  network = models.dit(**DIT, attention="blocks")
  function = with_parameters(network)
  given = points(DIT["data_shape"])
  directions = directions_of(given, (4, 1))
  with mock.patch.object(row_jvp, "_jvp", wraps=row_jvp._jvp) as two_calls:
    found = jvp_of_rows(function, given, directions, (4, 1))
  assert two_calls.called
  assert_near(found, by_all_rows(function, given, directions, (4, 1)))


def test_names_of_layers_stay():
  def function(x):
    with jax.named_scope("outer"), jax.named_scope("inner"):
      return jnp.sin(x)

  def derived(x):
    return jvp_of_rows(function, (x,), [x[:2]], (2, 1))

  text = jax.jit(derived).lower(jnp.ones(4)).as_text(debug_info=True)
  assert "outer/inner" in text


def test_parameters_learn_through_loops_and_remat(x64, one_pass):
  network = models.dit(**DIT, remat=True)
  params = jax.tree.map(
    lambda x: x + 0.1,
    jax.jit(network.init)(jax.random.key(0)),
  )
  given = points(DIT["data_shape"])
  directions = directions_of(given, (4, 1))

  @jax.jit
  @jax.grad
  def found(params):
    function = functools.partial(network.apply, params)
    u, du = jvp_of_rows(function, given, directions, (4, 1))
    return jnp.sum(u**2) + jnp.sum(du**2)

  @jax.jit
  @jax.grad
  def expected(params):
    return jnp.sum(network.apply(params, *given) ** 2)

  assert_near(found(params), expected(params))


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
      return w * x**3 if one else w * (x[::-1] ** 3)[::-1]

    y, dy = jvp_of_rows(function, (x,), [w * jnp.ones(2)], (2, 1))
    return jnp.stack([y.sum(), dy.sum()])

  assert jax.jacrev(sums)(2.0).tolist() == [1 + 8 + 27 + 64, 0]
  assert sums(2.0)[1] == 2 * 2 * 3 * (1 + 9)


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
  with mock.patch.object(row_jvp.Split, "is_row_wise", return_value=False):
    two = step_of(network, (4, 1))

  def fusions(step):
    return step.as_text().count(" fusion(")

  def flops(step):
    return step.cost_analysis()["flops"]

  assert fusions(found) < 0.75 * fusions(two)
  # Numbers that are no products, at the interval rows, are computed twice.
  assert flops(found) < 1.02 * flops(two)
