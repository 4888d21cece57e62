"""A run of small pictures of ten classes, whose weights are noise."""

import jax
import numpy as np
import pytest

import jaxflow
from jaxflow import exports
from jaxflow.config import default_config, make_plan, update
from jaxflow.config.stand_ins import resolve_alone
from jaxflow.runs.run import Run


@pytest.fixture(scope="session")
def workdir(tmp_path_factory):
  """The folder of a run that takes guidance and feels it."""
  config = default_config("improved_mean_flow", data="digits", model="dit")
  size = {"width": 8, "depth": 1, "num_heads": 1, "patch_size": 4}
  # Samples of one size are drawn by one program.
  update(config, {"model": size, "sample": {"nfe": 1, "batch_size": 8}})
  config, _ = resolve_alone(config, shape=(8, 8, 1), num_classes=10)
  run = Run(make_plan(config))
  shapes = jax.eval_shape(run.model.network.init, jax.random.key(0))
  draw = np.random.default_rng(0)
  params = jax.tree.map(
    lambda x: 0.2 * draw.standard_normal(x.shape, np.float32), shapes
  )
  folder = tmp_path_factory.mktemp("serving") / "run"
  trained = exports.Trained(run=run, params=params, step=2, workdir=None)
  exports.export(trained, "safetensors", folder, {})
  return folder


@pytest.fixture(scope="session")
def trained(workdir):
  return jaxflow.load(workdir)
