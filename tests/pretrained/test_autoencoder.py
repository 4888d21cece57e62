"""The autoencoder against a plain one, and files of published weights."""

import functools
import importlib.util
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import plain_autoencoder as plain
import pytest
import torch_bytes

from jaxflow.errors import UsageError
from jaxflow.pretrained import autoencoder, autoencoder_files

TENSORS = plain.tensors()
# Of one level: what is tested on them has nothing to do with others.
SMALL = plain.tensors(widths=(32,))
HAS_SAFETENSORS = importlib.util.find_spec("safetensors") is not None
needs_safetensors = pytest.mark.skipif(
  not HAS_SAFETENSORS, reason="needs the extra `latents`"
)


def made(tensors, **options):
  return autoencoder_files.from_tensors(tensors, **options)


@functools.cache
def default():
  return made(TENSORS)


def refused(tensors, *words, **options):
  with pytest.raises(UsageError) as error:
    made(tensors, **options)
  for word in ("tensors: ", *words):
    assert word in str(error.value), error.value


@pytest.fixture(scope="module")
def results():
  """Images, what the library and the plain network make of them."""
  draw = np.random.default_rng(1)
  images = draw.uniform(-1, 1, (2, 16, 8, 3)).astype(np.float32)
  latents = draw.standard_normal((2, 4, 2, 4)).astype(np.float32)
  model, params = default()
  reference = plain.Plain(TENSORS)
  ours = (
    *jax.jit(model.encode)(params, images),
    *[jax.jit(model.decode)(params, latents)],
  )
  return ours, (*reference.encode(images), reference.decode(latents))


@pytest.mark.parametrize("which", [0, 1, 2], ids=["mean", "std", "decoded"])
def test_equals_the_plain_network(results, which):
  ours, theirs = (values[which] for values in results)
  assert ours.shape == theirs.shape
  assert ours.dtype == jnp.float32
  # Far from constant, or a wrong scale would pass.
  assert theirs.std() > 0.1
  np.testing.assert_allclose(ours, theirs, atol=1e-5 * np.abs(theirs).max())


def test_published_size():
  model = autoencoder()
  params = model.shapes
  shapes = plain.shapes((128, 256, 512, 512), 2, 4)
  # Four bytes each: the 335 MB of the published file.
  assert sum(np.prod(shape) for shape in shapes.values()) == 83_653_863
  assert sum(x.size for x in jax.tree.leaves(params)) == 83_653_863
  assert len(jax.tree.leaves(params)) == len(shapes)
  decoder = sum(
    x.size
    for part in autoencoder_files.DECODER
    for x in jax.tree.leaves(params[part])
  )
  # Counted by others: the decoder's part of Stable Diffusion 1.5's.
  assert decoder == 49_490_199
  assert (model.factor, model.channels) == (8, 4)


def test_init_is_of_the_files_shapes():
  model, params = made(SMALL)
  fresh = jax.eval_shape(model.init, jax.random.key(0))
  shapes = [jax.tree.map(np.shape, x) for x in (fresh, params, model.shapes)]
  assert shapes[0] == shapes[1] == shapes[2]


def test_statistics_of_norms_survive_bfloat16_and_large_means():
  """Of sums bfloat16 keeps 8 bits, the fast variance 12 of 24."""
  from flax import nnx

  from jaxflow.pretrained import autoencoder_parts as parts

  draw = np.random.default_rng(0)
  # Between 512 and 1024 bfloat16 has the multiples of 4.
  x = (996 + 4 * draw.integers(-6, 7, (1, 8, 8, 32))).astype(np.float32)
  mean = x.mean((1, 2), keepdims=True, dtype=np.float64)
  expected = (x - mean) / x.std((1, 2), keepdims=True, dtype=np.float64)
  for dtype, tolerance in ((jnp.float32, 1e-5), (jnp.bfloat16, 1e-2)):
    norm = parts._norm(32, dtype, nnx.Rngs(0))
    found = np.asarray(norm(jnp.asarray(x)), np.float64)
    np.testing.assert_allclose(found, expected, atol=tolerance)


