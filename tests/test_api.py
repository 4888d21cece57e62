"""The Python interface: preset, train, load, sample, evaluate."""

import functools
import inspect
import json
import pathlib
from concurrent import futures
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxflow
from jaxflow import data as data_lib
from jaxflow import losses
from jaxflow.config import load_config
from jaxflow.errors import RunError, UsageError
from jaxflow.parallel import sharding
from jaxflow.runs.run import Run

SILENT = {"log": lambda line: None}


def tiny(method="flow_matching", **fields):
  """A config of the ring, for few steps of a small network."""
  config = jaxflow.preset(f"ring:{method}")
  config.data.conditional = False
  config.model.update(width=16, depth=1, time_features=8)
  config.train.update(steps=4, batch_size=16, log_every=2)
  config.train.update(steps_per_dispatch=2, sample_every=0)
  config.checkpoint.every = 2
  config.evaluation.update(num=50, metrics="sliced_wasserstein")
  config.evaluation.flow.num = 0
  for field, value in fields.items():
    section, _, name = field.rpartition("__")
    config[section].update({name: value})
  return config


def labelled(**fields):
  return tiny(data__conditional=True, loss__label_dropout=0.1, **fields)


def linear(a=0.5, b=0.0):
  """A network `a * xt + b * (t - s)`, in parameters that start so."""

  def init(key):
    return {"a": jnp.full((), a), "b": jnp.full((), b)}

  def apply(params, xt, t, s, cond, key=None):
    gap = jnp.reshape(t - s, (-1,) + (1,) * (xt.ndim - 1))
    shift = 0.0
    if cond is not None:
      shift = jnp.reshape(cond, gap.shape).astype(xt.dtype)
    return params["a"] * xt + params["b"] * gap + shift

  return jaxflow.Network(init, apply)


def train(config, workdir=None, **options):
  return jaxflow.train(config, workdir, **{**SILENT, **options})


def message(call, *arguments, kind=UsageError, **options):
  """The line that a call fails with."""
  with pytest.raises(kind) as caught:
    call(*arguments, **options)
  text = str(caught.value)
  assert "\n" not in text, text
  return text


def differing(a, b):
  """The largest difference of two trees."""
  leaves = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
  return max(float(np.abs(np.asarray(x) - y).max()) for x, y in leaves)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """The folder of a run with labels."""
  path = tmp_path_factory.mktemp("api") / "run"
  train(labelled(), str(path))
  return path


@pytest.fixture(scope="module")
def run(folder):
  return jaxflow.load(folder)


@pytest.fixture(scope="module")
def images():
  """A run in memory on images [N, 4, 4, 1]."""
  values = np.random.default_rng(0).uniform(-1, 1, (64, 4, 4, 1))
  return train(tiny(), data={"data": values})


# The five lines.


def test_five_lines(tmp_path):
  config = tiny("mean_flow")
  run = jaxflow.train(config, workdir=tmp_path / "x", **SILENT)
  assert run.finished and run.step == 4
  assert (tmp_path / "x/config.json").is_file()
  loaded = jaxflow.load(str(tmp_path / "x"))
  assert loaded.workdir == tmp_path / "x" and loaded.step == 4
  samples = loaded.sample(6, nfe=2)
  assert samples.shape == (6, 2) and samples.dtype == np.float32
  np.testing.assert_array_equal(samples, run.sample(6, nfe=2))
  lines = []
  rows = loaded.evaluate(nfe=(1, 2), log=lines.append)
  assert [row["nfe"] for row in rows] == [1, 2] and lines
  values = json.loads((tmp_path / "x/evaluation.json").read_text())
  for row, stored in zip(rows, values["rows"], strict=True):
    score = row["scores"]["sliced_wasserstein"]
    assert stored["scores"]["sliced_wasserstein"]["value"] == score.value
    assert score.value > score.real >= 0 and stored["step"] == 4


def test_who_draws_shares_one_sampler_for_each_number_of_calls(tmp_path):
  train(tiny(), tmp_path)
  run = jaxflow.load(tmp_path)
  made = mock.Mock(side_effect=Run.make_sampler)
  with mock.patch.object(Run, "make_sampler", lambda *given: made(*given)):
    run.sample(4, nfe=2)
    run.evaluate(nfe=(1, 2))
    run.sample(8, nfe=1)
  assert [call.args[1] for call in made.call_args_list] == [2, 1]


