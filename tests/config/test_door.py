"""What no field, flag or argument may hold, wherever it enters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

import jaxflow
from jaxflow import models
from jaxflow.config.limits import check_limits
from jaxflow.errors import UsageError
from jaxflow.runs.pair_generation import PairOptions
from jaxflow.runs.rounds import Rounds, rectify

LAST_SEED = 2**32 - 1
SEEDS = "a whole number from 0 to 4294967295"


def small(method="flow_matching", **fields):
  """A config of the ring for two steps of a small network."""
  config = jaxflow.preset(f"ring:{method}")
  config.model.update(width=8, depth=1, time_features=4)
  config.train.update(steps=2, batch_size=8, log_every=2)
  config.train.steps_per_dispatch = 1
  for field, value in fields.items():
    section, _, name = field.rpartition("__")
    (config[section] if section else config)[name] = value
  return config


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """The folder of a run."""
  path = tmp_path_factory.mktemp("door") / "run"
  jaxflow.train(small(), path, log=lambda line: None)
  return path


@pytest.fixture(scope="module")
def run(folder):
  return jaxflow.load(folder)


def refused(*arguments, words):
  """Check that a command ends with one line and exit code 2."""
  result = tiny.run(*arguments)
  assert (result.code, result.out, result.err.count("\n")) == (2, "", 1), result
  for word in words:
    assert word in result.err


# Seeds: `jax.random.key` keeps 32 bits of them.


def test_the_last_seed_is_one_of_its_own():
  keys = {
    tuple(jax.random.key_data(jax.random.key(seed)).tolist())
    for seed in (0, 1, 2**31, LAST_SEED)
  }
  assert len(keys) == 4
  inside = jax.jit(jax.random.key)(jnp.uint32(LAST_SEED))
  outside = jax.random.key(LAST_SEED)
  assert jnp.all(jax.random.key_data(inside) == jax.random.key_data(outside))


@pytest.mark.parametrize("seed", [-1, 2**32, 2**32 + 5, 2**70, 1.5, "3", None])
def test_seeds_out_of_range(run, seed):
  images = {"data_shape": (8, 8, 1), "num_classes": 2}
  for enter in (
    lambda: run.sample(2, seed=seed),
    lambda: PairOptions(seed=seed),
    lambda: models.classifier(**images, seed=seed),
  ):
    with pytest.raises(UsageError) as caught:
      enter()
    assert str(caught.value) == f"seed={seed}: give {SEEDS}"


@pytest.mark.parametrize("field", ["seed", "evaluation.network.seed"])
@pytest.mark.parametrize("seed", [-1, 2**32])
def test_seeds_of_the_config_out_of_range(field, seed):
  config = small()
  if field != "seed":
    network = {"name": "classifier", "seed": seed}
    jaxflow.config.update(config, {"evaluation": {"network": network}})
  else:
    config.seed = seed
  with pytest.raises(UsageError, match=f"{field}={seed}: give {SEEDS}"):
    jaxflow.train(config)


@pytest.mark.parametrize("command", ["sample", "pairs"])
@pytest.mark.parametrize("seed", ["-1", "4294967296"])
def test_seeds_of_the_command_line(folder, tmp_path, command, seed):
  out = tmp_path / "out.npz"
  workdir = f"--workdir={folder}"
  arguments = command, workdir, f"--out={out}", "--num=2", f"--seed={seed}"
  refused(*arguments, words=[f"--seed={seed}: give {SEEDS}"])
  assert not out.exists()


def test_every_round_has_a_seed(tmp_path):
  options = PairOptions(seed=LAST_SEED - 1)
  with pytest.raises(UsageError, match=f"seed={LAST_SEED - 1}: the last of 3"):
    rectify(small("reflow"), tmp_path / "new", Rounds(rounds=3), options)
  assert not (tmp_path / "new").exists()


def test_seeds_in_range(run):
  config = small(seed=LAST_SEED)
  check_limits(config)
  trained = jaxflow.train(config, log=lambda line: None)
  samples = trained.sample(2, seed=LAST_SEED)
  assert np.isfinite(samples).all()
  assert not np.array_equal(samples, trained.sample(2, seed=0))
  other = run.sample(2, seed=np.int64(5))
  np.testing.assert_array_equal(other, run.sample(2, seed=5))
