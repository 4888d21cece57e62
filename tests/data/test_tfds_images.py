"""Image sets under their names in TFDS, without network or TensorFlow."""

import hashlib
import io
import json
import pathlib
import shutil
import socket
import threading
import time

import numpy as np
import pytest
import tensorflow_datasets as tfds
import tiny
from PIL import Image

from jaxflow import data as jdata
from jaxflow.data import images, pictures
from jaxflow.data.sets import tfds_builders
from jaxflow.errors import RunError, UsageError

# Versions as TFDS 4.9.10 has them, and the splits of the real sets.
MOCKED = {
  "cifar10": ("3.0.2", ["train", "test"]),
  "cifar100": ("3.0.2", ["train", "test"]),
  "imagenet2012": ("5.1.0", ["train", "test", "validation"]),
  "celeb_a": ("2.1.0", ["train", "test", "validation"]),
}


def message(error):
  text = str(error.value)
  assert "\n" not in text
  return text


@pytest.fixture
def mocked(tmp_path):
  """TFDS gives eight samples of noise of any set."""
  for name, (version, splits) in MOCKED.items():
    folder = tmp_path / name / version
    folder.mkdir(parents=True)
    info = {
      **{"name": name, "version": version, "fileFormat": "array_record"},
      "splits": [
        {
          **{"name": split, "shardLengths": ["8"], "numBytes": "8"},
          "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
        }
        for split in splits
      ],
    }
    (folder / "dataset_info.json").write_text(json.dumps(info))
  with tfds.testing.mock_data(num_examples=8, data_dir=str(tmp_path)):
    yield


@pytest.mark.parametrize(
  ("name", "size", "shape", "num_classes"),
  [
    ("cifar10", None, (32, 32, 3), 10),
    ("cifar100", 16, (16, 16, 3), 100),
    ("celeb_a", None, (218, 178, 3), 0),
    ("celeb_a", 64, (64, 64, 3), 0),
    ("imagenet2012", 32, (32, 32, 3), 1000),
  ],
)
@pytest.mark.parametrize("ram_gib", [0, 1])
def test_sets_of_tfds(mocked, name, size, shape, num_classes, ram_gib):
  source = jdata.load(name, "train", size=size, ram_gib=ram_gib)
  assert isinstance(source, jdata.Dataset) == bool(ram_gib)
  assert (len(source), source.shape) == (8, shape)
  assert (source.name, source.split) == (name, "train")
  assert source.num_classes == num_classes
  rows = source.take(np.array([7, 0]))
  assert rows["data"].shape == (2, *shape)
  assert rows["data"].dtype == np.float32
  # Uniform noise, which scaling narrows.
  assert -1 <= rows["data"].min() < -0.5 and 0.5 < rows["data"].max() <= 1
  assert ("cond" in rows) == bool(num_classes)


def test_test_images_of_imagenet_are_those_with_labels(mocked):
  source = jdata.load("imagenet2012", "test", size=8, ram_gib=0)
  assert source.records.records.split == "validation"
  held_out = jdata.load("celeb_a", "test", ram_gib=0)
  assert held_out.records.records.split == "test"


def test_images_of_many_sizes_need_one(mocked):
  with pytest.raises(UsageError) as error:
    jdata.load("imagenet2012", "train")
  assert "data.size=None" in message(error)
  assert "data.size=64" in message(error)


def test_crop_halves_by_boxes_and_cuts_the_middle():
  # 8 x 4 becomes 4 x 2 by the means of 2 x 2 boxes, whose middle is 2 x 2.
  image = np.zeros((8, 4), np.uint8)
  image[2:4, :2] = [[0, 8], [16, 24]]
  image[2:4, 2:] = 40
  image[4:6, :2] = [[7, 9], [9, 7]]
  image[4:6, 2:] = [[100, 200], [200, 100]]
  expected = np.array([[12, 40], [8, 150]])
  one = pictures.crop(image[..., None], 2)
  np.testing.assert_array_equal(one[..., 0], expected)
  colours = pictures.crop(np.stack([image, 0 * image, image], -1), 2)
  np.testing.assert_array_equal(colours[..., 2], expected)
  assert not colours[..., 1].any()


