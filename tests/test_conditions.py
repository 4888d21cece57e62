"""Conditions that are trees: the null rule, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxflow
from jaxflow import conditions, guidance, plugins
from jaxflow.config import default_config, make_plan, resolve
from jaxflow.data import Batches, from_arrays, held_out, without_labels
from jaxflow.errors import UsageError
from jaxflow.models import Network
from jaxflow.paths import expand
from jaxflow.runs import encoding
from jaxflow.runs.inputs import check_condition, fault

NULL = {
  "tokens": np.zeros(3, np.int32),
  "mask": np.zeros(3, bool),
  "scores": (np.full(2, np.nan, np.float32),),
}


def some(size):
  """Conditions of which row i holds i + 1 everywhere."""
  number = np.arange(1, size + 1)
  return {
    "tokens": np.tile(number[:, None], 3).astype(np.int32),
    "mask": np.ones((size, 3), bool),
    "scores": (np.tile(number[:, None], 2).astype(np.float32),),
  }


def network(xt, t, s, cond):
  """A number for each row: the first token, and 10 if the mask is set."""
  value = cond["tokens"][:, 0] + 10.0 * cond["mask"][:, 0]
  return expand(value, xt) * jnp.ones_like(xt)


def test_dropped_rows_are_null_in_every_array():
  cond = some(1000)
  dropped = guidance.drop_labels(
    jax.random.key(0), cond, rate=0.3, null_cond=NULL
  )
  labelled = np.asarray(guidance.is_labelled(dropped, NULL))
  assert 650 < labelled.sum() < 750
  for name, x in conditions.leaves(dropped).items():
    own, none = (conditions.leaves(y)[name] for y in (cond, NULL))
    np.testing.assert_array_equal(x[labelled], own[labelled])
    np.testing.assert_array_equal(
      x[~labelled], np.broadcast_to(none, own.shape)[~labelled]
    )
    assert x.dtype == own.dtype
  # Which rows lose theirs does not depend on what a condition is.
  label = guidance.drop_labels(
    jax.random.key(0), jnp.arange(1000), rate=0.3, null_cond=1000
  )
  np.testing.assert_array_equal(label != 1000, labelled)


def test_one_array_that_differs_makes_a_condition():
  cond = jax.tree.map(lambda x: np.stack([x, x]), NULL)
  cond["mask"][1, 2] = True
  assert guidance.is_labelled(cond, NULL).tolist() == [False, True]


def test_guidance_of_a_tree():
  """Row i has i + 11 with its condition and 0 without: 3 times as much."""
  guided = guidance.classifier_free(network, scale=3.0, null_cond=NULL)
  t = jnp.ones(2)
  value = guided(jnp.ones((2, 1)), t, t, some(2))
  assert value[:, 0].tolist() == [33.0, 36.0]
  # Guidance as an input has the tree in the place of labels.
  cond = guidance.inputs(some(2), t, omega=2.0)
  null = guidance.null(cond, NULL)
  assert null["label"]["tokens"].tolist() == [[0] * 3] * 2
  assert null["omega"].tolist() == [2.0, 2.0]


def test_null_of_another_structure():
  with pytest.raises(ValueError, match=r"^null_cond=5: .*mask bool \[2, 3\]"):
    guidance.null(some(2), 5)


def test_data_with_trees_are_batched_split_and_mirrored():
  number = np.arange(64, dtype=np.float32)
  images = np.tile(number[:, None, None, None], (1, 2, 2, 1))
  images[:, :, 1] += 100
  source = from_arrays(images, cond=some(64))
  for threads in (0, 2):
    batches = Batches(
      source, batch_size=8, seed=0, stack=(2, 2), flip=True, threads=threads
    )
    batch = next(batches)
    batches.close()
    assert batch["cond"]["scores"][0].shape == (2, 2, 4, 2)
    own = batch["data"].min(axis=(3, 4, 5))
    np.testing.assert_array_equal(batch["cond"]["tokens"][..., 0], own + 1)
  test = held_out(source, "test", 0.5)
  rows = test.take(np.arange(len(test)))
  own = rows["data"].min(axis=(1, 2, 3))
  np.testing.assert_array_equal(rows["cond"]["tokens"][:, 0], own + 1)
  assert "cond" not in without_labels(source).take(np.arange(2))
  with pytest.raises(UsageError, match=r"scores/0 of cond has shape \(4, 2\)"):
    from_arrays(images, cond=some(64) | {"scores": (np.ones((4, 2)),)})
  with pytest.raises(UsageError, match="labels or cond, not both"):
    from_arrays(images, np.zeros(64, int), num_classes=1, cond=some(64))


def plan_of(null_cond, num_classes=0, **data):
  made = Network(
    lambda key: {"w": jnp.ones(())},
    lambda params, xt, t, s, cond, key=None: params["w"] * xt,
    null_cond=null_cond,
  )
  config = default_config("flow_matching", data="ring", model="given")
  config.data.update(data)
  if not num_classes:
    config.loss.label_dropout = 0.0
  config = resolve(config, shape=(2,), num_classes=num_classes, teacher=None)
  return make_plan(config, network=made)


@pytest.mark.parametrize(
  ("change", "words"),
  [
    ({"tokens": np.ones((4, 5), np.int32)}, "tokens has the shape [5], not"),
    ({"tokens": np.ones((4, 3))}, "tokens has the type float32, not int32"),
    ({"mask": None}, "mask is missing"),
    ({"size": np.ones(4)}, "size is not declared"),
    ({"scores": [np.ones((4, 2), np.float32)]}, "PyTreeDef"),
  ],
)
def test_data_that_differ_from_the_declaration(change, words):
  model = plan_of(NULL).model
  points = np.ones((4, 2))
  check_condition(model, from_arrays(points, cond=some(4)))
  with pytest.raises(UsageError) as caught:
    check_condition(model, from_arrays(points, cond=some(4) | change))
  line = str(caught.value)
  assert line.startswith("data.name='arrays' (train) has other conditions than")
  assert words in line and "\n" not in line
  with pytest.raises(UsageError, match=r"cond: .*give (these|whole)"):
    try:
      conditions.of_samples(some(4) | change, model.null_cond, 4)
    except ValueError as error:
      raise UsageError(f"cond: {error}") from error


def test_data_or_network_without_conditions():
  points = np.ones((4, 2))
  with pytest.raises(UsageError, match="no conditions, and the network decl"):
    check_condition(plan_of(NULL).model, from_arrays(points))
  with pytest.raises(UsageError, match="the network declares none: take one"):
    check_condition(plan_of(None).model, from_arrays(points, cond=some(4)))
  assert plan_of(NULL, conditional=False).model.null_cond is None


@pytest.mark.parametrize(
  ("null_cond", "words"),
  [
    ({"label": 0}, "the name 'label' is taken"),
    ({"samples": 0}, "the name 'samples' is taken"),
    ({}, "it has no array"),
    ({"text": "left"}, "text is of type <U4"),
  ],
)
def test_wrong_declarations(null_cond, words):
  with pytest.raises(UsageError, match=f"^network: null_cond: .*{words}"):
    plan_of(null_cond)


def test_labels_are_the_simplest_condition():
  """Classes of the data are the null condition, declared or not."""
  assert plan_of(None, num_classes=8).model.null_cond == 8
  assert plan_of(np.int32(8), num_classes=8).model.null_cond == 8
  with pytest.raises(UsageError, match="they must agree"):
    plan_of(np.int32(7), num_classes=8)


def test_rows_of_samples():
  found = conditions.of_samples(some(2), NULL, 5)
  assert found["tokens"][:, 0].tolist() == [1, 2, 1, 2, 1]
  one = conditions.rows(some(2), 1)
  found = conditions.of_samples(one, NULL, 3)
  assert found["scores"][0].tolist() == [[2.0, 2.0]] * 3
  # 64 bits become the declared 32.
  wide = some(2) | {"tokens": np.ones((2, 3), np.int64)}
  assert conditions.of_samples(wide, NULL, 2)["tokens"].dtype == np.int32
  with pytest.raises(ValueError, match="at most 1, the number of samples"):
    conditions.of_samples(some(2), NULL, 1)
  with pytest.raises(ValueError, match="the same number of each"):
    conditions.of_samples(some(2) | {"mask": np.ones((1, 3), bool)}, NULL, 4)
  with pytest.raises(ValueError, match="mask is empty"):
    conditions.of_samples(some(0), NULL, 4)


def test_fault_of_a_batch():
  """Steps that are not finite are blamed on the array that is to blame."""
  null_cond = {"embedding": np.zeros(2, np.float32)}
  plan = plan_of(null_cond, file="captions.npz")
  batch = {"data": np.ones((3, 2)), "cond": {"embedding": np.ones((3, 2))}}
  assert fault(plan, batch) == ""
  batch["cond"]["embedding"][1] = np.inf
  assert fault(plan, batch).startswith(
    "conditions of captions.npz: embedding has values that are not finite"
  )


def test_latents_have_classes_only(monkeypatch):
  monkeypatch.setattr(plugins, "_REGISTERED", {})
  images = np.zeros((4, 8, 8, 3))
  jaxflow.register(
    "data", "captioned", lambda split: from_arrays(images, cond=some(4))
  )
  options = encoding.EncodeOptions(data="captioned", autoencoder="x", size=8)
  with pytest.raises(UsageError, match="latents keep classes only"):
    encoding._images(options, "train")


def test_arrays_with_conditions_train_and_sample():
  """Points with token 0 lie below 0, those with token 1 above."""
  tokens = np.arange(400) % 2
  points = 4.0 * tokens[:, None] - 2 + 0.1 * np.ones((400, 1))
  config = default_config("flow_matching", data="ring", model="mlp")
  config.loss.label_dropout = 0.1
  config.optimizer.learning_rate = 1e-2
  config.train.update(steps=200, batch_size=32, log_every=200)

  def init(key):
    return {"scale": jnp.zeros(()), "shift": jnp.zeros((3, 1))}

  def apply(params, xt, t, s, cond, key=None):
    return xt * params["scale"] + params["shift"][cond["token"]]

  run = jaxflow.train(
    config,
    network=Network(init, apply, null_cond={"token": np.int32(2)}),
    data={"data": points, "cond": {"token": tokens}},
    log=lambda line: None,
  )
  sampled = run.sample(200, cond={"token": np.array([0, 1])}, nfe=1)
  low, high = sampled[::2].mean(), sampled[1::2].mean()
  assert low < -1 < 1 < high
  with pytest.raises(UsageError, match="'labels', or 'cond'"):
    jaxflow.train(config, data={"data": points, "conds": {}})


def test_values_that_are_not_finite():
  cond = {"embedding": np.float32([[1.0, np.nan]])}
  null_cond = {"embedding": np.zeros(2, np.float32)}
  with pytest.raises(ValueError, match="embedding has values that are not fin"):
    conditions.check_values(cond, null_cond)
  conditions.check_values(cond, {"embedding": np.float32([np.nan, 0])})


TEXT = {"tokens": np.zeros(4, np.int32), "size": np.float32(0)}


@pytest.mark.parametrize(
  ("cond", "words"),
  [
    ({"tokens": np.full((2, 4), 2**40), "size": np.ones(2)}, "1099511627776"),
    ({"tokens": np.ones((2, 4), int), "size": np.full(2, 1e300)}, "float32"),
    ({"tokens": np.ones((2, 4), int), "size": 2.0}, "size is of one sample"),
    ({"tokens": [["a"] * 4], "size": [1.0]}, "tokens is of type <U1"),
    ({"tokens": [[1, 2], [1]], "size": [1.0]}, "rows of several lengths"),
    ({"tokens": None, "size": 1.0}, "tokens is of type object"),
    ({"tokens": np.ones((0, 4), int), "size": np.ones(0)}, "is empty"),
    ({"size": 1.0}, "tokens is missing"),
  ],
)
def test_conditions_that_are_refused(cond, words):
  with pytest.raises(ValueError, match=r"^.{1,200}$") as caught:
    conditions.of_samples(cond, TEXT, 4)
  assert words in str(caught.value)


def test_lists_are_arrays():
  cond = {"tokens": [[1, 2, 3, 4], [5, 6, 7, 8]], "size": [0.5, 1.5]}
  found = conditions.of_samples(cond, TEXT, 3)
  assert found["tokens"].tolist() == [[1, 2, 3, 4], [5, 6, 7, 8], [1, 2, 3, 4]]
  assert found["size"].tolist() == [0.5, 1.5, 0.5]
  assert {k: x.dtype.name for k, x in found.items()} == {
    **{"tokens": "int32", "size": "float32"}
  }
  single = conditions.of_samples({"tokens": [1, 2, 3, 4], "size": 2.0}, TEXT, 1)
  assert single["tokens"].tolist() == [[1, 2, 3, 4]]


@pytest.mark.parametrize(
  ("null_cond", "words"),
  [
    (np.int64(2**40), "cond has 1099511627776, which int32 does not hold"),
    (np.complex64(1), "cond is of type complex64"),
    ({"a/b": 1, "a": {"b": 2}}, "two of its arrays have one name"),
    ({0: 1, "0": 2}, "its keys are of several types"),
    ({"a": np.zeros(0)}, "its array a is empty"),
  ],
)
def test_null_conditions_that_are_refused(null_cond, words):
  with pytest.raises(ValueError, match=words):
    conditions.declared(null_cond)


def test_data_of_labels_and_conditions():
  with pytest.raises(UsageError, match="give labels or cond, not both"):
    from_arrays(np.ones((3, 2)), np.arange(3), cond=np.arange(3))
  for cond, words in (
    (np.array(list("abc")), "<U1"),
    ([2**40] * 3, "2 does n"),
  ):
    with pytest.raises(UsageError, match=f"of cond, cond .*{words}|int32"):
      from_arrays(np.ones((3, 2)), cond=np.asarray(cond))
