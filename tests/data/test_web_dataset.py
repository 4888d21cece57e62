"""Pictures in tar files: their index, labels, splits, bad files."""

import bz2
import gzip
import hashlib
import io
import json
import lzma
import os
import tarfile

import numpy as np
import pytest
from PIL import Image
from sklearn import datasets as photos

from jaxflow import data
from jaxflow.data.sets import tar_shards
from jaxflow.errors import RunError, UsageError

PHOTO = photos.load_sample_image("flower.jpg")
FORMATS = (("RGB", "JPEG"), ("P", "PNG"), ("LA", "PNG"), ("CMYK", "TIFF"))
ENDS = {"JPEG": "jpg", "PNG": "png", "TIFF": "tiff"}


def file(number):
  """Ending and bytes of a part of a photo, of a size of its own."""
  mode, kind = FORMATS[number % len(FORMATS)]
  height, width = 8 + number % 5, 9 + number % 3
  part = PHOTO[7 * number : 7 * number + height, 300 : 300 + width]
  found = io.BytesIO()
  Image.fromarray(part).convert(mode).save(found, kind)
  return ENDS[kind], found.getvalue()


def write(path, members, **options):
  """A tar file of names and texts or bytes."""
  path.parent.mkdir(parents=True, exist_ok=True)
  with tarfile.open(path, "w", **options) as tar:
    for name, content in members:
      info = name
      if isinstance(name, str):
        info = tarfile.TarInfo(name)
        content = content.encode() if isinstance(content, str) else content
        info.size = len(content)
      tar.addfile(info, io.BytesIO(content))
  return path


def samples(numbers, label=lambda i: str(i % 3 - 1), end="cls"):
  """Members of samples: a picture each, and a label."""
  for i in numbers:
    suffix, content = file(i)
    yield f"{i:04d}.{suffix}", content
    if label is not None:
      yield f"{i:04d}.{end}", label(i)


def load(folder, split="train", **options):
  options = {"size": 8, **options}
  return data.load("webdataset", split, dir=str(folder), **options)


def refused(folder, split="train", **options):
  """The one line of a load that is wrong."""
  with pytest.raises(UsageError) as error:
    load(folder, split, **options)
  text = str(error.value)
  assert "\n" not in text
  return text


def everything(source):
  return source.take(np.arange(len(source)))


def in_test(name, share):
  word = hashlib.sha256(name.encode()).hexdigest()[:16]
  return int(word, 16) / 16**16 < share


@pytest.mark.parametrize(
  "format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]
)
def test_samples_are_the_pictures_of_the_same_files_in_a_folder(
  tmp_path, format
):
  start = f"./{'long' * 40}/Über " * (format != tarfile.USTAR_FORMAT)
  for shard, numbers in (("b/0.tar", range(5, 9)), ("a.tar", range(5))):
    members = [(start + k, x) for k, x in samples(numbers)]
    write(tmp_path / "set" / shard, members, format=format)
  (tmp_path / "files").mkdir()
  for i in range(9):
    suffix, content = file(i)
    (tmp_path / "files" / f"{i}.{suffix}").write_bytes(content)
  for channels in (None, 1, 4):
    options = {"channels": channels, "background": (9, 90, 200)}
    options |= {"size": 8, "test_share": 0}
    place = str(tmp_path / "files")
    expected = data.load("folder", "train", dir=place, **options)
    source = load(tmp_path / "set", **options)
    found = everything(source)
    np.testing.assert_array_equal(found["data"], everything(expected)["data"])
    # -1 is no label.
    assert found["cond"].tolist() == [2, 0, 1] * 3
    assert (source.num_classes, source.class_names) == (2, ())


@pytest.mark.parametrize(
  ("texts", "num", "names", "labels"),
  [
    (["3", " 0\n", "-1", "2"], 4, (), [3, 0, 4, 2]),
    (["dog", "cat", "dog\n", "cat"], 2, ("cat", "dog"), [1, 0, 1, 0]),
  ],
)
def test_labels(tmp_path, texts, num, names, labels):
  write(tmp_path / "a.tar", samples(range(4), texts.__getitem__))
  source = load(tmp_path, test_share=0)
  assert (source.num_classes, source.class_names) == (num, names)
  assert everything(source)["cond"].tolist() == labels
  for options in ({"conditional": False}, {"label": "none"}):
    assert load(tmp_path, **options).num_classes == 0


