"""The U-Net: architecture against a float64 reference, derivatives, sizes."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import plain_networks
import pytest
from plain_networks import conv, group_norm, linear, randomised

from jaxflow.errors import UsageError
from jaxflow.models import unet

SHAPE = (4, 8, 2)
BATCH = 2
MULTIPLIERS = (1, 3)
CHANNELS = 8
small = functools.partial(
  unet,
  data_shape=SHAPE,
  channels=CHANNELS,
  multipliers=MULTIPLIERS,
  num_blocks=1,
  attention_resolutions=(4,),
  num_classes=3,
)

TINY = (2, 2, 2)
# One level of one block: five blocks.
tiny = functools.partial(
  unet,
  data_shape=TINY,
  channels=8,
  multipliers=(1,),
  num_blocks=1,
  attention_resolutions=(),
)


def arguments():
  xt = jax.random.normal(jax.random.key(1), (BATCH, *SHAPE))
  t, s = jnp.array([0.9, 0.5]), jnp.array([0.1, 0.5])
  return xt, t, s, jnp.array([1, 3])


def tangents():
  xt = jax.random.normal(jax.random.key(2), (BATCH, *SHAPE))
  return xt, jnp.array([1.0, -0.5]), jnp.array([0.5, 1.0])


@pytest.fixture(scope="module")
def tiny_input():
  xt, t, s, _ = arguments()
  return xt[:, :2, :2], t, s


@pytest.fixture(scope="module")
def tiny_apply():
  return jax.jit(tiny().apply)


@pytest.fixture(scope="module")
def network():
  return small()


@pytest.fixture(scope="module")
def params(network):
  return randomised(network.init, scale=0.4)


def silu(x):
  return x / (1 + np.exp(-x))


def plain_norm(p, x):
  # Up to 32 groups of four channels or more.
  return group_norm(p, x, min(32, x.shape[-1] // 4))


def plain_attention(p, x):
  """One head: every pixel looks at every pixel of its image."""
  batch, height, breadth, width = x.shape
  tokens = linear(p["qkv"], plain_norm(p["norm"], x))
  tokens = tokens.reshape(batch, height * breadth, 3 * width)
  queries, keys, values = np.split(tokens, 3, axis=-1)
  out = np.zeros_like(queries)
  for b in range(batch):
    for i in range(height * breadth):
      scores = np.exp(keys[b] @ queries[b, i] / np.sqrt(width))
      out[b, i] = scores @ values[b] / scores.sum()
  return linear(p["output"], out.reshape(x.shape))


def plain_half(x):
  return sum(x[:, i::2, j::2] for i in (0, 1) for j in (0, 1)) / 4


def plain_double(x):
  batch, height, breadth, width = x.shape
  out = np.zeros((batch, 2 * height, 2 * breadth, width))
  for i in (0, 1):
    for j in (0, 1):
      out[:, i::2, j::2] = x
  return out


def plain_block(p, x, e, resample=lambda x: x):
  h = conv(p["conv_1"], resample(silu(plain_norm(p["norm_1"], x))))
  h = h + linear(p["embedding"], e)[:, None, None]
  h = conv(p["conv_2"], silu(plain_norm(p["norm_2"], h)))
  x = resample(x)
  x = linear(p["skip"], x) if "skip" in p else x
  x = (x + h) * np.sqrt(0.5)
  if "attention" in p:
    x = (x + plain_attention(p["attention"], x)) * np.sqrt(0.5)
  return x


def plain_waves(t):
  """Cosines and sines at 4 frequencies, from 1 to 1e-4, both included."""
  angles = t[:, None] * np.array([1.0, 10 ** (-4 / 3), 10 ** (-8 / 3), 1e-4])
  return np.concatenate([np.cos(angles), np.sin(angles)], axis=1)


def plain_unet(params, xt, t, s, label):
  """Two levels of one block, attention at the upper one, in NumPy."""
  p = plain_networks.wide(params)
  xt, t, s = (np.asarray(x, np.float64) for x in (xt, t, s))

  def embed(q, features):
    return linear(q["output"], silu(linear(q["hidden"], features)))

  labels = p["label"]["table"][np.asarray(label)]
  e = embed(p["time"], plain_waves(t) + labels)
  e = silu(e + embed(p["interval"], plain_waves(t - s)))
  first = conv(p["input"], xt)
  upper = plain_block(p["encoder_0"], first, e)
  halved = plain_block(p["encoder_1"], upper, e, plain_half)
  lower = plain_block(p["encoder_2"], halved, e)

  def joined(name, x, skip):
    return plain_block(p[name], np.concatenate([x, skip], axis=-1), e)

  x = plain_block(p["decoder_0"], lower, e)
  x = plain_block(p["decoder_1"], x, e)
  x = joined("decoder_2", x, lower)
  x = joined("decoder_3", x, halved)
  x = plain_block(p["decoder_4"], x, e, plain_double)
  x = joined("decoder_5", x, upper)
  x = joined("decoder_6", x, first)
  return conv(p["output"], silu(plain_norm(p["norm"], x)))


def attending(params):
  return {name for name in params if "attention" in params[name]}


def test_value_and_jvp_equal_the_float64_reference(network, params):
  # Blocks of the level of height 4, the last of its decoder, the innermost.
  assert attending(params) == {"encoder_0", "decoder_0", "decoder_6"}
  *primals, label = arguments()
  with jax.enable_x64(True):
    wide, primals, directions = jax.tree.map(
      lambda x: jnp.asarray(x, jnp.float64),
      (params, tuple(primals), tangents()),
    )
    value, slope = jax.jit(
      lambda *x: jax.jvp(
        lambda *x: network.apply(wide, *x, label), x, directions
      )
    )(*primals)

  def moved(step):
    points = [
      np.asarray(p) + step * np.asarray(d)
      for p, d in zip(primals, directions, strict=True)
    ]
    return plain_unet(params, *points, label)

  expected = moved(0.0)
  assert np.abs(expected).max() > 1
  np.testing.assert_allclose(value, expected, atol=1e-5)
  slopes = (moved(1e-5) - moved(-1e-5)) / 2e-5
  np.testing.assert_allclose(slope, slopes, atol=1e-4 * np.abs(slopes).max())


def test_layers_are_the_activations(network, params):
  levels = jax.eval_shape(network.hidden, params, *arguments())
  # Encoder: a block, the halving one, a block; then the decoder's.
  wide = [CHANNELS * m for m in MULTIPLIERS]
  upper, lower = ((BATCH, 4, 8), wide[0]), ((BATCH, 2, 4), wide[1])
  sides = [upper, ((BATCH, 2, 4), wide[0]), *[lower] * 5]
  sides += [((BATCH, 4, 8), wide[1]), upper, upper]
  assert [x.shape for x in levels] == [(*side, c) for side, c in sides]


def conv_size(before, width, side=3):
  return (side * side * before + 1) * width


def block_size(before, width, embedding, *, resamples=False, attends=False):
  size = 2 * before + conv_size(before, width) + (embedding + 1) * width
  size += 2 * width + conv_size(width, width)
  if before != width or resamples:
    size += conv_size(before, width, 1)
  if attends:
    size += 2 * width + conv_size(width, 3 * width, 1)
    size += conv_size(width, width, 1)
  return size


def test_parameter_count_is_the_published_one():
  """Counted layer by layer, 128 channels times 2 at 32, 16 and 8 pixels."""
  c, w, e = 128, 256, 512
  block = functools.partial(block_size, embedding=e)
  count = (c + 1) * e + (e + 1) * e + conv_size(3, c)
  # Encoder: four blocks a level, the middle ones attend.
  count += block(c, w) + 3 * block(w, w)
  count += 2 * block(w, w, resamples=True)
  count += 4 * block(w, w, attends=True) + 4 * block(w, w)
  # Decoder: its blocks see a layer of the encoder too, the last one the first.
  count += block(w, w, attends=True) + block(w, w)
  count += 2 * block(w, w, resamples=True)
  count += 13 * block(2 * w, w) + block(2 * w, w, attends=True)
  count += block(w + c, w)
  count += 2 * w + conv_size(w, 3)
  params = jax.eval_shape(
    unet(data_shape=(32, 32, 3), second_time=False).init, jax.random.key(0)
  )
  assert sum(leaf.size for leaf in jax.tree.leaves(params)) == count
  # EDM's network has a linear map without bias of 9 augmentation labels more,
  # and 55.7 million parameters.
  assert round((count + 9 * c) / 1e6, 1) == 55.7


def test_initial_values():
  network = tiny(num_classes=300)

  @jax.jit
  def leaves(key):
    # The compiler leaves the others out.
    params = network.init(key)
    attention = params["decoder_0"]["attention"]
    zeros = [params[f"{name}_0"]["conv_2"] for name in ("encoder", "decoder")]
    uniform = [params["encoder_0"]["conv_1"], params["time"]["hidden"]]
    return (
      [*zeros, attention["output"], params["output"]],
      [layer["kernel"] for layer in [*uniform, attention["qkv"]]],
      params["label"]["table"],
    )

  zeros, uniform, table = leaves(jax.random.key(0))
  assert not any(leaf.any() for leaf in jax.tree.leaves(zeros))
  limits = [6 / (9 * 2 * 8), 6 / (8 + 4 * 8), 0.2 * 6 / (8 + 3 * 8)]
  for kernel, limit in zip(uniform, limits, strict=True):
    assert jnp.abs(kernel).max() == pytest.approx(math.sqrt(limit), rel=0.05)
  # sqrt(300) times a one-hot label, through a linear map from 300 to 8.
  assert table.std() == pytest.approx(math.sqrt(300 * 2 / 308), rel=0.05)
  shapes = jax.eval_shape(network.init, jax.random.key(0))
  assert {leaf.dtype.name for leaf in jax.tree.leaves(shapes)} == {"float32"}


def test_second_time_false_ignores_s(tiny_input, tiny_apply):
  plain, network = tiny(second_time=False), tiny()
  params = randomised(plain.init)
  assert "interval" not in params
  xt, t, s = tiny_input
  apply = jax.jit(plain.apply)
  value = apply(params, xt, t, s, None)
  np.testing.assert_array_equal(value, apply(params, xt, t, s - 0.3, None))
  other = tiny_apply(randomised(network.init, seed=8), xt, t, s, None)
  assert not jnp.allclose(other, value, atol=1e-2)


def test_a_key_drops_the_same_units_whether_recomputed_or_not(tiny_input):
  plain, again = (tiny(dropout=0.5, remat=remat) for remat in (False, True))
  params = randomised(plain.init)
  xt, t, s = tiny_input

  @jax.jit
  def value(key):
    return plain.apply(params, xt, t, s, None, key)

  @jax.jit
  def value_and_slope(key):
    return jax.jvp(
      lambda x: again.apply(params, x, t, s, None, key), (xt,), (xt,)
    )

  key, other = jax.random.key(5), jax.random.key(6)
  np.testing.assert_allclose(value_and_slope(key)[0], value(key), atol=1e-5)
  assert not jnp.allclose(value(key), value(other), atol=1e-2)
  blocks = [name for name in params if "coder" in name]
  for network, count in ((plain, 0), (again, len(blocks))):
    jaxpr = jax.make_jaxpr(network.apply)(params, xt, t, s, None, key)
    names = [equation.primitive.name for equation in jaxpr.eqns]
    assert sum(name in ("remat2", "checkpoint") for name in names) == count


def test_bfloat16_is_close_to_float32_and_guidance_and_labels_are_read(
  tiny_input,
):
  network, rounded = (
    tiny(num_classes=3, guidance_inputs=True, dtype=dtype)
    for dtype in ("float32", "bfloat16")
  )
  params = randomised(network.init)
  names = ("omega", "t_start", "t_end")
  one, two, null = jnp.ones(BATCH), 2 * jnp.ones(BATCH), jnp.array([3, 3])
  cond = {"label": jnp.array([1, 3]), **dict.fromkeys(names, one)}

  @jax.jit
  def apply(cond):
    return network.apply(params, *tiny_input, cond)

  expected = apply(cond)
  unlabelled = apply(cond | {"label": null})
  assert not jnp.allclose(expected[0], unlabelled[0], atol=1e-2)
  np.testing.assert_array_equal(expected[1], unlabelled[1])
  for name in names:
    assert not jnp.allclose(expected, apply(cond | {name: two}), atol=1e-3)
  value = jax.jit(rounded.apply)(params, *tiny_input, cond)
  assert value.dtype == jnp.float32
  error = jnp.linalg.norm(value - expected) / jnp.linalg.norm(expected)
  assert 1e-4 < error < 0.05


@pytest.mark.parametrize(
  ("field", "changes"),
  [
    ("data_shape", {"data_shape": (4, 4)}),
    ("channels", {"channels": 5}),
    ("multipliers", {"multipliers": ()}),
    ("multipliers", {"multipliers": (1, 1, 1, 1)}),
    ("num_blocks", {"num_blocks": 0}),
    ("heads", {"heads": 0}),
    ("num_classes", {"num_classes": -1}),
    ("dropout", {"dropout": 1.0}),
    ("dtype", {"dtype": "float16"}),
  ],
)
def test_an_impossible_unet_is_named(field, changes):
  with pytest.raises(ValueError, match=f"^{field}=") as error:
    small(**changes)
  assert "\n" not in str(error.value)


def test_heads_are_parts_of_the_last_convolution(tiny_input, tiny_apply):
  two = tiny(heads=2)
  params = randomised(two.init)
  last = TINY[-1]
  values = jax.jit(two.apply)(params, *tiny_input, None)
  assert len(values) == 2
  for value, part in zip(values, (slice(last), slice(last, None)), strict=True):
    output = {k: v[..., part] for k, v in params["output"].items()}
    expected = tiny_apply(params | {"output": output}, *tiny_input, None)
    np.testing.assert_allclose(value, expected, atol=1e-5)


def test_another_shape_of_data_is_named(network):
  params = jax.eval_shape(network.init, jax.random.key(0))
  _, *rest = arguments()
  with pytest.raises(ValueError, match=r"^data_shape="):
    jax.eval_shape(network.apply, params, jnp.ones((BATCH, 8, 4, 2)), *rest)


@pytest.mark.parametrize("heights", [(16,), (32, 5)])
def test_heights_that_no_level_has_are_refused(heights):
  with pytest.raises(UsageError) as error:
    unet(
      data_shape=(32, 16, 3),
      multipliers=(1, 1, 1, 1),
      channels=8,
      attention_resolutions=(*heights, 3),
    )
  line = str(error.value)
  assert f"attention_resolutions={(*heights, 3)}: " in line
  assert "the heights 32, 16, 8, 4; give some of them, or ()" in line
