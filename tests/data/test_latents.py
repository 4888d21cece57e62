"""Latent data sets: how they are encoded, kept, refused, read and decoded."""

import dataclasses
import json
import os
import pathlib
import shlex
import shutil

import jax
import numpy as np
import plain_autoencoder as plain
import pytest
import tiny
import torch_bytes

from jaxflow import api, data
from jaxflow.compilation import of_config
from jaxflow.config import (
  data_plan,
  default_config,
  make_plan,
  resolve,
  update,
)
from jaxflow.config import flags as config_flags
from jaxflow.data import loading
from jaxflow.data.folders import latents as latents_lib
from jaxflow.data.images import square
from jaxflow.errors import RunError, UsageError
from jaxflow.files import SUMS
from jaxflow.runs import decoding, inputs
from jaxflow.runs.latent_notes import latent_notes

WIDTHS = (32, 64)
TENSORS = plain.tensors(WIDTHS)
PLAIN = plain.Plain(TENSORS)
COUNTS = {"train": 20, "test": 6}
CLASSES = 3


def gray(split, raw_dir, data_dir):
  """Return a set of random gray images in three classes."""
  draw = np.random.default_rng(len(split))
  images = draw.uniform(-1, 1, (COUNTS[split], 8, 8, 1)).astype(np.float32)
  label = np.arange(len(images)) % CLASSES
  return data.from_arrays(
    images, label, num_classes=CLASSES, name="gray", split=split
  )


@pytest.fixture(scope="module")
def world(tmp_path_factory):
  """Weights, the set "gray", and its latents with mirrored ones."""
  folder = tmp_path_factory.mktemp("latents")
  torch_bytes.save(folder / "weights.bin", TENSORS, "zip")
  with pytest.MonkeyPatch.context() as patch:
    patch.setitem(loading.DATASETS, "gray", gray)
    result = tiny.run(*command(folder, "out"))
    assert result.code == 0, result.err
    yield folder


def command(folder, to, **changes):
  given = {
    "data": "gray",
    "autoencoder": folder / "weights.bin",
    "out": folder / to,
    "size": 8,
    "dtype": "float32",
    "flip": True,
    "scale": 0.5,
    "batch_size": 8,
    "shard_size": 16,
  }
  return ["encode", *(f"--{k}={v}" for k, v in (given | changes).items())]


@pytest.fixture
def copy(world, tmp_path):
  return shutil.copytree(world / "out", tmp_path / "copy")


def load(folder, split="train"):
  return data.load("latents", split, data_dir=str(folder))


def expected(split):
  """Mean and deviation of all latents, by the plain network."""
  images = gray(split, None, None).data
  if split == "train":
    images = np.concatenate([images, images[:, :, ::-1]])
  return PLAIN.encode(np.repeat(images, 3, axis=3))


def channels(mean, std):
  """Mean and deviation of mean + std * eps in every channel."""
  return mean.mean((0, 1, 2)), np.sqrt(
    mean.var((0, 1, 2)) + (std**2).mean((0, 1, 2))
  )


def refused(*arguments, words):
  result = tiny.run(*arguments)
  assert result.code == 2, result
  assert result.err.count("\n") == 1
  for word in words:
    assert word in result.err, result.err


