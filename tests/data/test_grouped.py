"""Batches of groups, each of one class."""

import json

import jax
import numpy as np
import pytest

import jaxflow
from jaxflow import data
from jaxflow.config import make_plan, resolve
from jaxflow.data.images import Images
from jaxflow.errors import UsageError
from jaxflow.parallel import sharding
from jaxflow.runs import inputs

# Five classes of 3 to 8 samples, in mixed order; sample i holds i.
SIZES = (8, 3, 5, 7, 6)
LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(5), SIZES))


def source(labels=LABELS, num_classes=5):
  values = np.arange(len(labels), dtype=np.float32)[:, None]
  return data.from_arrays(values, labels, num_classes=num_classes)


def batches(**options):
  given = {"batch_size": 6, "seed": 3, "group": 3} | options
  return data.Batches(source(), **given)


def drawn(stream, count):
  """Return the numbers of the samples of batches, [count, groups, rows]."""
  found = [next(stream)["data"][:, 0].reshape(-1, 3) for _ in range(count)]
  return np.stack(found).astype(int)


def test_groups_are_of_one_class_and_a_batch_has_no_class_twice():
  for groups in drawn(batches(), 40):
    classes = LABELS[groups]
    assert (classes == classes[:, :1]).all()
    assert len({*classes[:, 0]}) == 2
    assert all(len({*group}) == 3 for group in groups)


def test_cond_is_the_class_of_each_row():
  batch = next(batches())
  np.testing.assert_array_equal(
    batch["cond"], LABELS[batch["data"][:, 0].astype(int)]
  )


def test_classes_and_their_samples_are_drawn_equally():
  groups = drawn(batches(), 1000)
  classes = np.bincount(LABELS[groups[:, :, 0]].ravel(), minlength=5)
  # In every round of two batches four of five classes: 400 +- 10 each.
  assert np.abs(classes - 400).max() < 40
  for label, size in enumerate(SIZES):
    counts = np.bincount(groups.ravel(), minlength=len(LABELS))
    share = counts[LABELS == label] / counts[LABELS == label].sum()
    assert np.abs(share * size - 1).max() < 0.3


def test_an_epoch_of_a_class_repeats_no_sample():
  """Four of five classes a round; a class of 8 has two groups an epoch."""
  everything = data.Batches(source(), batch_size=15, seed=1, group=3)
  rounds = drawn(everything, 10)
  for first, second in zip(rounds[::2], rounds[1::2], strict=True):
    pair = [
      groups[LABELS[groups[:, 0]] == 0].ravel() for groups in (first, second)
    ]
    assert len({*np.concatenate(pair)}) == 6


def test_a_small_class_repeats_its_samples():
  stream = data.Batches(source(), batch_size=25, seed=1, group=5)
  rows = next(stream)["data"][:, 0].astype(int)
  counts = np.bincount(rows, minlength=len(LABELS))[LABELS == 1]
  assert sorted(counts) == [1, 2, 2]


def test_samples_without_a_label_are_never_drawn():
  labels = np.where(np.arange(len(LABELS)) % 4 == 0, -1, LABELS)
  stream = data.Batches(source(labels), batch_size=6, seed=0, group=3)
  assert (drawn(stream, 30) % 4 != 0).all()


@pytest.mark.parametrize("taken", [1, 2, 5])
def test_a_batch_depends_on_seed_and_number_only(taken):
  stream = batches()
  drawn(stream, taken)
  state = json.loads(json.dumps(stream.get_state()))
  expected = drawn(stream, 7)
  resumed = batches()
  resumed.set_state(state)
  np.testing.assert_array_equal(drawn(resumed, 7), expected)
  assert (drawn(batches(seed=4), 7) != drawn(batches(), 7)).any()


@pytest.mark.parametrize("options", [{}, {"threads": 2}])
def test_processes_have_their_rows_of_the_same_batch(options):
  parts = [batches(rows=np.arange(3) + start, **options) for start in (0, 3)]
  for groups in drawn(batches(), 5):
    both = [next(part)["data"][:, 0] for part in parts]
    np.testing.assert_array_equal(groups, both)
  for part in parts:
    part.close()


def test_labels_are_read_where_they_are_on_disk():
  class Records(list):
    """Records of one picture each, whose labels are inside."""

  records = Records(
    {"image": np.full((1, 1, 1), i, np.uint8), "label": label}
    for i, label in enumerate(LABELS.tolist())
  )
  images = Images(
    records=records,
    name="mine",
    split="train",
    shape=(1, 1, 1),
    num_classes=5,
    remedy="",
  )
  stream = data.Batches(images, batch_size=6, seed=3, group=3)
  for groups in drawn(batches(), 3):
    values = next(stream)["data"].reshape(2, 3)
    found = np.rint(values * 127.5 + 127.5).astype(int)
    np.testing.assert_array_equal(found, groups)


@pytest.mark.parametrize(
  ("options", "expected"),
  [
    ({"batch_size": 7}, "batch_size=7 is no multiple of 3, .*: use 9"),
    ({"batch_size": 18}, "6 groups of 3 rows, and the data 5 classes: use 15"),
  ],
)
def test_sizes_that_do_not_fit(options, expected):
  with pytest.raises(UsageError, match=expected):
    batches(**options)


def test_every_class_has_samples():
  given = {"batch_size": 6, "seed": 0, "group": 3}
  with pytest.raises(UsageError, match="class 5 has no sample"):
    data.Batches(source(num_classes=6), **given)
  values = np.zeros((4, 1))
  with pytest.raises(UsageError, match=r"no classes, .*data\.conditional=True"):
    data.Batches(data.from_arrays(values), **given)


def plan_of(num_classes=10, **fields):
  config = jaxflow.preset("digits:drifting")
  for field, value in fields.items():
    section, _, name = field.partition("__")
    config[section][name] = value
  return make_plan(
    resolve(config, shape=(8, 8, 1), num_classes=num_classes, teacher=None)
  )


@pytest.mark.parametrize(
  ("fields", "expected"),
  [
    ({"data__order": "sorted"}, "data.order='sorted' is unknown"),
    ({"data__order": "shuffled"}, "data.order='shuffled': .*'grouped'"),
    ({"num_classes": 0}, "data.order='grouped': the run sees no classes"),
    (
      {"loss__group": 8},
      r"train\.batch_size=128 has 16 groups of 8 rows.* 10 classes: "
      "use 80 or less",
    ),
  ],
)
def test_wrong_orders_are_refused_at_the_door(fields, expected):
  with pytest.raises(UsageError, match=expected):
    inputs.check_order(plan_of(**fields))


def test_a_loss_without_groups_takes_no_groups():
  config = jaxflow.preset("digits:mean_flow")
  config.data.order = "grouped"
  plan = make_plan(
    resolve(config, shape=(8, 8, 1), num_classes=10, teacher=None)
  )
  with pytest.raises(UsageError, match="the loss of 'mean_flow' has no groups"):
    inputs.check_order(plan)


def test_groups_without_labels_are_of_all_data():
  inputs.check_order(plan_of(num_classes=0, data__order="shuffled"))


def test_a_batch_is_whole_groups():
  plan = plan_of(loss__group=48)
  mesh = sharding.make_mesh(devices=jax.devices()[:1])
  with pytest.raises(UsageError, match=r"loss\.group=48\): use 96 or 144"):
    inputs.check_mesh(plan, mesh)
