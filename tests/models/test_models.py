"""Networks: architecture against a float64 reference, derivatives, layouts."""

import collections
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxflow.errors import UsageError
from jaxflow.models import (
  SIZES,
  dit,
  hidden_features,
  mlp,
  mp_unet,
  stack_blocks,
  unet,
  unet2d,
  unstack_blocks,
)
from jaxflow.models.embeddings import (
  VectorEmbedder,
  position_table,
  sinusoidal,
)
from jaxflow.models.mp_unet import Vectors
from jaxflow.models.network import functional
from jaxflow.models.patches import patchify, unpatchify

SHAPE = (4, 6, 2)
BATCH = 3
small_dit = functools.partial(
  dit,
  **{"depth": 2, "width": 16, "num_heads": 2},
  data_shape=SHAPE,
  patch_size=2,
  num_classes=3,
  # References find blocks by name; LAYOUTS compares scanned ones with these.
  scan_layers=False,
)
# Compiling takes longer than running here, so the compiler may be lazy.
jit = functools.partial(
  jax.jit, compiler_options={"xla_backend_optimization_level": 0}
)
LAYOUTS = [(False, False), (False, True), (True, False), (True, True)]


@pytest.fixture(autouse=True)
def no_rank_promotion():
  with jax.numpy_rank_promotion("raise"):
    yield


def arguments(shape=SHAPE):
  keys = jax.random.split(jax.random.key(1), 2)
  xt = jax.random.normal(keys[0], (BATCH, *shape))
  t = jnp.array([0.9, 0.5, 1.0])
  return xt, t, jnp.array([0.1, 0.5, 0.0]), jnp.array([0, 3, 2])


def tangents(shape=SHAPE):
  xt = jax.random.normal(jax.random.key(2), (BATCH, *shape))
  return xt, jnp.array([1.0, -0.5, 2.0]), jnp.array([0.5, 1.0, -1.0])


def randomised(network, scale=0.3):
  """Random parameters: unlike at the start, no gate and no output is zero."""
  noise = np.random.default_rng(7)
  return jax.tree.map(
    lambda p: jnp.asarray(scale * noise.standard_normal(p.shape, p.dtype)),
    jax.eval_shape(network.init, jax.random.key(0)),
  )


def silu(x):
  return x / (1 + np.exp(-x))


def linear(p, x):
  return x @ p["kernel"] + p["bias"]