def test_the_folder_says_what_it_holds(world):
  found = json.loads((world / "out" / "latents.json").read_text())
  statistics = found.pop("statistics")
  assert len(found.pop("parameters")) == len(found.pop("images")) == 16
  assert found == {
    "data": "gray",
    "raw_dir": None,
    "data_dir": None,
    "dir": None,
    "hub": None,
    "subset": None,
    "image": None,
    "label": None,
    "autoencoder": str(world / "weights.bin"),
    "size": 8,
    "dtype": "float32",
    "scale": 0.5,
    "flip": True,
    "shard_size": 16,
    "shape": [4, 4, 4],
    "num_classes": 3,
    "counts": {"train": 40, "test": 6},
  }
  files = {path.name for path in (world / "out").iterdir()}
  train = {f"train-{i:05d}-of-00003.npy" for i in range(3)}
  rest = {"latents.json", "decoder.npz", "test-00000-of-00001.npy", SUMS}
  assert files == train | rest
  mean, std = expected("train")
  total = np.sqrt(
    (mean**2 + std**2).mean((0, 1, 2)) - mean.mean((0, 1, 2)) ** 2
  )
  np.testing.assert_allclose(
    statistics["mean"], mean.mean((0, 1, 2)), atol=1e-5
  )
  np.testing.assert_allclose(statistics["std"], total, rtol=1e-5)


@pytest.mark.parametrize("split", COUNTS)
def test_samples_are_the_plain_networks_normalised(world, split):
  found = load(world / "out", split)
  mean, std = expected(split)
  count = len(mean)
  assert (len(found), found.shape, found.num_classes) == (count, (4, 4, 4), 3)
  assert (found.name, found.split) == ("latents", split)
  # Of all shards, in no order, with repetitions.
  index = np.random.default_rng(0).integers(0, count, 50)
  rows = found.take(index)
  middle, width = channels(*expected("train"))
  for name, value in (
    ("data", (mean[index] - middle) / width * 0.5),
    ("std", std[index] / width * 0.5),
  ):
    assert rows[name].dtype == np.float32
    np.testing.assert_allclose(rows[name], value, atol=2e-5)
  assert rows["cond"].dtype == np.int32
  np.testing.assert_array_equal(rows["cond"], index % COUNTS[split] % CLASSES)
  np.testing.assert_array_equal(found.labels()[index], rows["cond"])


def test_drawn_latents_have_the_scale(world):
  """Over all training latents, with noise: deviation 0.5 a channel."""
  source = load(world / "out")
  stream = data.SampledBatches(data.Batches(source, batch_size=40, seed=0))
  batches = [next(stream)["data"] for _ in range(200)]
  found = np.stack(batches).std((0, 1, 2, 3))
  # 128,000 values a channel; 200 draws of each deviation.
  np.testing.assert_allclose(found, 0.5, rtol=0.01)


class Wide:
  """A source whose mean is the index and whose deviation is 2."""

  name, split, num_classes, shape = "wide", "train", 0, (2,)

  def __len__(self):
    return 12

  def take(self, index):
    mean = np.stack([index, index], -1).astype(np.float32)
    return {"data": mean, "std": np.full_like(mean, 2)}


def stream(**options):
  return data.SampledBatches(
    data.Batches(Wide(), batch_size=8, seed=5, **options)
  )


def test_draws_depend_on_seed_and_number():
  means = data.Batches(Wide(), batch_size=8, seed=5)
  plain_stream = stream()
  whole = [next(plain_stream) for _ in range(4)]
  noise = [(x["data"] - next(means)["data"]) / 2 for x in whole]
  assert all(set(batch) == {"data"} for batch in whole)
  assert 0.7 < np.std(noise) < 1.3
  assert np.abs(noise[0] - noise[1]).min() > 0
  later = stream()
  later.set_state({"position": 2})
  np.testing.assert_array_equal(next(later)["data"], whole[2]["data"])
  assert later.get_state() == {"position": 3}
  stacked = next(stream(stack=(2, 2)))["data"]
  np.testing.assert_array_equal(
    stacked.reshape(2, 8, 2), [x["data"] for x in whole[:2]]
  )
  part = next(stream(rows=np.array([1, 4, 5])))["data"]
  np.testing.assert_array_equal(part, whole[0]["data"][[1, 4, 5]])


def test_latents_are_not_mirrored(world):
  batches = data.Batches(load(world / "out"), batch_size=8, seed=0, flip=True)
  with pytest.raises(UsageError, match=r"data\.flip=True.* encode with --flip"):
    next(batches)


