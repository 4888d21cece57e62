"""Runs that start from the weights of another run."""

import dataclasses
import functools
import json
import shutil
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from jaxflow.config import default_config, make_plan, resolve
from jaxflow.parallel import sharding
from jaxflow.runs.initial_weights import beginning
from jaxflow.runs.restoring import load


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """Return a folder with a run `plain`, with checkpoints at 10 and 20."""
  path = tmp_path_factory.mktemp("runs")
  flags = "train.steps=20", "checkpoint.every=10"
  tiny.train(path, "plain", "flow_matching", *flags)
  return path


def start(folder, tmp_path, method, *flags, steps=5, workdir="new"):
  flags = f"init.workdir={folder / 'plain'}", f"train.steps={steps}", *flags
  return tiny.run(*tiny.train_command(tmp_path, workdir, method, *flags))


def frozen(folder, tmp_path, method, *flags, **options):
  """Train for a step of a tiny rate: the weights stay to 1e-6."""
  rate = "optimizer.learning_rate=1e-9"
  result = start(folder, tmp_path, method, rate, *flags, **options)
  assert result.code == 0, result.err
  return result, tiny.state_of(tmp_path / "new").params


def assert_near(a, b):
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6), a, b)


def test_the_average_is_the_start_and_its_step_is_kept(folder, tmp_path):
  _, params = frozen(folder, tmp_path, "flow_matching")
  source = tiny.state_of(folder / "plain")
  assert_near(params, source.ema["sampling"])
  saved = json.loads((tmp_path / "new" / "config.json").read_text())
  assert saved["init"] == {
    "workdir": str(folder / "plain"),
    "ema": "sampling",
    "step": 20,
  }


def test_a_step_and_an_average_can_be_chosen(folder, tmp_path):
  flags = "init.step=10", "init.ema=online"
  _, params = frozen(folder, tmp_path, "flow_matching", *flags)
  assert_near(params, tiny.state_of(folder / "plain", step=10).params)


def test_a_begun_run_needs_its_source_no_more(folder, tmp_path):
  (tmp_path / "a").mkdir()
  shutil.copytree(folder / "plain", tmp_path / "a" / "plain")
  assert start(tmp_path / "a", tmp_path, "flow_matching", steps=20).code == 0
  whole = tiny.state_of(tmp_path / "new")
  shutil.rmtree(tmp_path / "new")
  assert start(tmp_path / "a", tmp_path, "flow_matching", steps=10).code == 0
  shutil.rmtree(tmp_path / "a")
  result = start(tmp_path / "a", tmp_path, "flow_matching", steps=20)
  assert result.code == 0, result.err
  assert "resumed at step 10" in result.out
  tiny.assert_same_bits(tiny.state_of(tmp_path / "new"), whole)


def test_another_source_is_another_run(folder, tmp_path):
  assert start(folder, tmp_path, "flow_matching").code == 0
  for flag, words in (
    ("init.step=10", "init.step=20, not 10"),
    ("init.ema=online", "init.ema='sampling', not 'online'"),
  ):
    result = start(folder, tmp_path, "flow_matching", flag)
    assert result.code == 2 and words in result.err


@pytest.mark.parametrize(
  ("method", "words"),
  [
    ("flow_matching", None),
    ("mean_flow", None),
    ("continuous_consistency", "path is ('Linear', 1.0) there"),
    ("easy_consistency", "prediction is velocity there, edm here"),
  ],
)
def test_every_row_can_start_so(folder, tmp_path, method, words):
  result = start(folder, tmp_path, method)
  assert result.code == 0, result.err
  told = [line for line in result.out.splitlines() if "warm start" in line]
  assert len(told) == (1 if words else 0)
  if words:
    assert words in told[0]


def test_a_denoiser_becomes_a_consistency_model(tmp_path):
  tiny.train(tmp_path, "plain", "denoising", "train.steps=5")
  result = start(tmp_path, tmp_path, "easy_consistency", "path.t_min=0.002")
  assert result.code == 0, result.err
  assert "warm start" not in result.out


