"""Arrays in files and of the caller: scales, splits, reading, wrong inputs."""

import contextlib
import functools
import hashlib

import numpy as np
import pytest

from jaxflow import data as jdata
from jaxflow.data import (
  Batches,
  Dataset,
  NoSplitError,
  Scaling,
  arrays,
  arrays_of,
  load,
)
from jaxflow.errors import RunError, UsageError
from jaxflow.runs.inputs import Inputs

NUM = 200


def table(seed=0, num=NUM):
  """Columns of very different means and deviations."""
  draws = np.random.default_rng(seed).standard_normal((num, 5))
  return draws * [1, 10, 1e-3, 1e4, 2] + [0, 50, 1, -1e6, 7]


def held(num=NUM, share=0.1):
  """Which numbers are held out, by their SHA-256."""
  digests = [hashlib.sha256(str(i).encode()).digest()[:8] for i in range(num)]
  return np.array([int.from_bytes(x, "big") / 2**64 < share for x in digests])


def write(folder, name, *values, **named):
  path = folder / name
  np.save(path, *values) if values else np.savez(path, **named)
  return str(path)


def whole(source):
  return source.take(np.arange(len(source)))


open_arrays = functools.partial(load, "arrays")


@pytest.mark.parametrize("chunk", [7, 2**20])
def test_channels_get_mean_0_and_deviation_1_of_the_training_data(
  tmp_path, monkeypatch, chunk
):
  monkeypatch.setattr(arrays, "_CHUNK", 5 * chunk)
  values = table()
  file = write(tmp_path, "table.npy", values)
  train, test = (open_arrays(x, file=file) for x in ("train", "test"))
  known = values[~held()]
  mean, std = known.mean(axis=0), known.std(axis=0)
  np.testing.assert_allclose(train.scaling.scale, std, rtol=1e-8)
  apart = (np.array(train.scaling.offset) - mean) / std
  np.testing.assert_allclose(apart, 0, atol=1e-8)
  for source, part in ((train, known), (test, values[held()])):
    found = whole(source)["data"]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, (part - mean) / std, rtol=2e-6, atol=2e-6)
    np.testing.assert_allclose(
      source.scaling.restore(found), part, rtol=1e-5, atol=1e-5
    )


def test_seconds_since_1970_keep_their_seconds(tmp_path):
  values = 1_700_000_000 + np.arange(NUM)[:, None] * np.array([[1, 3]])
  file = write(tmp_path, "times.npy", values)
  source = open_arrays("train", file=file)
  restored = source.scaling.restore(whole(source)["data"])
  assert restored.dtype == values.dtype
  np.testing.assert_array_equal(restored, values[~held()])


@pytest.mark.parametrize("kind", ["standard", "range"])
@pytest.mark.parametrize("value", [3.5, 0.1])  # Sums of 0.1 are not exact.
def test_a_channel_that_is_constant_stays_so(kind, value):
  values = np.column_stack([np.full(1000, value), np.arange(1000.0)])
  scaling = arrays_of(values).scaling_of(kind)
  assert scaling.offset[0] == value
  assert scaling.scale[0] == 1.0
  assert not scaling.normalise(values)[:, 0].any()


@pytest.mark.parametrize("value", [1e300, 1e-300])
def test_a_spread_that_no_number_holds(value):
  values = np.array([[0.0], [value]])
  with pytest.raises(
    UsageError, match=r"^data\.normalise='standard': channel 0"
  ):
    arrays_of(values).scaling_of("standard")
  # Half of the range is a number.
  assert arrays_of(values).scaling_of("range").scale == (value / 2,)


def test_a_column_of_whole_numbers_has_classes(tmp_path):
  file = tmp_path / "a.npz"
  np.savez(file, data=np.zeros((20, 2)), labels=np.arange(20)[:, None] % 3)
  source = open_arrays("train", file=file)
  assert source.num_classes == 3
  assert whole(source)["cond"].shape == (len(source),)


@pytest.mark.parametrize(
  ("labels", "told"),
  [
    *((np.arange(20.0), True), (np.arange(20) / 2, False)),
    *((np.full(20, np.nan), False), (np.zeros((20, 2)), False)),
  ],
)
def test_classes_that_are_stored_as_real_numbers(
  tmp_path, caplog, labels, told
):
  file = tmp_path / "a.npz"
  np.savez(file, data=np.zeros((20, 2)), labels=labels)
  with contextlib.suppress(UsageError):  # No label at all.
    assert open_arrays("train", file=file).num_classes == 0
  line = "labels are whole, but of type float64, so they are vectors"
  assert (line in caplog.text) is told


