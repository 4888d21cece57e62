"""A run of small pictures of ten classes, barely trained."""

import pytest

import jaxflow
from jaxflow.config import default_config, update


@pytest.fixture(scope="session")
def workdir(tmp_path_factory):
  folder = tmp_path_factory.mktemp("serving") / "run"
  config = default_config("improved_mean_flow", data="digits", model="dit")
  update(config, {"model": {"width": 16, "depth": 1, "num_heads": 2}})
  update(config, {"model": {"patch_size": 4}})
  update(config, {"train": {"steps": 2, "batch_size": 8, "log_every": 1}})
  config.train.steps_per_dispatch = 1
  config.sample.nfe = 1
  jaxflow.train(config, workdir=folder)
  return folder


@pytest.fixture(scope="session")
def trained(workdir):
  return jaxflow.load(workdir)
