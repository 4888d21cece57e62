"""Runs that start from the weights of another run."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from jaxflow import models
from jaxflow.config import default_config, make_plan, resolve
from jaxflow.parallel import sharding
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


_DIT = {"depth": 2, "width": 8, "num_heads": 1, "patch_size": 2}
_UNET = {"channels": 8, "multipliers": (1,), "num_blocks": 1}
_SMALL = {
  models.dit: _DIT,
  models.unet: {**_UNET, "attention_resolutions": ()},
  models.mp_unet: {**_UNET, "channels": 64, "attention_resolutions": ()},
  models.unet2d: {"widths": (8,), "layers": 1, "attention": (), "groups": 4},
}


@pytest.mark.parametrize(
  ("make", "options"),
  [
    (models.dit, {}),
    (models.dit, {"own_embeddings": True}),
    (models.dit, {"own_embeddings": True, "scan_layers": True}),
    (models.unet, {}),
    (models.unet, {"architecture": "adm", "channels": 64}),
    (models.unet2d, {}),
    (models.mp_unet, {}),
  ],
)
def test_a_network_grows_a_second_time(make, options):
  options = {
    "data_shape": (4, 4, 1),
    "num_classes": 3,
    **_SMALL[make],
    **options,
  }
  one = make(**options, second_time=False)
  two = make(**options, second_time=True)
  params = one.init(jax.random.key(0))
  # Blocks and output of a fresh transformer are zero.
  params = jax.tree.map(
    lambda x: x + 0.1 * jax.random.normal(jax.random.key(1), x.shape), params
  )
  fresh = two.init(jax.random.key(2))
  grown = models.with_second_time(params, fresh, data_shape=(4, 4, 1))
  x = jax.random.normal(jax.random.key(3), (2, 4, 4, 1))
  t, s, cond = jnp.ones(2), jnp.zeros(2), jnp.array([0, 2])
  expected = jax.jit(one.apply)(params, x, t, t, cond)
  found = jax.jit(two.apply)(grown, x, t, s, cond)
  assert jnp.abs(expected).max() > 1e-2
  np.testing.assert_allclose(found, expected, atol=1e-6)

  def loss(params):
    return (two.apply(params, x, t, s, cond) ** 2).mean()

  gradients = jax.tree.leaves_with_path(jax.jit(jax.grad(loss))(grown))
  new = {
    jax.tree_util.keystr(path): jnp.abs(gradient).max()
    for path, gradient in gradients
    if "'interval']['output']" in jax.tree_util.keystr(path)
  }
  assert new and min(new.values()) > 0


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
    (
      "improved_mean_flow",
      ["loss.label_dropout=0"],
      ["model.guidance_inputs is False there, True here", "model.heads is 1"],
    ),
    (
      "flow_matching",
      ["data.conditional=True"],
      ["another network (data.num_classes is 0 there, 8 here)"],
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
