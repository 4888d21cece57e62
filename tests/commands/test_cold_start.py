"""What `jaxflow sample` does before the first sample: imports and compiling."""

import gc
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tiny

import jaxflow
from jaxflow.config.presets import preset
from jaxflow.models import network

REPOSITORY = pathlib.Path(__file__).parents[2]

# What sampling must not load, and who does.
UNNEEDED = {
  "datasets": "data of the Hugging Face hub",
  "grain": "the stream of training data",
  "huggingface_hub": "runs and data of the hub",
  "jaxflow.compilation": "jaxflow compile",
  "jaxflow.evaluation": "jaxflow evaluate",
  "jaxflow.exports": "jaxflow export",
  "jaxflow.reports": "jaxflow report",
  "jaxflow.runs.importing": "jaxflow import",
  "jaxflow.runs.train": "jaxflow train",
  "jaxflow.serving": "jaxflow serve",
  "jaxflow.training.loop": "jaxflow train",
  "matplotlib": "curves and points; images are written without",
  "onnx": "jaxflow export",
  "pandas": "nothing of ours",
  "rich.progress": "the bar of training",
  "scipy": "metrics",
  "sklearn": "data and metrics",
  "tensorboardX": "logs of training",
  "tensorflow": "data of TFDS",
  "tensorflow_datasets": "data of TFDS",
  "torch": "published networks",
  "wandb": "logs of training",
}
# Programs of one run of `sample`: the sampler, and what is read off its grid
# and its averages. One for every operation would be 30.
MOST_PROGRAMS = 12


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
  """Return a run on images of arrays, without a cache of programs."""
  folder = tmp_path_factory.mktemp("cold")
  config = preset(f"{tiny.config_file(folder)}:mean_flow")
  config.train.steps = 20
  images = np.linspace(-1, 1, 32 * 16, dtype=np.float32)
  data = {"data": images.reshape(32, 4, 4, 1)}
  jaxflow.train(config, folder / "run", data=data, log=lambda line: None)
  return folder / "run"


@pytest.mark.parametrize("suffix", [".npz", ".png"])
def test_sampling_loads_and_compiles_only_what_it_needs(workdir, suffix):
  code = f"""\
import json, sys
import jax
programs = []
def note(event, seconds, **told):
  if event == "/jax/core/compile/backend_compile_duration":
    programs.append(told["fun_name"])
jax.monitoring.register_event_duration_secs_listener(note)
from jaxflow.commands import main
code = main.run(["jaxflow", "sample", "--workdir={workdir}", "--num=4",
                 "--out={workdir.parent / "x"}{suffix}", "--compile-cache=off"])
assert code == 0
print(json.dumps([[*sys.modules], programs]))
"""
  done = subprocess.run(
    [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True
  )
  assert done.returncode == 0, done.stderr
  modules, programs = json.loads(done.stdout.splitlines()[-1])
  assert "jaxflow.runs.drawing" in modules
  loaded = {name: why for name, why in UNNEEDED.items() if name in modules}
  assert not loaded
  assert "jit(draw_batch)" in programs
  assert len(programs) <= MOST_PROGRAMS, programs


def test_the_network_is_built_once(workdir, monkeypatch):
  """Its module is: reading the config makes the plan that is sampled."""
  built, abstract = [], network._abstract

  def count(make_module):
    built.append(make_module)
    return abstract(make_module)

  monkeypatch.setattr(network, "_abstract", count)
  jaxflow.load(workdir)
  assert len(built) == 1


def test_no_garbage_is_looked_for_among_imports():
  """The program freezes what it has imported, and looks in the rest."""
  code = """\
import gc, sys
from jaxflow import __main__
sys.argv = ["jaxflow", "methods"]
try:
  __main__.main()
except SystemExit as end:
  sys.exit(end.code or not (gc.isenabled() and gc.get_freeze_count()))
"""
  done = subprocess.run(
    [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True
  )
  assert done.returncode == 0, done.stderr


def test_objects_of_others_are_not_frozen():
  """Who runs a command in a program of their own keeps their garbage."""
  before = gc.get_freeze_count()
  assert tiny.run("methods").code == 0
  assert gc.isenabled()
  assert gc.get_freeze_count() == before