@pytest.mark.parametrize("ram_gib", [1.0, 0.0])
def test_classes_without_a_sample_are_named(tmp_path, ram_gib):
  file = tmp_path / "a.npz"
  np.savez(file, data=np.ones((20, 2)), labels=np.arange(20) % 2 * 2 + 1)
  source = open_arrays("train", file=file, ram_gib=ram_gib)
  text = str(Inputs(source, None, None))
  assert text.endswith(", 4 classes (no sample of 0, 2)")
  whole = arrays_of(np.ones((20, 2)), np.arange(20) % 3, num_classes=3)
  assert jdata.classes_without_samples(whole) == []
  # The rows of a part alone count.
  assert jdata.classes_without_samples(
    whole.part(np.array([3, 5]), "train")
  ) == [1]


def test_labels_that_cannot_be_classes(tmp_path):
  file = tmp_path / "a.npz"
  np.savez(file, data=np.zeros((20, 2)), labels=np.full(20, 10**7))
  with pytest.raises(UsageError, match=r"a label is 10000000; give classes"):
    open_arrays("train", file=file)


def test_a_test_split_of_another_kind(tmp_path):
  real, classes = tmp_path / "real.npz", tmp_path / "classes.npz"
  np.savez(real, data=np.ones((20, 2)), labels=np.linspace(0, 1, 20))
  np.savez(classes, data=np.ones((20, 2)), labels=np.arange(20) % 5)
  for train, test in ((real, classes), (classes, real)):
    with pytest.raises(UsageError, match="they must agree"):
      open_arrays("test", file=train, splits={"test": str(test)})
  with pytest.raises(UsageError, match=r"is data\.file: give other samples"):
    open_arrays("test", file=real, splits={"test": str(real)})


@pytest.mark.parametrize(
  ("kind", "expected"),
  [
    ("none", [[0, 10], [4, 20]]),
    ("range", [[-1, -1], [1, 1]]),
    ("bytes", [[-1, -1 + 10 / 127.5], [-1 + 4 / 127.5, -1 + 20 / 127.5]]),
    (None, [[-1, -1], [1, 1]]),  # Standard: the deviation is half the range.
  ],
)
def test_kinds(kind, expected):
  values = np.array([[0, 10], [4, 20]], np.uint8)
  scaling = arrays_of(values).scaling_of(kind)
  np.testing.assert_allclose(scaling.normalise(values), expected, atol=1e-7)
  np.testing.assert_array_equal(
    scaling.restore(scaling.normalise(values)), values
  )


def test_pictures_of_bytes_have_the_scale_of_pictures():
  pictures = np.array([0, 51, 102, 153], np.uint8).reshape(1, 2, 2, 1)
  scaling = arrays_of(pictures).scaling_of(None)
  assert scaling.kind == "bytes"
  expected = [[-1, -0.6], [-0.2, 0.2]]
  for found in (
    scaling.normalise(pictures),
    scaling.picture(scaling.restore(scaling.normalise(pictures))),
  ):
    np.testing.assert_allclose(found[0, :, :, 0], expected, atol=1e-6)
  volumes = pictures[..., None]
  assert arrays_of(volumes).scaling_of(None).kind == "standard"


def test_pictures_show_the_range_of_the_data():
  fields = np.array([-40.0, 0.0, 20.0, 40.0]).reshape(1, 2, 2, 1)
  scaling = arrays_of(fields).scaling_of("standard")
  shown = scaling.picture(scaling.restore(scaling.normalise(fields)))
  np.testing.assert_allclose(shown.ravel(), [-1, 0, 0.5, 1], atol=1e-6)
  flat = np.full((2, 2, 2, 1), 3.0)
  assert np.isfinite(arrays_of(flat).scaling_of(None).picture(flat)).all()


@pytest.mark.parametrize(
  ("dtype", "samples", "expected"),
  [
    ("int16", [-1e9, -0.4, 2.6, 1e9], [-(2**15), 0, 3, 2**15 - 1]),
    ("uint8", [-3, 255.4, 300, 1], [0, 255, 255, 1]),
    ("int64", [1e30, -1e30, 5, 6], [2**63 - 1024, -(2**63), 5, 6]),
    ("bool", [-1, 0.4, 0.6, 5], [False, False, True, True]),
    ("float64", [0.25, 1, 2, 3], [0.25, 1, 2, 3]),
  ],
)
def test_samples_have_the_type_of_the_data(dtype, samples, expected):
  scaling = Scaling("none", (0.0,), (1.0,), (0.0, 1.0), dtype)
  found = scaling.restore(np.array([samples]))
  assert found.dtype == dtype
  assert found[0].tolist() == expected
  half = Scaling("none", (0.0,), (1.0,), (0.0, 1.0), "float16")
  assert half.restore(np.ones((1, 1))).dtype == np.float32