@pytest.mark.parametrize(
  "form",
  [
    "npz",
    "zip",
    "legacy",
    pytest.param("safetensors", marks=needs_safetensors),
  ],
)
def test_files_come_back(tmp_path, form):
  path = tmp_path / ("file.safetensors" if form == "safetensors" else "a.bin")
  found = plain.with_old_names(SMALL)
  assert set(found) != set(SMALL)
  if form == "safetensors":
    from safetensors.numpy import save_file

    save_file(found, path)
  else:
    torch_bytes.save(path, found, form)
  tensors = autoencoder_files.read_tensors(path)
  assert set(tensors) == set(SMALL)
  for name, array in tensors.items():
    np.testing.assert_array_equal(array, SMALL[name])


def test_layouts():
  params = default()[1]
  kernel = params["encoder"]["down_blocks_1"]["resnets_0"]["conv1"]["kernel"]
  tensor = TENSORS["encoder.down_blocks.1.resnets.0.conv1.weight"]
  assert kernel[0, 2, 5, 40] == tensor[40, 5, 0, 2]
  kernel = params["decoder"]["mid_block"]["attentions_0"]["to_out_0"]["kernel"]
  tensor = TENSORS["decoder.mid_block.attentions.0.to_out.0.weight"]
  assert kernel[3, 7] == tensor[7, 3]


def test_attention_may_be_convolutions():
  name = "encoder.mid_block.attentions.0.to_q.weight"
  params = made(SMALL | {name: SMALL[name][:, :, None, None]})[1]
  kernel = params["encoder"]["mid_block"]["attentions_0"]["to_q"]["kernel"]
  np.testing.assert_array_equal(kernel, SMALL[name].T)


def test_a_folder_of_diffusers(tmp_path):
  read = autoencoder_files.read_tensors
  with pytest.raises(UsageError, match="holds no diffusion_pytorch_model"):
    read(tmp_path)
  torch_bytes.save(tmp_path / "diffusion_pytorch_model.bin", SMALL, "zip")
  assert set(read(tmp_path)) == set(SMALL)


def test_a_decoder_alone():
  parts = autoencoder_files.DECODER
  alone = autoencoder_files.select_parts(SMALL, parts)
  model, params = made(alone, parts=parts)
  assert set(params) == {"decoder", "post_quant_conv"}
  shape = jax.eval_shape(model.decode, params, jnp.ones((1, 2, 2, 4))).shape
  assert shape == (1, 2, 2, 3)
  refused(alone, "it has no encoder.", "more")


def test_wrong_tensors_are_named():
  name = "encoder.mid_block.resnets.0.norm1.bias"
  rest = {k: v for k, v in SMALL.items() if k != name}
  refused(rest, f"it has no {name}; ")
  refused(SMALL | {"loss.w": np.ones(1)}, "it has an unknown loss.w; ")
  wrong = {name: np.ones(3, np.float32)}
  refused(SMALL | wrong, f"{name} has shape (3,); the network needs (32,)")
  refused({"model.w": np.ones(3)}, "no AutoencoderKL in diffusers' form")
  odd = {"decoder.up_blocks.0.resnets.0.conv1.weight": np.ones((65, 64, 3, 3))}
  refused(TENSORS | odd, "[32, 64, 65] channels")


FIRST = "decoder.up_blocks.0.resnets.0.conv1.weight"


@pytest.mark.parametrize(
  ("name", "shape", "words"),
  [
    (FIRST, (), f"{FIRST} has shape ()"),
    (FIRST, (0, 32, 3, 3), f"{FIRST} has shape (0, 32, 3, 3)"),
    (FIRST, (48, 32, 3, 3), "its levels have [48] channels"),
    ("decoder.conv_in.weight", (), "decoder.conv_in.weight has shape ()"),
    ("decoder.conv_in.weight", (32, 0, 3, 3), "has shape (32, 0, 3, 3)"),
    ("encoder.conv_in.weight", (), "encoder.conv_in.weight has shape ()"),
  ],
)
def test_impossible_shapes_are_named(name, shape, words):
  refused(SMALL | {name: np.ones(shape, np.float32)}, words)