def test_drawn_latents_get_noise_of_their_own():
  batch = next(data.FreshNoise(stream()))
  assert set(batch) == {"data", "noise"}
  same = next(stream())["data"]
  np.testing.assert_array_equal(batch["data"], same)
  mean = next(data.Batches(Wide(), batch_size=8, seed=5))["data"]
  assert np.abs((same - mean) / 2 - batch["noise"]).min() > 0


def test_what_is_missing_is_made_again_and_no_more(world, copy):
  before = tiny.checksums(copy)
  (copy / "train-00001-of-00003.npy").unlink()
  kept = copy / "train-00000-of-00003.npy"
  os.utime(kept, (1, 1))
  with pytest.raises(UsageError) as error:
    load(copy)
  line = str(error.value)
  assert "data.data_dir=" in line and "2 of 3 shards of split 'train'" in line
  flags = line.split("go on with: jaxflow ")[1].split()
  result = tiny.run(*flags, "--batch_size=8")
  assert result.code == 0, result.err
  assert "shard 2/3: 16 latents" in result.out
  assert "test: nothing to do" in result.out
  after = tiny.checksums(copy)
  assert after.pop(SUMS) != before.pop(SUMS)  # The shard has a second entry.
  assert after == before
  assert kept.stat().st_mtime == 1


@pytest.mark.parametrize(
  ("changes", "words"),
  [
    ({"size": 9}, ["--size=9: give a multiple of 2"]),
    ({"size": 0}, ["--size=0: give at least 1"]),
    ({"dtype": "int8"}, ["--dtype=int8: give float16 or float32"]),
    ({"scale": 0.0}, ["--scale=0.0: give a number above 0"]),
    ({"data": "ring"}, ["--data=ring", "(2,)", "set of images"]),
    ({"data": "grey"}, ["did you mean 'gray'?"]),
    ({"data": ""}, ["--data is missing"]),
    ({"subset": "x"}, ["--subset='x': data='gray' does not read", "; remove"]),
    ({"autoencoder": ""}, ["--autoencoder is missing", "sd-vae-ft-mse"]),
    ({"autoencoder": "none.bin"}, ["--autoencoder=none.bin", "no such file"]),
    ({"out": ""}, ["--out is missing"]),
  ],
)
def test_wrong_flags(world, changes, words):
  refused(*command(world, "out", **changes), words=words)


@pytest.mark.parametrize(
  ("changes", "words"),
  [
    ({"size": 16}, "made with --size=8, not 16: give"),
    ({"autoencoder": "w", "parameters": "5eed"}, "not w (parameters 5eed): "),
    ({"dtype": "float16"}, "made with --dtype=float32, not float16: give"),
    ({"scale": 1.0}, "made with --scale=0.5, not 1.0: give"),
    ({"flip": False}, "made with --flip=True, not False: give"),
    ({"num_classes": 5}, "made with images of num_classes=3, not 5: "),
    ({"images": "5eed", "raw_dir": "r"}, "not gray --raw_dir=r 5eed: "),
  ],
)
def test_other_latents_are_refused(world, changes, words):
  folder = data.LatentFolder.open(world / "out")
  with pytest.raises(UsageError) as error:
    data.LatentFolder.create(world / "out", {**folder.description, **changes})
  assert words in str(error.value)


@pytest.mark.parametrize("which", COUNTS)
def test_other_images_of_the_same_counts_are_refused(world, which, monkeypatch):
  def other(split, raw_dir, data_dir):
    found = gray(split, raw_dir, data_dir)
    return (
      dataclasses.replace(found, data=-found.data) if split == which else found
    )

  monkeypatch.setitem(loading.DATASETS, "gray", other)
  refused(
    *command(world, "out"),
    words=["made with --data=gray ", ", not gray ", "give another --out"],
  )