def test_workdir_is_a_path_or_its_name(tmp_path, folder):
  config = labelled()
  run = train(config, pathlib.Path(tmp_path, "run"))
  assert run.workdir == tmp_path / "run"
  by_name = jaxflow.load(str(folder))
  assert by_name.workdir == folder
  assert differing(run.params, by_name.params) == 0


def test_without_workdir_nothing_is_written(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  run = train(tiny())
  run.evaluate(nfe=(1,))
  assert run.workdir is None and not list(tmp_path.iterdir())
  assert differing(run.params, train(tiny(), tmp_path / "x").params) == 0


def test_config_of_the_caller_stays(tmp_path):
  config = tiny()
  before = config.to_dict()
  train(config, tmp_path / "a", network=linear(), data=points())
  assert config.to_dict() == before and not config.is_locked


def test_training_goes_on_in_the_workdir(tmp_path):
  lines = []
  train(tiny(), tmp_path)
  longer = tiny(train__steps=8)
  run = jaxflow.train(longer, tmp_path, log=lines.append)
  assert "train.schedule_steps=4" in lines[0]
  assert "resumed at step 4" in lines[1] and run.step == 8
  lines.clear()
  again = jaxflow.train(longer, tmp_path, log=lines.append)
  assert "nothing to do" in "\n".join(lines)
  assert differing(run.params, again.params) == 0
  other = message(train, tiny(model__width=8), tmp_path)
  assert "model.width=16, not 8" in other


def test_a_run_without_a_checkpoint_may_become_another(tmp_path):
  refused = tiny(evaluation__during={"every": 2, "best": "recognised"})
  text = message(train, refused, tmp_path)
  assert "evaluation.during.best='recognised'" in text
  assert (tmp_path / "config.json").exists()
  run = train(tiny(train__batch_size=32, model__width=8), tmp_path)
  assert run.finished and load_config(tmp_path).train.batch_size == 32
  text = message(train, tiny(train__batch_size=32, model__width=16), tmp_path)
  assert "model.width=8, not 16" in text


def test_nothing_is_drawn_where_nobody_looks(monkeypatch):
  def fail(*arguments):
    raise AssertionError("samples were drawn")

  monkeypatch.setattr("jaxflow.runs.train.make_previews", lambda *_: fail)
  train(tiny(train__sample_every=2))


def test_misspelt_field():
  config = tiny()
  config.train.stepps = 3
  text = message(train, config)
  assert text == (
    "train.stepps=3 is no field of the config: did you mean train.steps?"
  )


# Samples.


def test_labels(run):
  three = run.sample(4, labels=3)
  np.testing.assert_array_equal(three, run.sample(4, labels=[3] * 4))
  np.testing.assert_array_equal(three, run.sample(4, labels=np.full(4, 3)))
  turns = run.sample(10)
  in_turn = [0, 1, 2, 3, 4, 5, 6, 7, 0, 1]
  np.testing.assert_array_equal(turns, run.sample(10, labels=in_turn))
  assert differing(three, run.sample(4, labels=5)) > 0


@pytest.mark.parametrize(
  ("labels", "text"),
  [
    (8, "labels=8 is out of range: give 0 to 7"),
    ([0, 1, -1, 2], "labels=-1 is out of range: give 0 to 7"),
    ([1, 2], "labels of type int64 and shape (2,): give one whole number, or "),
    ([0.5] * 4, "labels of type float64 and shape (4,): "),
  ],
)
def test_wrong_labels(run, labels, text):
  assert message(run.sample, 4, labels=labels).startswith(text)


def test_labels_without_classes(images):
  assert "unconditional" in message(images.sample, 4, labels=1)


@pytest.mark.parametrize("num", [0, -3])
def test_wrong_number(run, num):
  assert message(run.sample, num) == f"num={num}: give at least 1"


def test_wrong_number_of_calls(run):
  text = "nfe=0: give a whole number, at least 1, at most 1000000"
  assert message(run.sample, 2, nfe=0) == text
  assert message(run.evaluate, nfe=(0,)) == text


def test_images_are_clipped_unless_told(images):
  clipped = images.sample(64)
  whole = images.sample(64, clip=False)
  assert clipped.shape == (64, 4, 4, 1)
  assert np.abs(clipped).max() <= 1 < np.abs(whole).max()
  np.testing.assert_array_equal(clipped, np.clip(whole, -1, 1))


def test_points_are_not_clipped(run):
  samples = run.sample(64)
  assert np.abs(samples).max() > 1
  np.testing.assert_array_equal(samples, run.sample(64, clip=False))


def test_seed(run):
  first = run.sample(4, seed=1)
  np.testing.assert_array_equal(first, run.sample(4, seed=1))
  assert differing(first, run.sample(4, seed=2)) > 0
  labels = np.arange(8)
  eight = run.sample(8, labels=labels, seed=1)
  np.testing.assert_allclose(first, eight[:4], rtol=1e-5, atol=1e-6)


def test_latents_of_no_latents(run):
  assert "are no latents" in message(run.sample, 2, latents=True)


def test_samples_that_are_not_finite():
  run = train(tiny(), network=linear())
  state = run.state.ema["sampling"]
  state["a"] = jnp.full((), jnp.nan)
  text = message(run.sample, 2, kind=RunError)
  assert text.startswith("samples of step 4 are not finite")


def test_sampler_is_traced_once_for_each_size_and_number_of_calls():
  traces = []
  network = linear()

  def apply(*arguments, key=None):
    traces.append(arguments)
    return network.apply(*arguments, key=key)

  run = train(tiny(), network=jaxflow.Network(network.init, apply))

  def count(num, nfe):
    traces.clear()
    for seed in range(2):
      run.sample(num, nfe=nfe, seed=seed)
    return len(traces)

  first = count(8, 1)
  assert first > 0 and count(8, 1) == 0
  assert count(4, 1) == first and count(8, 3) > 0
  assert count(4, 1) == count(8, 3) == 0


# What is loaded.


def test_checkpoints(tmp_path):
  train(tiny(), tmp_path)
  assert jaxflow.load(tmp_path, step=2).step == 2
  assert jaxflow.load(tmp_path).step == 4
  text = message(jaxflow.load, tmp_path, step=3)
  assert text.startswith("step=3") and "2, 4" in text
  best = message(jaxflow.load, tmp_path, step="best")
  assert best.startswith("step='best'")
  assert "evaluation.during.best" in best


def test_best_checkpoint(tmp_path):
  config = tiny()
  config.evaluation.during.update(
    every=2, num=50, share=0.99, metrics="sliced_wasserstein"
  )
  config.evaluation.during.best = "sliced_wasserstein"
  run = train(config, tmp_path)
  best = jaxflow.load(tmp_path, step="best")
  assert best.step in (2, 4) and run.step == 4
  assert "writes files" in message(train, config)


def test_averages(folder):
  online = jaxflow.load(folder, average="online")
  average = jaxflow.load(folder, average="sampling")
  assert differing(average.params, jaxflow.load(folder).params) == 0
  assert differing(online.params, average.params) > 0
  text = message(jaxflow.load, folder, average="fast")
  assert text == (
    "average='fast' is no average of this run: choose one of online, sampling, "
    "or width=W of a power average"
  )


def test_no_run(tmp_path):
  assert "holds no config.json" in message(jaxflow.load, tmp_path)


def test_dtype(folder, run):
  half = jaxflow.load(folder, dtype=jnp.bfloat16)
  assert {x.dtype for x in jax.tree.leaves(half.params)} == {
    jnp.dtype("bfloat16")
  }
  samples = half.sample(8)
  assert samples.dtype == np.float32
  np.testing.assert_allclose(samples, run.sample(8), rtol=0.05, atol=0.05)
  whole = jaxflow.load(folder, dtype=jnp.float32)
  assert {x.dtype for x in jax.tree.leaves(whole.params)} == {
    jnp.dtype("float32")
  }


def test_mesh(folder, run):
  mesh = sharding.make_mesh(data=2, fsdp=4)
  split = jaxflow.load(folder, mesh=mesh)
  assert split.mesh == mesh
  np.testing.assert_allclose(
    split.sample(8), run.sample(8), rtol=1e-5, atol=1e-6
  )


def test_other_sampling(folder):
  config = load_config(folder).copy_and_resolve_references()
  with config.unlocked():
    config.sample.nfe = 3
  changed = jaxflow.load(folder, config=config)
  default = jaxflow.load(folder)
  np.testing.assert_array_equal(changed.sample(4), default.sample(4, nfe=3))
  assert changed.config.sample.nfe == 3


# The network of a run, by arithmetic.

XT = jnp.array([[1.0, -2.0], [0.5, 4.0]])
T, S = jnp.array([0.8, 0.5]), jnp.array([0.3, 0.5])


def fixed(method="flow_matching", a=0.5, b=0.0, config=None, **options):
  """A run of a network that does not learn."""
  config = tiny(method) if config is None else config
  config.optimizer.learning_rate = 1e-30
  return train(config, network=linear(a, b), **options)


def test_params():
  run = fixed()
  assert {k: float(v) for k, v in run.params.items()} == {"a": 0.5, "b": 0.0}
  assert differing(run.params, run.state.ema["sampling"]) == 0


def test_velocity_and_euler_step():
  run = fixed()
  velocity = run.velocity()(XT, T, T, None)
  np.testing.assert_allclose(velocity, 0.5 * XT, rtol=1e-6)
  expected = XT + (S - T)[:, None] * 0.5 * XT
  moved = run.flow_map()(XT, T, S, None)
  np.testing.assert_allclose(moved, expected, rtol=1e-6)


def test_flow_is_sampled_by_another_solver(tmp_path):
  config = fixed(workdir=tmp_path).config.copy_and_resolve_references()
  with config.unlocked():
    config.flow_map.solver.name = "heun"
  heun = jaxflow.load(tmp_path, config=config, network=linear(0.5))
  # Of x' = x / 2, to the second order in the step.
  half = (S - T)[:, None] / 2
  moved = heun.flow_map()(XT, T, S, None)
  np.testing.assert_allclose(moved, XT * (1 + half + half**2 / 2), rtol=1e-6)


def test_velocity_of_a_network_that_predicts_data():
  run = fixed(config=tiny(loss__prediction="data"))
  # xt = (1 - t) x + t n has the velocity n - x = (xt - x) / t, here x = xt / 2.
  expected = XT / (2 * T[:, None])
  velocity = run.velocity()(XT, T, T, None)
  np.testing.assert_allclose(velocity, expected, rtol=1e-5)


def test_flow_map_of_average_velocity():
  run = fixed("mean_flow", a=0.5, b=2.0)
  gap = (T - S)[:, None]
  expected = XT - gap * (0.5 * XT + 2.0 * gap)
  moved = run.flow_map()(XT, T, S, None)
  np.testing.assert_allclose(moved, expected, rtol=1e-6)
  sample = jaxflow.flow_maps.average_velocity(
    lambda xt, t, s, cond: run.run.model.network.apply(
      run.params, xt, t, s, cond
    )
  )
  np.testing.assert_array_equal(moved, sample(XT, T, S, None))


def test_flow_map_is_guided_as_sampled_and_velocity_is_not():
  config = labelled(sample__guidance=3.0)
  run = fixed(config=config)
  label = jnp.array([2, 2])
  # The network adds the label; the null label of eight classes is 8.
  velocity = run.velocity()(XT, T, T, label)
  np.testing.assert_allclose(velocity, 0.5 * XT + 2, rtol=1e-6)
  guided = 0.5 * XT + 8 + 3 * (2 - 8)
  expected = XT + (S - T)[:, None] * guided
  moved = run.flow_map()(XT, T, S, label)
  np.testing.assert_allclose(moved, expected, rtol=1e-5)


def test_no_velocity():
  run = train(tiny("consistency_training"), network=linear())
  text = message(run.velocity)
  assert text.startswith("velocity: ") and "flow_map()" in text


# Data, networks and losses of the caller.


def points(num=64, classes=0):
  generator = np.random.default_rng(1)
  arrays = {"data": generator.normal(size=(num, 2))}
  if classes:
    arrays["labels"] = np.arange(num) % classes
  return arrays


@pytest.mark.parametrize("form", ["arrays", "source", "splits"])
def test_data(form, tmp_path):
  arrays = points()
  source = data_lib.from_arrays(arrays["data"])
  forms = {
    "arrays": arrays,
    "source": source,
    "splits": {"train": source, "test": points(32)},
  }
  run = train(tiny(), data=forms[form])
  config = tiny()
  assert run.config.data.name == "given"
  assert run.config.data.shape == (2,)
  same = train(config, data=arrays)
  assert differing(run.params, same.params) == 0
  if form == "splits":
    (row,) = run.evaluate(nfe=(1,))
    assert row["reference"]["num"] == 32
  else:
    text = message(run.evaluate, nfe=(1,))
    assert "data.name='given' has no test split" in text


def test_classes_of_all_splits_count():
  test = {"data": np.zeros((3, 2)), "labels": np.array([0, 1, 2])}
  config = tiny(data__conditional=True)
  run = train(config, data={"train": points(64, 5), "test": test})
  assert run.config.data.num_classes == 5
  assert run.sample(5).shape == (5, 2)
  (row,) = run.evaluate(nfe=(1,))
  assert row["num"] == 50


@pytest.mark.parametrize(
  ("data", "words"),
  [
    ({"x": np.zeros((3, 2))}, ["'x'", "'train'"]),
    ({"data": np.zeros((3, 2)), "label": 1}, ["'label'", "'labels'"]),
    ({"test": {"data": np.zeros((3, 2))}}, ["'test'", "'train'"]),
    (np.zeros((3, 2)), ["ndarray", "{'data':"]),
    ({"data": np.zeros(3)}, ["(3,)", "rank 2"]),
    ({"data": np.full((3, 2), np.nan)}, ["nan"]),
    ({"data": np.zeros((3, 2)), "labels": np.full(3, np.inf)}, ["inf"]),
    ({"data": np.zeros((3, 2)), "labels": np.zeros(4)}, ["(4,)", "3 samples"]),
    ({"data": np.zeros((3, 2)), "labels": np.arange(2)}, ["(2,)", "3 samples"]),
  ],
)
def test_wrong_data(data, words):
  text = message(train, tiny(), data=data)
  assert all(word in text for word in words), text


def no_key(params, xt, t, s, cond):
  return xt


@pytest.mark.parametrize(
  ("init", "apply", "words"),
  [
    (lambda key: {}, no_key, ["fails", "'key'"]),
    (
      lambda key: {},
      lambda params, xt, t, s, cond, key=None: xt[:, :1],
      ["returns (2, 1) for xt (2, 2)", "return (2, 2)"],
    ),
    (
      lambda key: {},
      lambda params, xt, t, s, cond, key=None: (xt, xt),
      ["returns ((2, 2), (2, 2))", "return (2, 2)"],
    ),
    (
      lambda key: {},
      lambda params, xt, t, s, cond, key=None: params["w"] @ xt,
      ["fails", "'w'"],
    ),
    (lambda: {}, no_key, ["init(key) fails", "argument"]),
    (
      lambda key: {"layer": {"count": jnp.zeros((), int)}},
      no_key,
      ["int32", "['layer']['count']", "float32"],
    ),
  ],
  ids=["key", "shape", "tuple", "body", "init", "whole numbers"],
)
def test_wrong_network(tmp_path, init, apply, words):
  network = jaxflow.Network(init, apply)
  text = message(train, tiny(), tmp_path / "x", network=network)
  assert text.startswith("network: ")
  assert all(word in text for word in words), text
  assert not (tmp_path / "x").exists()


def test_network_with_two_heads():
  def apply(params, xt, t, s, cond, key=None):
    gap = cond["t_end"] - cond["t_start"] + cond["omega"] + t - s
    assert cond["label"] is None
    return params["a"] * xt, params["a"] * xt + gap[:, None]

  network = jaxflow.Network(linear().init, apply)
  run = train(tiny("improved_mean_flow"), network=network)
  assert run.sample(4).shape == (4, 2)
  text = message(train, tiny("improved_mean_flow"), network=linear())
  assert text.startswith("network: ")


def test_run_with_own_network_and_data_goes_on(tmp_path):
  own = {"network": linear(), "data": points()}
  first = train(tiny(), tmp_path, **own)
  text = message(train, tiny(), tmp_path, network=own["network"])
  assert "data.name='given', not 'ring'" in text
  longer = train(tiny(train__steps=6), tmp_path, **own)
  assert longer.step == 6 and first.step == 4
  assert load_config(tmp_path).model.name == "given"
  loaded = jaxflow.load(tmp_path, **own)
  np.testing.assert_array_equal(loaded.sample(4), longer.sample(4))
  assert differing(loaded.params, longer.params) == 0
  # Samples need the network, and no data.
  alone = jaxflow.load(tmp_path, network=own["network"])
  np.testing.assert_array_equal(alone.sample(4), loaded.sample(4))
  assert message(alone.evaluate, nfe=(1,)).startswith("data.name='given'")
  assert message(jaxflow.load, tmp_path) == (
    "model.name='given': the run has a network of yours: pass it again, "
    "network=jaxflow.Network(init, apply), to jaxflow.train or jaxflow.load; "
    "no other run can start from it or be taught by it"
  )
  stored = load_config(tmp_path)
  assert message(train, stored, tmp_path, network=own["network"]) == (
    "data.name='given': the run has data of yours: pass its train split again, "
    "data={'train': ..., 'test': ...}"
  )
  wrong = jaxflow.Network(
    lambda key: {"c": jnp.zeros(())}, lambda p, xt, t, s, cond, key=None: xt
  )
  assert message(jaxflow.load, tmp_path, network=wrong)


def test_own_network_resumes_as_one_run(tmp_path):
  own = {"network": linear(), "data": points()}
  whole = train(tiny(optimizer__schedule="constant"), tmp_path / "a", **own)
  half = tiny(optimizer__schedule="constant", train__steps=2)
  train(half, tmp_path / "b", **own)
  config = tiny(optimizer__schedule="constant")
  resumed = train(config, tmp_path / "b", **own)
  assert differing(whole.params, resumed.params) == 0


def test_own_loss():
  seen = {}

  def my_loss(model_fn, key, batch, *, path, sample_times, label_dropout=0.5):
    seen.update(path=path, label_dropout=label_dropout)
    loss, metrics = losses.flow_matching_loss(
      model_fn, key, batch, path=path, sample_times=sample_times
    )
    return 3.0 * loss, {**metrics, "tripled": 3 * loss.mean()}

  logs = Recorder()
  run = train(tiny(), loss=my_loss, callbacks=[logs])
  assert set(seen) == {"path", "label_dropout"}
  assert isinstance(seen["path"], jaxflow.paths.Linear)
  # The config's value, not the default of the signature.
  assert seen["label_dropout"] == 0.0
  assert all("tripled" in scalars for _, scalars in logs.logged)
  own = Recorder()
  train(tiny(), callbacks=[own])
  first, second = (x.logged[0][1]["loss"] for x in (logs, own))
  assert first > 2 * second
  assert run.sample(2).shape == (2, 2)


def test_own_loss_is_given_what_the_method_makes():
  """Components and what the run makes are made as for the method's own."""
  seen, own = {}, jaxflow.METHODS["consistency_training"].loss

  def my_loss(model_fn, key, batch, **options):
    seen.update(options)
    return own(model_fn, key, batch, **options)

  run = train(tiny("consistency_training"), loss=my_loss)
  plain = train(tiny("consistency_training"))
  names = inspect.signature(own).parameters
  assert set(seen) <= set(names) and "target_fn" in seen
  assert callable(seen["weight"]) and callable(seen["distance"])
  assert differing(run.params, plain.params) == 0


def test_own_loss_keeps_what_marks_the_options():
  def my_loss(model_fn, key, batch, *, path, sample_times, prediction):
    return losses.flow_matching_loss(
      model_fn,
      key,
      batch,
      path=path,
      sample_times=sample_times,
      prediction=prediction,
    )

  config = tiny(loss__prediction="data")
  run = fixed(config=config, loss=my_loss)
  velocity = run.velocity()(XT, T, T, None)
  np.testing.assert_allclose(velocity, XT / (2 * T[:, None]), rtol=1e-5)


def test_wrong_loss():
  text = message(train, tiny(), loss=lambda model_fn, key, batch, *, other: 0)
  assert text == (
    "loss: it needs 'other', which flow_matching_loss does not take: give it a "
    "default, or bind it with functools.partial"
  )


class Recorder:
  """Remembers what it is told."""

  def __init__(self):
    self.logged, self.saved, self.drawn, self.closed = [], [], [], 0

  def on_log(self, step, scalars):
    self.logged.append((step, dict(scalars)))

  def on_checkpoint(self, step):
    self.saved.append(step)

  def on_samples(self, step, samples):
    self.drawn.append((step, samples))

  def close(self):
    self.closed += 1


class Silent:
  """Has none of the methods."""


class Logged:
  def __init__(self):
    self.steps = []

  def on_log(self, step, scalars):
    self.steps.append(step)


@pytest.mark.parametrize("in_memory", [False, True])
def test_callbacks(tmp_path, in_memory):
  recorder, logged = Recorder(), Logged()
  config = tiny(train__sample_every=2)
  workdir = None if in_memory else tmp_path
  run = train(config, workdir, callbacks=[recorder, Silent(), logged])
  assert [step for step, _ in recorder.logged] == logged.steps == [1, 2, 4]
  assert all(np.isfinite(x["loss"]) for _, x in recorder.logged)
  assert recorder.saved == ([] if in_memory else [2, 4])
  assert [step for step, _ in recorder.drawn] == [2, 4]
  assert recorder.closed == 1
  drawn = recorder.drawn[-1][1]
  assert drawn.shape == (2000, 2)
  np.testing.assert_allclose(
    drawn[:4], run.sample(4, seed=0), rtol=1e-5, atol=1e-6
  )


def test_callbacks_are_told_of_images():
  recorder = Recorder()
  values = np.random.default_rng(0).uniform(-1, 1, (64, 4, 4, 1))
  config = tiny(train__sample_every=4)
  train(config, data={"data": values}, callbacks=[recorder])
  ((step, samples),) = recorder.drawn
  assert step == 4 and samples.shape == (64, 4, 4, 1)


def test_checkpoint_by_a_number_of_any_kind(folder):
  last = jaxflow.load(folder).step
  assert jaxflow.load(folder, step=np.int64(last)).step == last
  assert "step=999 is not in" in message(
    jaxflow.load, folder, step=np.int64(999)
  )
  assert "step='7': give a whole number" in message(
    jaxflow.load, folder, step="7"
  )


def test_config_of_a_run_may_change_how_it_samples_alone(folder):
  config = jaxflow.load(folder).config.copy_and_resolve_references()
  with config.unlocked():
    config.sample.batch_size = 0
  text = message(jaxflow.load, folder, config=config)
  assert text == "sample.batch_size=0: give 1 or more"
  with config.unlocked():
    config.sample.batch_size, config.seed = 16, 5
  assert "seed=0, not 5" in message(jaxflow.load, folder, config=config)


def test_config_that_is_none():
  text = message(jaxflow.train, "digits:mean_flow")
  assert "config='digits:mean_flow': give a ConfigDict" in text


@pytest.mark.parametrize("nfe", [(), (0,), (2, -1)])
def test_evaluations_without_network_calls(nfe):
  config = tiny()
  config.evaluation.during.nfe = nfe
  text = message(train, config)
  assert text.startswith("evaluation.during.nfe=") and "at least 1" in text


def test_training_in_a_thread():
  """Python lets the main thread alone handle signals."""
  with futures.ThreadPoolExecutor(1) as executor:
    run = executor.submit(train, tiny()).result()
  assert run.finished and run.step == 4


def test_bound_options_of_an_own_loss_stay():
  seen = []

  def own(model_fn, key, batch, *, path, sample_times, weight, **rest):
    seen.append(weight)
    return losses.flow_matching_loss(
      model_fn, key, batch, path=path, sample_times=sample_times
    )

  train(tiny(), loss=functools.partial(own, weight="mine"))
  assert set(seen) == {"mine"}


def test_drafts_of_a_killed_process_are_no_run(tmp_path):
  (tmp_path / ".config.json.17.tmp").write_text("{")
  assert train(tiny(), tmp_path).finished
