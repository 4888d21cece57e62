"""Feature distances against NumPy; feature networks and their files."""

import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import plain_networks as plain
import pytest
import torch_bytes

from jaxflow import weights
from jaxflow.errors import UsageError
from jaxflow.losses import perceptual
from jaxflow.models import (
  conv_features,
  dit,
  hidden_features,
  mlp,
  pixel_features,
)
from jaxflow.models.patches import patchify
from jaxflow.pretrained import read_lpips_weights, vgg, vgg16

STAGES = ((2,), (3, 4))
SHAPE = (34, 33, 3)
forms = pytest.mark.parametrize("form", ["zip", "legacy", "npz"])


def pair(shape=SHAPE, batch=2):
  noise = np.random.default_rng(0)
  return noise.uniform(-1, 1, (2, batch, *shape)).astype(np.float32)


def torch_arrays():
  """Return a tiny VGG and its weights of channels, as PyTorch lays them out."""
  noise = np.random.default_rng(1)
  arrays, before = {}, 3
  # Convolution, rectifier, halving, convolution, rectifier, convolution.
  for index, width in ((0, 2), (3, 3), (5, 4)):
    kernel = noise.standard_normal((width, before, 3, 3)) / 3
    arrays[f"features.{index}.weight"] = kernel.astype(np.float32)
    bias = noise.standard_normal(width)
    arrays[f"features.{index}.bias"] = bias.astype(np.float32)
    before = width
  arrays["classifier.0.weight"] = np.ones((2, 2), np.float32)
  linear = {
    f"lin{i}.model.1.weight": noise.random((1, c, 1, 1)).astype(np.float32)
    for i, c in enumerate((2, 4))
  }
  return arrays, linear


def save(folder, name, arrays, form):
  """Write arrays; return the path and its hash."""
  path = folder / f"{name}.{'npz' if form == 'npz' else 'pth'}"
  torch_bytes.save(path, arrays, form)
  return str(path), hashlib.sha256(path.read_bytes()).hexdigest()


def reference_vgg(arrays, x):
  x = x.astype(np.float64)
  x = (x - np.array([-0.030, -0.088, -0.188])) / np.array([0.458, 0.448, 0.450])

  def layer(index, x):
    kernel = arrays[f"features.{index}.weight"].astype(np.float64)
    p = {
      # [out, in, height, width] -> [height, width, in, out]
      "kernel": np.moveaxis(kernel, (0, 1), (3, 2)),
      "bias": arrays[f"features.{index}.bias"],
    }
    return np.maximum(plain.conv(p, x), 0)

  first = layer(0, x)
  return first, layer(5, layer(3, plain.halve(first)))


def reference_lpips(features_a, features_b, scales):
  total = 0
  for a, b, w in zip(features_a, features_b, scales, strict=True):
    a, b = (
      f / (np.sqrt((f**2).sum(-1, keepdims=True)) + 1e-10) for f in (a, b)
    )
    terms = ((a - b) ** 2 * w.reshape(-1)).sum(-1)
    total = total + terms.reshape(len(a), -1).mean(1)
  return total


@forms
def test_lpips_from_files_to_numbers(tmp_path, form):
  arrays, linear = torch_arrays()
  file, digest = save(tmp_path, "vgg16", arrays, form)
  network = vgg16(file=file, sha256=digest, stages=STAGES)
  frozen = network.parameters(jax.random.key(0))
  file, digest = save(tmp_path, "vgg", linear, form)
  scales = read_lpips_weights(file, sha256=digest, stages=STAGES)

  a, b = pair()

  @jax.jit
  def measure(frozen, scales, a, b):
    distance = perceptual.lpips(lambda x: network.apply(frozen, x), scales)
    return distance(a, b)

  result = measure(frozen, scales, a, b)
  seen = [reference_vgg(arrays, x) for x in (a, b)]
  for layer, expected in zip(network.apply(frozen, a), seen[0], strict=True):
    np.testing.assert_allclose(layer, expected, rtol=1e-4, atol=1e-5)
  expected = reference_lpips(*seen, linear.values())
  np.testing.assert_allclose(result, expected, rtol=1e-4)
  np.testing.assert_allclose(measure(frozen, scales, a, a), 0, atol=1e-12)
  assert measure(frozen, scales, a[:1], b[:1]) == pytest.approx(
    expected[0], rel=1e-4
  )


def test_lpips_without_weights_has_weights_of_one():
  a, b = pair((2, 2, 3))
  features = lambda x: (x, 2 * x[..., :2])  # noqa: E731
  result = perceptual.lpips(features)(a, b)
  seen = [[x.astype(np.float64), x[..., :2]] for x in (a, b)]
  expected = reference_lpips(*seen, [np.ones(3), np.ones(2)])
  np.testing.assert_allclose(result, expected, rtol=1e-5)


