"""Sets of the package datasets: columns, labels, splits, faults, the hub."""

import hashlib
import io
import json
import pathlib
import socket
import sys

import numpy as np
import pytest
from PIL import Image
from sklearn import datasets as photos

from jaxflow import data
from jaxflow.data import pictures
from jaxflow.errors import RunError, UsageError

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")
datasets = pytest.importorskip("datasets")
hub = pytest.importorskip("huggingface_hub")

PHOTO = photos.load_sample_image("china.jpg")
FORMATS = (("RGB", "JPEG"), ("P", "PNG"), ("LA", "PNG"), ("CMYK", "TIFF"))


def file(number, mode="RGB", kind="PNG"):
  """The bytes of a part of a photo, of another size for each number."""
  height, width = 8 + number % 5, 9 + number % 3
  part = PHOTO[7 * number : 7 * number + height, 300 : 300 + width]
  found = io.BytesIO()
  Image.fromarray(part).convert(mode).save(found, kind)
  return found.getvalue()


def rows(num, **columns):
  """A table of so many pictures, with other columns."""
  files = [file(i, *FORMATS[i % len(FORMATS)]) for i in range(num)]
  found = {"image": [{"bytes": x, "path": None} for x in files], **columns}
  table = datasets.Dataset.from_dict(found)
  return table.cast_column("image", datasets.Image())


def animals(num):
  table = rows(num, label=[i % 3 - 1 for i in range(num)])
  return table.cast_column("label", datasets.ClassLabel(names=["cat", "dog"]))


def write(folder, **parts):
  """Parquet files as the hub keeps them; returns their folder."""
  folder.mkdir(parents=True, exist_ok=True)
  for name, table in parts.items():
    table.to_parquet(folder / f"{name}-00000-of-00001.parquet")
  return folder


@pytest.fixture(autouse=True)
def quiet(monkeypatch, tmp_path_factory):
  """No progress bars, no network, and no folder of the user's."""
  home = tmp_path_factory.mktemp("home")
  monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(home / "d"))
  monkeypatch.setattr(hub.constants, "HF_HUB_CACHE", str(home / "hub"))
  monkeypatch.setattr(socket.socket, "connect", unreachable)
  datasets.disable_progress_bars()
  yield
  datasets.enable_progress_bars()


def unreachable(self, address):
  raise AssertionError(f"the network is asked for {address}")


def load(folder, split="train", **options):
  place = {} if folder is None else {"dir": str(folder)}
  return data.load("huggingface", split, **place, **{"size": 8, **options})


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


def test_rows_are_the_pictures_of_the_same_files_in_a_folder(tmp_path):
  folder = write(tmp_path / "set", train=animals(9), test=animals(4))
  for i in range(9):
    (tmp_path / "files").mkdir(exist_ok=True)
    kind = FORMATS[i % len(FORMATS)]
    (tmp_path / "files" / f"{i}.{kind[1].lower()}").write_bytes(file(i, *kind))
  for channels in (None, 1, 4):
    options = {"channels": channels, "background": (9, 90, 200)}
    expected = data.load(
      "folder",
      "train",
      dir=str(tmp_path / "files"),
      size=8,
      test_share=0,
      **options,
    )
    source = load(folder, **options)
    assert (len(source), source.num_classes) == (9, 2)
    found = everything(source)
    np.testing.assert_array_equal(found["data"], everything(expected)["data"])
    # -1 is no label.
    assert found["cond"].tolist() == [2, 0, 1] * 3
  assert source.class_names == ("cat", "dog")
  assert len(load(folder, "test")) == 4


def test_saved_tables_are_the_same_as_parquet(tmp_path):
  parts = datasets.DatasetDict(train=animals(6), validation=animals(3))
  folder = write(tmp_path / "parquet", **parts)
  parts.save_to_disk(tmp_path / "saved")
  for split, num in (("train", 6), ("test", 3)):
    sources = [load(x, split) for x in (folder, tmp_path / "saved")]
    assert [len(x) for x in sources] == [num, num]
    for name, values in everything(sources[0]).items():
      np.testing.assert_array_equal(values, everything(sources[1])[name])
  assert "keeps one config" in refused(tmp_path / "saved", config="x")
  state = tmp_path / "saved" / "train" / "state.json"
  values = json.loads(state.read_text())
  values["_data_files"] = [{"filename": "../../parquet/far.arrow"}]
  (tmp_path / "saved" / "train" / "data-00000-of-00001.arrow").rename(
    folder / "far.arrow"
  )
  state.write_text(json.dumps(values))
  assert "which is not in its folder" in refused(tmp_path / "saved")


