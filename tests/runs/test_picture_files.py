"""Pictures for evaluators of others: `arr_0`, and a PNG file a sample."""

import functools
import importlib.util
import json
import zipfile

import numpy as np
import pytest
import tiny
from PIL import Image

import jaxflow
from jaxflow import data, metrics
from jaxflow.errors import NotFiniteError, UsageError
from jaxflow.runs.picture_files import Pictures, write_pictures

NUM = 11


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """Return a folder with a run on digits, and one on points."""
  path = tmp_path_factory.mktemp("runs")
  flags = "train.steps=5", "sample.batch_size=8", "sample.nfe=1"
  digits = "data.name=digits", "data.conditional=True"
  tiny.train(path, "digits", "flow_matching", *digits, *flags)
  tiny.train(path, "points", "flow_matching", *flags)
  return path


def sample(workdir, out, *flags):
  return tiny.run("sample", f"--workdir={workdir}", f"--out={out}", *flags)


def made(images, label=None, size=4, **about):
  """Pictures of an array [N, H, W, C]."""
  images = np.asarray(images, np.float32)

  def draw(first, size):
    return images[np.arange(first, first + size) % len(images)]

  return Pictures(
    **{"num": len(images), "size": size, "draw": draw, "label": label},
    **{"about": about, "origin": {}},
  )


def write(out, pictures):
  lines = []
  write_pictures(out, pictures, lines.append)
  return lines


def test_every_byte_comes_back_and_others_are_rounded(tmp_path):
  grey = np.arange(256) / 127.5 - 1  # As data have been made of bytes.
  write(tmp_path / "a.npz", made(grey.reshape(16, 4, 4, 1)))
  found = tiny.arrays(tmp_path / "a.npz")["arr_0"]
  assert (found.shape, found.dtype) == ((16, 4, 4, 3), np.uint8)
  for channel in range(3):
    assert found[..., channel].ravel().tolist() == list(range(256))
  # Below and above the range; 63.5 and 191.5 times 2 / 255 round half up.
  values = [-7, -1, -0.9999, 0, 63.5 / 127.5 - 1, 191.5 / 127.5 - 1, 1, 7]
  image = np.array(values).reshape(1, 2, 4, 1) * [1, 1, 1]
  write(tmp_path / "b.npz", made(image))
  found = tiny.arrays(tmp_path / "b.npz")["arr_0"][0, ..., 1].ravel()
  assert found.tolist() == [0, 0, 0, 128, 64, 192, 255, 255]


def test_file_is_what_numpy_writes(folder, tmp_path):
  out = tmp_path / "a.npz"
  result = sample(folder / "digits", out, f"--num={NUM}", "--uint8")
  assert result.code == 0, result.err
  assert result.out == f"{NUM} samples, 1 network call(s) each: {out}\n"
  run = jaxflow.load(folder / "digits")
  x = run.sample(NUM, clip=False)
  rounded = np.clip(np.floor(127.5 * x.astype(np.float64) + 128), 0, 255)
  with np.load(out) as arrays:
    assert arrays.files == ["arr_0", "arr_1"]
    found, label = arrays["arr_0"], arrays["arr_1"]
  assert (found.shape, found.dtype) == ((NUM, 8, 8, 3), np.uint8)
  apart = found.astype(int) - rounded
  assert np.abs(apart).max() <= 1 and (apart == 0).mean() > 0.999
  assert label.tolist() == [*range(10), 0]
  # As the evaluator of ADM reads it: it looks for the file in the archive.
  with zipfile.ZipFile(out) as archive, archive.open("arr_0.npy") as file:
    assert np.lib.format.read_magic(file) == (1, 0)
    header = np.lib.format.read_array_header_1_0(file)
    assert header == ((NUM, 8, 8, 3), False, np.dtype("uint8"))
    assert file.read() == found.tobytes()