def test_labels_in_json_and_under_other_names(tmp_path):
  def members():
    for i in range(4):
      suffix, content = file(i)
      about = {"about": {"kind": "ab"[i % 2], "size": i}}
      yield f"{i}.JSON", json.dumps(about if i < 3 else {"about": {}})
      yield f"{i}.{suffix}", content
      yield f"{i}.fine.txt", f"{3 - i}"

  write(tmp_path / "a.tar", members())
  kinds = load(tmp_path, label="json/about/kind", test_share=0)
  assert kinds.class_names == ("a", "b")
  assert everything(kinds)["cond"].tolist() == [0, 1, 0, 2]
  fine = load(tmp_path, label="fine.txt", test_share=0)
  assert everything(fine)["cond"].tolist() == [3, 2, 1, 0]
  # Without a "cls" there are no labels, unless they are named.
  assert load(tmp_path).num_classes == 0
  assert "ends so, only with fine.txt, jpg, json, png" in refused(
    tmp_path, label="cls"
  )
  for label in ("json/about/knid", "json/knid"):
    text = refused(tmp_path, label=label)
    assert f"data.label={label!r}: no sample of " in text
    assert "choose another, or 'none'" in text
    assert load(tmp_path, label=label, conditional=False).num_classes == 0
  text = refused(tmp_path, label="json/about")
  assert "a.tar: the label '0.JSON' is" in text and "give the number" in text
  text = refused(tmp_path, label="json/about/kind/x")
  assert "cannot be read" in text


@pytest.mark.parametrize(
  ("texts", "words"),
  [
    ("1x23", "a label is 'x': labels are whole numbers"),
    (["0", "1.5", "1", "1"], "a label is '1.5'"),
    (["0", "", "1", "1"], "0001.cls' is '': give the number"),
    (["0", b"\xff", "1", "1"], "0001.cls' cannot be read"),
    (["0", "-2", "1", "1"], "a label is -2"),
    (["0", "9" * 9, "1", "1"], "a label is 999999999"),
    (["0.5", "0.5", "1.5", "1.5"], "a label is '0.5': numbers of classes are"),
    ("abcd", "of 4 labels 4 have one sample only ('a')"),
    (["a b", "c d", "e", "e"], "of 3 labels 2 have one sample only ('a b')"),
    ("abcd", "texts and no classes; set data.label=none"),
  ],
)
def test_labels_that_are_no_number(tmp_path, texts, words):
  write(tmp_path / "a.tar", samples(range(4), texts.__getitem__))
  assert words in refused(tmp_path)
  assert load(tmp_path, label="none").num_classes == 0


def test_several_pictures_a_sample(tmp_path):
  def members():
    for i in (1, 2, 5, 6):  # All PNG.
      yield f"{i}.left.png", file(i)[1]
      yield f"{i}.right.png", file(i + 4)[1]

  write(tmp_path / "a.tar", members())
  text = refused(tmp_path)
  assert (
    "sample '1', up to the first dot, has pictures left.png, right.png" in text
  )
  left, right = (
    everything(load(tmp_path, image=f"{x}.png", test_share=0))["data"]
    for x in ("left", "right")
  )
  np.testing.assert_array_equal(left[2:], right[:2])
  text = refused(tmp_path, image="png")
  assert "data.image='png'" in text and "left.png, right.png" in text


def test_names_with_dots(tmp_path):
  write(tmp_path / "a.tar", [(f"x/p.{i}.png", file(1)[1]) for i in range(3)])
  text = refused(tmp_path)
  assert "a name may have one dot only, before its ending" in text
  assert "write 'p_0.png'" in text and "data.image" not in text