def test_arrow_files_alone(tmp_path):
  animals(6).save_to_disk(tmp_path / "saved")
  (tmp_path / "set").mkdir()
  arrow = tmp_path / "saved" / "data-00000-of-00001.arrow"
  arrow.rename(tmp_path / "set" / "train.arrow")
  assert len(load(tmp_path / "set", test_share=0)) == 6


@pytest.mark.parametrize(
  ("values", "num", "names", "labels"),
  [
    ([3, 0, -1, None], 4, (), [3, 0, 4, 4]),
    (["dog", "cat", "dog", None], 2, ("cat", "dog"), [1, 0, 1, 2]),
    ([True, False, True, True], 2, (), [1, 0, 1, 1]),
  ],
)
def test_labels_without_a_description(tmp_path, values, num, names, labels):
  folder = write(tmp_path, train=rows(4, kind=values))
  # A column that is not called "label" counts if it is named.
  assert load(folder, test_share=0).num_classes == 0
  source = load(folder, label="kind", test_share=0)
  assert (source.num_classes, source.class_names) == (num, names)
  assert everything(source)["cond"].tolist() == labels


def test_classes_are_those_of_both_splits(tmp_path):
  parts = {
    "train": rows(3, label=list("aba")),
    "test": rows(3, label=["c"] * 3),
  }
  folder = write(tmp_path, **parts)
  for split in parts:
    assert load(folder, split).class_names == ("a", "b", "c")


def test_labels_that_are_none(tmp_path):
  folder = write(
    tmp_path, train=rows(4, label=[0.5] * 4, tags=[[1]] * 4, size=[2**40] * 4)
  )
  text = refused(folder)
  assert "data.label='label'" in text and "float64" in text
  assert "choose another, or 'none'" in text
  assert "List" in refused(folder, label="tags")
  assert f"a label is {2**40}" in refused(folder, label="size")
  text = refused(folder, label="tgas")
  assert "data.label='tgas': did you mean 'tags'?" in text
  for options in ({"label": "none"}, {"conditional": False}):
    assert load(folder, **options).num_classes == 0


def test_texts_that_are_no_classes(tmp_path):
  columns = {
    "caption": ["a cat", "a dog", "an ape", "a cat"],
    "age": ["1.5", "2", "1.5", "2"],
    "empty": pa.array([None] * 4, pa.string()).to_pylist(),
  }
  table = rows(4, **columns).cast_column("empty", datasets.Value("string"))
  folder = write(tmp_path, train=table)
  text = refused(folder, label="caption")
  assert "of 3 labels 2 have one sample only ('a dog')" in text
  assert "set data.label=none" in text
  assert "a label is '1.5': numbers of classes" in refused(folder, label="age")
  text = refused(folder, label="empty")
  assert "data.label='empty': no row of" in text


def test_splits_in_any_case(tmp_path):
  parts = datasets.DatasetDict(Training=rows(4), Testing=rows(3))
  parts.save_to_disk(tmp_path)
  assert [len(load(tmp_path, x)) for x in ("train", "test")] == [4, 3]
  text = refused(tmp_path, splits={"train": "Testing", "test": "Testing"})
  assert "data.split.test='Testing': this is data.split.train too" in text


def test_labels_and_pictures_in_several_columns(tmp_path):
  table = rows(4, fine=[0] * 4, coarse=[1] * 4)
  table = table.add_column("icon", table.with_format("arrow")["image"])
  for name in ("fine", "coarse"):
    table = table.cast_column(name, datasets.ClassLabel(num_classes=2))
  folder = write(tmp_path / "a", train=table)
  assert "labels in fine, coarse; choose one" in refused(folder)
  assert everything(load(folder, label="fine"))["cond"].tolist()[:2] == [0, 0]
  folder = write(tmp_path / "b", train=table.rename_column("image", "photo"))
  assert "pictures in photo, icon; choose one" in refused(folder, label="fine")
  assert len(load(folder, label="fine", image="icon", test_share=0)) == 4
  text = refused(folder, label="fine", image="coarse")
  assert "data.image='coarse': the column holds ClassLabel" in text
  assert "did you mean 'photo'" in refused(folder, image="poto")
  folder = write(tmp_path / "c", train=table.select_columns(["fine"]))
  assert "no column of pictures, only fine (ClassLabel)" in refused(folder)