def test_commands_are_quoted_for_a_shell(world):
  folder = data.LatentFolder.open(world / "out")
  spaced = {**folder.description, "raw_dir": "of me/'it'"}
  found = data.LatentFolder(pathlib.Path("my latents"), spaced).command()
  flags = shlex.split(found)
  assert flags[:2] == ["jaxflow", "encode"]
  assert {"--raw_dir=of me/'it'", "--out=my latents"} < set(flags)


def test_the_same_weights_may_lie_elsewhere(world):
  folder = data.LatentFolder.open(world / "out")
  moved = {**folder.description, "autoencoder": "moved", "raw_dir": "there"}
  found = data.LatentFolder.create(world / "out", moved)
  assert found.description == folder.description


def test_a_damaged_decoder_has_the_remedy_of_a_missing_one(copy):
  config = default_config("flow_matching", data="latents", model="mlp")
  config.data.data_dir = str(copy)
  whole = tiny.arrays(copy / "decoder.npz")
  (copy / "decoder.npz").write_bytes(b"damaged")
  with pytest.raises(UsageError) as error:
    decoding.make_picture(data_plan(config))
  line = str(error.value)
  assert "decoder.npz is damaged; delete it" in line
  assert f"with: {data.LatentFolder.open(copy).command()}" in line
  whole.popitem()
  np.savez(copy / "decoder.npz", **whole)
  with pytest.raises(UsageError, match=r"decoder\.npz is damaged; delete it"):
    decoding.make_picture(data_plan(config))


def test_folders_that_cannot_be_read(copy):
  with pytest.raises(UsageError, match=r"set data\.data_dir to it"):
    data.load("latents", "train")
  with pytest.raises(UsageError, match=r"holds no latents\.json"):
    load(copy.parent)
  with pytest.raises(UsageError, match=r"remove data\.raw_dir"):
    data.load("latents", "train", raw_dir="x", data_dir=str(copy))
  file = copy / "test-00000-of-00001.npy"
  whole = file.read_bytes()
  file.write_bytes(whole[:-8])
  with pytest.raises(UsageError, match=r"test-0\S+ is damaged .* jaxflow enc"):
    load(copy, "test")
  np.save(file, np.zeros(6))
  with pytest.raises(UsageError, match="it holds other records"):
    load(copy, "test")
  file.write_bytes(whole)
  (copy / "decoder.npz").rename(copy / "gone.npz")
  with pytest.raises(UsageError, match=r"has no decoder\.npz"):
    load(copy, "test")
  description = json.loads((copy / "latents.json").read_text())
  description["statistics"] = None
  (copy / "latents.json").write_text(json.dumps(description))
  with pytest.raises(
    UsageError, match=r"latents\.json differs from SHA256SUMS"
  ):
    load(copy, "test")
  (copy / SUMS).unlink()
  with pytest.raises(UsageError, match="is not finished; go on with: jaxflow"):
    load(copy, "test")


def test_every_flipped_bit_is_found(copy):
  draw = np.random.default_rng(0)
  files = [path for path in sorted(copy.iterdir()) if path.name != SUMS]
  assert len(files) == 6
  for path in files:
    split = "test" if path.name.startswith("test") else "train"
    load(copy, split)
    for _ in range(15):
      with tiny.flipped_bit(path, draw):
        with pytest.raises(UsageError) as error:
          load(copy, split)
        assert path.name in str(error.value)
  # A folder of an earlier version, which a new one completes.
  (copy / SUMS).unlink()
  path = copy / "train-00001-of-00003.npy"
  before = load(copy).take(np.arange(40))
  path.unlink()
  shard = data.LatentFolder.open(copy)
  rows = shard.memory_map("train", 2)
  shard.write("train", 1, [np.repeat(rows[n], 2, 0) for n in rows.dtype.names])
  assert (copy / SUMS).read_text()[66:] == f"{path.name}\n"
  after = load(copy).take(np.arange(40))
  for name in ("data", "std", "cond"):
    assert np.array_equal(after[name][:16], before[name][:16])
    assert np.array_equal(after[name][32:], before[name][32:])
  with tiny.flipped_bit(path, draw), pytest.raises(UsageError, match=path.name):
    load(copy)