def test_batches_from_disk_are_those_from_memory(tmp_path):
  values, labels = table(), np.arange(NUM) % 3 - 1
  file = write(tmp_path, "table.npy", values)
  label = write(tmp_path, "labels.npy", labels)
  sources = [
    open_arrays("train", file=file, label=label, ram_gib=x) for x in (1.0, 0.0)
  ]
  assert [isinstance(x, Dataset) for x in sources] == [True, False]
  options = {"batch_size": 64, "seed": 3}
  kept, mapped, threaded = (
    Batches(source, threads=threads, **options)
    for source, threads in zip((*sources, sources[1]), (0, 0, 2), strict=True)
  )
  for _ in range(5):
    one, two, three = (next(x) for x in (kept, mapped, threaded))
    assert one.keys() == {"data", "cond"}
    for name, array in one.items():
      assert array.dtype == two[name].dtype
      np.testing.assert_array_equal(array, two[name])
      np.testing.assert_array_equal(array, three[name])
  threaded.close()
  # -1 is the null label, which is the number of classes.
  expected = np.where(labels < 0, 2, labels)[~held()]
  np.testing.assert_array_equal(whole(sources[1])["cond"], expected)
  assert "cond" not in whole(
    open_arrays("train", file=file, label=label, conditional=False, ram_gib=0)
  )


def test_a_split_has_a_file_or_a_share(tmp_path):
  values, other = table(), table(1, 50)
  file = write(tmp_path, "train.npz", data=values, labels=np.arange(NUM) % 4)
  test = write(tmp_path, "test.npz", data=other, labels=np.zeros(50, int))
  splits = {"test": test}
  found = [open_arrays(x, file=file, splits=splits) for x in ("train", "test")]
  assert [len(x) for x in found] == [NUM, 50]
  assert {x.num_classes for x in found} == {4}
  assert found[0].scaling == found[1].scaling
  np.testing.assert_allclose(found[0].scaling.scale, values.std(0), rtol=1e-8)
  half = open_arrays("test", file=file, test_share=0.5)
  assert len(half) == held(share=0.5).sum()
  with pytest.raises(NoSplitError, match=r"^data.test_share=0.0 holds"):
    open_arrays("test", file=file, test_share=0.0)
  assert len(open_arrays("train", file=file, test_share=0.0)) == NUM
  stored = Scaling("none", (0.0,), (2.0,), (0.0, 1.0), "float64")
  scaled = open_arrays("train", file=file, scaling=stored, splits=splits)
  np.testing.assert_allclose(whole(scaled)["data"], values / 2, rtol=1e-6)


def test_arrays_have_names_in_an_npz_file(tmp_path):
  values = table()
  for named in (
    {"samples": values, "label": np.arange(NUM) % 2},  # As `sample` writes.
    {"anything": values, "labels": np.arange(NUM) % 2},
    {"data": values, "more": values, "labels": np.arange(NUM) % 2},
  ):
    source = open_arrays("train", file=write(tmp_path, "a.npz", **named))
    assert source.num_classes == 2
    assert source.shape == (5,)
  own = write(tmp_path, "a.npz", data=values, kind=np.arange(NUM) % 7)
  assert open_arrays("train", file=own).num_classes == 0
  assert open_arrays("train", file=own, label="kind").num_classes == 7
  none = write(tmp_path, "a.npz", data=values, labels=np.full(NUM, -1))
  assert open_arrays("train", file=none).num_classes == 0


def test_a_file_that_shrinks_is_named(tmp_path):
  file = write(tmp_path, "table.npy", table())
  source = open_arrays("train", file=file, ram_gib=0.0)
  write(tmp_path, "table.npy", table()[:20])
  with pytest.raises(RunError, match=r"table.npy cannot be read any more"):
    whole(source)


class Trap:
  def __reduce__(self):
    return print, ("a pickle has run",)


NAN = table()
NAN[150, 3] = np.nan
FILES = {
  "objects.npy": (np.array([[Trap()]], object),),
  "texts.npy": (np.array([["a", "b"]]),),
  "line.npy": (np.arange(5),),
  "none.npy": (np.zeros((0, 2)),),
  "nan.npy": (NAN,),
  "good.npy": (table(),),
  "nans.npy": (np.full(NUM, np.nan),),
  "few.npy": (np.arange(3),),
}