def test_bytes_without_a_description(tmp_path):
  """What pandas writes: a column of bytes, or of bytes beside a path."""
  for name, value in (("a", lambda x: x), ("b", lambda x: {"bytes": x})):
    (tmp_path / name).mkdir()
    table = pa.table({"img": [value(file(i)) for i in range(4)]})
    parquet.write_table(table, tmp_path / name / "train.parquet")
    assert len(load(tmp_path / name, test_share=0)) == 4


def test_splits(tmp_path, caplog):
  parts = {"train": rows(5), "validation": rows(3), "other": rows(2)}
  folder = tmp_path
  write(folder / "data", **parts)
  assert [len(load(folder, x)) for x in ("train", "test")] == [5, 3]
  assert "in no split: other" in caplog.text
  splits = {"train": "validation", "test": "other"}
  assert [len(load(folder, x, splits=splits)) for x in splits] == [3, 2]
  text = refused(folder, splits={"train": "trian", "test": None})
  assert "data.split.train='trian': did you mean 'train'?" in text
  # A share leaves the test split of the set alone.
  sizes = [len(load(folder, x, test_share=0.4)) for x in ("train", "test")]
  assert sizes[1] == sum(in_test(str(i), 0.4) for i in range(5)) > 0
  assert sum(sizes) == 5


def test_files_that_are_no_split_are_named(tmp_path, caplog):
  # The package knows the names of usual splits only, but in a folder "data".
  folder = write(tmp_path, train=rows(5), other=rows(2))
  assert len(load(folder, test_share=0)) == 5
  assert "in no split: 1 files (other-00000-of-00001.parquet)" in caplog.text


def test_sets_of_one_split_hold_out_a_tenth(tmp_path):
  table = rows(30)
  folder = write(tmp_path, train=table)
  held = [i for i in range(30) if in_test(str(i), 0.1)]
  assert held
  sources = {x: load(folder, x) for x in ("train", "test")}
  assert [len(x) for x in sources.values()] == [30 - len(held), len(held)]
  whole = everything(load(folder, test_share=0))["data"]
  np.testing.assert_array_equal(
    everything(sources["test"])["data"], whole[held]
  )
  with pytest.raises(data.NoSplitError, match="no test split, only train"):
    load(folder, "test", test_share=0)


def test_sets_without_a_training_split(tmp_path):
  folder = write(tmp_path, test=rows(3), validation=rows(3))
  assert "no train split, only" in refused(folder)
  text = refused(folder, splits={"train": None, "test": "test"})
  assert "name the split of the other" in text
  # One alone is the whole.
  folder = write(tmp_path / "one", test=rows(3))
  assert len(load(folder, test_share=0)) == 3


def test_configs(tmp_path):
  for name, num in (("big", 5), ("small", 3)):
    write(tmp_path / name, train=rows(num))
  card = "---\nconfigs:\n" + "".join(
    f"- config_name: {x}\n  data_files:\n  - split: train\n"
    f"    path: {x}/train-*\n"
    for x in ("big", "small")
  )
  (tmp_path / "README.md").write_text(card + "---\n")
  found = [
    len(load(tmp_path, config=x, test_share=0)) for x in ("big", "small")
  ]
  assert found == [5, 3]
  text = refused(tmp_path)
  assert "data.config=None" in text and "has big, small; choose one" in text
  text = refused(tmp_path, config="bgi")
  assert "data.config='bgi': did you mean 'big'?" in text


@pytest.mark.parametrize(
  "path", ["https://x.example/a.parquet", "../a.parquet", "/etc/a.parquet"]
)
def test_a_readme_names_files_of_its_folder_only(tmp_path, path):
  write(tmp_path, train=rows(3))
  card = f"---\nconfigs:\n- config_name: a\n  data_files: {path}\n---\n"
  (tmp_path / "README.md").write_text(card)
  assert f"README names {path!r}" in refused(tmp_path)


def test_broken_pictures_are_named_counted_and_allowed(tmp_path, caplog):
  table = rows(5)
  values = table.cast_column("image", datasets.Image(decode=False))["image"][:]
  values[1] = {"bytes": values[1]["bytes"][:40], "path": None}
  values[2] = {"bytes": None, "path": "/etc/passwd"}
  values[3] = None
  broken = datasets.Dataset.from_dict(
    {"image": values}, features=table.features
  )
  # to_parquet would read the path itself.
  tmp_path.joinpath("set").mkdir()
  parquet.write_table(broken.data.table, tmp_path / "set" / "train.parquet")
  text = refused(tmp_path / "set")
  assert "broken pictures: 3 (train/1: " in text
  assert "train/2: the row has no picture, only a path, '/etc/passwd'" in text
  assert "train/3: the row has no picture); mend" in text
  assert "data.max_broken=3" in text
  options = {"max_broken": 3, "test_share": 0}
  assert len(load(tmp_path / "set", **options)) == 2
  assert "left out as data.max_broken=3 allows" in caplog.text