@pytest.mark.parametrize("shape", [(5, 9), (9, 5), (16, 16), (40, 33), (4, 4)])
def test_crop_of_a_ramp_is_a_ramp(shape):
  # Both filters keep straight lines. So neighbours in the crop differ by the
  # slope times the scale: all sides of the same picture are scaled alike.
  height, width = shape
  slope = 200 / max(shape)
  ramp = np.round(slope * np.arange(height))[:, None, None]
  result = pictures.crop(np.repeat(ramp, width, 1).astype(np.uint8), 4)
  assert result.shape == (4, 4, 1)
  column = result[:, 1, 0].astype(int)
  np.testing.assert_array_equal(
    result[..., 0], column[:, None] + 0 * result[0, :, 0]
  )
  step = slope * min(shape) / 4
  # Inside; at the border the bicubic filter has no neighbours.
  assert column[2] - column[1] == pytest.approx(step, abs=0.1 * step + 2)


class TinyPictures(tfds.core.GeneratorBasedBuilder):
  """Pictures of several sizes, each of one colour: 10 times its number."""

  VERSION = tfds.core.Version("1.0.0")
  NUM = 20

  def _info(self):
    features = {
      "image": tfds.features.Image(shape=(None, None, 3)),
      "label": tfds.features.ClassLabel(num_classes=self.NUM),
    }
    return tfds.core.DatasetInfo(
      builder=self,
      features=tfds.features.FeaturesDict(features),
      disable_shuffling=True,
    )

  def _split_generators(self, dl_manager):
    return {
      "train": self._generate_examples(range(self.NUM)),
      "validation": self._generate_examples(range(3)),
    }

  def _generate_examples(self, numbers):
    for i in numbers:
      colour = np.full((4 + i, 30 - i, 3), 10 * i, np.uint8)
      file = io.BytesIO()
      # Gray files are pictures of three equal colours as well.
      picture = Image.fromarray(colour[..., 0] if i % 2 else colour)
      picture.save(file, "PNG")
      file.seek(0)
      yield i, {"image": file, "label": i}


class OddPictures(tfds.core.GeneratorBasedBuilder):
  """Pictures of several modes, of unknown channels; labels of several kinds."""

  VERSION = tfds.core.Version("1.0.0")

  def _info(self):
    features = {
      "image": tfds.features.Image(shape=(None, None, None)),
      "label": tfds.features.ClassLabel(names=["cat", "dog"]),
      "about": {"kind": tfds.features.ClassLabel(names=["a", "b", "c"])},
      "age": tfds.features.Scalar(np.int64),
    }
    return tfds.core.DatasetInfo(
      builder=self,
      features=tfds.features.FeaturesDict(features),
      disable_shuffling=True,
    )

  def _split_generators(self, dl_manager):
    return {"whole": self._generate_examples()}

  def _generate_examples(self):
    for i, picture in enumerate(odd_pictures()):
      file = io.BytesIO()
      picture.save(file, "PNG")
      file.seek(0)
      about = {"kind": i % 3}
      # TFDS keeps -1 as "no label".
      yield i, {"image": file, "label": i % 3 - 1, "about": about, "age": i}


def odd_pictures():
  orange = Image.new("RGB", (6, 6), (200, 90, 0))
  palette = Image.new("P", (6, 6), 7)
  palette.putpalette([0, 0, 0] * 7 + [200, 90, 0])
  half = orange.copy()
  half.putalpha(102)
  return [orange, palette, half, orange.convert("1"), orange.convert("L")] * 2


ODD = {"splits": {"train": "whole"}, "size": 6}


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
  folder = tmp_path_factory.mktemp("odd")
  tfds.disable_progress_bar()
  options = {"data_dir": str(folder), **ODD}
  with tiny.quiet():
    jdata.load("odd_pictures", "train", download=True, **options)
  return options


def test_pictures_of_any_mode_are_decoded_here(odd, monkeypatch):
  def never(*_):
    raise AssertionError("TFDS decodes with OpenCV where it is installed")

  monkeypatch.setattr(tfds.features.Image, "decode_example_np", never)
  source = jdata.load("odd_pictures", "train", **odd)
  assert source.shape == (6, 6, 3)
  found = (source.take(np.arange(5))["data"][:, 0, 0] + 1) * 127.5
  # Over white, 102 / 255 opaque: 0.4 (200, 90, 0) + 0.6 (255, 255, 255).
  grey = [113] * 3  # 0.299 * 200 + 0.587 * 90
  expected = [(200, 90, 0), (200, 90, 0), (233, 189, 153), (0, 0, 0), grey]
  np.testing.assert_allclose(found, expected, atol=1e-3)
  source = jdata.load("odd_pictures", "train", **odd, channels=4)
  alpha = (source.take(np.arange(5))["data"][:, 0, 0, 3] + 1) * 127.5
  np.testing.assert_allclose(alpha, [255, 255, 102, 255, 255])
  black = jdata.load("odd_pictures", "train", **odd, background=(0, 0, 0))
  value = (black.take(np.array([2]))["data"][0, 0, 0] + 1) * 127.5
  np.testing.assert_allclose(value, [80, 36, 0], atol=1e-3)


