import gzip
import json
import os
import pathlib
import struct
import subprocess
import sys

import jax
import numpy as np
import pytest
from sklearn import datasets as sklearn_datasets

from jaxflow import data as jdata
from jaxflow.data import loading
from jaxflow.data.sets import toy
from jaxflow.errors import UsageError

REPOSITORY = pathlib.Path(__file__).parents[2]
FASHION_MNIST = pathlib.Path(loading.FASHION_MNIST_DIR)


def start_python(code, *args, **environment):
  return subprocess.Popen(
    [sys.executable, "-c", code, *map(str, args)],
    env={**os.environ, "PYTHONPATH": str(REPOSITORY), **environment},
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def finish(process):
  out, err = process.communicate(timeout=60)
  assert process.returncode == 0, err
  return out


def message(error):
  text = str(error.value)
  assert "\n" not in text
  return text


def numbered(num, *, label=True):
  """Return a data set whose sample i holds i, so that batches can be read."""
  data = np.arange(num, dtype=np.float32)[:, None]
  if not label:
    return jdata.from_arrays(data)
  return jdata.from_arrays(data, np.arange(num), num_classes=num)


def drawn(batches, count):
  return [next(batches)["data"][..., 0] for _ in range(count)]


def test_import_loads_no_heavy_package():
  code = (
    "import sys, jaxflow.data; print([m for m in ('tensorflow', 'torch',"
    " 'tensorflow_datasets', 'sklearn') if m in sys.modules])"
  )
  assert finish(start_python(code)).strip() == "[]"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_value_that_is_not_finite_is_named(value):
  data = np.zeros((4, 2, 3))
  data[2, 1, 0] = value
  with pytest.raises(UsageError) as error:
    jdata.from_arrays(data, name="mine", split="test")
  text = message(error)
  assert "data.name='mine' (test)" in text
  assert f"the value at [2, 1, 0] is {value}" in text
  assert "sample 2" in text


def test_large_finite_values_are_accepted():
  large = np.finfo(np.float32).max
  assert jdata.from_arrays(np.full((1000, 2), large)).data.max() == large


@pytest.mark.parametrize(
  ("label", "num_classes", "expected"),
  [
    ([0, 1, 2], 2, "label at [2] is 2, outside 0..1"),
    ([0, -2, 1], 2, "label at [1] is -2, outside 0..1"),
    ([0, 1], 2, "one integer for each of the 3 samples"),
    ([0.0, 1.0, 0.0], 2, "one integer for each of the 3 samples"),
    (None, 2, "num_classes=2"),
  ],
)
def test_labels_that_do_not_fit(label, num_classes, expected):
  label = None if label is None else np.asarray(label)
  with pytest.raises(UsageError) as error:
    jdata.from_arrays(np.zeros((3, 1)), label, num_classes=num_classes)
  assert expected in message(error)


@pytest.mark.parametrize("shape", [(0, 2), (3,), ()])
def test_shape_without_samples(shape):
  with pytest.raises(UsageError, match="at least one sample"):
    jdata.from_arrays(np.zeros(shape))


def test_unknown_name_suggests_the_nearest():
  with pytest.raises(UsageError) as error:
    jdata.load("digit", "train")
  text = message(error)
  assert "data.name='digit'" in text
  assert "did you mean 'digits'" in text


def test_unknown_split():
  with pytest.raises(UsageError, match=r"data\.split='val'.*train, test"):
    jdata.load("ring", "val")


@pytest.mark.parametrize("name", ["ring", "digits"])
def test_raw_dir_that_nothing_reads(name):
  with pytest.raises(UsageError, match=r"data\.raw_dir='/x'.*remove"):
    jdata.load(name, "train", raw_dir="/x")


def test_mnist_needs_a_raw_dir():
  with pytest.raises(UsageError, match=r"data\.raw_dir=None.*'mnist'"):
    jdata.load("mnist", "train")


def test_ring_moments():
  num, components, radius, std = 40_000, 5, 2.0, 0.3
  ring = toy.ring_mixture(components=components, radius=radius, std=std)
  data, component = ring.sample(num, seed=3)
  assert data.dtype == np.float32
  assert component.dtype == np.int32
  # Each axis has mean 0 and variance radius^2 / 2 + std^2, for any number of
  # components above 2. Tolerances are five standard errors.
  variance = radius**2 / 2 + std**2
  tolerance = 5 * np.sqrt(variance / num)
  np.testing.assert_allclose(data.mean(0), 0, atol=tolerance)
  # The square of a bounded ring plus a narrow Gaussian varies less than that
  # of a Gaussian of the same variance, whose standard deviation is known.
  tolerance = 5 * variance * np.sqrt(2 / num)
  np.testing.assert_allclose(data.var(0), variance, atol=tolerance)
  for k in range(components):
    chosen = data[component == k]
    share = 1 / components
    assert abs(len(chosen) - num * share) < 5 * np.sqrt(
      num * share * (1 - share)
    )
    angle = 2 * np.pi * k / components
    centre = [radius * np.cos(angle), radius * np.sin(angle)]
    error = 5 * std / np.sqrt(len(chosen))
    np.testing.assert_allclose(chosen.mean(0), centre, atol=error)
    error = 5 * std / np.sqrt(2 * len(chosen))
    np.testing.assert_allclose(chosen.std(0), std, atol=error)


def test_ring_mixture_parameters():
  mixture = toy.ring_mixture(components=4, radius=3.0, std=0.2)
  expected = [[3, 0], [0, 3], [-3, 0], [0, -3]]
  np.testing.assert_allclose(mixture.means, expected, atol=1e-12)
  assert mixture.stds.tolist() == [0.2] * 4
  assert mixture.weights.tolist() == [0.25] * 4


def test_mixture_samples_follow_weights_and_stds():
  mixture = toy.Mixture(
    means=np.array([[0.0, 0.0, 5.0], [0.0, 0.0, -5.0]]),
    stds=np.array([0.0, 1.0]),
    weights=np.array([1.0, 0.0]),
  )
  data, component = mixture.sample(10, seed=0)
  assert not component.any()
  np.testing.assert_array_equal(data, np.tile([0, 0, 5], (10, 1)))


def test_ring_is_deterministic_and_its_splits_differ():
  train = jdata.load("ring", "train")
  again = jdata.load("ring", "train")
  test = jdata.load("ring", "test")
  np.testing.assert_array_equal(train.data, again.data)
  np.testing.assert_array_equal(train.label, again.label)
  assert not np.isin(test.data[:, 0], train.data[:, 0]).all()
  assert train.num_classes == 8
  assert (train.name, train.split, test.split) == ("ring", "train", "test")


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
  return str(tmp_path_factory.mktemp("prepared"))


@pytest.fixture(scope="module")
def digits(data_dir):
  return [
    jdata.load("digits", split, data_dir=data_dir) for split in loading.SPLITS
  ]


def test_digits_counts_and_types(digits):
  train, test = digits
  assert train.data.shape == (1437, 8, 8, 1)
  assert test.data.shape == (360, 8, 8, 1)
  for dataset in digits:
    assert dataset.data.dtype == np.float32
    assert dataset.label.dtype == np.int32
    assert (dataset.data.min(), dataset.data.max()) == (-1, 1)
    assert (dataset.name, dataset.num_classes) == ("digits", 10)


def test_digits_splits_are_a_partition_of_the_source(digits):
  images, labels = sklearn_datasets.load_digits(return_X_y=True)
  source = sorted(
    zip(map(tuple, images.tolist()), labels.tolist(), strict=True)
  )
  pixels = [
    ((dataset.data + 1) * 8).reshape(len(dataset), 64) for dataset in digits
  ]
  ours = [
    list(zip(map(tuple, p.tolist()), d.label.tolist(), strict=True))
    for p, d in zip(pixels, digits, strict=True)
  ]
  assert sorted(ours[0] + ours[1]) == source
  # No image is in the source twice, so disjoint images are disjoint samples.
  assert len({image for image, _ in source}) == 1797
  assert not {image for image, _ in ours[0]} & {image for image, _ in ours[1]}


def test_digits_test_split_has_a_fifth_of_each_class(digits):
  _, labels = sklearn_datasets.load_digits(return_X_y=True)
  test_counts = np.bincount(digits[1].label)
  assert np.all(np.abs(test_counts - np.bincount(labels) / 5) < 1)


def test_digits_are_read_again_as_they_were(digits, data_dir):
  again = jdata.load("digits", "train", data_dir=data_dir)
  np.testing.assert_array_equal(digits[0].data, again.data)
  np.testing.assert_array_equal(digits[0].label, again.label)


PREPARE = """
import random, sys, time, warnings
warnings.simplefilter("error")
from jaxflow.data import load
from jaxflow.data.sets import gray_images
random.seed(0)
state = random.getstate()
print("ready", flush=True)
sys.stdin.readline()
dataset = load("digits", "train", data_dir=sys.argv[1])
assert random.getstate() == state
print(len(dataset), dataset.data.sum(), flush=True)
"""


def test_two_processes_prepare_at_once(tmp_path, digits):
  processes = [
    subprocess.Popen(
      [sys.executable, "-c", PREPARE, str(tmp_path)],
      env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      text=True,
    )
    for _ in range(2)
  ]
  for process in processes:
    assert process.stdout.readline() == "ready\n"
  for process in processes:
    process.stdin.write("go\n")
    process.stdin.flush()
  outputs = [process.communicate(timeout=60)[0] for process in processes]
  assert outputs == [f"1437 {digits[0].data.sum()}\n"] * 2
  assert not list(tmp_path.rglob("incomplete*"))


def test_loser_of_the_race_reads_the_winners_files(tmp_path, monkeypatch):
  from jaxflow.data.sets.gray_images import ScikitDigits

  split_generators = ScikitDigits._split_generators
  overtaken = []

  def slow(self, dl_manager):
    # Called in the middle of preparing: another one starts and finishes.
    monkeypatch.undo()
    overtaken.append(jdata.load("digits", "test", data_dir=str(tmp_path)))
    return split_generators(self, dl_manager)

  monkeypatch.setattr(ScikitDigits, "_split_generators", slow)
  dataset = jdata.load("digits", "test", data_dir=str(tmp_path))
  np.testing.assert_array_equal(dataset.data, overtaken[0].data)


@pytest.mark.parametrize("name", ["*train.array_record*", "dataset_info.json"])
def test_damaged_prepared_files(tmp_path, name):
  jdata.load("digits", "train", data_dir=str(tmp_path))
  (path,) = tmp_path.rglob(name)
  path.unlink()
  with pytest.raises(UsageError) as error:
    jdata.load("digits", "train", data_dir=str(tmp_path))
  text = message(error)
  assert f"data.data_dir={str(tmp_path)!r}: {path.parent} is damaged" in text
  assert "delete that folder" in text


def test_data_dir_that_cannot_be_written(tmp_path):
  (tmp_path / "file").write_text("in the way")
  with pytest.raises(UsageError) as error:
    jdata.load("digits", "train", data_dir=str(tmp_path / "file"))
  assert f"data.data_dir={str(tmp_path / 'file')!r}: " in message(error)


TRAIN_IMAGES = "train-images-idx3-ubyte"
TRAIN_LABELS = "train-labels-idx1-ubyte"


def idx_bytes(array):
  header = bytes((0, 0, 8, array.ndim))
  return header + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write_idx(folder, *, seed=0, compress=True, train=30, test=20):
  """Write a random set and return {split: (images, labels)}."""
  generator = np.random.default_rng(seed)
  written = {}
  for split, prefix, num in (("train", "train", train), ("test", "t10k", test)):
    images = generator.integers(0, 256, (num, 28, 28), dtype=np.uint8)
    labels = generator.integers(0, 10, num, dtype=np.uint8)
    written[split] = images, labels
    for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
      content = idx_bytes(array)
      path = folder / f"{prefix}-{kind}-ubyte"
      if compress:
        path.with_name(path.name + ".gz").write_bytes(gzip.compress(content, 1))
      else:
        path.write_bytes(content)
  return written


@pytest.fixture
def raw_dir(tmp_path):
  folder = tmp_path / "raw"
  folder.mkdir()
  return folder


def load_raw(raw_dir, split="train"):
  return jdata.load(
    "mnist",
    split,
    raw_dir=str(raw_dir),
    data_dir=str(raw_dir.parent / "prepared"),
  )


@pytest.mark.parametrize("compress", [True, False])
def test_idx_files_are_read(raw_dir, compress):
  written = write_idx(raw_dir, compress=compress)
  for split, (images, labels) in written.items():
    dataset = load_raw(raw_dir, split)
    assert dataset.data.shape == (len(images), 28, 28, 1)
    expected = (images[..., None].astype(np.float64) - 127.5) / 127.5
    np.testing.assert_allclose(dataset.data, expected, atol=1e-7)
    np.testing.assert_array_equal(dataset.label, labels)
    assert (dataset.name, dataset.split) == ("mnist", split)


def test_other_raw_files_are_another_prepared_set(tmp_path):
  labels = []
  for seed in range(2):
    folder = tmp_path / str(seed)
    folder.mkdir()
    written = write_idx(folder, seed=seed)
    dataset = load_raw(folder)
    np.testing.assert_array_equal(dataset.label, written["train"][1])
    labels.append(dataset.label.tolist())
  assert labels[0] != labels[1]


def test_changed_raw_files_are_prepared_anew(raw_dir):
  write_idx(raw_dir, seed=0)
  load_raw(raw_dir)
  written = write_idx(raw_dir, seed=1)
  np.testing.assert_array_equal(load_raw(raw_dir).label, written["train"][1])


def damage_missing(folder):
  (folder / TRAIN_LABELS).unlink()


def damage_truncated(folder):
  path = folder / TRAIN_IMAGES
  path.write_bytes(path.read_bytes()[:-5])


def damage_truncated_header(folder):
  (folder / TRAIN_IMAGES).write_bytes(bytes((0, 0, 8, 3, 0, 0)))


def damage_truncated_gzip(folder):
  path = folder / TRAIN_IMAGES
  content = gzip.compress(path.read_bytes())
  path.unlink()
  path.with_name(path.name + ".gz").write_bytes(content[:-100])


def damage_magic(folder):
  path = folder / TRAIN_IMAGES
  path.write_bytes(b"\x89PNG" + path.read_bytes()[4:])


def damage_swapped(folder):
  path = folder / TRAIN_IMAGES
  path.write_bytes((folder / TRAIN_LABELS).read_bytes())


def damage_count(folder):
  labels = np.zeros(29, np.uint8)
  (folder / TRAIN_LABELS).write_bytes(idx_bytes(labels))


def damage_label(folder):
  labels = np.full(30, 10, np.uint8)
  (folder / TRAIN_LABELS).write_bytes(idx_bytes(labels))


def damage_size(folder):
  images = np.zeros((30, 32, 32), np.uint8)
  (folder / TRAIN_IMAGES).write_bytes(idx_bytes(images))


@pytest.mark.parametrize(
  ("damage", "file", "problem"),
  [
    (damage_missing, TRAIN_LABELS, "is missing"),
    # 16 bytes of header and 30 images of 784 bytes make 23,536.
    (damage_truncated, TRAIN_IMAGES, "23531 bytes where its header"),
    (damage_truncated_header, TRAIN_IMAGES, "is truncated: 6 bytes"),
    (damage_truncated_gzip, TRAIN_IMAGES, "is truncated or not gzip"),
    (damage_magic, TRAIN_IMAGES, "'89504e47', not IDX magic '00000803'"),
    (damage_swapped, TRAIN_IMAGES, "'00000801', not IDX magic '00000803'"),
    (damage_count, TRAIN_LABELS, "has 29 labels but"),
    (damage_label, TRAIN_LABELS, "a label 10 outside 0..9"),
    (damage_size, TRAIN_IMAGES, "(30, 32, 32), not 28x28"),
  ],
)
def test_damaged_idx_files(raw_dir, damage, file, problem):
  write_idx(raw_dir, compress=False)
  damage(raw_dir)
  with pytest.raises(UsageError) as error:
    load_raw(raw_dir)
  text = message(error)
  assert f"data.raw_dir={str(raw_dir)!r}: {file}" in text
  assert problem in text
  assert "apt-get install dataset-fashion-mnist or point data.raw_dir" in text
  # Nothing half-made is left, so the repaired files load.
  assert not list(raw_dir.parent.rglob("incomplete*"))


def test_raw_dir_that_does_not_exist(tmp_path):
  with pytest.raises(UsageError, match="is missing"):
    load_raw(tmp_path / "nowhere")


@pytest.mark.skipif(
  not FASHION_MNIST.is_dir(), reason="needs Debian's dataset-fashion-mnist"
)
def test_fashion_mnist_of_debian(tmp_path):
  from jaxflow.data.sets import idx

  images, labels = idx.read_split(str(FASHION_MNIST), "test")
  assert images.shape == (10_000, 28, 28, 1)
  assert np.bincount(labels).tolist() == [1000] * 10
  images, labels = idx.read_split(str(FASHION_MNIST), "train")
  assert images.shape == (60_000, 28, 28, 1)
  assert np.bincount(labels).tolist() == [6000] * 10
  # Published statistics of the train images, as fractions of 255.
  assert images.mean() / 255 == pytest.approx(0.2860, abs=5e-5)
  assert images.std() / 255 == pytest.approx(0.3530, abs=5e-5)


def test_every_epoch_is_a_permutation():
  num, batch_size, epochs = 10, 4, 6
  batches = jdata.Batches(numbered(num), batch_size=batch_size, seed=0)
  stream = np.concatenate(drawn(batches, num * epochs // batch_size))
  stream = stream.reshape(epochs, num)
  for epoch in stream:
    assert sorted(epoch) == list(range(num))
  assert len({tuple(epoch) for epoch in stream}) == epochs


def test_batch_larger_than_the_data_set_wraps():
  batches = jdata.Batches(numbered(3), batch_size=7, seed=0)
  stream = np.concatenate(drawn(batches, 3)).reshape(7, 3)
  for epoch in stream:
    assert sorted(epoch) == [0, 1, 2]


def test_batches_depend_on_the_seed_only():
  one, same, other = (
    np.stack(drawn(jdata.Batches(numbered(50), batch_size=8, seed=seed), 9))
    for seed in (5, 5, 6)
  )
  np.testing.assert_array_equal(one, same)
  assert (one != other).any()


def test_cond_is_the_label_of_its_sample():
  batch = next(jdata.Batches(numbered(20), batch_size=8, seed=0))
  np.testing.assert_array_equal(batch["data"][:, 0], batch["cond"])
  assert batch["cond"].dtype == np.int32


def test_no_label_no_cond():
  batches = jdata.Batches(numbered(20, label=False), batch_size=8, seed=0)
  assert list(next(batches)) == ["data"]


# Ten samples in batches of four: the stream crosses an epoch in batch 2.
@pytest.mark.parametrize("taken", [0, 1, 2, 3, 5, 7])
def test_resume_continues_identically(taken):
  def make():
    return jdata.Batches(numbered(10), batch_size=4, seed=1)

  batches = make()
  drawn(batches, taken)
  state = json.loads(json.dumps(batches.get_state()))
  assert state == {"position": taken}
  expected = drawn(batches, 8)
  resumed = make()
  drawn(resumed, 4)  # Whatever it did before is forgotten.
  resumed.set_state(state)
  np.testing.assert_array_equal(drawn(resumed, 8), expected)


def test_stack_holds_sequential_batches_in_micro_batches():
  plain = jdata.Batches(numbered(10), batch_size=6, seed=2)
  stacked = jdata.Batches(numbered(10), batch_size=6, seed=2, stack=(4, 3))
  for _ in range(2):
    batch = next(stacked)
    assert batch["data"].shape == (4, 3, 2, 1)
    assert batch["cond"].shape == (4, 3, 2)
    for k, whole in enumerate(drawn(plain, 4)):
      micro = [whole[0:2], whole[2:4], whole[4:6]]
      np.testing.assert_array_equal(batch["data"][k, ..., 0], micro)
  assert stacked.get_state() == {"position": 8}
  # The position counts batches, so it holds for another stack as well.
  plain.set_state(stacked.get_state())
  np.testing.assert_array_equal(
    next(stacked)["cond"][0].reshape(6), next(plain)["cond"]
  )


@pytest.mark.parametrize("stack", [(), (2, 3)])
def test_rows_of_a_process_are_those_of_the_whole_batch(stack):
  """They need not be neighbours: devices of a host seldom are, on a pod."""

  def make(rows=None):
    return jdata.Batches(
      numbered(10), batch_size=12, seed=3, stack=stack, rows=rows
    )

  rows = np.array([0, 2, 3])
  whole, part = make(), make(rows)
  for _ in range(3):
    expected = np.take(next(whole)["cond"], rows, axis=len(stack))
    np.testing.assert_array_equal(next(part)["cond"], expected)


@pytest.mark.parametrize(
  ("options", "expected"),
  [
    ({"batch_size": 0}, "batch_size=0"),
    ({"batch_size": 10, "stack": (1, 4)}, "batch_size=10: .* multiple of 4"),
    ({"rows": np.array([7, 8])}, r"rows=\[7 8\]: .* 0\.\.7"),
    ({"rows": np.array([], int)}, r"rows=\[\]: .* 0\.\.7"),
    ({"stack": (2,)}, r"stack=\(2,\)"),
    ({"stack": (0, 1)}, r"stack=\(0, 1\)"),
    ({"seed": -1}, "seed=-1"),
  ],
)
def test_wrong_batch_options(options, expected):
  with pytest.raises(UsageError, match=expected):
    jdata.Batches(numbered(10), **{"batch_size": 8, "seed": 0, **options})


@pytest.mark.parametrize("state", [{}, {"position": -1}, {"position": "3"}])
def test_wrong_state(state):
  batches = jdata.Batches(numbered(10), batch_size=8, seed=0)
  with pytest.raises(UsageError, match="data state"):
    batches.set_state(state)


def one_device():
  return jax.sharding.SingleDeviceSharding(jax.devices()[0])


@pytest.mark.parametrize("size", [1, 2, 5])
def test_prefetch_changes_neither_batches_nor_state(size):
  def make():
    return jdata.Batches(numbered(10), batch_size=4, seed=4)

  plain = make()
  stream = jdata.Prefetch(make(), one_device(), size=size)
  assert stream.get_state() == plain.get_state()
  for _ in range(6):
    batch = next(stream)
    assert isinstance(batch["data"], jax.Array)
    for name, expected in next(plain).items():
      np.testing.assert_array_equal(batch[name], expected)
    assert stream.get_state() == plain.get_state()


def test_prefetch_resumes_after_the_batch_handed_out():
  def make():
    batches = jdata.Batches(numbered(10), batch_size=4, seed=4)
    return jdata.Prefetch(batches, one_device(), size=3)

  stream = make()
  drawn(stream, 4)
  state = stream.get_state()
  expected = drawn(stream, 5)
  for resumed in (make(), stream):
    resumed.set_state(state)
    assert resumed.get_state() == state
    np.testing.assert_array_equal(drawn(resumed, 5), expected)


class Finite:
  """Three batches, then none."""

  def __init__(self):
    self.position = 0

  def close(self):
    pass

  def __next__(self):
    if self.position == 3:
      raise StopIteration
    self.position += 1
    return np.full(2, self.position)

  def get_state(self):
    return self.position

  def set_state(self, state):
    self.position = state


def test_prefetch_hands_out_the_last_batches():
  stream = jdata.Prefetch(Finite(), one_device(), size=2)
  assert [int(batch[0]) for batch in stream] == [1, 2, 3]


def test_prefetch_size():
  with pytest.raises(UsageError, match="size=0"):
    jdata.Prefetch(Finite(), one_device(), size=0)


TWO_DEVICES = """
import jax, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from jaxflow.data import to_devices
from jaxflow.errors import UsageError
mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,))
sharding = NamedSharding(mesh, PartitionSpec(None, None, "data"))
batch = {"data": np.arange(24).reshape(1, 2, 4, 3), "cond": np.ones((1, 2, 4))}
placed = to_devices(batch, sharding)
np.testing.assert_array_equal(placed["data"], batch["data"])
shards = placed["data"].addressable_shards
assert [shard.data.shape for shard in shards] == [(1, 2, 2, 3)] * 2
assert [shard.data[0, 0, 0, 0] for shard in shards] == [0, 6]
assert placed["cond"].sharding == sharding
try:
  to_devices({"data": np.ones((1, 2, 3, 3))}, sharding)
except UsageError as error:
  assert "\\n" not in str(error)
  print(error)
"""


def test_to_devices_cuts_the_batch_axis():
  out = finish(
    start_python(
      TWO_DEVICES, XLA_FLAGS="--xla_force_host_platform_device_count=2"
    )
  )
  assert "batch_size" in out
  assert "(1, 2, 3, 3)" in out