def test_damage_before_the_end_is_found_at_the_end(copy):
  """Else the statistics would describe the damaged shard."""
  latents = data.LatentFolder.open(copy)
  path = latents.files("train").path(1)
  with tiny.flipped_bit(path, np.random.default_rng(0)):
    with pytest.raises(UsageError, match=rf"{path.name} is damaged; delete it"):
      latents.finish()
  latents.finish()
  assert data.LatentFolder.open(copy).description == latents.description


def latents_of(folder, **changes):
  described = {
    "shape": [2, 2, 1],
    "dtype": "float16",
    "num_classes": 0,
    "counts": {"train": 3},
    "shard_size": 2,
  }
  return data.LatentFolder(folder, described | changes)


def test_half_precision(tmp_path):
  store = latents_of(tmp_path)
  mean = np.full((2, 2, 2, 1), 1 / 3)
  store.write("train", 0, [mean, mean / 100])
  assert len(store.files("train").found()) == 1
  rows = store.memory_map("train", 0)
  assert isinstance(rows, np.memmap)
  # A mean and a deviation of 2 bytes for each of 4 values.
  assert rows.dtype.itemsize == 16
  np.testing.assert_allclose(rows["mean"], mean, rtol=2**-11)
  np.testing.assert_allclose(rows["std"], mean / 100, rtol=2**-11)


def test_what_half_precision_cannot_hold_is_refused(tmp_path):
  mean = np.full((2, 2, 2, 1), 70_000.0)
  with pytest.raises(RunError, match=r"not finite as float16.*--dtype=float32"):
    latents_of(tmp_path).write("train", 0, [mean, mean])
  latents_of(tmp_path, dtype="float32").write("train", 0, [mean, mean])


def test_a_constant_channel_is_refused(tmp_path):
  latents = latents_of(tmp_path)
  for shard, size in enumerate((2, 1)):
    zeros = np.zeros((size, 2, 2, 1))
    latents.write("train", shard, [zeros, zeros])
  with pytest.raises(RunError, match="channel 0 of the latents is constant"):
    latents.finish()


def test_images_are_made_square():
  draw = np.random.default_rng(0)
  images = draw.uniform(-1, 1, (2, 4, 4, 1)).astype(np.float32)
  same = square(images, 4)
  for channel in range(3):
    np.testing.assert_array_equal(same[..., channel], images[..., 0])
  # Halved by boxes, cut in the middle: of 8 x 4, the middle 4 x 4.
  wide = np.zeros((1, 4, 8, 3), np.float32)
  wide[:, :, 2:4], wide[:, :, :2], wide[:, :, 6:] = 1, -1, -1
  found = square(wide, 2)[0, :, :, 0]
  np.testing.assert_allclose(found, [[1, 0], [1, 0]], atol=1 / 127)


@pytest.fixture(scope="module")
def trained(world):
  """Return a run of two steps on latents, with a picture."""
  return tiny.train(
    world,
    "run",
    "flow_matching",
    "data.name=latents",
    f"data.data_dir={world / 'out'}",
    "data.conditional=True",
    "loss.label_dropout=0.1",
    "train.steps=2",
    "train.log_every=2",
    "train.sample_every=2",
    "checkpoint.every=2",
    "train.steps_per_dispatch=2",
  )


def test_training_writes_decoded_pictures(trained):
  from PIL import Image

  with Image.open(trained / "samples" / "00000002.png") as picture:
    colours = np.asarray(picture).reshape(-1, 3)
  # 8 x 8 cells of 32 pixels, and gaps of 2: images, not latents, of 8 x 8.
  assert len(colours) == (8 * 34 + 2) ** 2
  assert (colours[:, 0] != colours[:, 1]).any()


