import dataclasses
import os
import pathlib
import shlex
import subprocess
import sys

import jax
import numpy as np
import pytest
import tiny

import jaxflow
from jaxflow import api, catalogue
from jaxflow.commands import flags as command_flags
from jaxflow.commands import main
from jaxflow.commands import sample as sample_command
from jaxflow.data.sets import toy
from jaxflow.evaluation import of_run
from jaxflow.methods import METHODS
from jaxflow.parallel import folders
from jaxflow.runs import previews

REPOSITORY = pathlib.Path(__file__).parents[2]
CLASSES = "data.conditional=True"
# The programs that are worth waiting for; every other is an operation or two.
PROGRAMS = {"jit(fresh)", "jit(train_step)", "jit(draw_batch)"}
COMPILED = []


def note_compilation(event, duration, **details):
  del duration
  if event == "/jax/core/compile/backend_compile_duration":
    COMPILED.append(details["fun_name"])


jax.monitoring.register_event_duration_secs_listener(note_compilation)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """Return a folder with runs without and with labels: plain, labelled."""
  path = tmp_path_factory.mktemp("runs")
  tiny.train(path, "plain", "flow_matching", "train.steps=20")
  tiny.train(path, "labelled", "flow_matching", "train.steps=20", CLASSES)
  return path


@pytest.fixture
def refused(folder, tmp_path):
  """Check that a command fails in one line, and compiles and loses nothing."""

  def check(*arguments, code, words):
    before = tiny.checksums(folder)
    COMPILED.clear()
    result = tiny.run(*arguments)
    assert not PROGRAMS & set(COMPILED)
    assert result.code == code, result
    assert result.out == ""
    assert result.err.count("\n") == 1
    assert result.err.startswith("jaxflow")
    for word in words:
      assert word in result.err
    assert tiny.checksums(folder) == before
    assert not (tmp_path / "new").exists()

  return check


def command(folder, *flags, method="flow_matching", workdir="new"):
  return tiny.train_command(folder, workdir, method, *flags)


@pytest.mark.parametrize("name", main.COMMANDS)
def test_help_lists_every_flag_and_has_an_example(name):
  result = tiny.run(name, "--help")
  assert (result.code, result.err) == (0, "")
  lines = result.out.splitlines()
  assert max(map(len, lines)) <= 80
  assert lines[0].startswith(f"usage: jaxflow {name}")
  assert f"example:\n  jaxflow {name}" in result.out
  command = main.command_of(name)
  values = command_flags.defined(command)
  for flag in values:
    assert values[flag].help.strip(), flag
    assert f"  --{flag}" in result.out
  assert set(command.required) <= set(values)


def test_overview_has_the_summary_of_every_command():
  result = tiny.run("--help")
  assert result.code == 0
  lines = result.out.splitlines()
  assert len(lines) <= len(main.COMMANDS) + 15
  assert max(map(len, lines)) <= 80
  for name in main.COMMANDS:
    summary = main.command_of(name).summary
    assert f"  {name:9} {summary}" in result.out
  for flag in ("--debug", "--distributed", "--version"):
    assert f"  {flag} " in result.out


def test_version():
  assert tiny.run("--version") == (0, f"{jaxflow.__version__}\n", "")


