"""`train.only`: some parameters learn, the others stay bit for bit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

import jaxflow
from jaxflow import models, paths, times
from jaxflow.errors import UsageError
from jaxflow.methods import METHODS
from jaxflow.training import layers
from jaxflow.training.step import make_loss_fn

HIDDEN = "train.only=^hidden_0/"


def config_of(only, method="flow_matching"):
  config = jaxflow.preset(f"ring:{method}")
  config.model.update(width=16, depth=2, time_features=8)
  config.train.update(steps=6, batch_size=32, log_every=6, only=only)
  return config


def by_path(params):
  leaves = jax.tree_util.tree_leaves_with_path(params)
  return {
    jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(x)
    for path, x in leaves
  }


@pytest.mark.parametrize("method", ["flow_matching", "continuous_consistency"])
def test_others_stay(method):
  """Weight decay, clipping and a loss with parameters change nothing of it."""
  config = config_of("^hidden_1|output/bias$", method)
  config.optimizer.update(name="adamw", weight_decay=0.1, clip_norm=1.0)
  lines = []
  run = jaxflow.train(config, log=lines.append)
  # One step of no length leaves the first parameters.
  config.train.steps = 1
  config.optimizer.learning_rate = 1e-30
  first = by_path(jaxflow.train(config, log=lambda line: None).state.params)
  last = by_path(run.state.params)
  learnt = {k for k in first if (first[k] != last[k]).any()}
  assert learnt == {"hidden_1/kernel", "hidden_1/bias", "output/bias"}
  # The hidden layer has 16 x 16 + 16 numbers, and the last bias 2.
  assert "(274 learn)" in lines[0]


def test_optimizer_keeps_no_state_for_others():
  run = jaxflow.train(config_of("^output/bias$"), log=lambda line: None)
  sizes = [x.size for x in jax.tree.leaves(run.state.opt_state)]
  # Two moments of two numbers, and counters.
  assert sorted(sizes)[-2:] == [2, 2]


def test_gradient_is_that_of_the_whole_where_it_is_not_zero():
  network = models.mlp(width=16, depth=2, time_features=8)
  options = {"path": paths.Linear(), "sample_times": times.Uniform()}
  params = network.init(jax.random.key(0))
  params = jax.tree.map(lambda x: x + 0.1, params)
  batch = {"data": jax.random.normal(jax.random.key(1), (8, 2))}

  def gradient(only):
    loss_fn = make_loss_fn(
      METHODS["flow_matching"], network.apply, options, only=only
    )
    key = jax.random.key(2)
    return by_path(
      jax.grad(lambda p: loss_fn(p, None, key, batch)[0].mean())(params)
    )

  whole, part = gradient(""), gradient("kernel")
  for name, x in part.items():
    expected = whole[name] if "kernel" in name else np.zeros_like(x)
    np.testing.assert_array_equal(x, expected)
    assert (whole[name] != 0).any()


def test_run_resumes_bit_for_bit_and_keeps_its_part(tmp_path):
  once = tiny.train(tmp_path, "once", "flow_matching", HIDDEN)
  tiny.train(tmp_path, "twice", "flow_matching", HIDDEN, "train.steps=20")
  twice = tiny.train(tmp_path, "twice", "flow_matching", HIDDEN)
  states = [tiny.state_of(folder) for folder in (once, twice)]
  tiny.assert_same_bits(states[0].params, states[1].params)
  command = tiny.train_command(tmp_path, "once", "flow_matching")
  result = tiny.run(*command)
  assert result.code == 2 and "train.only='^hidden_0/', not ''" in result.err


@pytest.mark.parametrize(
  ("only", "words"),
  [
    ("hiden", "is found in no parameter: "),
    ("hidden_0/kernl", "did you mean 'hidden_0/kernel'?"),
    ("(", "is no regular expression"),
  ],
)
def test_wrong_pattern(tmp_path, only, words):
  command = tiny.train_command(tmp_path, "x", "flow_matching")
  result = tiny.run(*command, f"--config.train.only={only}")
  assert (result.code, result.err.count("\n")) == (2, 1)
  assert f"train.only={only!r} " in result.err and words in result.err
  assert not (tmp_path / "x/config.json").exists()


def test_pattern_is_found_anywhere_in_a_path():
  params = {"a": {"kernel": jnp.zeros(1)}, "b": {"kernel": jnp.zeros(1)}}
  assert layers.matching(params, "^b|a/kern") == {
    "a": {"kernel": True},
    "b": {"kernel": True},
  }
  with pytest.raises(UsageError, match="there are a/kernel, b/kernel"):
    layers.matching(params, "kernel/")
