"""Memories of a loss: handed on, kept by skipped steps, resumed to the bit."""

import dataclasses
import shutil
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from test_training import SGD, values

import jaxflow
from jaxflow import options, plugins
from jaxflow.losses import flow_matching_loss
from jaxflow.methods import METHODS
from jaxflow.options import Memory, Positive
from jaxflow.training.state import init_state
from jaxflow.training.step import make_train_step


def from_last(params, state, key, batch):
  """Half the squared distance to the mean of the batch before."""
  del key
  loss = (params - state.memory["last"]) ** 2 / 2
  last = batch["data"].mean()
  return loss + 0 * batch["data"], {}, {"last": last}


def test_steps_and_micro_batches_hand_it_on():
  """With rate 1, parameters go where the memory was."""
  step = jax.jit(make_train_step(from_last, SGD, {}, seed=0))
  start = init_state(jnp.zeros(()), SGD, {}, memory={"last": jnp.asarray(7.0)})
  rate = float(-SGD.update(jnp.ones(()), SGD.init(jnp.zeros(())))[0])
  state, _ = step(start, values([1.0], [3.0]))
  assert float(state.memory["last"]) == 3.0
  first = rate * 7
  assert float(state.params) == first + rate * (1 - first)
  # Two micro-batches of one step: the second sees what the first has left.
  parts = {"data": jnp.asarray([[[1.0], [5.0]]])}
  state, _ = step(start, parts)
  assert float(state.memory["last"]) == 5.0
  assert float(state.params) == rate * (7 + 1) / 2


def test_a_step_that_is_not_finite_keeps_it():
  step = jax.jit(make_train_step(from_last, SGD, {}, seed=0))
  start = init_state(jnp.zeros(()), SGD, {}, memory={"last": jnp.asarray(7.0)})
  state, _ = step(start, values([np.nan]))
  assert float(state.memory["last"]) == 7.0 and int(state.skipped) == 1


def counting_loss(
  model_fn,
  key,
  batch,
  *,
  count: Annotated[
    jax.Array,
    Memory(lambda start, data_shape: jnp.full(data_shape, start)),
  ],
  path,
  sample_times,
  start: Positive = 2.0,
):
  """Flow matching that is weighted by the steps it has seen."""
  loss, metrics = flow_matching_loss(
    model_fn, key, batch, path=path, sample_times=sample_times
  )
  return loss * count.mean(), metrics, {"count": count + 1}


@pytest.fixture
def counting():
  row = dataclasses.replace(METHODS["flow_matching"], loss=counting_loss)
  jaxflow.register("method", "counting", row)
  yield "counting"
  del plugins._REGISTERED["method"]["counting"]


def test_checkpoints_hold_it_and_runs_resume_to_the_bit(tmp_path, counting):
  workdir = tiny.train(tmp_path, "run", counting, "train.steps=40")
  whole = tiny.state_of(workdir)
  np.testing.assert_array_equal(whole.memory["count"], np.full(2, 42.0))
  shutil.rmtree(workdir / "checkpoints" / "40")
  tiny.train(tmp_path, "run", counting, "train.steps=40")
  resumed = tiny.state_of(workdir)
  tiny.assert_same_bits(resumed.memory, whole.memory)
  tiny.assert_same_bits(resumed.params, whole.params)


def test_options_make_the_first_value():
  made = options.first_memories(
    counting_loss, {"start": 3.0, "data_shape": (2, 2), "num_classes": 5}
  )
  np.testing.assert_array_equal(made["count"], np.full((2, 2), 3.0))
