"""Pictures in a folder: classes, splits, crops, faults, and a whole run."""

import hashlib
import json
import os

import numpy as np
import pytest
import tiny
from PIL import Image
from sklearn import datasets

from jaxflow import data
from jaxflow.data import looking, pictures
from jaxflow.data.sets import picture_folder
from jaxflow.errors import RunError, UsageError
from jaxflow.reading import read_arrays
from jaxflow.runs import encoding
from jaxflow.runs.inputs import Inputs

PHOTOS = [datasets.load_sample_image(f"{x}.jpg") for x in ("china", "flower")]
KINDS = (
  *(("1", "png"), ("L", "jpg"), ("LA", "png"), ("P", "gif"), ("PA", "tiff")),
  *(("RGB", "jpeg"), ("RGBA", "webp"), ("CMYK", "jpg"), ("I;16", "png")),
  *(("F", "tif"), ("RGB", "bmp"), ("RGBA", "png"), ("P", "png")),
)


def picture(number, mode="RGB"):
  """A part of a photo of another size for each number."""
  generator = np.random.default_rng(number)
  top, left = generator.integers(0, 300), generator.integers(0, 500)
  height, width = generator.integers(20, 60, 2)
  photo = PHOTOS[number % 2][top : top + height, left : left + width].copy()
  found = Image.fromarray(photo)
  if mode == "I;16":
    return Image.fromarray(
      np.asarray(found.convert("L")).astype(np.uint16) * 256
    )
  if mode == "PA":
    return found.quantize(32).convert("PA")
  if mode in ("LA", "RGBA"):
    found.putalpha(found.convert("L"))
  return found.convert(mode)


def write(folder, names, **options):
  for number, name in enumerate(names):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(number).save(path, **options)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """26 pictures of all kinds in class folders, some deeper, and a text."""
  root = tmp_path_factory.mktemp("pictures")
  for number in range(26):
    mode, suffix = KINDS[number % len(KINDS)]
    inside = ("cat/Über 1", "dog")[number % 2]
    path = root / inside / f"{number:02d} {mode.replace(';', '')}.{suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(number, mode).save(path)
  (root / "notes.txt").write_text("mine")
  (root / ".hidden.png").write_text("no picture")
  return root


def load(folder, split="train", **options):
  return data.load("folder", split, dir=str(folder), **{"size": 8, **options})


def message(error):
  text = str(error.value)
  assert "\n" not in text
  return text


def in_test(name, share):
  word = hashlib.sha256(name.encode()).hexdigest()[:16]
  return int(word, 16) / 16**16 < share


def files(folder):
  found = (path.relative_to(folder).as_posix() for path in folder.rglob("*.*"))
  return sorted(x for x in found if os.path.splitext(x)[1] in pictures.SUFFIXES)


@pytest.mark.parametrize("channels", [None, 1, 4])
def test_every_picture_is_there_as_pillow_converts_it(folder, channels):
  names = [x for x in files(folder) if not x.startswith(".")]
  assert len(names) == 26
  parts = {
    split: load(folder, split, channels=channels, test_share=0.3)
    for split in ("train", "test")
  }
  for split, source in parts.items():
    mine = [x for x in names if in_test(x, 0.3) == (split == "test")]
    assert len(source) == len(mine) > 3
    rows = source.take(np.arange(len(source)))
    for name, found, label in zip(
      mine, rows["data"], rows["cond"], strict=True
    ):
      assert ("cat", "dog")[label] == name.partition("/")[0]
      with Image.open(folder / name) as image:
        image.load()
      if image.mode in ("I;16", "F"):
        scale = 257 if image.mode == "I;16" else 1
        image = Image.fromarray(np.float32(np.asarray(image)) / scale)
        bands = [image] * (channels or 3)
        if channels == 4:
          bands[3] = Image.new("F", image.size, 255)
      else:
        rgba = image.convert("RGBA")
        over = Image.alpha_composite(
          Image.new("RGBA", rgba.size, "white"), rgba
        )
        mode = {None: "RGB", 1: "L"}.get(channels)
        shown = over.convert("RGB").convert(mode) if mode else rgba
        bands = shown.split()
      expected = np.stack([middle(np.asarray(band)) for band in bands], -1)
      np.testing.assert_allclose(
        (found + 1) * 127.5, expected, atol=1e-3, err_msg=name
      )