def test_folder_has_a_picture_each(folder, tmp_path):
  out = tmp_path / "pictures"
  flags = f"--num={NUM}", "--label=0,3,7"
  assert sample(folder / "digits", out, *flags).code == 0
  names = sorted(path.name for path in out.glob("*.png"))
  assert names == [f"{i:06d}.png" for i in range(NUM)]
  found = np.stack([np.asarray(Image.open(out / name)) for name in names])
  assert (
    sample(folder / "digits", tmp_path / "a.npz", "--uint8", *flags)[0] == 0
  )
  with np.load(tmp_path / "a.npz") as arrays:
    np.testing.assert_array_equal(found, arrays["arr_0"])
    assert arrays["arr_1"].tolist() == [0, 3, 7] * 3 + [0, 3]
  about = json.loads((out / "samples.json").read_text())
  assert about["label"] == [0, 3, 7] * 3 + [0, 3]
  assert (about["num"], about["seed"], about["step"]) == (NUM, 0, 5)


def test_folder_goes_on_and_stays_of_one_command(folder, tmp_path, monkeypatch):
  out, workdir = tmp_path / "pictures", folder / "digits"
  calls, batch = [], Pictures.batch

  def once(pictures, first):
    calls.append(first)
    if len(calls) == 2:
      raise KeyboardInterrupt
    return batch(pictures, first)

  monkeypatch.setattr(Pictures, "batch", once)
  assert sample(workdir, out, "--num=20").code == 130
  assert len([*out.glob("*.png")]) == 8
  (out / ".000009.png.0123456789abcdef.tmp").touch()  # As a kill leaves it.
  result = sample(workdir, out, "--num=20")
  assert result.code == 0, result.err
  assert "2 of 3 batches are missing" in result.out
  assert calls == [0, 8, 8, 16]
  assert len([*out.iterdir()]) == 20 + 2  # samples.json and its SHA-256.
  whole = tmp_path / "whole"
  sample(workdir, whole, "--num=20")
  sums = tiny.checksums(whole)
  assert {k: v for k, v in tiny.checksums(out).items() if "png" in k} == {
    k: v for k, v in sums.items() if "png" in k
  }
  for flag, was, now in (
    ("--seed=1", "0", "1"),
    ("--num=21", "20", "21"),
    ("--nfe=2", "1", "2"),
  ):
    flags = [flag] if "num" in flag else ["--num=20", flag]
    result = sample(workdir, out, *flags)
    assert (result.code, result.err.count("\n")) == (2, 1), result
    name = flag.split("=")[0]
    assert f"was made with {name}={was}, not {now}" in result.err
  foreign = tmp_path / "foreign"
  foreign.mkdir()
  (foreign / "a.png").touch()
  result = sample(workdir, foreign)
  assert (result.code, result.err.count("\n")) == (2, 1)
  assert "is not empty and holds no samples.json" in result.err


def test_interrupted_file_is_not_there(tmp_path):
  def draw(first, size):
    if first:
      raise NotFiniteError("training diverged")
    return np.zeros((size, 2, 2, 1))

  pictures = Pictures(num=9, size=4, draw=draw, label=None, about={}, origin={})
  with pytest.raises(NotFiniteError):
    write(tmp_path / "a.npz", pictures)
  assert not [*tmp_path.iterdir()]


def test_no_more_than_a_batch_is_made_at_once(tmp_path):
  asked = []

  def draw(first, size):
    asked.append((first, size))
    return np.zeros((size, 2, 2, 3))

  pictures = Pictures(
    num=10, size=4, draw=draw, label=None, about={}, origin={}
  )
  write(tmp_path / "a.npz", pictures)
  assert asked == [(0, 4), (4, 4), (8, 4)]
  assert tiny.arrays(tmp_path / "a.npz")["arr_0"].shape == (10, 2, 2, 3)


def test_labels_of_a_file_come_in_turn(folder, tmp_path):
  file, out = tmp_path / "labels.txt", tmp_path / "a.npz"
  file.write_text("4\n 9 \n4\n")
  sample(folder / "digits", out, f"--labels-file={file}")
  assert tiny.arrays(out)["label"].tolist() == [4, 9, 4]
  sample(folder / "digits", out, f"--labels_file={file}", "--num=5")
  assert tiny.arrays(out)["label"].tolist() == [4, 9, 4, 4, 9]