def test_samples_are_decoded(trained, world, tmp_path):
  out = {name: tmp_path / f"{name}.npz" for name in ("images", "latents")}
  for name, path in out.items():
    flags = ["--latents"] if name == "latents" else []
    result = tiny.run(
      "sample", f"--workdir={trained}", "--num=10", f"--out={path}", *flags
    )
    assert result.code == 0, result.err
  images, latents = (tiny.arrays(path)["samples"] for path in out.values())
  assert latents.shape == (10, 4, 4, 4)
  theirs = np.clip(PLAIN.decode(latents), -1, 1)
  assert theirs.std() > 0.1
  np.testing.assert_allclose(images, theirs, atol=1e-4)
  # The network's samples have about unit scale, the autoencoder's its own.
  space = data.latent_space("latents", str(world / "out"))
  np.testing.assert_allclose(
    space.restore(space.normalise(latents)), latents, atol=1e-5
  )


def test_networks_are_compiled_with_the_decoder(world, copy, monkeypatch):
  config = default_config("flow_matching", data="latents", model="mlp")
  config = resolve(config, shape=(4, 4, 4), num_classes=0, teacher=None)
  plan, lines = make_plan(config), []

  def observers(folder, network):
    monkeypatch.setattr(of_config, "make_extractor", lambda *_, **__: network)
    data_plan = dataclasses.replace(plan.data, data_dir=folder)
    changed = dataclasses.replace(plan, data=data_plan)
    return of_config._observers(changed, lines.append)

  networks, decoder = observers(str(world / "out"), "network")
  assert (networks, lines) == (("network",), [])
  params, decode = decoder
  samples = jax.ShapeDtypeStruct((5, 4, 4, 4), np.float32)
  assert jax.eval_shape(decode, params, samples).shape == (5, 8, 8, 3)
  (copy / "decoder.npz").unlink()
  for folder in (str(copy), None):
    assert observers(folder, "network") == ((), None)
  for line in lines:
    assert line.startswith("note: evaluation step without networks")
  assert "decoder.npz" in lines[0] and "data.data_dir=None" in lines[1]
  assert observers(str(world / "out"), None) == ((), None)
  assert len(lines) == 2


def test_latents_are_kept_in_arrays_only(trained, tmp_path):
  out = tmp_path / "x.png"
  flags = f"--workdir={trained}", f"--out={out}", "--latents"
  refused("sample", *flags, words=["--latents needs", ".npz"])
  config = default_config("flow_matching", data="ring", model="mlp")
  with pytest.raises(UsageError, match="'ring' are no latents; leave it out"):
    decoding.make_latents(data_plan(config))
  points = np.zeros((3, 2))
  assert decoding.make_picture(data_plan(config))(points) is points


def test_the_shipped_config(world):
  path = pathlib.Path(__file__).parents[2] / "configs" / "latents.py"
  config = config_flags.parse(
    [
      f"--config={path}:flow_matching",
      f"--config.data.data_dir={world / 'out'}",
    ]
  )
  source = inputs.load_data(data_plan(config), "train")
  config = resolve(
    config, shape=(32, 32, 4), num_classes=source.num_classes, teacher=None
  )
  network = make_plan(config).model.network
  params = jax.eval_shape(network.init, jax.random.key(0))
  # DiT-B/2 has 130 million.
  count = sum(x.size for x in jax.tree.leaves(params))
  assert 129e6 < count < 132e6