@pytest.mark.parametrize(
  ("fields", "words"),
  [
    ({"file": None}, ["data.file=None", "needs an .npy or .npz file"]),
    ({"file": "absent.npy"}, ["data.file=", "is no file"]),
    ({"file": "a.txt"}, ["data.file=", "ends in .npy or .npz"]),
    ({"file": "torn.npy"}, ["torn.npy cannot be read", "numpy.save"]),
    ({"file": "torn.npz"}, ["data.file=", "cannot be read", "numpy.savez"]),
    ({"file": "objects.npy"}, ["objects.npy", "numpy.save writes it"]),
    ({"file": "texts.npy"}, ["data are of type <U1; give numbers"]),
    ({"file": "line.npy"}, ["data has shape (5,)", "rank 2"]),
    ({"file": "none.npy"}, ["data has shape (0, 2)"]),
    ({"file": "nan.npy"}, ["the value at [150, 3] is nan", "sample 150"]),
    ({"file": "two.npz"}, ["holds a, b: call the samples 'data'"]),
    ({"file": "two.npz", "label": "c"}, ["data.label='c'", "holds a, b"]),
    (
      {"file": "good.npy", "label": "c"},
      ["data.label='c'", ".npy file of"],
    ),
    ({"file": "good.npy", "label": "texts.npy"}, ["labels are of type <U1"]),
    ({"file": "good.npy", "label": "nans.npy"}, ["all labels are NaN"]),
    ({"file": "good.npy", "label": "few.npy"}, ["int64 (3,)", "200 samples"]),
    (
      {"file": "good.npy", "splits": {"test": "line.npy"}},
      ["data has shape (5,)"],
    ),
    (
      {"file": "good.npy", "splits": {"test": "wide.npy"}},
      ["data.split.test=", "shape (6,) and no labels", "(5,) and no labels"],
    ),
    (
      {"file": "good.npy", "normalise": "standart"},
      ["mean 'standard'"],
    ),
    ({"file": "good.npy", "size": 3}, ["data.size=3", "does not read it"]),
    ({"file": "s3://b/a.npy"}, ["data.file='s3://b/a.npy'", "give a path"]),
    (
      {"file": "good.npy", "test_share": 0.1, "splits": {"test": "x"}},
      ["data.test_share=0.1", "remove one of the two"],
    ),
  ],
)
def test_wrong_files_are_one_line(tmp_path, capsys, fields, words):
  for name, values in FILES.items():
    np.save(tmp_path / name, *values, allow_pickle=True)
  np.save(tmp_path / "wide.npy", np.zeros((3, 6)))
  np.savez(tmp_path / "two.npz", a=table(), b=table())
  whole_file = (tmp_path / "good.npy").read_bytes()
  (tmp_path / "torn.npy").write_bytes(whole_file[:-8])
  (tmp_path / "torn.npz").write_bytes(whole_file)
  (tmp_path / "a.txt").write_text("1 2")

  def placed(value):
    known = isinstance(value, str) and (tmp_path / value).is_file()
    return str(tmp_path / value) if known else value

  fields = {k: placed(v) for k, v in fields.items()}
  splits = fields.get("splits", {})
  fields |= {"splits": {k: placed(v) for k, v in splits.items()}}
  with pytest.raises(UsageError) as error:
    open_arrays("train", **fields)
  text = str(error.value)
  assert "\n" not in text
  for word in words:
    assert word in text, text
  assert "a pickle has run" not in capsys.readouterr().out


def test_other_sets_have_no_scale():
  with pytest.raises(UsageError, match=r"^data.normalise='range': data.name"):
    load("ring", "train", normalise="range")
  assert jdata.scaling_of(load("ring", "train")) is None


def test_labels_that_are_numbers_are_vectors(tmp_path):
  """Each has mean 0 and deviation 1 in training data; NaN is no label."""
  labels = np.random.default_rng(1).normal([300, 5], [20, 0.1], (NUM, 2))
  labels[7, 1] = np.nan
  named = {"data": table(), "labels": labels}
  file = write(tmp_path, "a.npz", **named)
  for ram in (1.0, 0.0):
    train, test = (
      open_arrays(x, file=file, ram_gib=ram) for x in ("train", "test")
    )
    known = labels[~held()]
    there = ~np.isnan(known).any(axis=1)
    mean, std = known[there].mean(axis=0), known[there].std(axis=0)
    found = whole(train)["cond"]
    assert found.dtype == np.float32
    expected = np.where(there[:, None], (known - mean) / std, np.nan)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    expected = (labels[held()] - mean) / std
    np.testing.assert_allclose(whole(test)["cond"], expected, atol=1e-4)
    assert train.num_classes == 0
    restored = train.conditions.restore(found)
    np.testing.assert_allclose(restored[there], known[there], rtol=1e-6)
  kept = jdata.in_memory(open_arrays("train", file=file, ram_gib=0.0), 50)
  assert kept.label.shape == (50, 2)
  assert kept.conditions == train.conditions
  alone = write(tmp_path, "a.npz", data=table(), labels=labels[:, 0])
  assert whole(open_arrays("train", file=alone))["cond"].shape[1:] == (1,)
  plain = jdata.from_arrays(table(), labels)
  np.testing.assert_array_equal(plain.label[0], np.float32(labels[0]))
  assert np.isnan(plain.label[7]).all()
  assert "cond" not in jdata.without_labels(plain).take(np.arange(2))