def test_what_a_network_means():
  meaning = {}
  for name, method, noise_std in (
    ("flow", "flow_matching", None),
    ("wrapped", "continuous_consistency", 1.0),
    ("scaled", "continuous_consistency", 0.5),
    ("edm", "denoising", None),
  ):
    config = default_config(method, data="ring", model="mlp")
    if noise_std:
      config.parameterization = {"name": "trigonometric_from_linear"}
      config.path.noise_std = noise_std
    own = resolve(config, shape=(2,), num_classes=0, teacher=None)
    meaning[name] = make_plan(own).model.identity
  assert meaning["flow"] == meaning["wrapped"]
  assert meaning["flow"] != meaning["scaled"]
  assert meaning["edm"]["sigma_data"] == 0.5


def test_a_teacher_that_starts_a_student_of_another_kind_is_told(
  folder, tmp_path
):
  flag = f"teacher.workdir={folder / 'plain'}"
  command = tiny.train_command(
    tmp_path, "new", "mid_training", flag, "train.steps=5"
  )
  result = tiny.run(*command)
  assert result.code == 0, result.err
  assert "teacher.workdir=" in result.out and "warm start" in result.out


def test_init_goes_before_the_teacher(folder, tmp_path):
  teacher = tiny.train(
    tmp_path, "wide", "flow_matching", "train.steps=5", "model.width=24"
  )
  flags = (f"teacher.workdir={teacher}",)
  _, params = frozen(folder, tmp_path, "consistency_distillation", *flags)
  assert_near(params, tiny.state_of(folder / "plain").ema["sampling"])


def test_a_second_time_starts_without_effect(folder, tmp_path):
  """Return the network of two times is the source's, whatever s is."""
  frozen(folder, tmp_path, "mean_flow")
  mesh = sharding.make_mesh()
  (one, source), (two, state) = (
    load(path, mesh=mesh) for path in (folder / "plain", tmp_path / "new")
  )
  x = jax.random.normal(jax.random.key(0), (6, 2))
  t, s = jnp.linspace(0.2, 1, 6), jnp.linspace(0.1, 0.4, 6)
  expected = one.model.network.apply(source.ema["sampling"], x, t, t, None)
  for time in (t, s):
    found = two.model.network.apply(state.params, x, t, time, None)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_student_of_two_times_starts_as_its_teacher(folder, tmp_path):
  flags = f"teacher.workdir={folder / 'plain'}", "train.steps=1"
  rate = "optimizer.learning_rate=1e-9"
  tiny.train(tmp_path, "new", "consistency_trajectory", rate, *flags)
  mesh = sharding.make_mesh()
  (one, source), (two, state) = (
    load(path, mesh=mesh) for path in (folder / "plain", tmp_path / "new")
  )
  x = jax.random.normal(jax.random.key(0), (6, 2))
  t, s = jnp.linspace(0.2, 1, 6), jnp.linspace(0.1, 0.4, 6)
  expected = one.model.network.apply(source.ema["sampling"], x, t, t, None)
  for time in (t, s):
    found = two.model.network.apply(state.params, x, t, time, None)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def state_with(params):
  ema = {"sampling": params}
  return types.SimpleNamespace(params=params, ema=ema, frozen={})


def transformer(side, classes, **model):
  """Return a run, not trained, on images of `side` pixels."""
  config = default_config("flow_matching", data="digits", model="dit")
  config.model.update(depth=1, width=8, num_heads=1, **model)
  config.init.workdir = "source"
  shape = side, side, 1
  return tiny.run_of(
    resolve(config, shape=shape, num_classes=classes, teacher=None)
  )