def test_classes_by_name(tmp_path):
  images = np.zeros((8, 4, 4, 1), np.uint8)
  images[:, 0, 0] = np.arange(8)[:, None]
  names = ("cat", "dog, small")
  for i, name in enumerate(["cat", "dog, small"] * 4):
    (tmp_path / "data" / name).mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(images[i, ..., 0])
    picture.save(tmp_path / "data" / name / f"{i}.png")
  workdir = tiny.train(
    tmp_path,
    "run",
    "flow_matching",
    *("data.name=folder", f"data.dir={tmp_path / 'data'}", "train.steps=1"),
    *("data.conditional=True", "data.channels=1", "data.size=4"),
    *("train.batch_size=8", "data.test_share=0.0"),
  )
  out = tmp_path / "a.npz"
  for flag, expected in (
    (f"--label={names[1]}", [1] * 4),
    ("--label=1,cat", [1, 0, 1, 0]),
  ):
    result = sample(workdir, out, flag, "--num=4", "--uint8")
    assert result.code == 0, result.err
    assert tiny.arrays(out)["arr_1"].tolist() == expected
  file = tmp_path / "labels.txt"
  file.write_text("\n".join(names))
  assert sample(workdir, out, f"--labels_file={file}", "--uint8").code == 0
  assert tiny.arrays(out)["arr_1"].tolist() == [0, 1]


@pytest.mark.parametrize(
  ("run", "flags", "words"),
  [
    (
      "points",
      ["--out={}/a.npz", "--uint8"],
      "samples of shape (2,) are no p",
    ),
    ("points", ["--out={}/a"], "--out={}/a: samples of shape (2,) are no pi"),
    ("digits", ["--out={}/a.png", "--uint8"], "ends in .npz with --uint8, or"),
    ("digits", ["--out={}/a.jpg"], ".jpg: give a file that ends in .png or .n"),
    ("digits", ["--out={}/a", "--num=0"], "--num=0: give 1 to 4294967296"),
    ("digits", ["--out={}/a", "--latents"], "--latents needs a file that ends"),
    ("digits", ["--out={}/a", "--label=1,2,x"], "--label='x': give 0 to 9"),
    ("digits", ["--out={}/a", "--label=1,2", "--num=1"], "--num=1: 2 labels"),
    ("digits", ["--out={}/a", "--labels_file={}/n"], "n' is not there"),
    ("digits", ["--out={}/a", "--labels_file={}"], "cannot be read"),
    (
      "digits",
      ["--out={}/a", "--labels_file={}/n", "--label=1"],
      "--label is given as well",
    ),
  ],
)
def test_wrong_sample(folder, tmp_path, run, flags, words):
  flags = [flag.format(tmp_path) for flag in flags]
  result = tiny.run("sample", f"--workdir={folder / run}", *flags)
  assert (result.code, result.out, result.err.count("\n")) == (2, "", 1), result
  assert words.format(tmp_path) in result.err
  assert not [*tmp_path.iterdir()]


def test_wrong_line_of_a_file_is_named(folder, tmp_path):
  file = tmp_path / "labels.txt"
  for text, words in (("1\n2\n77\n", "line 3=77 is out"), ("", "is empty")):
    file.write_text(text)
    flags = tmp_path / "a", f"--labels_file={file}"
    result = sample(folder / "digits", *flags)
    assert (result.code, result.err.count("\n")) == (2, 1), result
    assert f"--labels_file='{file}'" in result.err and words in result.err
  assert not (tmp_path / "a").exists()


def test_real_pictures(folder, tmp_path):
  config = f"{tiny.config_file(tmp_path)}:flow_matching"
  digits = "--config.data.name=digits", "--config.data.conditional=True"
  stats = functools.partial(tiny.run, "stats", f"--config={config}", *digits)
  out = tmp_path / "real.npz"
  result = stats(f"--out={out}", "--split=test", "--uint8")
  assert result.code == 0, result.err
  real = data.load("digits", "test")
  # The grey values 0 to 16 of the set, as bytes.
  expected = np.floor((real.data + 1) * 8 * 255 / 16 + 0.5)
  with np.load(out) as arrays:
    found = arrays["arr_0"]
    np.testing.assert_array_equal(found, np.repeat(expected, 3, axis=3))
    np.testing.assert_array_equal(arrays["arr_1"], real.label)
  pictures = tmp_path / "real"
  assert stats(f"--out={pictures}", "--split=test", "--num=20").code == 0
  files = sorted(pictures.glob("*.png"))
  assert len(files) == 20
  rows = {x.tobytes() for x in found}
  assert all(np.asarray(Image.open(x)).tobytes() in rows for x in files)
  result = tiny.run("stats", f"--config={config}", f"--out={tmp_path / 'no'}")
  assert (result.code, result.err.count("\n")) == (2, 1)
  assert "are no pictures" in result.err