@pytest.mark.parametrize("ram_gib", [0, 1])
def test_no_label_is_the_null_label(odd, ram_gib):
  source = jdata.load("odd_pictures", "train", ram_gib=ram_gib, **odd)
  assert (source.num_classes, source.class_names) == (2, ("cat", "dog"))
  labels = source.take(np.arange(6))["cond"].tolist()
  assert labels == [2, 0, 1, 2, 0, 1]
  again = jdata.in_memory(source, 10)
  assert again.label.tolist()[:6] == labels


def test_labels_are_chosen_or_left_out(odd):
  kind = jdata.load("odd_pictures", "train", label="about/kind", **odd)
  assert kind.take(np.arange(4))["cond"].tolist() == [0, 1, 2, 0]
  assert kind.class_names == ("a", "b", "c")
  for options in ({"label": "none"}, {"conditional": False}):
    source = jdata.load("odd_pictures", "train", **odd, **options)
    assert source.num_classes == 0
    assert list(source.take(np.arange(2))) == ["data"]
  for label, words in (
    (
      "age",
      "'age' of data.name='odd_pictures' is Scalar, which has no classes",
    ),
    ("lable", "did you mean 'label'?"),
    ("about/x", "data.label='about/x'"),
  ):
    with pytest.raises(UsageError) as error:
      jdata.load("odd_pictures", "train", label=label, **odd)
    assert words in message(error)


def test_labels_that_are_no_classes_are_never_dropped_in_silence(
  odd, monkeypatch
):
  builder = tfds_builders.find("odd_pictures", odd["data_dir"])
  features = builder.info.features
  scalar = tfds.features.Scalar(np.float32)
  monkeypatch.setitem(features._feature_dict, "label", scalar)
  monkeypatch.setattr(tfds_builders, "find", lambda *_: builder)
  with pytest.raises(UsageError) as error:
    jdata.load("odd_pictures", "train", **odd)
  assert "data.label=None: the feature 'label'" in message(error)
  assert "'none' to leave labels out" in message(error)
  options = {**odd, "conditional": False}
  assert jdata.load("odd_pictures", "train", **options).num_classes == 0


def test_a_set_with_one_split_is_held_out_by_hash(odd):
  with pytest.raises(jdata.NoSplitError, match="no test split, only whole"):
    jdata.load("odd_pictures", "test", **odd)
  parts = [
    jdata.load("odd_pictures", x, test_share=0.3, ram_gib=0, **odd)
    for x in ("train", "test")
  ]
  held = [
    i
    for i in range(10)
    if int(hashlib.sha256(str(i).encode()).hexdigest()[:16], 16) < 0.3 * 2**64
  ]
  assert [len(x) for x in parts] == [10 - len(held), len(held)]
  whole = jdata.load("odd_pictures", "train", **odd)
  np.testing.assert_array_equal(
    parts[1].take(np.arange(len(held)))["data"], whole.data[held]
  )
  with pytest.raises(UsageError, match=r"train='whol'.*mean 'whole'"):
    jdata.load("odd_pictures", "train", **{**odd, "splits": {"train": "whol"}})


NAME = "tiny_pictures"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
  folder = tmp_path_factory.mktemp("tfds")
  tfds.disable_progress_bar()
  with tiny.quiet():
    jdata.load(NAME, "train", data_dir=str(folder), size=4, download=True)
  return str(folder)


def load(prepared, split="train", **options):
  return jdata.load(NAME, split, data_dir=prepared, **{"size": 4, **options})


@pytest.mark.parametrize("ram_gib", [0, 1])
def test_pictures_are_decoded_and_scaled(prepared, ram_gib):
  source = load(prepared, ram_gib=ram_gib)
  index = np.array([3, 19, 0, 3])
  rows = source.take(index)
  np.testing.assert_array_equal(rows["cond"], index)
  expected = (10 * index / 127.5 - 1)[:, None, None, None]
  np.testing.assert_allclose(
    rows["data"], np.broadcast_to(expected, (4, 4, 4, 3)), atol=1e-6
  )
  assert len(load(prepared, "test", ram_gib=ram_gib)) == 3