def test_lpips_of_dead_features_has_a_gradient():
  a, b = jnp.zeros((1, 2, 3)), jnp.ones((1, 2, 3))

  def measure(a, features):
    return perceptual.lpips(features)(a, b).sum()

  value, slope = jax.value_and_grad(measure)(a, lambda x: x)
  # A zero vector against a unit vector; x / (|x| + eps) has slope 1 / eps.
  assert value == pytest.approx(1.0)
  np.testing.assert_allclose(slope, -2 / np.sqrt(3) / 1e-10 / 2, rtol=1e-5)
  assert (jax.grad(measure)(a, jax.nn.relu) == 0).all()


def test_lpips_computes_in_float32():
  distance = perceptual.lpips(lambda x: x.astype(jnp.bfloat16))
  a, b = pair((4, 4, 3))
  assert distance(a, b).dtype == jnp.float32
  with pytest.raises(ValueError, match="argument 2 is longer"):
    perceptual.lpips(lambda x: x, [jnp.ones(3)] * 2)(a, b)


def test_feature_distance_sums_layers():
  a, b = jnp.array([[1.0, 5.0]]), jnp.array([[3.0, 4.0]])
  layers = lambda x: (x[:, :1], {"deep": 3 * x})  # noqa: E731
  result = perceptual.feature_distance(layers, distance=weights.l1)(a, b)
  assert result.tolist() == [2.0 + (6.0 + 3.0) / 2]


def test_vgg16_is_the_published_network():
  network = vgg16()
  shapes = jax.eval_shape(network.init, jax.random.key(0))
  indices = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
  assert set(shapes) == {f"features_{i}" for i in indices}
  # The published count without the classifier.
  assert sum(p.size for p in jax.tree.leaves(shapes)) == 14_714_688
  x = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
  features = jax.eval_shape(network.apply, shapes, x)
  sides, widths = (224, 112, 56, 28, 14), (64, 128, 256, 512, 512)
  expected = [(1, n, n, c) for n, c in zip(sides, widths, strict=True)]
  assert [f.shape for f in features] == expected
  assert vgg.VGG16_SHA256.startswith("397923af")  # As in the file's name.


def test_small_and_gray_images():
  network = vgg16(stages=STAGES)
  frozen = network.init(jax.random.key(0))
  with pytest.raises(UsageError, match="set resize=224"):
    network.apply(frozen, jnp.ones((1, 28, 28, 3)))
  with pytest.raises(UsageError, match=r"data_shape=\(32, 32, 2\)"):
    network.apply(frozen, jnp.ones((1, 32, 32, 2)))
  with pytest.raises(UsageError, match="resize=8: give 32 or more"):
    vgg16(resize=8)
  gray = pair((32, 32, 1))[0]
  colour = np.repeat(gray, 3, axis=3)
  seen = [network.apply(frozen, x) for x in (gray, colour)]
  jax.tree.map(np.testing.assert_array_equal, *seen)


def test_resizing_is_bilinear():
  # A ramp stays a ramp between the centres of its outer pixels.
  ramp = np.broadcast_to(np.arange(16.0).reshape(1, 1, 16, 1), (1, 16, 16, 3))
  network = vgg16(stages=((3,),), resize=32)
  kernel = np.zeros((3, 3, 3, 3), np.float32)
  kernel[1, 1] = np.eye(3)
  frozen = {"features_0": {"kernel": kernel, "bias": np.zeros(3, np.float32)}}
  (result,) = network.apply(frozen, jnp.asarray(ramp, jnp.float32))
  places = np.clip((np.arange(32) + 0.5) / 2 - 0.5, 0, 15)
  expected = (places + 0.188) / 0.450
  np.testing.assert_allclose(result[0, 7, :, 2], expected, rtol=1e-5)


def test_wrong_files_are_named(tmp_path):
  arrays, linear = torch_arrays()
  file, digest = save(tmp_path, "vgg16", arrays, "zip")
  with pytest.raises(
    UsageError, match=r"get torchvision's vgg16-397923af"
  ) as error:
    vgg16(file=file, stages=STAGES).parameters(jax.random.key(0))
  for text in (file, digest, vgg.VGG16_SHA256):
    assert text in str(error.value)
  with pytest.raises(UsageError, match=r"it has no features\.10\.bias"):
    vgg16(file=file, sha256=digest).parameters(jax.random.key(0))
  with pytest.raises(UsageError, match=r"no such file; get lpips/weights/v0.1"):
    read_lpips_weights(str(tmp_path / "none.pth"))
  file, digest = save(tmp_path, "vgg", linear, "zip")
  with pytest.raises(
    UsageError, match=r"has shape \(1, 2, 1, 1\); the network"
  ):
    read_lpips_weights(file, sha256=digest, stages=((5,), (4,)))
  linear["lin1.model.1.weight"][0, 2] = -0.1
  file, digest = save(tmp_path, "negative", linear, "zip")
  with pytest.raises(
    UsageError, match=r"lin1.model.1.weight has a weight that"
  ):
    read_lpips_weights(file, sha256=digest, stages=STAGES)


