"""Options of the transformer: rotary positions, norms, MLPs, registers."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from test_models import SHAPE, arguments, randomised, silu, small_dit

from jaxflow.models import dit
from jaxflow.models.transformer import Attention, Parts, rotate

# The published transformer of improved MeanFlow, its sizes apart.
IN_CONTEXT = {
  **{"context": (8, 4, 2, 4), "sees_time": False, "positions": "none"},
  **{"rotary": True, "norm": "rms", "qk_norm": True, "mlp": "swiglu"},
  "bias": False,
}


def drawn(*shape, seed=0):
  return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def shapes(**options):
  network = small_dit(**options)
  return jax.eval_shape(network.init, jax.random.key(0))


def count(**options):
  return sum(x.size for x in jax.tree.leaves(shapes(**options)))


def test_rotation_is_of_complex_numbers():
  """Features i and i + d / 2 are one number, turned by 10000^(-2i/d) each."""
  x = drawn(2, 5, 3, 8)
  numbers = x[..., :4] + 1j * x[..., 4:]
  angles = np.arange(5)[:, None] * 1e4 ** (-np.arange(4) / 4)
  turned = numbers * np.exp(1j * angles)[None, :, None]
  expected = np.concatenate([turned.real, turned.imag], axis=-1)
  np.testing.assert_allclose(rotate(jnp.asarray(x)), expected, atol=1e-5)


def test_rotated_products_depend_on_distances_alone():
  q, k = (np.tile(drawn(1, 1, 1, 16, seed=i), (1, 7, 1, 1)) for i in (1, 2))
  q, k = (np.asarray(rotate(jnp.asarray(x)))[0, :, 0] for x in (q, k))
  scores = q @ k.T
  for distance in range(-6, 7):
    values = np.diag(scores, distance)
    np.testing.assert_allclose(values, values[0], atol=1e-4)
  assert np.ptp(scores) > 1
  lengths = np.linalg.norm(q, axis=1)
  np.testing.assert_allclose(lengths, lengths[0], rtol=1e-5)


def test_queries_and_keys_have_a_mean_square_of_one():
  parts = Parts(width=12, num_heads=2, qk_norm=True)
  attention = Attention(parts, nnx.Rngs(0))
  x = jnp.asarray(drawn(2, 5, 12))
  kernel = np.asarray(attention.qkv.kernel[...], np.float64)
  qkv = (np.asarray(x) @ kernel).reshape(2, 5, 2, 3, 6)
  q, k, v = (qkv[:, :, :, i] for i in range(3))
  q, k = (y / np.sqrt((y**2).mean(-1, keepdims=True) + 1e-6) for y in (q, k))
  scores = np.exp(np.einsum("bthd,bshd->bhts", q, k) / np.sqrt(6))
  scores /= scores.sum(-1, keepdims=True)
  mixed = np.einsum("bhts,bshd->bthd", scores, v).reshape(2, 5, 12)
  expected = mixed @ np.asarray(attention.output.kernel[...])
  np.testing.assert_allclose(attention(x), expected, atol=1e-4)
  # Scaled queries and keys attend as they did.
  scale = np.repeat([100.0, 100.0, 1.0], 6)
  attention.qkv.kernel[...] = jnp.asarray(
    kernel * np.tile(scale, 2), jnp.float32
  )
  np.testing.assert_allclose(attention(x), expected, atol=1e-3)


def test_gated_units_and_weighted_norms():
  """One in-context block against NumPy, without attention."""
  network = small_dit(depth=1, **IN_CONTEXT)
  params = randomised(network)
  block = params["blocks"]["block_0"]
  output = block["attention"]["output"]
  block["attention"]["output"] = jax.tree.map(jnp.zeros_like, output)
  xt, t, s, label = arguments()
  (after,) = network.hidden(params, xt, t, s, label)
  p = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
  patches = np.asarray(xt, np.float64).reshape(
    len(xt), SHAPE[0] // 2, 2, SHAPE[1] // 2, 2, SHAPE[2]
  )
  patches = patches.transpose(0, 1, 3, 2, 4, 5).reshape(
    len(xt), *after.shape[1:3], -1
  )
  x = patches @ p["patch"]["kernel"] + p["patch"]["bias"]
  block = p["blocks"]["block_0"]
  h = x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6)
  h = h * block["mlp_norm"]["scale"]
  hidden = silu(h @ block["swish"]["kernel"]) * (h @ block["expand"]["kernel"])
  gate = block["gates"]["mlp"]
  expected = x + gate * (hidden @ block["contract"]["kernel"])
  np.testing.assert_allclose(after, expected, rtol=1e-3, atol=1e-3)


def test_parameters_of_each_option():
  """Width 16 and 2 blocks: what an option adds, by its definition."""
  width, depth, heads = 16, 2, 2
  plain = count()
  assert count(rotary=True) == plain
  # A scale for the features of a head, of queries and of keys.
  assert count(qk_norm=True) - plain == depth * 2 * width // heads
  # A third matrix and its bias.
  hidden = 4 * width
  extra = depth * (width * hidden + hidden)
  assert count(mlp="swiglu") - plain == extra
  # Queries, keys and values; the attention's output; both MLP layers.
  biases = depth * (3 * width + width + hidden + width)
  assert plain - count(bias=False) == biases
  assert count(registers=5) - plain == 5 * width


@pytest.mark.parametrize(
  "options",
  [
    {},
    {"scan_layers": True, "remat": True},
    {"heads": 2, "head_depth": 1},
    {"second_time_from": 1},
    {"own_embeddings": True},
    {"summary_tokens": 2},
    {"context": (1, 1, 1, 1)},
  ],
  ids=lambda x: "-".join(x) or "plain",
)
def test_registers(options):
  """They are seen, as a set, and are no part of the image."""
  network, plain = small_dit(registers=3, **options), small_dit(**options)
  own, others = (jax.jit(x.init)(jax.random.key(0)) for x in (network, plain))
  assert own.pop("registers")["tokens"].shape == (3, 16)
  chex.assert_trees_all_equal(own, others)
  params, inputs = randomised(network), arguments()

  @jax.jit
  def apply(tokens):
    given = params | {"registers": {"tokens": tokens}}
    return jax.tree.leaves(network.apply(given, *inputs))

  tokens = params["registers"]["tokens"]
  here = apply(tokens)
  assert all(x.shape == inputs[0].shape for x in here)
  for a, b, c in zip(here, apply(tokens[::-1]), apply(0 * tokens), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3)
    assert np.abs(a - c).max() > 1e-3
  if not options.get("scan_layers"):
    layers = network.hidden(params, *inputs)
    assert {x.shape for x in layers} == {(3, 2, 3, 16)}


def test_registers_of_bfloat16_are_trained_in_float32():
  network = small_dit(registers=2, dtype="bfloat16")
  params, inputs = randomised(network), arguments()

  @jax.jit
  @jax.grad
  def slope(params):
    return (network.apply(params, *inputs) ** 2).mean()

  slopes = slope(params)["registers"]["tokens"]
  assert slopes.dtype == jnp.float32 and jnp.abs(slopes).min() > 0


def test_in_context_parameters_are_those_of_their_parts():
  """Improved MeanFlow's B/2, whose parts are counted by hand."""
  width, mlp, depth = 768, 2048, 12
  network = dit(
    **{"data_shape": (32, 32, 4), "patch_size": 2, "num_classes": 1000},
    **{"depth": depth, "width": width, "num_heads": 12, "mlp_width": mlp},
    **{"guidance_inputs": True, "scan_layers": True},
    **IN_CONTEXT,
  )
  params = jax.eval_shape(network.init, jax.random.key(0))
  # Attention, three matrices of an MLP, norms of tokens and of the features of
  # queries and keys, two gates.
  block = 4 * width**2 + 3 * width * mlp + 2 * width + 2 * 64 + 2 * width
  assert sum(x.size for x in jax.tree.leaves(params["blocks"])) == depth * block
  tokens = sum(x.size for x in jax.tree.leaves(params["context"]))
  assert tokens == (8 + 4 + 2 + 2 + 4) * width