@pytest.mark.parametrize(
  ("side", "classes", "model", "new", "left", "kept", "told"),
  [
    # The table of labels has a row for the null label.
    (4, 2, {}, {"label"}, set(), -4 * 8, "num_classes is 3 there, 2 here"),
    (4, 0, {}, set(), {"label"}, -4 * 8, "num_classes is 3 there, 0 here"),
    (8, 3, {}, set(), set(), 0, "shape is (4, 4, 1) there, (8, 8, 1) here"),
    # Patches of 2 x 2 pixels go in and come out, the latter with biases.
    (
      *(8, 3, {"patch_size": 4}, {"output", "patch"}, set()),
      *(-4 * 8 - 8 * 4 - 4, "model.patch_size is 2 there, 4 here"),
    ),
  ],
)
def test_other_classes_and_shapes_keep_what_fits(
  side, classes, model, new, left, kept, told
):
  source, run = transformer(4, 3), transformer(side, classes, **model)
  params = source.model.network.init(jax.random.key(1))
  state = state_with(params)
  begins = beginning(run, {"init": (source, state)})
  fresh = run.model.network.init(jax.random.key(2))
  made = begins.params if begins.fit is None else begins.fit(params, fresh)
  assert jax.tree.map(jnp.shape, made) == jax.tree.map(jnp.shape, fresh)
  for name, part in made.items():
    for path, x in jax.tree_util.tree_leaves_with_path(part):
      own = functools.reduce(lambda tree, k: tree[k.key], path, fresh[name])
      its = params.get(name)
      its = its and functools.reduce(lambda tree, k: tree[k.key], path, its)
      is_new = name in new and its.shape != x.shape
      np.testing.assert_array_equal(x, own if is_new else its)
  size = sum(x.size for x in jax.tree.leaves(params))
  total = sum(x.size for x in jax.tree.leaves(fresh))
  (line,) = begins.notes
  assert f": {size + kept:,} of {total:,} numbers are its" in line
  assert told in line
  for word, names in (("; new: ", new), ("; left out: ", left)):
    assert (word in line) == bool(names)
    if names:
      listed = line.partition(word)[2].partition(";")[0]
      assert set(listed.split(", ")) == names


def test_classes_of_other_names_are_told():
  runs = [transformer(4, 3) for _ in range(2)]
  for run, names in zip(
    runs, (("cat", "dog", "eel"), ("cat", "eel", "dog")), strict=True
  ):
    data = dataclasses.replace(run.plan.data, class_names=names)
    object.__setattr__(run, "plan", dataclasses.replace(run.plan, data=data))
  source, run = runs
  params = source.model.network.init(jax.random.key(1))
  state = state_with(params)
  (line,) = beginning(run, {"init": (source, state)}).notes
  assert "1 is 'dog' there, 'eel' here" in line


def test_labels_come_and_go(tmp_path):
  """Return a run without labels begins from one that has them, and back."""
  label = "data.conditional=True"
  tiny.train(tmp_path, "plain", "flow_matching", label, "train.steps=5")
  result, params = frozen(tmp_path, tmp_path, "flow_matching")
  source = tiny.state_of(tmp_path / "plain").ema["sampling"]
  # 2 of the point, 8 of its time, then 16 of the label.
  assert_near(params["hidden_0"]["kernel"], source["hidden_0"]["kernel"][:10])
  assert "left out: hidden_0/kernel/label, label" in result.out
  (tmp_path / "plain").rename(tmp_path / "first")
  (tmp_path / "new").rename(tmp_path / "plain")
  result, params = frozen(tmp_path, tmp_path, "flow_matching", label)
  assert_near(
    params["hidden_0"]["kernel"][:10], source["hidden_0"]["kernel"][:10]
  )
  assert "new: hidden_0/kernel/label, label" in result.out


@pytest.mark.parametrize(
  ("method", "flags", "words"),
  [
    (
      "flow_matching",
      ["model.width=24"],
      ["model.width is 16 there, 24 here", "leave init.workdir out"],
    ),
    (
      "mean_flow",
      ["model.width=24"],
      ["model.second_time is False there, True here", "model.width is 16"],
    ),
    # The bias of the output, of 176 + 34 numbers.
    (
      "flow_matching",
      ["model.width=32"],
      ["and 2 of 210 numbers would stay"],
    ),
    ("flow_matching", ["init.ema=slow"], ["init.ema='slow'", "sampling"]),
    ("flow_matching", ["init.step=7"], ["init.step=7 is not in", "[10, 20]"]),
    ("flow_matching", ["init.workdir=no"], ["init.workdir='no' holds no"]),
  ],
)
def test_sources_that_do_not_fit(folder, tmp_path, method, flags, words):
  result = start(folder, tmp_path, method, *flags)
  assert result.code == 2
  assert result.err.count("\n") == 1
  for word in words:
    assert word in result.err
  assert not (tmp_path / "new").exists()