def test_hidden_features_of_an_mlp():
  network = mlp(data_shape=(2,), width=6, depth=2, time_features=4)
  params = plain.randomised(network.init)
  x = pair((2,), batch=3)[0]
  t = 0.02
  first, second = hidden_features(network, t=t).apply(params, x)
  p = plain.wide(params)
  # Cosines and sines of t at frequencies 1 and 1 / 100, then those of 0.
  times = [*np.cos([t, t / 100]), *np.sin([t, t / 100]), 1, 1, 0, 0]
  inputs = np.concatenate([x, np.tile(times, (3, 1))], axis=1)
  h = plain.linear(p["hidden_0"], inputs)
  h = h / (1 + np.exp(-h))
  np.testing.assert_allclose(first, h[:, None], rtol=1e-4, atol=1e-5)
  h = plain.linear(p["hidden_1"], h)
  h = h / (1 + np.exp(-h))
  np.testing.assert_allclose(second, h[:, None], rtol=1e-4, atol=1e-5)
  output = network.apply(params, x, jnp.full(3, t), jnp.full(3, t), None)
  expected = plain.linear(p["output"], h)
  np.testing.assert_allclose(output, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scan", [False, True])
def test_hidden_features_of_a_dit(scan):
  options = {"data_shape": (4, 6, 2), "width": 16, "num_heads": 2}
  options |= {"num_classes": 3, "scan_layers": scan}
  network = dit(depth=2, **options)
  params = plain.randomised(network.init)
  # The last norm then has neither scale nor shift.
  params["modulation"] = jax.tree.map(np.zeros_like, params["modulation"])
  x = pair((4, 6, 2))[0]
  first, last = hidden_features(network).apply(params, x)
  assert first.shape == last.shape == (2, 2, 3, 16)
  zero = jnp.zeros(2)
  output = network.apply(params, x, zero, zero, None)
  tokens = plain.normalise(np.asarray(last, np.float64), -1)
  expected = plain.linear(plain.wide(params["output"]), tokens)
  np.testing.assert_allclose(
    patchify(output, 2), expected.reshape(2, 6, 8), rtol=1e-3, atol=1e-4
  )
  # The first block is all that a network of one block has.
  blocks = params["blocks"]
  if scan:
    short = jax.tree.map(lambda p: p[:1], blocks)
  else:
    short = {"block_0": blocks["block_0"]}
  alone = hidden_features(dit(depth=1, **options), layers=(-1,))
  (result,) = alone.apply(params | {"blocks": short}, x)
  np.testing.assert_allclose(result, first, rtol=1e-5, atol=1e-5)


def test_hidden_features_with_guidance_as_an_input():
  network = mlp(width=4, time_features=4, guidance_inputs=True)
  cond = {"label": None, "omega": 1.0, "t_start": 0.0, "t_end": 1.0}
  features = hidden_features(network, cond=cond, layers=(0,))
  params = features.init(jax.random.key(0))
  assert features.apply(params, jnp.ones((3, 2)))[0].shape == (3, 1, 4)
  with pytest.raises(UsageError, match=r"layers=\(2,\): the network has 2"):
    other = hidden_features(network, cond=cond, layers=(2,))
    other.apply(params, jnp.ones((3, 2)))


def test_pixels_are_those_of_a_picture():
  features = pixel_features(data_shape=(1, 3, 1))
  x = jnp.array([-1.5, 0.25, 3.0]).reshape(1, 1, 3, 1)
  (seen,) = features.apply({}, x)
  np.testing.assert_array_equal(seen, [[[-1, 0.25, 1]]])
  (slope,) = jax.grad(lambda x: features.apply({}, x)[0].sum())(x)
  # What is beyond the range has no effect on the picture.
  np.testing.assert_array_equal(slope.ravel(), [0, 1, 0])
  with pytest.raises(UsageError, match=r"data_shape=\(1, 3, 1\): .* \(2,\)"):
    features.apply({}, jnp.ones((1, 2)))


def test_pixels_have_the_range_of_their_channel():
  ends = np.array([-2.0, 0.0]), np.array([2.0, 0.5])
  features = pixel_features(data_shape=(1, 2, 2), picture_range=ends)
  x = jnp.array([-3.0, -3.0, 3.0, 3.0]).reshape(1, 1, 2, 2)
  (seen,) = features.apply({}, x)
  np.testing.assert_array_equal(seen, [[[-2, 0, 2, 0.5]]])


NETWORKS = {
  "mlp": hidden_features(mlp(data_shape=(4, 4, 1), width=8)),
  "conv": conv_features(data_shape=(4, 4, 1), width=4, depth=2),
  "pixels": pixel_features(data_shape=(4, 4, 1)),
}


@pytest.mark.parametrize("network", NETWORKS)
def test_any_network_measures_a_distance(network):
  features = NETWORKS[network]

  @jax.jit
  def measure(params, a, b):
    return perceptual.lpips(lambda x: features.apply(params, x))(a, b)

  params = features.parameters(jax.random.key(0))
  x, y = pair((4, 4, 1))
  assert (measure(params, x, y) > 0).all()
  assert (measure(params, x, x) == 0).all()