def test_a_scale_that_the_path_does_not_have_is_refused(world, tmp_path):
  """Return the latents have the deviation 0.5."""
  options = ["data.name=latents", f"data.data_dir={world / 'out'}"]
  arguments = tiny.train_command(
    *(tmp_path, "run", "moment_matching", *options),
    *("data.conditional=True", "train.steps=1", "path.noise_std=0.4"),
    "parameterization.name=normalized",
  )
  refused(
    *arguments,
    words=["data.data_dir=", "deviation 0.5", "0.4", "--scale=0.4"],
  )
  assert not (tmp_path / "run").exists()
  fields = {"parameterization": {"name": "raw"}, "path": {"noise_std": 0.4}}
  for changes in ({"path": {"noise_std": 0.5}}, fields):
    config = default_config(
      "continuous_consistency", data="latents", model="mlp"
    )
    config.data.update(data_dir=str(world / "out"), shape=(4, 4, 4))
    update(config, changes)
    config.data.num_classes = 0
    plan = make_plan(config)
    inputs.check_scale(plan.model, plan.data)


def test_latents_may_be_multiplied_as_published(world):
  arguments = command(world, "times", scale=1, multiply=0.18215)
  result = tiny.run(*arguments)
  assert result.code == 0, result.err
  times, normalised = (load(world / name) for name in ("times", "out"))
  index = np.arange(5)
  mean, _ = expected("train")
  np.testing.assert_allclose(
    times.take(index)["data"], 0.18215 * mean[index], rtol=1e-4, atol=1e-5
  )
  samples = times.space.normalise(mean)
  np.testing.assert_allclose(times.space.restore(samples), mean, atol=1e-5)
  assert not np.allclose(
    times.take(index)["data"], normalised.take(index)["data"], atol=1e-2
  )
  refused(*command(world, "no", multiply=0.18215), words=["with scale=0.5"])
  refused(*command(world, "no", multiply=-1), words=["--multiply=-1"])


def test_an_import_says_which_latents_it_knows(world, tmp_path):
  """The record of an import beside a folder that is normalised otherwise."""
  (tmp_path / "import.json").write_text(
    json.dumps({"latents": {"mean": [0] * 4, "std": [1 / 0.18215] * 4}})
  )

  def said(name, folder=tmp_path):
    plan = default_config("flow_matching", data="latents", model="mlp")
    plan.data.data_dir = str(world / name)
    return latent_notes(folder, data_plan(plan))

  (line,) = said("out")
  assert line.startswith(f"{tmp_path}: its network was trained on latents of")
  assert "deviation (5.49, 5.49, 5.49, 5.49)" in line
  assert "--multiply=0.18215 (data.data_dir=" in line
  assert said("times") == said("absent") == said("out", world) == []
  statistics = json.loads((world / "out/latents.json").read_text())
  known = statistics["statistics"]
  known["std"] = [2 * x for x in known["std"]]  # Of the scale 0.5.
  (tmp_path / "import.json").write_text(json.dumps({"latents": known}))
  assert said("out") == []
  assert "no --multiply" in said("times")[0]


def test_evaluation_compares_latents(trained):
  (row,) = api.load(trained).evaluate(nfe=(1,))
  assert row["scores"]["sliced_wasserstein"].real > 0


def test_more_shards_than_files_may_be_open(tmp_path, monkeypatch):
  monkeypatch.setattr(latents_lib, "_OPEN", 2)
  counts = {"train": 7}
  store = latents_of(
    tmp_path,
    counts=counts,
    shard_size=1,
    scale=1.0,
    statistics={"mean": [0.0], "std": [1.0]},
    **dict.fromkeys(("data", "autoencoder"), "x"),
    **dict.fromkeys(("raw_dir", "data_dir"), None),
    **{"size": 16, "flip": False},
  )
  for shard in range(7):
    mean = np.full((1, 2, 2, 1), float(shard))
    store.write("train", shard, [mean, np.ones_like(mean)])
  store.write_decoder({"weight": np.zeros(1)})

  def opened():
    files = pathlib.Path("/proc/self/fd").iterdir()
    return sum(str(tmp_path) in os.path.realpath(file) for file in files)

  source = data.Latents(store, "train", name="latents")
  rows = source.take(np.arange(7)[::-1])["data"]
  assert rows[:, 0, 0, 0].tolist() == [6, 5, 4, 3, 2, 1, 0]
  assert opened() == 2
