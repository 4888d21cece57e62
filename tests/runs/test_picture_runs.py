"""A picture that fails is a line in the log; training goes on."""

import functools

import jax.numpy as jnp
import numpy as np
import pytest

import jaxflow
from jaxflow import figures
from jaxflow.errors import UsageError
from jaxflow.runs import decoding, previews


def config_of(steps=4):
  config = jaxflow.preset("ring:flow_matching")
  config.data.conditional = False
  config.train.update(steps=steps, batch_size=8, log_every=2)
  config.train.update(steps_per_dispatch=2, sample_every=2)
  config.checkpoint.every = 2
  config.evaluation.flow.num = 0
  return config


def network():
  def apply(params, xt, t, s, cond, key=None):
    return params["a"] * xt

  return jaxflow.Network(lambda key: {"a": jnp.zeros(())}, apply)


def train(shape, workdir, **options):
  lines = []
  data = {"data": np.zeros((16, *shape), np.float32)}
  run = jaxflow.train(
    config_of(),
    workdir,
    data=data,
    network=network(),
    log=lines.append,
    **options,
  )
  assert run.finished and run.step == 4
  return run, [line for line in lines if "not drawn" in line]


@pytest.mark.parametrize("shape", [(4, 4, 4), (4, 4, 2), (3,), (4, 4), (1,)])
def test_samples_that_no_picture_shows(shape, tmp_path):
  run, lines = train(shape, tmp_path)
  assert not lines and not (tmp_path / "samples").exists()
  assert run.sample(2).shape == (2, *shape)
  assert jaxflow.load(tmp_path, network=network()).step == 4


def test_pictures_are_drawn_where_they_can(tmp_path):
  _, lines = train((4, 4, 3), tmp_path)
  assert not lines
  names = sorted(path.name for path in (tmp_path / "samples").iterdir())
  assert names == ["00000002.png", "00000004.png"]


@pytest.mark.parametrize(
  "error", [OSError(28, "No space left on device"), UsageError("no decoder")]
)
@pytest.mark.parametrize("place", ["save", "decode"])
def test_whatever_fails_while_drawing(place, error, tmp_path, monkeypatch):
  def fail(*arguments, **options):
    raise error

  if place == "save":
    monkeypatch.setattr(previews, "save_samples", fail)
  else:
    make = functools.partial(lambda plan: fail)
    monkeypatch.setattr(decoding, "make_picture", make)
  _, lines = train((4, 4, 3), tmp_path)
  assert len(lines) == 2 and str(error) in lines[0]


def test_optional_picture_passes_what_ends_a_process():
  with (
    pytest.raises(KeyboardInterrupt),
    figures.optional_picture("step 1", print),
  ):
    raise KeyboardInterrupt