def test_batches_from_disk_are_those_from_memory(prepared):
  options = {"batch_size": 8, "seed": 2, "flip": True}
  memory = jdata.Batches(load(prepared), **options)
  disk = jdata.Batches(load(prepared, ram_gib=0), threads=2, **options)
  for number in range(6):
    one, other = next(memory), next(disk)
    for name in one:
      np.testing.assert_array_equal(one[name], other[name])
    if number == 2:
      # What was left in memory goes on from disk.
      disk.set_state(memory.get_state())
  disk.close()


def test_damaged_record_is_one_line(prepared):
  source = load(prepared, ram_gib=0)

  class Torn:
    def __len__(self):
      return len(source)

    def __getitem__(self, key):
      raise RuntimeError("bad checksum")

  torn = images.Images(
    **{**vars(source), "records": Torn()},
  )
  batches = jdata.Batches(torn, batch_size=4, seed=0, threads=2)
  with pytest.raises(RunError) as error:
    next(batches)
  assert "'tiny_pictures' (train)" in message(error)
  assert "(bad checksum)" in message(error)
  assert prepared in message(error)


def test_labels_out_of_range(prepared):
  few = images.Images(**{**vars(load(prepared, ram_gib=0)), "num_classes": 5})
  with pytest.raises(UsageError, match=r"a label is outside 0\.\.4"):
    few.take(np.array([4, 5]))


def test_other_format_is_named(prepared, tmp_path):
  folder = tmp_path / NAME / "1.0.0"
  folder.mkdir(parents=True)
  (source,) = pathlib.Path(prepared).rglob("dataset_info.json")
  for name in ("dataset_info.json", "features.json"):
    text = source.with_name(name).read_text()
    (folder / name).write_text(text.replace("array_record", "tfrecord"))
  with pytest.raises(UsageError, match="without random access"):
    load(str(tmp_path))


@pytest.mark.parametrize(
  ("name", "content", "reason"),
  [
    ("dataset_info.json", "{}", "Invalid version ''"),
    ("dataset_info.json", "[]", "Invalid version ''"),
    ("dataset_info.json", '{"a": 3}', "dataset_info.json is damaged"),
    ("features.json", "{}", "features.json names the class ''"),
    ("features.json", "7", "its features.json or"),
    ("features.json", '{"featuresDict": 3}', "its features.json or"),
  ],
)
def test_damaged_description_is_named(
  prepared, tmp_path, monkeypatch, name, content, reason
):
  registry = tfds.core.registered._DATASET_REGISTRY
  monkeypatch.delitem(registry, NAME)
  (source,) = pathlib.Path(prepared).rglob("dataset_info.json")
  folder = shutil.copytree(source.parent, tmp_path / NAME / "1.0.0")
  (folder / name).write_text(content)
  with pytest.raises(UsageError, match=f"^data.name='{NAME}': .*{reason}"):
    load(str(tmp_path))


def test_missing_split_is_named(prepared, tmp_path, monkeypatch):
  builder = tfds_builders.find(NAME, prepared)
  splits = {"train": builder.info.splits["train"]}
  monkeypatch.setattr(type(builder.info), "splits", splits)
  with pytest.raises(UsageError, match="no test split, only train"):
    load(prepared, "test")


def test_files_alone_make_a_set(prepared, monkeypatch):
  registry = tfds.core.registered._DATASET_REGISTRY
  monkeypatch.delitem(registry, NAME)
  source = load(prepared, ram_gib=0)
  assert source.take(np.array([7]))["cond"].tolist() == [7]


@pytest.mark.parametrize("name", ["cifar10", "celeb_a", "imagenet2012"])
def test_set_that_is_not_there_says_what_to_do_at_once(
  tmp_path, monkeypatch, name
):
  # At once: without a word to the network, however slow the machine is.
  asked = []

  def connect(self, address):
    asked.append(address)
    raise OSError("no route")

  monkeypatch.setattr(socket.socket, "connect", connect)
  with pytest.raises(UsageError) as error:
    jdata.load(name, "train", data_dir=str(tmp_path), size=64)
  assert not asked
  text = message(error)
  assert text.startswith(f"data.name={name!r} is not in data.data_dir=")
  assert f"tfds.builder({name!r}, data_dir={str(tmp_path)!r}" in text
  assert "download_and_prepare()" in text and "data.download=True" in text
  manual = tmp_path / "downloads" / "manual"
  assert (f"into {manual}, then run" in text) == (name == "imagenet2012")