@pytest.mark.parametrize(
  "values",
  [np.array(["one"]), np.array(["1.0"]), np.ones(1, complex), np.ones(1, "V3")],
)
def test_values_that_are_no_numbers_are_named_with_the_file(tmp_path, values):
  path = tmp_path / "file.npz"
  np.savez(path, **SMALL | {"quant_conv.bias": values})
  with pytest.raises(
    UsageError, match=r"path=\S+npz: quant_conv\.bias has .*get"
  ):
    autoencoder_files.read_tensors(path)


def test_wrong_files_are_named(tmp_path):
  read = autoencoder_files.read_tensors
  with pytest.raises(UsageError, match=r"path=.*there is no such file; get"):
    read(tmp_path / "none.bin")
  path = tmp_path / "file.bin"
  path.write_bytes(b"no tensors")
  with pytest.raises(UsageError, match=r"path=.*cannot be read as tensors"):
    read(path)


@needs_safetensors
def test_a_damaged_safetensors_file(tmp_path):
  path = pathlib.Path(tmp_path / "file.safetensors")
  path.write_bytes(b"no tensors")
  with pytest.raises(UsageError, match=r"path=.*cannot be read as tensors"):
    autoencoder_files.read_tensors(path)


def test_without_safetensors_the_extra_is_named(tmp_path, monkeypatch):
  path = tmp_path / "file.safetensors"
  path.touch()
  monkeypatch.setitem(sys.modules, "safetensors", None)
  with pytest.raises(UsageError, match=r"jaxflow-generative\[latents\]"):
    autoencoder_files.read_tensors(path)


@pytest.mark.parametrize(
  ("options", "words"),
  [
    ({"width": 48}, "width=48: give a multiple of 32"),
    ({"multipliers": ()}, "multipliers=()"),
    ({"layers": 0}, "layers=0: give at least 1"),
    ({"dtype": "float16"}, "dtype=float16"),
  ],
)
def test_wrong_options(options, words):
  with pytest.raises(UsageError) as error:
    autoencoder(**options)
  assert words in str(error.value)


@pytest.mark.parametrize("shape", [(1, 8, 10, 3), (1, 8, 8, 1)])
def test_wrong_images(shape):
  model, params = default()
  with pytest.raises(UsageError, match="multiples of 4"):
    model.encode(params, jnp.ones(shape))


def test_equals_the_class_of_diffusers():
  torch = pytest.importorskip("torch")
  diffusers = pytest.importorskip("diffusers")
  theirs = diffusers.AutoencoderKL(
    block_out_channels=(32, 64, 64),
    down_block_types=["DownEncoderBlock2D"] * 3,
    up_block_types=["UpDecoderBlock2D"] * 3,
    layers_per_block=1,
  )
  tensors = {k: v.numpy() for k, v in theirs.state_dict().items()}
  model, params = made(tensors)
  images = np.random.default_rng(0).uniform(-1, 1, (1, 16, 16, 3))
  images = images.astype(np.float32)
  with torch.no_grad():
    posterior = theirs.encode(torch.tensor(images.transpose(0, 3, 1, 2)))
    mean, std = posterior.latent_dist.mean, posterior.latent_dist.std
    decoded = theirs.decode(mean).sample
  expected = [x.numpy().transpose(0, 2, 3, 1) for x in (mean, std, decoded)]
  found = *model.encode(params, images), model.decode(params, expected[0])
  for ours, other in zip(found, expected, strict=True):
    np.testing.assert_allclose(ours, other, atol=1e-5)