def features(images):
  """Five numbers of images [N, 8, 8, 3], float64."""
  weights = np.random.default_rng(0).standard_normal((8 * 8 * 3, 5))
  return images.reshape(len(images), -1).astype(np.float64) @ weights / 100


@pytest.fixture(scope="module")
def exported(folder, tmp_path_factory):
  """Return folders of samples and of real digits, and our distance."""
  path = tmp_path_factory.mktemp("exported")
  config = f"--config={tiny.config_file(path)}:flow_matching"
  for suffix in ("", ".npz"):
    flags = "--num=300", f"--out={path / 'samples'}{suffix}", "--uint8"
    tiny.run("sample", f"--workdir={folder / 'digits'}", *flags)
    flags = "--num=300", f"--out={path / 'real'}{suffix}", "--uint8"
    tiny.run("stats", config, "--config.data.name=digits", *flags)
  arrays = (
    tiny.arrays(path / f"{x}.npz")["arr_0"] for x in ("samples", "real")
  )
  moments = (metrics.Moments.of(features(x)) for x in arrays)
  return path, metrics.frechet_distance(*moments).value


def needs(name):
  if importlib.util.find_spec(name) is None:
    package = {"cleanfid": "clean-fid"}.get(name, "torch-fidelity")
    pytest.skip(f"needs {package}: pip install {package}")
  return pytest.importorskip("torch")


@pytest.mark.filterwarnings("ignore")
def test_clean_fid_reads_the_folder(exported):
  torch = needs("cleanfid")
  from cleanfid import fid

  def network(batch):
    # It hands over bytes that were divided and multiplied by 255.
    pixels = batch.round().to(torch.uint8).permute(0, 2, 3, 1)
    return torch.from_numpy(features(pixels.numpy()))

  path, ours = exported
  found = [
    fid.get_folder_features(
      *(str(path / name), network),
      num_workers=0,
      device=torch.device("cpu"),
      mode="legacy_tensorflow",
      verbose=False,
    )
    for name in ("samples", "real")
  ]
  assert found[0].shape == (300, 5)
  assert fid.fid_from_feats(*found) == pytest.approx(ours, rel=1e-6)


@pytest.mark.filterwarnings("ignore")
def test_torch_fidelity_reads_the_folder(exported):
  torch = needs("torch_fidelity")
  import torch_fidelity
  from torch_fidelity.feature_extractor_base import FeatureExtractorBase

  class Network(FeatureExtractorBase):
    def __init__(self, name, features_list, **others):
      super().__init__(name, features_list)

    @staticmethod
    def get_provided_features_list():
      return ("all",)

    @staticmethod
    def get_default_feature_layer_for_metric(metric):
      return "all"

    @staticmethod
    def can_be_compiled():
      return False

    def forward(self, batch):
      pixels = batch.permute(0, 2, 3, 1).numpy()
      return (torch.from_numpy(features(pixels)),)

  torch_fidelity.register_feature_extractor("ours", Network)
  path, ours = exported
  found = torch_fidelity.calculate_metrics(
    input1=str(path / "samples"),
    input2=str(path / "real"),
    feature_extractor="ours",
    **{"fid": True, "cuda": False, "cache": False, "verbose": False},
  )
  distance = found["frechet_inception_distance"]
  assert distance == pytest.approx(ours, rel=1e-6)


def test_pictures_are_checked_in_python_too(folder, tmp_path):
  run = jaxflow.load(folder / "points")
  with pytest.raises(UsageError, match="are no pictures"):
    run.save_pictures(tmp_path / "a.npz", 2)