def test_what_is_of_no_sample_is_named(tmp_path, caplog):
  link = tarfile.TarInfo("0009.png")
  link.type, link.linkname = tarfile.SYMTYPE, "0000.png"
  folder = tarfile.TarInfo("inside")
  folder.type = tarfile.DIRTYPE
  others = [
    *((folder, b""), ("README", "mine"), (link, b"")),
    *(("x.txt", "alone"), ("__meta__/a.json", "{}"), ("._0001.png", "")),
  ]
  write(tmp_path / "a.tar", [*others, *samples(range(4))])
  assert len(load(tmp_path, test_share=0)) == 4
  assert "left out: 3 (a.tar/README, a.tar/0009.png, a.tar/x.txt)" in (
    caplog.text
  )


def test_splits_by_words_in_names(tmp_path, caplog):
  for name, numbers in (
    ("set-train-0.tar", range(3)),
    ("train/1.tar", range(3, 5)),
    ("set-val-0.tar", range(5, 7)),
    ("trainer.tar", range(7, 9)),
  ):
    write(tmp_path / name, samples(numbers))
  sizes = [len(load(tmp_path, x)) for x in ("train", "test")]
  assert sizes == [5, 2]
  assert "in no split: others" in caplog.text
  splits = {"train": "*train-{0..3}.tar", "test": "train"}
  sizes = [len(load(tmp_path, x, splits=splits)) for x in splits]
  assert sizes == [3, 2]
  text = refused(tmp_path, splits={"train": "tarin-*.tar", "test": None})
  assert "data.split.train='tarin-*.tar': no tar file" in text
  assert "set-train-0.tar" in text
  text = refused(tmp_path / "train", splits={"train": None, "test": "1.tar"})
  assert "data.split.test='1.tar'" in text


def test_names_of_splits_are_known_in_any_case(tmp_path):
  for name, numbers in (
    *(("Training-0.TAR", range(4)), ("a/TESTING-0.tar", range(4, 6))),
    ("train/validation.Tar", range(6, 9)),
  ):
    write(tmp_path / name, samples(numbers))
  assert [len(load(tmp_path, x)) for x in ("train", "test")] == [4, 2]


@pytest.mark.parametrize(
  ("names", "odd"),
  [
    (("trainval-0", "val-0"), "trainval-0.tar"),
    (("0", "testset"), "testset.tar"),
    (("trainset", "0", "valset"), "trainset.tar, valset.tar"),
  ],
)
def test_files_that_seem_to_be_splits(tmp_path, names, odd):
  for name in names:
    write(tmp_path / f"{name}.tar", samples(range(2)))
  text = refused(tmp_path)
  assert f": {odd} would be trained on" in text and "data.split.train" in text
  splits = {"train": f"{names[0]}.tar", "test": f"{names[-1]}.tar"}
  assert [len(load(tmp_path, x, splits=splits)) for x in splits] == [2, 2]


def test_splits_that_share_a_file(tmp_path):
  for name in ("0.tar", "1.tar", "2.tar"):
    write(tmp_path / name, samples(range(2)))
  for train, test in (("[01].tar", "[12].tar"), ("1.tar", "1.tar")):
    text = refused(tmp_path, splits={"train": train, "test": test})
    assert f"data.split.test={test!r}: 1.tar of " in text
    assert "would be in data.split.train too" in text


def test_files_without_words_are_the_training_split(tmp_path):
  for name, numbers in (("0.tar", range(6)), ("test.tar", range(6, 8))):
    write(tmp_path / name, samples(numbers))
  assert [len(load(tmp_path, x)) for x in ("train", "test")] == [6, 2]
  write(tmp_path / "b" / "test.tar", samples(range(3)))
  write(tmp_path / "b" / "valid.tar", samples(range(3)))
  assert "no train split, only test, valid" in refused(tmp_path / "b")


