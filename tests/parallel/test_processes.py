"""Several processes train, sample and stop as one."""

import contextlib
import fcntl
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
from unittest import mock

import jax
import numpy as np
import pytest
import tiny

from jaxflow import data
from jaxflow.files import SUMS
from jaxflow.parallel import folders, launch

JOB = pathlib.Path(__file__).parents[1] / "job.py"
DEVICES = "--xla_force_host_platform_device_count="


def free_port():
  with socket.socket() as listener:
    listener.bind(("127.0.0.1", 0))
    return listener.getsockname()[1]


def start(folder, name, commands, *, count, devices):
  """Start the processes of a job."""
  file = folder / f"{name}.json"
  file.write_text(json.dumps([[str(x) for x in line] for line in commands]))
  environment = os.environ | {
    "XLA_FLAGS": " ".join(
      f"{DEVICES}{devices}" if flag.startswith(DEVICES) else flag
      for flag in os.environ["XLA_FLAGS"].split()
    ),
  }
  if count > 1:
    environment["JAX_COORDINATOR_ADDRESS"] = f"127.0.0.1:{free_port()}"
    environment["JAX_NUM_PROCESSES"] = str(count)
  return [
    subprocess.Popen(
      [sys.executable, JOB, file],
      env=environment | ({"JAX_PROCESS_ID": str(i)} if count > 1 else {}),
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    for i in range(count)
  ]


# Against processes that wait for each other only: with an empty compilation
# cache and a busy machine a job takes minutes.
PATIENCE = 900


def finish(job, timeout=PATIENCE):
  """Wait for the processes of a job; return code, out and err of each."""
  try:
    return [
      tiny.Result(process.wait(), out, err)
      for process in job
      for out, err in [process.communicate(timeout=timeout)]
    ]
  finally:
    for process in job:
      process.kill()


def run(folder, name, commands, *, count, devices):
  """Run a job to its good end."""
  results = finish(start(folder, name, commands, count=count, devices=devices))
  for result in results:
    assert result.code == 0, result.err
  return results


# 130 x 64 weights are large enough to be split.
NETWORK = ("model.width=64", "model.time_features=64", "train.steps=20")
TEACHER = ("flow_matching", *NETWORK)
# Adam divides a gradient of zero by its own rounding error, unless it is told
# how small a gradient may be.
# In ten steps more, two players can enlarge rounding a thousandfold: one CPU
# made 1e-6 of it, another 3e-5.
STEPS = ("optimizer.eps=1e-3", "train.steps=10")
METHODS = {
  # Groups of eight rows lie in one process.
  "mean_flow": ("data.coupling.rows=8",),
  "consistency_distillation": ("teacher.workdir={teacher}",),
  "consistency_trajectory": (
    "teacher.workdir={exploding}",
    "discriminator.network.name=conv",
    # The two players take turns from the first step on: one program for each.
    "discriminator.start=0.0",
    "discriminator.optimizer.eps=1e-3",
    # RAdam hardly moves in so few steps.
    "discriminator.optimizer.name=adam",
  ),
}
MESHES = {"data": (), "fsdp": ("mesh.fsdp=4",)}
# Splitting is a matter of the state, and the last method has every part of it.
RUNS = [("data", method) for method in METHODS]
RUNS.append(("fsdp", "consistency_trajectory"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """Return a folder with a teacher, the same for all workers of a test run."""
  folder = tmp_path_factory.getbasetemp() / "jobs"
  if "PYTEST_XDIST_WORKER" in os.environ:
    folder = folder.parents[1] / "jobs"
  once(folder, "teacher", lambda: tiny.train(folder, "teacher", *TEACHER))
  return folder


@pytest.fixture(scope="module")
def trained(folder):
  """Return the folder, with every method trained on every machine."""
  once(folder, "trained", lambda: train_all(folder))
  return folder


def once(folder, name, make):
  """Make something in one worker; the others wait for it."""
  folder.mkdir(exist_ok=True)
  done = folder / f"{name}.done"
  with open(folder / f"{name}.lock", "w") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    if not done.exists():
      make()
      done.touch()


def train_all(folder):
  """Train every method on every machine."""
  teacher = folder / "teacher"
  # As the student's, its network takes two times.
  second = "model.second_time=True"
  exploding = tiny.train(folder, "exploding", "denoising", *NETWORK, second)

  def commands(machine, runs):
    return [
      tiny.train_command(
        folder,
        f"{machine}-{mesh}-{method}",
        method,
        *NETWORK,
        *STEPS,
        *(
          flag.format(teacher=teacher, exploding=exploding)
          for flag in METHODS[method]
        ),
        *MESHES[mesh],
      )
      for mesh, method in runs
    ]

  run(folder, "two", commands("two", RUNS), count=2, devices=4)
  run(folder, "one", commands("one", RUNS[:-1]), count=1, devices=1)
  # This process has eight, and needs no time to start.
  assert jax.device_count() == 8
  run_here(commands("eight", RUNS))
  for name, change in CHANGES.items():
    with changed_batches(change):
      run_here(commands(name, RUNS[:-1]))


def run_here(commands):
  """Run command lines in this process to their good end."""
  for line in commands:
    result = tiny.run(*line)
    assert result.code == 0, result.err


def rounded(x):
  """Move every value by eight units in its last place, up or down."""
  signs = np.random.default_rng(0).choice([-1, 1], x.shape)
  return (x * (1 + 8 * 2.0**-23 * signs)).astype(np.float32)


def misread(x):
  """Give the last of eight devices the rows of the first."""
  x, rows = x.copy(), x.shape[2] // 8
  x[:, :, -rows:] = x[:, :, :rows]
  return x


CHANGES = {"rounded": rounded, "misread": misread}


@contextlib.contextmanager
def changed_batches(change):
  """Let training see other data."""
  take = data.Batches.__next__

  def changed(batches):
    batch = take(batches)
    return batch | {"data": change(batch["data"])}

  with mock.patch.object(data.Batches, "__next__", changed):
    yield


def trees(workdir):
  """What a run trained: its network, averages and companions."""
  state = tiny.state_of(workdir)
  config = json.loads((workdir / "config.json").read_text())
  assert int(state.step) == config["train"]["steps"] and int(state.skipped) == 0
  found = {"params": state.params, **state.ema}
  theirs = {name: own.params for name, own in state.companions.items()}
  return found | theirs


def distances(workdir, other):
  """How far two runs are apart, by the name of what they trained."""
  found, expected = trees(workdir), trees(other)
  assert set(found) == set(expected)
  return {name: tiny.apart(found[name], x) for name, x in expected.items()}


# Between rounding and a wrong program: two tests train both on the machine that
# compares. Other devices made 1.4e-7 at most; eight units in the last place of
# all data, 4e-6; the rows of a device misread, 2e-4 or more.
LIMIT = 1e-5


@pytest.mark.parametrize(("mesh", "method"), RUNS)
def test_two_processes_train_as_one_and_as_one_device(trained, mesh, method):
  two = trained / f"two-{mesh}-{method}"
  for other in (f"eight-{mesh}", "one-data"):
    far = distances(two, trained / f"{other}-{method}")
    assert max(far.values()) <= LIMIT, (other, far)


@pytest.mark.parametrize("method", METHODS)
def test_limit_is_far_above_rounding(trained, method):
  """Devices add in another order: a unit or so. Here are eight each step."""
  far = distances(
    *(trained / f"{x}-data-{method}" for x in ("rounded", "eight"))
  )
  assert 0 < max(far.values()) <= LIMIT, far


@pytest.mark.parametrize("method", METHODS)
def test_limit_is_far_below_a_wrong_program(trained, method):
  far = distances(
    *(trained / f"{x}-data-{method}" for x in ("misread", "eight"))
  )
  assert min(far.values()) >= 10 * LIMIT, far


def test_training_moved_the_parameters(trained):
  """Return the comparison above could not fail otherwise."""
  end = tiny.state_of(trained / "two-data-mean_flow").params["output"]["kernel"]
  other = tiny.state_of(trained / "teacher").params["output"]["kernel"]
  assert np.linalg.norm(end - other) > 0.1 * np.linalg.norm(other)


OFTEN = ("optimizer.eps=1e-3", "checkpoint.every=50", "train.log_every=50")


def wait_for(path, job):
  """Wait until a file is there; fail at once where the job ends first."""
  for _ in range(10 * PATIENCE):
    if path.exists():
      return
    assert all(process.poll() is None for process in job), finish(job)
    time.sleep(0.1)
  pytest.fail(f"{path} did not come")


def test_a_signal_to_one_process_stops_all_at_one_step(folder):
  """And from there two processes train to what one trains, to rounding."""
  line = tiny.train_command(
    folder, "stopped", "flow_matching", *OFTEN, "train.steps=4000"
  )
  job = start(folder, "stopped", [line], count=2, devices=2)
  wait_for(folder / "stopped" / "checkpoints" / "50", job)
  job[1].send_signal(signal.SIGTERM)
  main, other = finish(job)
  assert (main.code, other.code) == (0, 0), main.err + other.err
  step = int(tiny.state_of(folder / "stopped").step)
  assert 50 <= step < 4000
  assert f"interrupted: saved step {step} in" in main.out
  assert "interrupted" not in other.out
  # On two processes again; their state is read once to its end.
  steps = f"train.steps={step + 50 - step % 50}"
  line = tiny.train_command(folder, "stopped", "flow_matching", *OFTEN, steps)
  main, _ = run(folder, "resumed", [line], count=2, devices=2)
  assert f"resumed at step {step}" in main.out
  tiny.train(folder, "straight", "flow_matching", *OFTEN, steps)
  # However late the signal comes: after 3,950 steps, eight units in the last
  # place of all data made 8e-7; a resumption elsewhere in the data, 3e-2.
  stopped, straight = (trees(folder / x) for x in ("stopped", "straight"))
  assert tiny.apart(stopped["params"], straight["params"]) <= LIMIT


def test_two_processes_sample_evaluate_and_make_pairs_as_one(folder):
  teacher = folder / "teacher"

  def commands(name):
    given = f"--workdir={teacher}"
    pairs = f"--out={folder / name}_pairs"
    samples = f"--out={folder / name}.npz"
    # The first says for all whether SIGTERM waits: `pairs` can be interrupted.
    return [
      ["pairs", given, pairs, "--num=40", "--nfe=2", "--shard_size=32"],
      ["sample", given, samples, "--num=24", "--nfe=4"],
      ["sample", given, f"--out={folder / name}.png", "--num=5"],
      ["evaluate", given, "--nfe=1"],
    ]

  main, other = run(folder, "both", commands("both"), count=2, devices=4)
  assert "24 samples, 4 network call(s) each" in main.out
  assert "samples" not in other.out
  written = json.loads((teacher / "evaluation.json").read_text())
  for line in commands("alone"):
    assert tiny.run(*line).code == 0
  alone, both = (tiny.arrays(folder / f"{n}.npz") for n in ("alone", "both"))
  np.testing.assert_allclose(both["samples"], alone["samples"], atol=1e-5)
  assert (folder / "both.png").exists()
  made, expected = (
    data.Pairs.open(folder / f"{n}_pairs").load() for n in ("both", "alone")
  )
  assert made.noise.tobytes() == expected.noise.tobytes()
  np.testing.assert_allclose(made.data, expected.data, atol=1e-5)
  again = json.loads((teacher / "evaluation.json").read_text())
  for name, score in written["rows"][0]["scores"].items():
    assert score["value"] == pytest.approx(
      again["rows"][0]["scores"][name]["value"], abs=1e-3
    )


def test_a_failure_of_the_main_process_ends_all(folder):
  """Its folder is held by another run: one line each, none hangs."""
  line = tiny.train_command(folder, "held", "flow_matching")
  (folder / "held").mkdir()
  with folders.locked(folder / "held"):
    results = finish(start(folder, "held", [line], count=2, devices=1))
  for result in results:
    assert result.code == 2
    assert "is being trained by another process" in result.err
  assert "process 0: --workdir=" in results[1].err


def test_processes_with_other_configs_do_not_train(folder):
  tiny.config_file(folder)
  (folder / "differs.py").write_text(
    "import os, sys\n"
    "sys.path.insert(0, os.path.dirname(__file__))\n"
    "import config\n"
    "def get_config(method):\n"
    "  found = config.get_config(method)\n"
    "  found.seed = int(os.environ['JAX_PROCESS_ID'])\n"
    "  return found\n"
  )
  line = [
    "train",
    f"--config={folder / 'differs.py'}:flow_matching",
    f"--workdir={folder / 'differs'}",
  ]
  for result in finish(start(folder, "differs", [line], count=2, devices=1)):
    assert result.code == 2
    assert "the config of process 1 is not that of process 0" in result.err
  assert not (folder / "differs").exists()


def test_damage_that_one_process_sees_turns_all_back(folder):
  """Each reads what its devices hold: the other's half is whole.

  The name of the folder is a pattern to Orbax.
  """
  name = "half[1]"
  line = tiny.train_command(
    folder,
    name,
    "flow_matching",
    *NETWORK,
    "mesh.fsdp=4",
    "checkpoint.every=10",
  )
  run(folder, "half", [line], count=2, devices=2)
  newest = folder / name / "checkpoints" / "20"
  parts = newest / "state" / "ocdbt.process_1"

  def largest():
    files = [path for path in parts.rglob("*") if path.is_file()]
    return max(files, key=lambda path: path.stat().st_size)

  # One process lists the files of all.
  listed = [x[66:] for x in (newest / SUMS).read_text().splitlines()]
  assert len(set(listed)) == len(listed)
  assert str(largest().relative_to(newest)) in listed
  changed = largest()
  tiny.flip_bit(changed, np.random.default_rng(0))
  main, other = run(folder, "half", [line], count=2, devices=2)
  assert f"{changed.name} differs from {SUMS}" in main.err
  assert "cannot be read" not in other.err
  assert "resumed at step 10" in main.out
  # A step of an earlier version: only the other process reads this file.
  (newest / SUMS).unlink()
  os.truncate(largest(), largest().stat().st_size // 2)
  main, other = run(folder, "half", [line], count=2, devices=2)
  assert "20 cannot be read" in main.err + other.err
  assert "resumed at step 10" in main.out
  names = {path.name for path in newest.parent.iterdir()}
  assert names == {"10", "20", "damaged-20", "damaged-20-1"}


@pytest.mark.parametrize(
  ("environment", "expected"),
  [
    ({}, False),
    ({"SLURM_JOB_ID": "7", "SLURM_STEP_NUM_TASKS": "1"}, False),
    ({"SLURM_STEP_NUM_TASKS": "8"}, True),
    ({"OMPI_COMM_WORLD_SIZE": "2"}, True),
    ({"TPU_WORKER_HOSTNAMES": "a"}, False),
    ({"TPU_WORKER_HOSTNAMES": "a,b"}, True),
    ({"MEGASCALE_COORDINATOR_ADDRESS": "a:1"}, True),
  ],
)
def test_a_job_is_read_from_its_launcher(environment, expected):
  assert launch.in_job(environment | {"JAX_PLATFORMS": "cpu"}) == expected


def test_wrong_ways_to_join(monkeypatch):
  result = tiny.run("methods", "--distributed=yes")
  assert result.code == 2 and "--distributed=yes: give auto, on" in result.err
  monkeypatch.setenv("JAX_NUM_PROCESSES", "2")
  result = tiny.run("evaluate", "--workdir=nowhere")
  assert result.code == 2 and "JAX_COORDINATOR_ADDRESS" in result.err
  result = tiny.run("evaluate", "--distributed=off")
  assert result.code == 2 and "--workdir is missing" in result.err
  # What needs nobody waits for nobody.
  assert tiny.run("methods").code == 0