def test_the_first_look_is_kept(tmp_path, monkeypatch):
  animals(6).save_to_disk(tmp_path)
  whole = load(tmp_path)
  index = json.loads((tmp_path / "jaxflow_index.json").read_text())
  # Picture 1 has 9 rows and 10 columns.
  assert index["files"]["train/1"][1:] == [9, 10, ""]
  from jaxflow.data.sets import hugging_face

  monkeypatch.setattr(hugging_face, "seen_in", None)
  assert len(load(tmp_path)) == len(whole)


def test_sizes_must_be_one(tmp_path):
  folder = write(tmp_path, train=rows(4))
  assert "data.size=None" in refused(folder, size=None)


def test_batches_depend_on_seed_and_number_only(tmp_path):
  folder = write(tmp_path, train=animals(20))
  sources = [load(folder, ram_gib=x) for x in (0, 1)]
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


def test_random_crops(tmp_path):
  source = load(write(tmp_path, train=rows(4)), crop="random")
  batches = data.Batches(source, batch_size=8, seed=0, cut=True)
  assert next(batches)["data"].shape == (8, 8, 8, 3)


def test_places_that_hold_no_set(tmp_path):
  assert "needs one of them" in refused(None)
  assert "needs one of them" in refused(tmp_path, hub="a/b")
  assert "is no folder" in refused(tmp_path / "absent")
  assert "doesn't contain any data files" in refused(tmp_path)
  (tmp_path / "train.csv").write_text("image,label\n1,2\n")
  text = refused(tmp_path)
  assert "files for 'csv'" in text and "refs/convert/parquet" in text


def test_a_file_that_is_cut_short(tmp_path):
  folder = write(tmp_path, train=rows(20))
  (path,) = folder.glob("*.parquet")
  path.write_bytes(path.read_bytes()[:-200])
  text = refused(folder)
  assert f"data.dir={str(folder)!r} cannot be opened" in text
  assert "give whole parquet" in text


def test_rows_that_break_later_are_one_line(tmp_path):
  animals(6).save_to_disk(tmp_path)
  source = load(tmp_path, ram_gib=0, test_share=0)
  broken = pictures.PictureError("no file of PNG")

  def read(name):
    raise broken

  object.__setattr__(source.records, "read", read)
  with pytest.raises(RunError) as error:
    source.take(np.arange(2))
  assert f"{tmp_path}/train/0: no file of PNG" in str(error.value)


def test_the_package_is_missing(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, "datasets", None)
  text = refused(tmp_path)
  assert "pip install 'jaxflow-generative[huggingface]'" in text


def test_the_hub(tmp_path):
  """A set that `huggingface_hub` has fetched is read as it lies there."""
  assert "set data.download=True" in refused(None, hub="me/animals")
  assert "cannot be fetched" in refused(None, hub="me/ani/mals")
  cache = pathlib.Path(hub.constants.HF_HUB_CACHE) / "datasets--me--animals"
  commit = "0123456789abcdef0123456789abcdef01234567"
  write(cache / "snapshots" / commit / "data", train=animals(6))
  (cache / "refs").mkdir()
  (cache / "refs" / "main").write_text(commit)
  for name in ("me/animals", f"me/animals@{commit}"):
    source = load(None, hub=name, test_share=0)
    assert (len(source), source.class_names) == (6, ("cat", "dog"))
  assert "set data.download=True" in refused(None, hub="me/animals@v2")


def test_downloads_are_asked_for(monkeypatch):
  asked = []

  def connect(self, address):
    asked.append(address)
    raise OSError("no network")

  monkeypatch.setattr(socket.socket, "connect", connect)
  monkeypatch.setattr(
    socket,
    "getaddrinfo",
    lambda host, *_, **__: [
      (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 443))
    ],
  )
  assert "set data.download=True" in refused(None, hub="me/animals")
  assert not asked
  assert "cannot be fetched" in refused(None, hub="me/animals", download=True)
  assert asked


@pytest.mark.parametrize("field", ["raw_dir"])
def test_fields_in_vain(tmp_path, field):
  assert f"data.{field}='x'" in refused(tmp_path, **{field: "x"})
  with pytest.raises(UsageError, match=r"data\.hub='x'.*'folder'.*remove"):
    data.load("folder", "train", dir=str(tmp_path), hub="x")