def test_a_sample_stays_in_its_split_in_whatever_file_it_is(tmp_path):
  def held(folder):
    found = load(folder, "test", test_share=0.4)
    return everything(found)["data"]

  write(tmp_path / "a" / "0.tar", samples(range(12)))
  write(tmp_path / "b" / "0.tar", samples(range(5)))
  write(tmp_path / "b" / "1.tar", samples(range(5, 12)))
  expected = [i for i in range(12) if in_test(f"{i:04d}", 0.4)]
  whole = everything(load(tmp_path / "a", test_share=0))["data"]
  np.testing.assert_array_equal(held(tmp_path / "a"), whole[expected])
  np.testing.assert_array_equal(held(tmp_path / "b"), whole[expected])
  write(tmp_path / "c" / "0.tar", samples(range(30)))
  held_out = sum(in_test(f"{i:04d}", 0.1) for i in range(30))
  assert len(load(tmp_path / "c", "test")) == held_out > 0


def test_the_index_is_used_and_renewed(tmp_path, monkeypatch):
  for name, numbers in (("a.tar", range(4)), ("b.tar", range(4, 8))):
    write(tmp_path / name, samples(numbers))
  scanned = []
  scan = tar_shards._scanned

  def spy(file, size, image, label, start):
    scanned.append(start[-5:])
    return scan(file, size, image, label, start)

  monkeypatch.setattr(tar_shards, "_scanned", spy)
  first = everything(load(tmp_path, test_share=0))
  assert sorted(scanned) == ["a.tar", "b.tar"]
  scanned.clear()
  second = everything(load(tmp_path, test_share=0))
  assert scanned == []
  for name, values in first.items():
    np.testing.assert_array_equal(second[name], values)
  write(tmp_path / "b.tar", samples(range(4, 9)))
  assert len(load(tmp_path, test_share=0)) == 9
  assert scanned == ["b.tar"]
  # One that is damaged, or that somebody has edited, is made again.
  index = tmp_path / tar_shards.INDEX
  values = json.loads(index.read_text())
  for x in ([["0.png", -5, 3, 0]], [["0", 0, 3, 0]], [[]], 3, None):
    values["shards"]["a.tar"]["samples"] = x
    index.write_text(json.dumps(values))
    scanned.clear()
    assert len(load(tmp_path, test_share=0)) == 9
    assert scanned == ["a.tar"]


def test_batches_depend_on_seed_and_number_only(tmp_path):
  write(tmp_path / "a.tar", samples(range(20)))
  sources = [load(tmp_path, ram_gib=x) for x in (0, 1)]
  assert [isinstance(x, data.Dataset) for x in sources] == [False, True]

  def batch(source, threads, position):
    batches = data.Batches(source, batch_size=7, seed=3, threads=threads)
    batches.set_state({"position": position})
    found = next(batches)
    batches.close()
    return found

  first = batch(sources[0], 0, 5)
  for source, threads in ((sources[0], 2), (sources[1], 0)):
    for name, values in batch(source, threads, 5).items():
      np.testing.assert_array_equal(values, first[name])


def test_broken_pictures_are_named_counted_and_allowed(tmp_path, caplog):
  members = dict(samples(range(4)))
  members["0001.png"] = members["0001.png"][:30]
  members["0002.png"] = b""
  write(tmp_path / "a.tar", members.items())
  text = refused(tmp_path)
  assert "broken pictures: 2 (a.tar/0001.png: " in text
  assert "a.tar/0002.png: no file of PNG" in text
  assert "data.max_broken=2" in text
  assert len(load(tmp_path, max_broken=2, test_share=0)) == 2
  assert "left out as data.max_broken=2 allows" in caplog.text


@pytest.mark.parametrize("cut", [10, 700, 1100, 2 * 10240 - 512])
def test_a_file_that_is_cut_short(tmp_path, cut):
  """In a header, in a member, in its end, before its end."""
  path = write(tmp_path / "a.tar", samples(range(30), label=None))
  content = path.read_bytes()
  assert len(content) > 2 * 10240
  with tarfile.open(path) as tar:
    ends = [x.offset for x in tar.getmembers()]
  places = {10: ends[9] + 10, 700: ends[9] + 700, 1100: ends[9]}
  path.write_bytes(content[: places.get(cut, tar.offset)])
  text = refused(tmp_path)
  assert text.startswith(f"data.dir={str(tmp_path)!r}: a.tar is cut short")
  assert "copy it again" in text