def waves(t, features):
  """Cosines and sines of t at 10000 ** (-2 k / features)."""
  angles = t[:, None] * 1e4 ** (-np.arange(features // 2) * 2 / features)
  return np.cos(angles), np.sin(angles)


def reference_dit(params, xt, t, s, label, heads=2, patch=2):
  """Return the Diffusion Transformer in NumPy, float64, token by token."""
  p = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
  batch, height, breadth, channels = xt.shape
  corners = [
    (i, j) for i in range(0, height, patch) for j in range(0, breadth, patch)
  ]

  def embed(q, time):
    features = np.concatenate(waves(time, 256), axis=1)
    return linear(q["output"], silu(linear(q["hidden"], features)))

  def norm(x, shift, scale):
    x = x - x.mean(-1, keepdims=True)
    x = x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-6)
    return x * (1 + scale[:, None]) + shift[:, None]

  def attention(q, x):
    size, out = x.shape[-1] // heads, []
    for head in np.split(linear(q["qkv"], x), heads, axis=-1):
      queries, keys, values = np.split(head, 3, axis=-1)
      scores = queries @ keys.swapaxes(1, 2)
      scores = np.exp(scores / np.sqrt(size))
      scores /= scores.sum(-1, keepdims=True)
      out.append(scores @ values)
    return linear(q["output"], np.concatenate(out, axis=-1))

  def gelu(x):
    cubic = x + 0.044715 * x**3
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * cubic))

  c = embed(p["time"], t) + embed(p["interval"], t - s)
  c = silu(c + p["label"]["table"][label])
  tokens = []
  for i, j in corners:
    pixels = xt[:, i : i + patch, j : j + patch].reshape(batch, -1)
    token = linear(p["patch"], pixels)
    place = np.array([j // patch, i // patch], float)
    cosines, sines = waves(place, token.shape[1] // 2)
    token += np.concatenate([sines[0], cosines[0], sines[1], cosines[1]])
    tokens.append(token)
  x = np.stack(tokens, axis=1)
  for i in range(len(p["blocks"])):
    q = p["blocks"][f"block_{i}"]
    m = np.split(linear(q["modulation"]["linear"], c), 6, axis=-1)
    x = x + m[2][:, None] * attention(q["attention"], norm(x, m[0], m[1]))
    h = gelu(linear(q["expand"], norm(x, m[3], m[4])))
    x = x + m[5][:, None] * linear(q["contract"], h)
  m = np.split(linear(p["modulation"]["linear"], c), 2, axis=-1)
  x = linear(p["output"], norm(x, *m))
  image = np.zeros(xt.shape)
  for n, (i, j) in enumerate(corners):
    block = x[:, n].reshape(batch, patch, patch, channels)
    image[:, i : i + patch, j : j + patch] = block
  return image


def reference_mlp(params, xt, t, s, label):
  p = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
  times = [*waves(t, 64), *waves(t - s, 64)]
  table = p["label"]["table"][label]
  x = np.concatenate([xt.reshape(BATCH, -1), *times, table], axis=1)
  for i in range(2):
    x = silu(linear(p[f"hidden_{i}"], x))
  return linear(p["output"], x).reshape(xt.shape)


NETWORKS = {
  "dit": (small_dit(), reference_dit, SHAPE),
  "mlp": (mlp(data_shape=(5,), num_classes=3), reference_mlp, (5,)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_value_and_jvp_equal_the_float64_reference(name):
  network, reference, shape = NETWORKS[name]
  params = randomised(network)
  *primals, label = arguments(shape)
  directions = tangents(shape)

  def model_fn(xt, t, s):
    return network.apply(params, xt, t, s, label)

  value, slope = jit(lambda *p: jax.jvp(model_fn, p, directions))(*primals)

  def moved(step):
    points = [
      np.asarray(p, np.float64) + step * np.asarray(d, np.float64)
      for p, d in zip(primals, directions, strict=True)
    ]
    return reference(params, *points, np.asarray(label))

  expected_slope = (moved(1e-5) - moved(-1e-5)) / 2e-5
  np.testing.assert_allclose(value, moved(0.0), rtol=2e-4, atol=2e-4)
  scale = np.abs(expected_slope).max()
  np.testing.assert_allclose(slope / scale, expected_slope / scale, atol=1e-4)
  np.testing.assert_allclose(
    network.apply(params, *primals, label), value, rtol=1e-4, atol=1e-4
  )


@pytest.mark.parametrize(
  ("size", "patch_size", "millions"),
  [
    ("B", 4, 131.2),
    ("B", 2, 131.1),
    ("M", 2, 308.0),
    ("L", 2, 459.1),
    ("XL", 2, 676.4),
  ],
)
def test_parameter_counts_are_the_published_ones(size, patch_size, millions):
  network = dit(
    **SIZES[size],
    patch_size=patch_size,
    data_shape=(32, 32, 4),
    num_classes=1000,
    scan_layers=True,
  )
  params = jax.eval_shape(network.init, jax.random.key(0))
  count = sum(leaf.size for leaf in jax.tree.leaves(params))
  assert round(count / 1e6, 1) == millions


def test_params_are_nested_dicts_of_float32_arrays():
  for network in (small_dit(dtype="bfloat16"), mlp(num_classes=2)):
    params = jit(network.init)(jax.random.key(0))
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
      assert all(isinstance(part.key, str) for part in path)
      assert isinstance(leaf, jax.Array) and leaf.dtype == jnp.float32


def test_initial_values_are_the_published_ones():
  network = dit(
    **SIZES["tiny"] | {"depth": 1}, data_shape=(8, 8, 4), num_classes=300
  )
  params = jit(network.init)(jax.random.key(0))
  block = unstack_blocks(params["blocks"])["block_0"]
  for zero in (block["modulation"], params["modulation"], params["output"]):
    assert all(not leaf.any() for leaf in jax.tree.leaves(zero))
  for normal in (
    params["label"]["table"],
    params["time"]["hidden"]["kernel"],
    params["interval"]["output"]["kernel"],
  ):
    assert jnp.std(normal) == pytest.approx(0.02, rel=0.05)
  for uniform in (block["attention"]["qkv"], block["expand"], params["patch"]):
    limit = np.sqrt(6 / sum(uniform["kernel"].shape))
    assert jnp.abs(uniform["kernel"]).max() == pytest.approx(limit, rel=0.01)
    assert not uniform["bias"].any()


def test_layouts_give_one_function_and_its_derivatives():
  inputs = arguments()
  xt, t, s, label = inputs
  directions = tangents()
  weight = jax.random.normal(jax.random.key(3), xt.shape)
  plain = small_dit()
  params = randomised(plain)
  results = []
  for scan_layers, remat in LAYOUTS:
    network = small_dit(scan_layers=scan_layers, remat=remat)
    blocks = params["blocks"]
    own = params | {"blocks": stack_blocks(blocks) if scan_layers else blocks}

    def loss(own, xt, t, s, network=network):
      def model_fn(xt, t, s):
        return network.apply(own, xt, t, s, label)

      value, slope = jax.jvp(model_fn, (xt, t, s), directions)
      return jnp.sum(weight * (value - (t - s)[:, None, None, None] * slope))

    value, (of_params, *of_inputs) = jit(
      jax.value_and_grad(loss, (0, 1, 2, 3))
    )(own, xt, t, s)
    if scan_layers:
      of_blocks = unstack_blocks(of_params["blocks"])
      of_params = of_params | {"blocks": of_blocks}
    results.append((value, of_params, of_inputs))
  for leaf in jax.tree.leaves(results[0]):
    assert jnp.abs(leaf).max() > 0
  for other in results[1:]:
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(
        a, b, rtol=1e-3, atol=1e-4 * float(jnp.abs(b).max())
      ),
      other,
      results[0],
    )


def test_layouts_share_initial_values_and_convert_both_ways():
  key = jax.random.key(0)
  unrolled = jit(small_dit().init)(key)["blocks"]
  scanned = jit(small_dit(scan_layers=True).init)(key)["blocks"]
  chex.assert_trees_all_equal(stack_blocks(unrolled), scanned)
  chex.assert_trees_all_equal(unstack_blocks(scanned), unrolled)
  first, second = unrolled["block_0"], unrolled["block_1"]
  assert (first["expand"]["kernel"] != second["expand"]["kernel"]).any()


def test_forward_over_reverse_equals_reverse_over_forward():
  network = small_dit(scan_layers=True, remat=True)
  params = randomised(network)
  xt, t, s, label = arguments()
  direction = tangents()[0]

  def energy(xt):
    return jnp.sum(jnp.sin(network.apply(params, xt, t, s, label)))

  def slope(xt):
    return jax.jvp(energy, (xt,), (direction,))[1]

  forward_over_reverse = jit(
    lambda xt: jax.jvp(jax.grad(energy), (xt,), (direction,))[1]
  )(xt)
  reverse_over_forward = jit(jax.grad(slope))(xt)
  scale = jnp.abs(forward_over_reverse).max()
  assert scale > 0.1
  np.testing.assert_allclose(
    reverse_over_forward / scale, forward_over_reverse / scale, atol=1e-4
  )


@pytest.mark.parametrize(
  "make", [small_dit, functools.partial(mlp, data_shape=SHAPE)]
)
def test_second_time_decides_whether_s_matters(make):
  xt, t, s, label = arguments()
  for second_time in (False, True):
    network = make(second_time=second_time)
    params = randomised(network)
    here = network.apply(params, xt, t, s, label)
    there = network.apply(params, xt, t, s + 0.3, label)
    assert jnp.array_equal(here, there) != second_time


@pytest.mark.parametrize("scan_layers", [False, True])
def test_later_blocks_may_see_the_second_time(scan_layers):
  """At s = t it is a network of one time, with the same parameters."""
  one = small_dit(second_time=False, scan_layers=scan_layers)
  both = small_dit(second_time_from=1, scan_layers=scan_layers)
  chex.assert_trees_all_equal_shapes(
    *(jax.eval_shape(x.init, jax.random.key(0)) for x in (one, both))
  )
  params = randomised(one)
  xt, t, s, label = arguments()
  here = both.apply(params, xt, t, t, label)
  np.testing.assert_array_equal(here, one.apply(params, xt, t, s, label))
  there = both.apply(params, xt, t, s, label)
  moved = jnp.abs(there - here).max((1, 2, 3)) > 1e-3
  np.testing.assert_array_equal(moved, s < t)


def test_each_block_sees_one_of_the_two_times():
  """Those of the first block see t: with equal s, its tokens show t alone."""
  network = small_dit(second_time_from=1)
  params = randomised(network)
  xt, t, s, label = arguments()
  layers = network.hidden(params, xt, t, s, label)
  first, second = network.hidden(params, xt, t, s + 0.3, label)
  np.testing.assert_array_equal(first, layers[0])
  assert jnp.abs(second - layers[1]).max() > 1e-3


def test_one_key_drops_the_same_units_everywhere():
  network = small_dit(dropout=0.5)
  params = randomised(network)
  xt, t, s, label = arguments()
  key = jax.random.key(5)

  def model_fn(xt, t, s, key=key):
    return network.apply(params, xt, t, s, label, key)

  first = model_fn(xt, t, s)
  primal, _ = jax.jvp(model_fn, (xt, t, s), tangents())
  np.testing.assert_array_equal(first, model_fn(xt, t, s))
  np.testing.assert_allclose(first, primal, rtol=1e-5, atol=1e-5)
  other = model_fn(xt, t, s, jax.random.key(6))
  assert not jnp.allclose(first, other, atol=1e-2)
  np.testing.assert_array_equal(
    model_fn(xt, t, s, None), small_dit().apply(params, xt, t, s, label)
  )
  scanned = params | {"blocks": stack_blocks(params["blocks"])}
  network = small_dit(dropout=0.5, scan_layers=True, remat=True)
  np.testing.assert_allclose(
    jit(network.apply)(scanned, xt, t, s, label, key), first, atol=1e-4
  )


@pytest.mark.parametrize(
  "make", [small_dit, functools.partial(mlp, data_shape=SHAPE, num_classes=3)]
)
def test_labels(make):
  network = make()
  params = randomised(network)
  xt, t, s, label = arguments()
  apply = functools.partial(network.apply, params, xt, t, s)
  null = jnp.full(BATCH, 3)
  np.testing.assert_array_equal(apply(None), apply(null))
  np.testing.assert_array_equal(apply({"label": label}), apply(label))
  assert not jnp.allclose(apply(label)[0], apply(null)[0])
  np.testing.assert_array_equal(apply(label)[1], apply(null)[1])
  wild = apply(jnp.array([0, 4, -1]))
  assert jnp.isfinite(wild[0]).all() and jnp.isnan(wild[1:]).all()
  free = make(num_classes=0)
  free_params = randomised(free)
  np.testing.assert_array_equal(
    free.apply(free_params, xt, t, s, label),
    free.apply(free_params, xt, t, s, None),
  )


@pytest.mark.parametrize(
  "cond", [jnp.ones(BATCH), {"class": jnp.ones(BATCH, int)}, jnp.ones(1, int)]
)
def test_a_wrong_condition_is_named(cond):
  network = mlp(data_shape=SHAPE, num_classes=3)
  params = jax.eval_shape(network.init, jax.random.key(0))
  with pytest.raises(ValueError, match=r"^cond: .*(label|integers)"):
    jax.eval_shape(network.apply, params, *arguments()[:3], cond)


def test_bfloat16_is_close_to_float32():
  xt, t, s, label = arguments()
  exact, rounded = small_dit(), small_dit(dtype=jnp.bfloat16)
  params = randomised(exact)
  expected = jit(exact.apply)(params, xt, t, s, label)
  value = jit(rounded.apply)(params, xt, t, s, label)
  assert value.dtype == jnp.float32
  error = jnp.linalg.norm(value - expected) / jnp.linalg.norm(expected)
  assert 1e-5 < error < 0.02


def test_vmap_over_single_samples_equals_the_batch():
  network = small_dit(scan_layers=True)
  params = randomised(network)
  inputs = arguments()

  def single(*sample):
    return network.apply(params, *(x[None] for x in sample))[0]

  np.testing.assert_allclose(
    jit(jax.vmap(single))(*inputs),
    jit(network.apply)(params, *inputs),
    rtol=1e-4,
    atol=1e-4,
  )


def test_patches_hold_the_pixels_of_their_square():
  images = jnp.arange(2.0 * 4 * 6 * 3).reshape(2, 4, 6, 3)
  tokens = patchify(images, 2)
  assert tokens.shape == (2, 6, 12)
  # Token 4 is row 1, column 1 of the 2 x 3 grid.
  np.testing.assert_array_equal(tokens[1, 4], images[1, 2:4, 2:4].reshape(-1))
  np.testing.assert_array_equal(unpatchify(tokens, 2, (4, 6, 3)), images)


@pytest.mark.parametrize("sizes", [(6,), (4, 6), (4, 2, 6)])
def test_patches_of_every_dimension_hold_their_part(sizes):
  data = np.arange(2.0 * np.prod(sizes) * 3).reshape(2, *sizes, 3)
  tokens = patchify(jnp.asarray(data), 2)
  grid = [n // 2 for n in sizes]
  assert tokens.shape == (2, np.prod(grid), 2 ** len(sizes) * 3)
  for number, place in enumerate(np.ndindex(*grid)):
    part = tuple(slice(2 * i, 2 * i + 2) for i in place)
    expected = data[(slice(None), *part)].reshape(2, -1)
    np.testing.assert_array_equal(tokens[:, number], expected)
  np.testing.assert_array_equal(unpatchify(tokens, 2, (*sizes, 3)), data)


def test_positions_have_a_share_of_the_features_for_every_axis():
  """Of 16 features, three axes have four each, and four are 0."""
  table = position_table((2, 3, 2), 16)
  for number, place in enumerate(np.ndindex(2, 3, 2)):
    angles = [x * f for x in place[::-1] for f in (1.0, 0.01)]
    waves = np.reshape(angles, (3, 1, 2))
    expected = np.concatenate([np.sin(waves), np.cos(waves)], axis=1).ravel()
    np.testing.assert_allclose(table[number, :12], expected, atol=1e-6)
  assert not table[:, 12:].any()
  line = position_table((5,), 4)
  np.testing.assert_allclose(line[:, 0], np.sin(np.arange(5)), atol=1e-6)
  np.testing.assert_allclose(line[:, 3], np.cos(0.01 * np.arange(5)), atol=1e-6)


@pytest.mark.parametrize(
  ("shape", "bad"), [((8, 3), (7, 3)), ((4, 2, 4, 1), (4, 3, 4, 1))]
)
def test_dit_of_sequences_and_volumes(shape, bad):
  """Where a token lies is seen: swapped patches are no swapped output."""
  options = {"depth": 1, "width": 24, "num_heads": 2, "patch_size": 2}
  network = dit(**options, data_shape=shape)
  params = randomised(network)
  xt = jax.random.normal(jax.random.key(0), (3, *shape))
  time = jnp.linspace(0.1, 0.9, 3)
  out = jit(network.apply)(params, xt, time, 0 * time, None)
  assert out.shape == xt.shape
  rolled = jit(network.apply)(
    params, jnp.roll(xt, 2, axis=1), time, 0 * time, None
  )
  assert np.abs(np.roll(out, 2, axis=1) - rolled).max() > 1e-2
  with pytest.raises(UsageError, match=r"^patch_size=2: must divide"):
    dit(**options, data_shape=bad)
  with pytest.raises(UsageError, match=r"^data_shape=\(8,\): give one to"):
    dit(**options, data_shape=(8,))


@pytest.mark.parametrize("own", [False, True])
def test_vectors_are_embedded_by_a_linear_layer(own):
  """The label enters as W y + b; NaN has a vector of its own, and gradients."""
  options = {"depth": 1, "width": 16, "num_heads": 2, "cond_size": 2}
  networks = {
    "dit": dit(data_shape=SHAPE, own_embeddings=own, **options),
    "mlp": mlp(data_shape=SHAPE, width=8, depth=1, cond_size=2),
  }
  for network in networks.values():
    check_vectors(network)
  with pytest.raises(UsageError, match=r"^cond_size=2 with num_classes=3"):
    mlp(cond_size=2, num_classes=3).init(jax.random.key(0))
  embedder = VectorEmbedder(2, 4, rngs=nnx.Rngs(0))
  kernel, bias = (
    np.asarray(x[...]) for x in (embedder.linear.kernel, embedder.linear.bias)
  )
  vectors = jnp.array([[1.0, 2.0], [-1.0, 0.5]])
  expected = np.asarray(vectors) @ kernel + bias
  np.testing.assert_allclose(embedder(vectors, 2), expected, rtol=1e-5)


U_NETS = {
  "ddpm++": (unet, {"channels": 8, "attention_resolutions": ()}),
  "adm": (
    unet,
    {"architecture": "adm", "channels": 64, "attention_resolutions": ()},
  ),
  "unet2d": (unet2d, {"widths": (8,), "layers": 1, "groups": 4}),
  "mp_unet": (mp_unet, {"channels": 64, "attention_resolutions": ()}),
}


@pytest.mark.parametrize("name", U_NETS)
def test_u_nets_embed_vectors(name):
  make, options = U_NETS[name]
  if name != "unet2d":
    options = {**options, "multipliers": (1,), "num_blocks": 1}
  else:
    options = {**options, "attention": ()}
  check_vectors(make(data_shape=SHAPE, cond_size=2, **options))
  with pytest.raises(UsageError, match=r"^cond_size=2 with num_classes=3"):
    make(data_shape=SHAPE, cond_size=2, num_classes=3, **options)
  with pytest.raises(UsageError, match=r"^cond_size=-1: give 0"):
    make(data_shape=SHAPE, cond_size=-1, **options)


def test_vectors_keep_their_magnitude():
  embedder = Vectors(64, 256, rngs=nnx.Rngs(0))
  vectors = jax.random.normal(jax.random.key(1), (500, 64))
  out = embedder(vectors, 500)
  assert np.sqrt(np.mean(np.square(out))) == pytest.approx(1, abs=0.02)
  kernel = np.asarray(embedder.linear.kernel[...], np.float64)
  unit = kernel / np.linalg.norm(kernel, axis=0)
  # 1e-4 is added to magnitudes near 1.
  np.testing.assert_allclose(out, vectors @ unit, atol=2e-3)
  assert not embedder(jnp.full((2, 64), jnp.nan), 2).any()


def check_vectors(network):
  """NaN is no vector; others matter; gradients are finite."""
  xt, t, s, _ = arguments()
  vectors = jnp.array([[1.0, 2.0], [-1.0, 0.5], [jnp.nan, jnp.nan]])
  params = randomised(network)
  apply = jax.jit(network.apply)
  out, none = apply(params, xt, t, s, vectors), apply(params, xt, t, s, None)
  assert np.isfinite(out).all()
  np.testing.assert_allclose(out[2], none[2], rtol=1e-4, atol=1e-5)
  assert np.abs(out[:2] - none[:2]).max() > 1e-3
  grads = jax.jit(jax.grad(lambda p: apply(p, xt, t, s, vectors).sum()))(params)
  assert all(np.isfinite(x).all() for x in jax.tree.leaves(grads))
  for wrong in (vectors[:, :1], jnp.arange(3)):
    with pytest.raises(UsageError, match=r"shape \(3, 2\)"):
      network.apply(params, xt, t, s, wrong)


def test_sinusoids_keep_float32_times_apart():
  features = sinusoidal(jnp.array([1.0, 1.0 - 1e-6], jnp.float32), 64)
  assert features.dtype == jnp.float32
  assert (features[0] != features[1]).any()
  scaled = sinusoidal(jnp.array([0.25]), 4, scale=1000.0)
  expected = [np.cos(250), np.cos(2.5), np.sin(250), np.sin(2.5)]
  np.testing.assert_allclose(scaled[0], expected, atol=1e-5)


def test_zero_output_starts_at_zero():
  network = mlp(data_shape=SHAPE, zero_output=True)
  params = jit(network.init)(jax.random.key(0))
  assert not network.apply(params, *arguments()).any()
  assert jit(mlp().init)(jax.random.key(0))["output"]["kernel"].any()


def test_flops_are_those_of_the_matrix_products():
  depth, width = SIZES["B"]["depth"], SIZES["B"]["width"]
  tokens, pixels = 16 * 16, 2 * 2 * 4
  # XLA counts the body of a loop once.
  network = dit(data_shape=(32, 32, 4), num_classes=1000, scan_layers=False)
  inputs = (
    jax.eval_shape(network.init, jax.random.key(0)),
    jax.ShapeDtypeStruct((1, 32, 32, 4), jnp.float32),
    *[jax.ShapeDtypeStruct((1,), jnp.float32)] * 2,
    jax.ShapeDtypeStruct((1,), jnp.int32),
  )
  # Multiply-adds: linear layers on tokens, two products of attention, and
  # the linear maps of the condition.
  block = tokens * 12 * width**2 + 2 * tokens**2 * width + 6 * width**2
  ends = 2 * tokens * pixels * width + 2 * width**2
  times = 2 * (256 * width + width**2)
  expected = 2 * (depth * block + ends + times)
  counted = jax.jit(network.apply).lower(*inputs).cost_analysis()["flops"]
  assert counted == pytest.approx(expected, rel=0.05)
  # Peebles and Xie, 2022, table 4: 23.01 G multiply-adds for DiT-B/2.
  assert counted == pytest.approx(2 * 23.01e9, rel=0.05)


def test_a_scanned_program_does_not_grow_with_depth():
  def length(depth, scan_layers):
    network = small_dit(depth=depth, scan_layers=scan_layers)
    params = jax.eval_shape(network.init, jax.random.key(0))
    lowered = jax.jit(network.apply).lower(params, *arguments())
    return len(lowered.as_text().splitlines())

  assert length(6, True) == length(2, True)
  assert length(6, False) > 2 * length(6, True)


@pytest.mark.parametrize(
  ("field", "changes"),
  [
    ("depth", {"depth": 0}),
    ("width", {"num_heads": 3}),
    ("width", {"width": 18, "num_heads": 2}),
    ("data_shape", {"data_shape": (4,)}),
    ("patch_size", {"patch_size": 3}),
    ("num_classes", {"num_classes": -1}),
    ("dropout", {"dropout": 1.0}),
    ("dtype", {"dtype": "float16"}),
    ("second_time_from", {"second_time_from": 5}),
    ("second_time_from", {"second_time_from": 1, "second_time": False}),
  ],
)
def test_an_impossible_dit_is_named(field, changes):
  with pytest.raises(ValueError, match=f"^{field}=") as error:
    dit(**SIZES["tiny"] | {"data_shape": (4, 4, 1)} | changes)
  assert "\n" not in str(error.value)


@pytest.mark.parametrize(
  "changes",
  [
    {"data_shape": ()},
    {"width": 0},
    {"depth": 0},
    {"time_features": 5},
    {"num_classes": -1},
    {"dtype": "int32"},
  ],
)
def test_an_impossible_mlp_is_named(changes):
  with pytest.raises(ValueError, match=f"^{next(iter(changes))}="):
    mlp(**changes)


@pytest.mark.parametrize("make", [dit, mlp])
def test_another_shape_of_data_is_named(make):
  network = make(data_shape=SHAPE, depth=1, width=24)
  params = jax.eval_shape(network.init, jax.random.key(0))
  with pytest.raises(ValueError, match=r"^data_shape="):
    jax.eval_shape(network.apply, params, *arguments((6, 4, 2)))


def test_a_network_without_activations_gives_no_features():
  class Scale(nnx.Module):
    def __init__(self, rngs):
      self.weight = nnx.Param(jnp.ones(()))

    def __call__(self, xt, t, s, cond, key):
      return self.weight[...] * xt

  network = functional(Scale)
  assert network.hidden is None
  with pytest.raises(UsageError, match="network: it shows no hidden"):
    hidden_features(network)


@pytest.mark.parametrize("kind", ["xla", "blocks"])
def test_scanned_blocks_keep_products_alone(kind):
  """What the backward pass is given of the blocks, counted in numbers."""
  depth, width, tokens, heads = 5, 16, 6, 2
  network = small_dit(depth=depth, scan_layers=True, attention=kind)
  params = randomised(network)
  xt, t, s, label = arguments()

  def kept(params):
    return jax.vjp(
      lambda params: network.apply(params, xt, t, s, label).sum(), params
    )[1]

  leaves = jax.tree.leaves(jax.eval_shape(kept, params))
  own = {x.shape for x in jax.tree.leaves(params["blocks"])}
  found = collections.Counter(
    x.size // depth
    for x in leaves
    if x.shape[:1] == (depth,) and x.shape not in own
  )
  each = tokens * BATCH
  expected = (
    *[6 * width * BATCH],  # The modulation.
    *[3 * width * each],  # Queries, keys and values.
    *[4 * width * each],  # The MLP's hidden units.
    # All scores, or of each row the logarithm of their sum of exponentials.
    {"xla": tokens * heads * each, "blocks": heads * each}[kind],
    # The block's input, what is attended to, and the results of two layers.
    *[width * each] * 4,
  )
  assert found == collections.Counter(expected)
