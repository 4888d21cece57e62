"""`jaxflow compile`, on devices of the host and, where it is, for TPUs."""

import importlib.util
import os
import pathlib
import subprocess
import sys

import jax
import pytest

import jaxflow
from jaxflow import compilation
from jaxflow.commands import main
from jaxflow.compilation import Topology, of_config
from jaxflow.config import default_config
from jaxflow.methods import METHODS
from jaxflow.parallel import sharding
from jaxflow.runs.run import Run

pytestmark = pytest.mark.usefixtures("process_as_before")

CONFIG = """\
from jaxflow.config import default_config


def get_config(method):
  config = default_config(method, data="nothing_to_read", model="mlp")
  config.data.shape, config.data.num_classes = (2,), 3
  config.model.update(depth=1, width=64)
  config.train.update(batch_size=32, steps_per_dispatch=1)
  config.sample.batch_size = 64
  return config
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory):
  path = tmp_path_factory.mktemp("config") / "small.py"
  path.write_text(CONFIG)
  return path


def test_devices_that_are_not_there(file):
  """Return a process of its own: it makes four devices before JAX starts."""
  environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
  environment["XLA_FLAGS"] = "--xla_backend_optimization_level=0"
  arguments = ["--topology=host:4", f"--config={file}:mean_flow"]
  arguments.append("--config.mesh.fsdp=2")
  result = subprocess.run(
    [sys.executable, "-m", "jaxflow", "compile", *arguments],
    capture_output=True,
    text=True,
    cwd=pathlib.Path(jaxflow.__file__).parents[1],
    env=environment,
  )
  assert result.returncode == 0, result.stderr
  assert "mean_flow on nothing_to_read on host:4: 4 host devices" in (
    result.stdout
  )
  assert "mesh data 2, fsdp 2" in result.stdout
  assert "\ntraining step (32 samples)\n" in result.stdout
  for program, rows in (("sampler, 1 call", 64), ("evaluation step", 256)):
    assert f"\n{program} ({rows} samples)\n" in result.stdout
  assert "all-gather" in result.stdout


def test_exit_code_says_whether_it_fits(file, monkeypatch, capsys):
  whole = compilation.programs

  def sampler(*arguments, **options):
    return whole(*arguments, **options)[1:2]

  monkeypatch.setattr(compilation, "programs", sampler)
  arguments = ["jaxflow", "compile", f"--config={file}:mean_flow"]
  arguments.append("--topology=host:8")
  assert main.run([*arguments, "--hbm=0.000001"]) == 1
  streams = capsys.readouterr()
  assert "does not fit" in streams.out
  assert streams.err.startswith(
    "jaxflow compile: a program does not fit the memory of host:8, "
    "--hbm=1e-06 GiB: see above"
  )
  assert main.run([*arguments, "--hbm=1"]) == 0
  assert "of 1.00 GiB: fits" in capsys.readouterr().out


@pytest.mark.parametrize(
  ("arguments", "problem"),
  [
    ([], "--topology is missing"),
    (["--topology=v9:2x2"], "none of v4"),
    (["--topology=host:8", "--hbm=-1"], "--hbm=-1.0: give the memory"),
    (["--topology=host:8", "--hbm=inf"], "--hbm=inf: give the memory"),
    (["--topology=host:8", "--config.init.step=3"], "init.step=3 needs init."),
    (["--topology=host:8", "--config.init.step=-3"], "init.step=-3: give"),
    (["--topology=host:8", "--config.train.batch_size=12"], "no multiple of 8"),
    (["--topology=host:8", "--config.mesh.fsdp=9"], "mesh.fsdp=9"),
  ],
)
def test_wrong_usage_is_one_line(file, arguments, problem, capsys):
  given = ["jaxflow", "compile", f"--config={file}:mean_flow", *arguments]
  assert main.run(given) == 2
  error = capsys.readouterr().err
  assert problem in error
  assert error.count("\n") == 1


WITH_OTHERS = [name for name, row in METHODS.items() if "teacher" in row.needs]


@pytest.mark.parametrize("method", WITH_OTHERS)
def test_a_teacher_that_is_not_there_is_like_its_student(method):
  config = default_config(method, data="nothing_to_read", model="dit")
  config.data.shape, config.data.num_classes = (8, 8, 4), 10
  config.model.update(depth=3, width=32, num_heads=2)
  plan, notes = of_config.assumed_plan(config)
  state = Run(plan).template(sharding.make_mesh())
  assert len(notes) == len(state.frozen)
  assert jax.tree.leaves(state.params)


def test_blocks_that_straddle_devices_are_told():
  config = default_config("mean_flow", data="digits", model="mlp")
  config.data.shape, config.data.num_classes = (2,), 0
  config.train.batch_size = 1024
  plan, _ = of_config.assumed_plan(config)
  assert of_config._straddling_blocks(plan, 256) == []
  (note,) = of_config._straddling_blocks(plan, 512)
  assert "train.batch_size=2048" in note


@pytest.fixture(scope="module", autouse=True)
def nothing_leaks():
  before = {**os.environ, "PYTEST_CURRENT_TEST": ""}
  before_config = jax.config.jax_platforms
  yield
  assert {**os.environ, "PYTEST_CURRENT_TEST": ""} == before
  assert jax.config.jax_platforms == before_config


def test_preparing_a_pod_sets_what_the_compiler_reads(monkeypatch):
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
  Topology.parse("v5e:2x4").prepare()
  assert os.environ["TPU_SKIP_MDS_QUERY"] == "1"
  assert os.environ["JAX_PLATFORMS"] == jax.config.jax_platforms == "cpu"


@pytest.fixture
def pod():
  pytest.importorskip("libtpu")
  topology = Topology.parse("v5e:2x4")
  topology.prepare()
  return topology


def test_a_pod_that_is_not_there(pod, file, capsys):
  given = ["jaxflow", "compile", f"--config={file}:flow_matching"]
  assert main.run([*given, f"--topology={pod.name}"]) == 0
  out = capsys.readouterr().out
  assert "8 chips on 2 host(s), a chip with 16 GiB, 197 TFLOP/s" in out
  assert "the compiler's estimate" in out


def test_a_pod_that_cannot_be(file, capsys):
  pytest.importorskip("libtpu")
  given = ["jaxflow", "compile", f"--config={file}:flow_matching"]
  assert main.run([*given, "--topology=v5e:3x3"]) == 2
  assert "the TPU compiler refuses it" in capsys.readouterr().err