def test_download_without_network_fails_at_once(tmp_path, monkeypatch):
  def refuse(address, timeout):
    raise OSError("no route")

  monkeypatch.setattr(socket, "create_connection", refuse)
  with pytest.raises(UsageError) as error:
    jdata.load("cifar10", "train", data_dir=str(tmp_path), download=True)
  assert "www.cs.toronto.edu cannot be reached" in message(error)
  with pytest.raises(UsageError, match="files are missing: put the files"):
    jdata.load(
      *("imagenet2012", "train"), data_dir=str(tmp_path), size=8, download=True
    )
  assert not list(tmp_path.iterdir())


def test_a_look_up_that_hangs_is_given_up(monkeypatch):
  for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY"):
    monkeypatch.delenv(name, raising=False)
  monkeypatch.setattr(tfds_builders, "_LIMIT", 0.1)
  asked, over = [], threading.Event()

  def hang(address, timeout):
    asked.append(address)
    # Much longer than a busy machine needs to give it up.
    over.wait(60)
    raise OSError

  monkeypatch.setattr(socket, "create_connection", hang)
  began = time.monotonic()
  urls = ["https://one.example/a", "https://one.example/b"]
  assert tfds_builders.unreachable(urls) == "one.example"
  assert time.monotonic() - began < 30
  over.set()
  assert asked == [("one.example", 443)]
  assert tfds_builders.unreachable([]) is None
  monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
  assert tfds_builders.unreachable(urls) == "proxy.example"


def test_a_host_that_answers():
  with socket.create_server(("127.0.0.1", 0)) as server:
    port = server.getsockname()[1]
    assert tfds_builders.unreachable([f"http://127.0.0.1:{port}/file"]) is None


def test_builder_that_fails_is_one_line(tmp_path, monkeypatch):
  def fail(self, numbers):
    raise ImportError("No module named 'tensorflow'\nmore lines")
    yield

  monkeypatch.setattr(TinyPictures, "_generate_examples", fail)
  with tiny.quiet(), pytest.raises(UsageError) as error:
    load(str(tmp_path), download=True)
  assert "ImportError: No module named 'tensorflow'" in message(error)


@pytest.mark.parametrize(
  ("name", "words"),
  [
    ("cifar11", "did you mean 'cifar10"),
    ("huggingface:mnist", "the code of 'huggingface' is not allowed to run"),
    ("mnist:9.9.9", "only: 3."),
    ("ag_news_subset", "no feature 'image'"),
  ],
)
def test_names_that_cannot_be_had(name, words):
  with pytest.raises(UsageError) as error:
    jdata.load(name, "train")
  assert f"data.name={name!r}: " in message(error) or "no feature" in words
  assert words in message(error)


@pytest.mark.parametrize(
  ("options", "words"),
  [
    ({"size": 4}, r"data\.size=4.*'ring'.*remove"),
    ({"raw_dir": "/x"}, r"data\.raw_dir='/x'"),
  ],
)
def test_options_that_a_set_does_not_have(options, words):
  with pytest.raises(UsageError, match=words):
    jdata.load("ring", "train", **options)


def test_a_run_reads_from_disk_and_resumes(prepared, tmp_path):
  path = tmp_path / "config.py"
  path.write_text(tiny.CONFIG.replace('data="ring"', f'data="{NAME}"'))

  def train(name, *flags):
    result = tiny.run(
      *("train", f"--config={path}:flow_matching"),
      f"--workdir={tmp_path / name}",
      *("--config.data.size=4", f"--config.data.data_dir={prepared}"),
      *("--config.data.flip=True", "--config.train.log_every=5"),
      *(f"--config.{flag}" for flag in flags),
    )
    assert result.code == 0, result.err
    return tmp_path / name

  whole = train("whole", "train.steps=10")
  train("parts", "train.steps=5", "data.ram_gib=0", "data.threads=3")
  parts = train("parts", "train.steps=10", "data.ram_gib=0", "data.threads=1")
  tiny.assert_same_bits(tiny.state_of(whole), tiny.state_of(parts))
  last = tiny.rows(whole, without=())[-1]
  assert 0 <= float(last["data_wait"]) <= 1