def test_files_that_are_damaged_or_joined(tmp_path):
  path = write(tmp_path / "a.tar", samples(range(4)))
  whole = path.read_bytes()
  with tarfile.open(path) as tar:
    second = tar.getmembers()[1].offset
  path.write_bytes(whole[:second] + b"x" * 512 + whole[second + 512 :])
  assert f"a.tar is damaged, or cut and joined, at byte {second}" in refused(
    tmp_path
  )
  path.write_bytes(whole + whole)
  assert "a.tar goes on after its end" in refused(tmp_path)
  path.write_bytes(b"no tar file" * 100)
  assert "a.tar is cut short or no tar file" in refused(tmp_path)
  path.write_bytes(b"")
  assert "a.tar is cut short or no tar file (empty file" in refused(tmp_path)
  os.truncate(path, 10240)
  assert "holds no pictures" in refused(tmp_path)


@pytest.mark.parametrize("packer", [gzip, bz2, lzma])
def test_a_packed_file_of_another_name(tmp_path, packer):
  path = write(tmp_path / "a.tar", samples(range(4)))
  path.write_bytes(packer.compress(path.read_bytes()))
  assert refused(tmp_path).endswith("a.tar is packed: unpack it")


def test_headers_that_lie_about_sizes(tmp_path):
  """A negative size, for which tarfile walks in a circle, and a huge one."""
  path = write(tmp_path / "a.tar", [("x.txt", "x"), *samples(range(4))])
  whole = path.read_bytes()

  def changed(size, kind=b"0"):
    header = bytearray(whole[:512])
    header[124:136], header[156:157] = size, kind
    header[148:156] = b" " * 8
    header[148:156] = f"{sum(header):06o}\0 ".encode()
    return bytes(header) + whole[512:]

  path.write_bytes(changed((2**96 - 1024).to_bytes(12, "big")))
  assert "a.tar is cut short or no tar file" in refused(tmp_path)
  # The header of a long name, of 1 GiB.
  path.write_bytes(changed(f"{2**30:011o}\0".encode(), b"L"))
  assert "a header of 1073741824 bytes" in refused(tmp_path)


@pytest.mark.parametrize("end", ["pyd", "meta.pkl", "PTH"])
def test_pickles_are_refused(tmp_path, end):
  members = [*samples(range(4)), (f"0003.{end}", b"cos\nsystem\n")]
  write(tmp_path / "a.tar", members)
  text = refused(tmp_path)
  assert f"a.tar holds '0003.{end}': a pickle can run any program" in text


@pytest.mark.parametrize("again", ["0000.cls", "0001.png"])
def test_members_that_come_twice(tmp_path, again):
  members = [*samples(range(2)), (again, b"1"), *samples(range(2, 4))]
  write(tmp_path / "a.tar", members)
  assert f"a.tar: {again!r} comes twice" in refused(tmp_path)


def test_a_file_that_changes_later_is_one_line(tmp_path):
  path = write(tmp_path / "a.tar", samples(range(4)))
  source = load(tmp_path, ram_gib=0, test_share=0)
  os.truncate(path, 600)
  with pytest.raises(RunError) as error:
    source.take(np.arange(4))
  text = str(error.value)
  assert f"{tmp_path}/a.tar/0000.jpg: its tar file has become shorter" in text
  assert "\n" not in text
  path.unlink()
  with pytest.raises(RunError, match="No such file"):
    source.take(np.arange(4))


def test_folders_without_tar_files(tmp_path):
  with pytest.raises(UsageError, match=r"data\.dir=None.*set data\.dir to it"):
    data.load("webdataset", "train", size=8)
  assert "cannot be read" in refused(tmp_path / "absent")
  assert "holds no files *.tar, give such a folder" in refused(tmp_path)
  path = write(tmp_path / "a.tar", samples(range(4)))
  (tmp_path / "b.tar.gz").write_bytes(gzip.compress(path.read_bytes()))
  path.unlink()
  assert "holds no files *.tar, b.tar.gz: unpack these" in refused(tmp_path)