def middle(band, size=8):
  """Pillow's own scaling of one band, and its middle."""
  image = Image.fromarray(band)
  while min(image.size) >= 2 * size:
    half = image.width // 2, image.height // 2
    image = image.resize(half, Image.Resampling.BOX)
  scale = size / min(image.size)
  sides = [round(x * scale) for x in image.size]
  image = image.resize(sides, Image.Resampling.BICUBIC)
  left, top = ((x - size) // 2 for x in image.size)
  cut = image.crop((left, top, left + size, top + size))
  return np.clip(np.asarray(cut, np.float32), 0, 255)


def test_a_picture_stays_in_its_split_when_others_come(tmp_path):
  names = [f"{i}.png" for i in range(30)]
  write(tmp_path, names[:20])
  few = {x: len(load(tmp_path, x, test_share=0.4)) for x in ("train", "test")}
  assert few["test"] == sum(in_test(x, 0.4) for x in names[:20])
  write(tmp_path, names)
  assert len(load(tmp_path, "test", test_share=0.4)) == sum(
    in_test(x, 0.4) for x in names
  )


def test_names_that_are_no_text(tmp_path):
  write(tmp_path, ["0.png", "1.png"])
  os.rename(tmp_path / "1.png", os.fsencode(tmp_path) + b"/\xff.png")
  assert len(load(tmp_path, test_share=0)) == 2
  assert len(load(tmp_path, test_share=0)) == 2


def test_flat_folders_and_single_folders_have_no_classes(tmp_path):
  write(tmp_path / "flat", [f"{i}.png" for i in range(4)])
  write(tmp_path / "one", [f"all/{i}.png" for i in range(4)])
  for name in ("flat", "one"):
    source = load(tmp_path / name, test_share=0)
    assert (len(source), source.num_classes, source.class_names) == (4, 0, ())
    assert "cond" not in source.take(np.arange(4))
  with pytest.raises(data.NoSplitError, match=r"has no test split, only train"):
    load(tmp_path / "flat", "test", test_share=0)


def test_class_folders_that_are_numbers_are_in_their_order(tmp_path):
  write(tmp_path, [f"{x}/0.png" for x in ("10", "9", "11")])
  source = load(tmp_path, test_share=0)
  assert source.class_names == ("9", "10", "11")
  # Pictures are in the order of their names: 10, 11, 9.
  assert source.take(np.arange(3))["cond"].tolist() == [1, 2, 0]


@pytest.mark.parametrize("crop", ["centre", "random"])
def test_a_class_whose_pictures_are_all_tests_is_named(tmp_path, crop):
  write(tmp_path, ["train/a/0.png", "train/b/1.png", "test/c/2.png"])
  source = load(tmp_path, crop=crop)
  text = str(Inputs(source, None, None))
  assert text.endswith(", 3 classes (no sample of c)")


def test_a_folder_around_class_folders_is_named(tmp_path, caplog):
  write(tmp_path / "a", ["all/cat/0.png", "all/dog/0.png"])
  write(tmp_path / "b", ["all/cat/0.png", "all/cat/1.png"])
  assert load(tmp_path / "a", test_share=0).num_classes == 0
  line = "holds one folder, 'all', so there are no classes; name that folder"
  assert line in caplog.text
  assert "(cat, dog)" in caplog.text
  caplog.clear()
  assert load(tmp_path / "b", test_share=0).num_classes == 0
  assert line not in caplog.text


def test_pictures_in_no_class_folder_have_the_null_label(tmp_path, caplog):
  write(tmp_path, ["a/0.png", "b/1.png", "2.png"])
  source = load(tmp_path, test_share=0)
  # In the order of their names: 2.png comes first.
  assert source.take(np.arange(3))["cond"].tolist() == [2, 0, 1]
  assert "without a label: 1 (2.png)" in caplog.text
  assert load(tmp_path, test_share=0, conditional=False).num_classes == 0


@pytest.mark.parametrize(
  ("train", "test"),
  [
    *(("train", "test"), ("train", "val"), ("Train", "Test")),
    *(("training", "testing"), ("TRAIN", "Validation")),
  ],
)
def test_folders_of_splits(tmp_path, train, test):
  names = [
    f"{train}/x/0.png",
    f"{train}/y/1.png",
    f"{test}/y/2.png",
    f"{test}/x/3.png",
  ]
  write(tmp_path, names)
  for split in ("train", "test"):
    source = load(tmp_path, split)
    assert source.class_names == ("x", "y")
    assert source.take(np.arange(2))["cond"].tolist() == [0, 1]
    assert len(source) == 2


@pytest.mark.parametrize(
  ("folders", "other", "words"),
  [
    (("train", "test"), "stray.png", "splits, test, train beside stray.png: "),
    (("Train", "Test"), "car/4.png", "splits, Test, Train beside car: "),
    (("train2017", "val2017"), "", "splits, train2017, val2017: "),
    (("trainval", "test"), "", "data.split.train='trainval' and "),
  ],
)
def test_folders_that_seem_to_be_splits(
  tmp_path, folders, other, words, caplog
):
  write(tmp_path, [f"{x}/{i}.png" for x in folders for i in range(2)])
  write(tmp_path, [other] if other else [])
  with pytest.raises(UsageError) as error:
    load(tmp_path)
  assert words in message(error)
  splits = dict(zip(("train", "test"), folders, strict=True))
  assert f"data.split.test={folders[1]!r}" in message(error)
  for split in splits:
    assert len(load(tmp_path, split, splits=splits)) == 2
  if other == "stray.png":
    assert "in no split: 1 (stray.png)" in caplog.text


@pytest.mark.parametrize("other", ["valley", "test"])
def test_classes_may_be_called_like_splits(tmp_path, other):
  """A station and a valley; a folder of tests among classes alone."""
  first = "train_station" if other == "valley" else "car"
  write(tmp_path, [f"{first}/0.png", f"{other}/1.png", "ape/2.png"])
  found = load(tmp_path, test_share=0).class_names
  assert list(found) == sorted(["ape", first, other])


def test_splits_that_are_one(tmp_path):
  write(tmp_path, ["fit/x/0.png", "fit/y/1.png", "held/x/2.png"])
  with pytest.raises(UsageError) as error:
    load(tmp_path, splits={"train": "fit", "test": "fit"})
  assert "data.split.test='fit': this is data.split.train too" in message(error)


def test_splits_by_name(tmp_path, caplog):
  write(tmp_path, ["fit/x/0.png", "fit/y/1.png", "held/x/2.png", "rest/3.png"])
  splits = {"train": "fit", "test": "held"}
  assert [len(load(tmp_path, x, splits=splits)) for x in splits] == [2, 1]
  assert "in no split: rest" in caplog.text
  with pytest.raises(UsageError) as error:
    load(tmp_path, splits={"train": "fti", "test": None})
  assert "data.split.train='fti'" in message(error)
  assert "only fit, held, rest" in message(error)
  with pytest.raises(UsageError, match="name the folder of the other"):
    load(tmp_path, splits={"train": None, "test": "held"})
  with pytest.raises(UsageError, match=r"data\.test_share=0\.1: .*remove one"):
    load(tmp_path, splits=splits, test_share=0.1)


def test_random_crops_move_and_depend_on_seed_and_batch_only(tmp_path):
  ramp = np.tile(np.arange(64, dtype=np.uint8), (8, 1))
  for number in range(4):
    Image.fromarray(ramp).save(tmp_path / f"{number}.png")
  source = load(tmp_path, channels=1, crop="random", test_share=0)
  assert not isinstance(source, data.Dataset)

  def lefts(threads, start=0):
    batches = data.Batches(
      source, batch_size=100, seed=3, cut=True, threads=threads
    )
    batches.set_state({"position": start})
    found = [next(batches)["data"][:, 0, 0, 0] for _ in range(2)]
    batches.close()
    return np.rint((np.stack(found) + 1) * 127.5)

  first = lefts(0)
  np.testing.assert_array_equal(first, lefts(2))
  np.testing.assert_array_equal(first[1], lefts(0, start=1)[0])
  # 57 places; their mean is 28, its deviation 16.5 / sqrt(200).
  assert first.min() < 5 and first.max() > 51
  assert abs(first.mean() - 28) < 5 * 16.5 / 200**0.5
  assert (source.take(np.arange(4))["data"][:, 0, 0, 0] * 127.5 + 127.5).round(
    3
  ).tolist() == [28] * 4
  with pytest.raises(UsageError, match="has no pictures to cut"):
    data.Batches(data.load("ring", "train"), batch_size=2, seed=0, cut=True)


def test_the_index_is_used_and_renewed(tmp_path, monkeypatch):
  write(tmp_path, [f"{i}.png" for i in range(4)])
  looked = []
  see = picture_folder._see
  monkeypatch.setattr(
    picture_folder, "_see", lambda path: looked.append(path.name) or see(path)
  )
  load(tmp_path)
  assert sorted(looked) == ["0.png", "1.png", "2.png", "3.png"]
  index = json.loads((tmp_path / looking.INDEX).read_text())
  assert index["files"]["0.png"][2:] == [*picture(0).size[::-1], ""]
  looked.clear()
  load(tmp_path)
  assert looked == []
  picture(9).save(tmp_path / "2.png")
  (tmp_path / "3.png").unlink()
  write(tmp_path, ["4.png"])
  load(tmp_path)
  assert looked == ["2.png", "4.png"]
  index = json.loads((tmp_path / looking.INDEX).read_text())
  assert sorted(index["files"]) == ["0.png", "1.png", "2.png", "4.png"]
  # One that is damaged, or that somebody has edited, is made again.
  for text in ("{", '{"files": {"0.png": [1, 2, 3]}}', '{"files": 3}'):
    looked.clear()
    (tmp_path / looking.INDEX).write_text(text)
    load(tmp_path)
    assert len(looked) == 4


def test_broken_pictures_are_named_counted_and_allowed(tmp_path, caplog):
  write(tmp_path, [f"{i}.png" for i in range(4)])
  whole = (tmp_path / "1.png").read_bytes()
  (tmp_path / "1.png").write_bytes(whole[:-300])
  (tmp_path / "empty.jpg").touch()
  with pytest.raises(UsageError) as error:
    load(tmp_path)
  text = message(error)
  assert (
    "broken pictures: 2 (1.png: " in text and "empty.jpg: no file of" in text
  )
  assert "set data.max_broken=2" in text
  assert len(load(tmp_path, max_broken=2, test_share=0)) == 3
  assert "left out as data.max_broken=2 allows" in caplog.text
  with pytest.raises(UsageError):
    load(tmp_path, max_broken=1)


def test_a_picture_that_breaks_later_is_one_line(tmp_path):
  write(tmp_path, [f"{i}.png" for i in range(4)])
  source = load(tmp_path, ram_gib=0, test_share=0)
  (tmp_path / "2.png").write_bytes(b"gone")
  with pytest.raises(RunError) as error:
    source.take(np.arange(4))
  assert f"{tmp_path}/2.png: no file of" in message(error)
  assert "mend or remove it" in message(error)


def test_folders_in_which_nothing_can_be_trained(tmp_path):
  with pytest.raises(UsageError, match=r"data\.dir=None.*set data\.dir to it"):
    data.load("folder", "train", size=8)
  with pytest.raises(UsageError, match="cannot be read"):
    load(tmp_path / "absent")
  with pytest.raises(UsageError, match="holds no pictures, of 0"):
    load(tmp_path)
  write(tmp_path, ["only.png"])
  with pytest.raises(UsageError, match="holds one picture, of 1"):
    load(tmp_path)
  write(tmp_path, ["0.png", "1.png"])
  with pytest.raises(UsageError) as error:
    load(tmp_path, size=None)
  assert "vary in size" in message(error) and "data.size=64" in message(error)


def test_links_are_followed_once(tmp_path):
  write(tmp_path / "far", [f"{i}.png" for i in range(3)])
  write(tmp_path / "near", ["a/3.png", "a/4.png"])
  (tmp_path / "near" / "b").symlink_to(tmp_path / "far")
  (tmp_path / "near" / "a" / "up").symlink_to(tmp_path / "near")
  source = load(tmp_path / "near", test_share=0)
  assert (len(source), source.class_names) == (5, ("a", "b"))


@pytest.mark.parametrize(
  ("options", "words"),
  [
    ({"raw_dir": "/x"}, r"data\.raw_dir='/x'.*'folder'.*remove"),
    ({"label": "none"}, r"data\.label='none'.*'folder'.*remove"),
    ({"crop": "center"}, "did you mean 'centre'"),
  ],
)
def test_fields_in_vain(tmp_path, options, words):
  with pytest.raises(UsageError, match=words):
    load(tmp_path, **options)


def test_fields_of_pictures_are_refused_elsewhere():
  for options in ({"channels": 1}, {"max_broken": 1}, {"dir": "/x"}):
    (field,) = options
    with pytest.raises(UsageError, match=rf"data\.{field}=.*'ring'.*remove"):
      data.load("ring", "train", **options)


def test_any_set_can_hold_out_a_share():
  parts = {x: data.load("ring", x, test_share=0.25) for x in ("train", "test")}
  whole = data.load("ring", "train")
  assert sum(map(len, parts.values())) == len(whole)
  held = [i for i in range(len(whole)) if in_test(str(i), 0.25)]
  np.testing.assert_array_equal(parts["test"].data, whole.data[held])
  assert parts["test"].split == "test"


def test_encode_takes_a_folder(folder):
  options = encoding.EncodeOptions(
    data="folder", dir=str(folder), autoencoder="none", size=16
  )
  sources = encoding._sources(options)
  assert sum(map(len, sources.values())) == 26
  assert {x.shape for x in sources.values()} == {(16, 16, 3)}


def test_one_command_trains_on_a_folder(folder, tmp_path):
  """The command of the README, with a network that is small."""
  workdir = tmp_path / "run"
  flags = (
    *("--config=images:mean_flow", f"--config.data.dir={folder}"),
    *(f"--workdir={workdir}", "--config.data.size=8"),
    *("--config.model.depth=1", "--config.model.width=16"),
    *("--config.model.num_heads=2", "--config.train.steps=2"),
    *("--config.train.batch_size=8", "--config.train.sample_every=0"),
    "--config.optimizer.warmup_steps=0",
  )
  result = tiny.run("train", *flags)
  assert result.code == 0, result.err
  stored = json.loads((workdir / "config.json").read_text())["data"]
  assert stored["class_names"] == ["cat", "dog"]
  assert stored["shape"] == [8, 8, 3]
  sample = "sample", f"--workdir={workdir}", f"--out={tmp_path / 'a.npz'}"
  result = tiny.run(*sample, "--num=3", "--label=dog")
  assert result.code == 0, result.err
  assert read_arrays(tmp_path / "a.npz")["label"].tolist() == [1] * 3
  result = tiny.run(*sample, "--label=dgo")
  assert result.code == 2
  assert "--label='dgo': did you mean 'dog'?" in result.err
  assert result.err.count("\n") == 1