@pytest.mark.parametrize("arguments", [["--help"], ["methods", "--help"]])
def test_help_is_quick(arguments):
  """It loads neither JAX nor what is built on it."""
  code = f"""\
import sys
from jaxflow.commands import main
code = main.run(["jaxflow", *{arguments}])
sys.exit(code or "jax" in sys.modules or "numpy" in sys.modules)
"""
  result = subprocess.run(
    [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True
  )
  assert result.returncode == 0, result.stderr


def test_examples_are_understood(tmp_path, monkeypatch):
  monkeypatch.chdir(REPOSITORY)
  for name in main.COMMANDS:
    command = main.command_of(name)
    program, given, *arguments = shlex.split(
      command.example.replace("\\\n", "")
    )
    assert (program, given) == ("jaxflow", name)
    arguments = [x for x in arguments if not x.startswith("--config.")]
    values = command_flags.defined(command)
    changes = command_flags.read(command, values, arguments)
    config = command_flags.config_of(command, values, changes)
    assert (config is not None) == command.takes_config


def test_values_may_stand_behind_a_blank(folder, tmp_path):
  one, two = tmp_path / "a.npz", tmp_path / "b.npz"
  workdir = str(folder / "labelled")
  with_sign = [f"--workdir={workdir}", "--num=5", "--config.sample.nfe=3"]
  with_blank = ["--workdir", workdir, "--num", "5", "--config.sample.nfe", "3"]
  for out, arguments in ((one, with_sign), (two, with_blank)):
    result = tiny.run(
      "sample", *arguments, "--out", out, "--distributed", "off"
    )
    assert result.code == 0, result.err
  assert (
    tiny.arrays(one)["samples"].tobytes()
    == tiny.arrays(two)["samples"].tobytes()
  )


def test_a_config_may_stand_behind_a_blank(tmp_path):
  file = tiny.config_file(tmp_path)
  arguments = ["--config", f"{file}:flow_matching", "--config.train.steps", "7"]
  arguments += ["--config.mesh.fsdp", "-1", "--workdir", str(tmp_path / "new")]
  command = main.command_of("train")
  values = command_flags.defined(command)
  changes = command_flags.read(command, values, arguments)
  config = command_flags.config_of(command, values, changes)
  assert (config.train.steps, config.mesh.fsdp) == (7, -1)
  assert values.workdir == str(tmp_path / "new")


def test_no_command_prints_the_help():
  result = tiny.run()
  assert result.code == 2
  assert "usage: jaxflow COMMAND" in result.out


def test_methods_prints_the_table():
  result = tiny.run("methods")
  assert result.code == 0
  for name, row in METHODS.items():
    assert f"{name}\n  {row.summary}" in result.out
    assert row.paper in result.out


def test_module_is_the_command():
  result = subprocess.run(
    [sys.executable, "-m", "jaxflow", "methods"],
    cwd=REPOSITORY,
    capture_output=True,
    text=True,
  )
  assert result.returncode == 0, result.stderr
  assert result.stdout == tiny.run("methods").out
  assert result.stderr == ""


def test_programs_are_known_by_their_names(tmp_path):
  """Or else `refused` would not notice that they were compiled."""
  COMPILED.clear()
  tiny.train(tmp_path, "new", "flow_matching", "train.steps=5")
  assert set(COMPILED) >= PROGRAMS


def test_closed_pipe_does_not_stop_training(tmp_path):
  process = subprocess.Popen(
    [sys.executable, "-m", "jaxflow", *command(tmp_path)],
    cwd=REPOSITORY,
    env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )
  assert process.stdout is not None and process.stderr is not None
  assert "flow_matching on ring" in process.stdout.readline()
  process.stdout.close()
  err = process.stderr.read()
  process.stderr.close()
  assert process.wait(timeout=120) == 0, err
  assert "BrokenPipe" not in err
  assert (tmp_path / "new" / "checkpoints" / "40").is_dir()


def test_ctrl_c_before_training_is_one_line(monkeypatch):
  def interrupt(values, config):
    raise KeyboardInterrupt

  command = dataclasses.replace(sample_command.COMMAND, run=interrupt)
  command = dataclasses.replace(command, required={})
  monkeypatch.setattr(sample_command, "COMMAND", command)
  assert tiny.run("sample") == (130, "", "jaxflow sample: interrupted\n")
  with pytest.raises(KeyboardInterrupt):
    tiny.run("sample", "--debug")


def test_debug_shows_the_traceback(tmp_path):
  with pytest.raises(ValueError, match=r"holds no config\.json"):
    tiny.run("sample", "--debug", f"--workdir={tmp_path}", "--out=x.png")


@pytest.mark.parametrize(
  ("arguments", "words"),
  [
    (["trian"], ["command='trian'", "did you mean 'train'?"]),
    (["methods", "extra"], ["'extra' is no flag"]),
    (["methods", "--debug=much"], ["--debug=much: give true or false"]),
    (["methods", "--distributed"], ["Missing value for flag --distributed"]),
    (["methods", "--distributed", "so"], ["--distributed=so: give auto, on"]),
    (["methods", "--workdir=x"], ["workdir", "--help"]),
    (["train", "--workdir=x"], ["--config is missing"]),
    (["train", "--config"], ["--config is missing"]),
    (
      ["train", "--config=no.py:mean_flow", "--workdir=x"],
      ["--config=no.py: there is no file 'no.py'"],
    ),
    (
      ["train", "--config=digts:mean_flow", "--workdir=x"],
      ["--config=digts: ", "did you mean 'digits'?", "ring"],
    ),
    (["sample", "--out=a.png"], ["--workdir is missing"]),
    (["sample", "--workdir=x"], ["--out is missing"]),
    (["sample", "--workdir=x", "--out=a.jpg"], ["--out=a.jpg", ".png"]),
    (["train", "--config.train.steps"], ["--config is missing"]),
    (["sample", "--workdir"], ["--workdir has no value: write --workdir=VAL"]),
    (["sample", "--workdir", "--out=a.png"], ["--workdir has no value"]),
    (["sample", "--num=many"], ["--num=many: give a whole number"]),
    (["sample", "--latents=maybe"], ["--latents=maybe: give true or false"]),
    (["encode", "--scale=much"], ["--scale=much: give a number"]),
    (["evaluate"], ["--workdir is missing"]),
    (["evaluate", "--workdir=x", "--nfe=one"], ["--nfe=one: give whole num"]),
    (["evaluate", "--workdir=no"], ["--workdir='no' holds no config.json"]),
  ],
)
def test_wrong_command_line(refused, arguments, words):
  refused(*arguments, code=2, words=words)


@pytest.mark.parametrize(
  ("method", "flags", "words"),
  [
    ("flow_matchin", [], ["flow_matchin", "did you mean 'flow_matching'?"]),
    ("flow_matching", ["train.stpes=3"], ["train.stpes", "train.steps?"]),
    ("flow_matching", ["train.steps=abc"], ["train.steps=abc", "whole"]),
    ("flow_matching", ["train.steps=0"], ["train.steps=0", "1 or more"]),
    ("flow_matching", ["train.log_every=0"], ["train.log_every=0"]),
    ("flow_matching", ["checkpoint.every=0"], ["checkpoint.every=0"]),
    (
      "flow_matching",
      ["optimizer.learning_rate=-1"],
      ["optimizer.learning_rate=-1.0", "above 0"],
    ),
    ("flow_matching", ["optimizer.name=sgd"], ["optimizer.name='sgd'", "adam"]),
    (
      "flow_matching",
      ["optimizer.schedule=step"],
      ["optimizer.schedule='step'", "cosine"],
    ),
    (
      "flow_matching",
      ["optimizer.warmup_steps=40"],
      ["optimizer.warmup_steps=40", "40 updates", "train.steps"],
    ),
    (
      "flow_matching",
      ["train.batch_size=20"],
      ["train.batch_size=20", "8 devices", "use 16 or 24, or mesh.data=5"],
    ),
    (
      "flow_matching",
      ["train.accumulate=3"],
      ["train.batch_size=16", "train.accumulate=3", "use 24"],
    ),
    (
      "mean_flow",
      ["loss.block=3,1"],
      ["loss.block=(3, 1)", "train.batch_size=16", "use 24"],
    ),
    ("flow_matching", ["mesh.fsdp=9"], ["mesh.fsdp=9", "at most 8"]),
    ("flow_matching", ["data.name=rings"], ["data.name='rings'", "'ring'?"]),
    ("flow_matching", ["path.name=line"], ["path.name='line'", "'linear'?"]),
    ("flow_matching", ["model.width=0"], ["model.width=0", "1 or more"]),
    ("flow_matching", ["sample.ema=slow"], ["sample.ema='slow'", "sampling"]),
    ("flow_matching", ["sample.nfe=0"], ["sample.nfe=0"]),
    (
      "flow_matching",
      ["sample.guidance=2"],
      ["sample.guidance=2.0", "unconditional", "set it to 1"],
    ),
    (
      "flow_matching",
      ["sample.guidance=2", CLASSES],
      ["sample.guidance=2.0", "loss.label_dropout=0.1"],
    ),
    (
      "flow_matching",
      ["loss.label_dropout=0.1"],
      ["loss.label_dropout=0.1", "no labels", "set it to 0"],
    ),
    (
      "flow_matching",
      ["loss.prediction=noise"],
      ["loss.prediction='noise'", "t=1 of Linear", "another path"],
    ),
    ("flow_matching", ["sample.grid.name=log"], ["sample.grid", "t_min=0"]),
    ("flow_matching", ["ema.sampling.width=5"], ["ema.sampling", "width=5"]),
    ("flow_matching", ["seed=99999999999"], ["seed=99999999999", "4294967295"]),
    ("mean_flow", ["loss.omega=2"], ["loss.omega=2.0", "unconditional"]),
    (
      "mean_flow",
      ["loss.kappa=0.5", CLASSES],
      ["loss.kappa=0.5", "set loss.kappa to 0"],
    ),
    ("consistency_distillation", [], ["teacher.workdir=''", "flow_matching"]),
    (
      "consistency_distillation",
      ["teacher.workdir=nowhere"],
      ["teacher.workdir='nowhere'", "config.json"],
    ),
  ],
)
def test_wrong_config(refused, tmp_path, method, flags, words):
  refused(*command(tmp_path, *flags, method=method), code=2, words=words)


@pytest.mark.parametrize(
  ("teacher", "flags", "words"),
  [
    (
      "plain",
      ["model.width=32"],
      ["model.width is 16 there, 32 here", "teacher.init_student=False"],
    ),
    ("labelled", [], ["its data.num_classes is 8, this run's is 0"]),
    ("plain", ["teacher.ema=slow"], ["teacher.ema='slow'", "sampling"]),
    ("plain", ["teacher.guidance=2"], ["teacher.guidance=2.0"]),
  ],
)
def test_teacher_that_does_not_fit(
  refused, folder, tmp_path, teacher, flags, words
):
  arguments = command(
    tmp_path,
    f"teacher.workdir={folder / teacher}",
    *flags,
    method="consistency_distillation",
  )
  refused(*arguments, code=2, words=words)


def test_teacher_of_another_shape_or_without_a_checkpoint(
  refused, folder, tmp_path
):
  teacher = tmp_path / "teacher"
  teacher.mkdir()
  text = (folder / "plain" / "config.json").read_text()
  (teacher / "config.json").write_text(text)
  arguments = command(
    tmp_path, f"teacher.workdir={teacher}", method="consistency_distillation"
  )
  refused(*arguments, code=2, words=["teacher.workdir=", "no checkpoint yet"])
  (teacher / "config.json").write_text("{")
  refused(*arguments, code=2, words=["teacher.workdir=", "cannot be read"])


def test_teacher_whose_network_is_no_velocity(refused, folder, tmp_path):
  student = tiny.train(
    tmp_path,
    "student",
    "consistency_distillation",
    f"teacher.workdir={folder / 'plain'}",
    "train.steps=20",
  )
  arguments = command(
    tmp_path, f"teacher.workdir={student}", method="consistency_distillation"
  )
  words = ["is a run of 'consistency_distillation'", "flow_matching"]
  refused(*arguments, code=2, words=words)


def test_workdir_in_use(refused, folder):
  with folders.locked(folder / "plain"):
    refused(
      *command(folder, "train.steps=20", workdir="plain"),
      code=2,
      words=["--workdir=", "plain is being trained by another process"],
    )


def test_workdir_of_another_config(refused, folder):
  refused(
    *command(folder, "model.width=32", workdir="plain"),
    code=2,
    words=["--workdir=", "model.width=16, not 32", "another workdir"],
  )
  refused(
    *command(
      folder,
      f"teacher.workdir={folder / 'plain'}",
      method="consistency_distillation",
      workdir="plain",
    ),
    code=2,
    words=["method='flow_matching', not 'consistency_distillation'"],
  )


def test_foreign_folder_is_no_workdir(refused, tmp_path):
  (tmp_path / "mine").mkdir()
  (tmp_path / "mine" / "thesis.txt").write_text("text")
  refused(
    *command(tmp_path, workdir="mine"),
    code=2,
    words=["/mine is not empty", "give a new folder"],
  )
  assert [p.name for p in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_corrupt_config_of_a_workdir(refused, folder, tmp_path):
  (tmp_path / "run").mkdir()
  (tmp_path / "run" / "config.json").write_text('{"method": ')
  refused(
    *command(tmp_path, workdir="run"),
    code=2,
    words=["/run'", "config.json cannot be read"],
  )


def test_workdir_below_a_file(refused, tmp_path):
  (tmp_path / "file").write_text("")
  refused(
    *command(tmp_path, workdir="file/run"),
    code=2,
    words=["file/run cannot be written (Not a directory)"],
  )


def test_workdir_without_permission(refused, tmp_path, monkeypatch):
  def touch(path, *args, **kwargs):
    raise PermissionError(13, "Permission denied")

  monkeypatch.setattr(pathlib.Path, "touch", touch)
  (tmp_path / "locked").mkdir()
  refused(
    *command(tmp_path, workdir="locked"),
    code=2,
    words=["locked cannot be written (Permission denied)", "writable"],
  )
  assert not list((tmp_path / "locked").iterdir())


@pytest.mark.parametrize("content", [None, b"\x00\x00\x08\x03\x00"])
def test_idx_files_missing_or_truncated(refused, tmp_path, content):
  raw = tmp_path / "raw"
  raw.mkdir()
  names = [
    f"{split}-{kind}-ubyte"
    for split in ("train", "t10k")
    for kind in ("images-idx3", "labels-idx1")
  ]
  for name in names if content else ():
    (raw / name).write_bytes(content)
  flags = (
    *("data.name=fashion_mnist", f"data.raw_dir={raw}"),
    f"data.data_dir={tmp_path / 'prepared'}",
  )
  problem = "is truncated" if content else "is missing"
  refused(
    *command(tmp_path, *flags),
    code=2,
    words=[f"data.raw_dir={str(raw)!r}", "train-images-idx3-ubyte", problem],
  )


def test_nan_in_the_data(refused, tmp_path, monkeypatch):
  sample = toy.Mixture.sample

  def broken(*args, **kwargs):
    data, component = sample(*args, **kwargs)
    data[17, 1] = np.nan
    return data, component

  monkeypatch.setattr(toy.Mixture, "sample", broken)
  refused(
    *command(tmp_path),
    code=2,
    words=["data.name='ring'", "the value at [17, 1] is nan", "sample 17"],
  )


@pytest.mark.parametrize(
  ("name", "arguments", "words"),
  [
    ("plain", ["--nfe=0"], ["--nfe=0", "at least 1"]),
    ("plain", ["--nfe=1.5"], ["--nfe=1.5: give a whole number"]),
    ("plain", ["--num=0"], ["--num=0", "at least 1"]),
    ("plain", ["--label=1"], ["--label=1", "unconditional"]),
    ("plain", ["--step=7"], ["--step=7", "[20]"]),
    ("labelled", ["--label=8"], ["--label=8", "give 0 to 7"]),
    ("labelled", ["--label=-1"], ["--label=-1", "give 0 to 7"]),
  ],
)
def test_wrong_sample(refused, folder, tmp_path, name, arguments, words):
  out = tmp_path / "new" / "samples.npz"
  workdir = f"--workdir={folder / name}"
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(sample_command, "check_writable", lambda out: None)
    refused("sample", workdir, f"--out={out}", *arguments, code=2, words=words)


def test_sample_that_cannot_be_written(refused, folder, tmp_path):
  (tmp_path / "file").write_text("")
  refused(
    *("sample", f"--workdir={folder / 'plain'}"),
    f"--out={tmp_path}/file/a.png",
    code=2,
    words=["--out=", "file/a.png cannot be written"],
  )


def test_wrong_evaluation(refused, folder):
  workdir = f"--workdir={folder / 'plain'}"
  refused("evaluate", workdir, "--nfe=1,0", code=2, words=["--nfe=0"])


def test_diverged_training_stops(tmp_path):
  # Adam's step is the learning rate: parameters of 1e30 have no finite loss.
  flags = "optimizer.learning_rate=1e30", "train.max_skipped=20"
  result = tiny.run(*command(tmp_path, *flags, "checkpoint.every=5"))
  assert result.code == 1
  assert result.err.count("\n") == 1
  assert (
    "steps in a row up to step 30 (limit 20, train.max_skipped)" in result.err
  )
  assert "last good checkpoint: none" in result.err
  assert "optimizer.learning_rate" in result.err
  # Nothing that gave no finite loss was saved as if it were good.
  assert not list((tmp_path / "new" / "checkpoints").glob("[0-9]*"))


def test_short_run_that_diverges_fails(tmp_path):
  flags = "optimizer.learning_rate=1e30", "train.steps=10"
  result = tiny.run(*command(tmp_path, *flags))
  assert result.code == 1
  assert (
    "steps in a row up to step 10 (limit 6, train.max_skipped)" in result.err
  )
  assert not list((tmp_path / "new" / "checkpoints").glob("[0-9]*"))


def test_samples_that_are_not_finite(folder, tmp_path, monkeypatch):
  def drawer(run, nfe, mesh):
    return lambda state, key, num, labels: np.full((num, 2), np.nan)

  def streamer(run, nfe, mesh):
    rows = (0, 100, np.full((100, 2), np.nan, np.float32))
    return lambda *state, **options: iter([rows])

  for module in (api, previews):
    monkeypatch.setattr(module, "drawer", drawer)
  monkeypatch.setattr(of_run, "streamer", streamer)
  workdir = f"--workdir={folder / 'plain'}"
  before = tiny.checksums(folder)
  for arguments in (
    ("evaluate", workdir),
    ("sample", workdir, f"--out={tmp_path / 'a.png'}"),
  ):
    result = tiny.run(*arguments)
    assert result.code == 1
    assert result.err.count("\n") == 1
    assert "not finite" in result.err
    assert "train again" in result.err
  assert tiny.checksums(folder) == before
  assert not (tmp_path / "a.png").exists()
  # A picture is no reason to lose a training.
  result = tiny.run(*command(tmp_path, "train.sample_every=10"))
  assert result.code == 0, result.err
  assert result.out.count("samples are not finite") == 4
  assert (tmp_path / "new" / "checkpoints" / "40").is_dir()


def test_unexpected_error_names_its_kind(monkeypatch):
  def fail(values, config):
    raise RuntimeError("first\nsecond")

  command = dataclasses.replace(sample_command.COMMAND, run=fail)
  command = dataclasses.replace(command, required={})
  monkeypatch.setattr(sample_command, "COMMAND", command)
  code, out, err = tiny.run("sample")
  assert (code, out) == (1, "")
  assert err == (
    "jaxflow sample: RuntimeError: first second (--debug shows where)\n"
  )


def test_evaluation_that_cannot_be_written(folder, monkeypatch):
  def no_space(path, text):
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(pathlib.Path, "write_text", no_space)
  result = tiny.run("evaluate", f"--workdir={folder / 'plain'}", "--nfe=1")
  assert result.code == 1
  assert result.err.count("\n") == 1
  assert "evaluation.json cannot be written (No space left" in result.err


def test_warning_is_one_plain_line_after_a_library_has_logged():
  code = (
    "import logging, sys; from jaxflow.commands.main import run;"
    " run(['jaxflow', 'methods']); logging.warning('of a library');"
    " logging.getLogger('jaxflow.runs').warning('of ours')"
  )
  result = subprocess.run(
    [sys.executable, "-c", code], capture_output=True, text=True, check=True
  )
  assert result.stderr.splitlines() == ["of a library", "of ours"]


TRAIN = ["train", "--config=digits:mean_flow"]


@pytest.mark.parametrize(
  ("arguments", "words"),
  [
    (["methods"], "arXiv:2505.13447"),
    (["train", "--config=digts:mean_flow"], "did you mean 'digits'?"),
    (["train", "--config=digits:mean_flw"], "did you mean 'mean_flow'?"),
    (["train", "--config=digits"], "name a method behind it"),
    (["train", "--workdir=x"], "--config is missing"),
    (["trian"], "did you mean 'train'?"),
    (["sample", "--out=x.png"], "--workdir is missing"),
    (["sample", "--workdri=x"], "Unknown command line flag 'workdri'"),
    (
      [*TRAIN, "--config.train.stepz=3"],
      "--config.train.stepz is no field of the config: did you mean "
      "--config.train.steps?",
    ),
    ([*TRAIN, "--config.sed", "3"], "did you mean --config.seed?"),
    ([*TRAIN, "--config.trian.steps=3"], "did you mean --config.train.steps?"),
    ([*TRAIN, "--config.mesh.x=3"], "there are mesh.data, mesh.fsdp, mesh."),
    ([*TRAIN, "--config.sample.grid=log"], "--config.sample.grid.name?"),
    ([*TRAIN, "--config.train.steps=abc"], "=abc: give a whole number"),
    ([*TRAIN, "--config.data.size=1.5"], "=1.5: give a whole number"),
    ([*TRAIN, "--config.optimizer.b1=x"], "--config.optimizer.b1=x: give a nu"),
    ([*TRAIN, "--config.data.flip=maybe"], "=maybe: give True or False"),
    ([*TRAIN, "--sweep=train.stepz=1,2"], "did you mean --config.train.steps?"),
  ],
)
def test_names_are_checked_before_jax_is_loaded(arguments, words):
  code = f"""\
import sys
from jaxflow.commands import main
main.run(["jaxflow", *{arguments}])
sys.exit("jax" in sys.modules or "numpy" in sys.modules)
"""
  result = subprocess.run(
    [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True
  )
  assert result.returncode == 0, result.stderr
  assert words in result.stdout + result.stderr


def test_the_catalogue_says_what_the_table_says():
  words = "summary", "paper", "needs"
  found = catalogue.entries()
  assert [*found] == [*METHODS]
  for name, row in METHODS.items():
    for word in words:
      assert getattr(found[name], word) == getattr(row, word), (name, word)
