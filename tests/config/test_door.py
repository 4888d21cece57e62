"""What no field, flag or argument may hold, wherever it enters."""

import json
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

import jaxflow
from jaxflow import data, models
from jaxflow.commands import flags as command_flags
from jaxflow.commands import main
from jaxflow.config import data_plan, make_plan, resolve, sources
from jaxflow.config.limits import check_limits, hint
from jaxflow.errors import UsageError
from jaxflow.files import local_path
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
  with pytest.raises(UsageError, match="rounds=3: give at most 2, each takes"):
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


# Numbers: the same ranges for all commands, and from Python.

CALLS = "a whole number, at least 1, at most 1000000"
# A field, a value that it may not hold, the remedy.
WRONG = [
  ("sample.batch_size", 0, "give 1 or more"),
  ("sample.nfe", 10**10, f"give {CALLS}"),
  ("sample.guidance", np.nan, "give a finite number"),
  ("sample.guidance_start", np.nan, "give a finite number, 0 or more"),
  ("sample.guidance_end", np.inf, "give a finite number, 0 or more"),
]


def changed(config, field, value):
  section, _, name = field.rpartition(".")
  copy = config.copy_and_resolve_references().unlock()
  inner = copy[section] if section else copy
  with inner.ignore_type():
    inner[name] = value
  return copy


@pytest.mark.parametrize(("field", "value", "remedy"), WRONG)
def test_one_door_for_numbers(folder, run, tmp_path, field, value, remedy):
  text = f"{field}={value}: {remedy}"
  config = changed(run.config, field, value)
  for enter in (
    lambda: jaxflow.load(folder, config=config),
    lambda: jaxflow.train(config, tmp_path / "new"),
    lambda: make_plan(config),
  ):
    with pytest.raises(UsageError) as caught:
      enter()
    assert str(caught.value) == text
  arguments = f"--workdir={folder}", f"--config.{field}={value}"
  out = tmp_path / "out.npz"
  refused("sample", *arguments, f"--out={out}", words=[text])
  refused("evaluate", *arguments, words=[text])
  assert not out.exists() and not (tmp_path / "new").exists()


def test_infinity_may_be_a_bound_and_nan_is_none():
  config = small()
  sampler = {"name": "edm_heun", "s_max": np.inf}
  jaxflow.config.update(config, {"sample": {"sampler": sampler}})
  check_limits(config)
  config.sample.sampler.s_max = np.nan
  with pytest.raises(UsageError, match="s_max=nan: give 0 or more"):
    check_limits(config)


def test_the_door_for_an_edited_config(folder, tmp_path):
  values = json.loads((folder / "config.json").read_text())
  values["sample"]["batch_size"] = -1
  (tmp_path / "run").mkdir()
  (tmp_path / "run" / "config.json").write_text(json.dumps(values))
  workdir, out = (
    f"--workdir={tmp_path / 'run'}",
    f"--out={tmp_path / 'out.npz'}",
  )
  for command in (
    *(("sample", workdir, out), ("pairs", workdir, out)),
    *(("evaluate", workdir), ("bench", workdir), ("report", workdir)),
  ):
    refused(*command, words=["sample.batch_size=-1: give 1 or more"])


@pytest.mark.parametrize("nfe", [-1, 10**6 + 1, 10**10, 1.5, "2"])
def test_calls_out_of_range(folder, run, nfe):
  for enter in (
    lambda: run.sample(2, nfe=nfe),
    lambda: run.evaluate(nfe=[nfe]),
  ):
    with pytest.raises(UsageError) as caught:
      enter()
    assert str(caught.value) == f"nfe={nfe}: give {CALLS}"
  config = changed(run.config, "evaluation.nfe", (1, nfe))
  with pytest.raises(UsageError, match=r"^evaluation.nfe=.*at most 1000000"):
    jaxflow.load(folder, config=config)


@pytest.mark.parametrize("command", ["sample", "pairs", "bench", "report"])
def test_calls_of_the_command_line(folder, tmp_path, command):
  arguments = [command, f"--workdir={folder}", "--nfe=10000000000"]
  if command in ("sample", "pairs"):
    arguments += [f"--out={tmp_path / 'out.npz'}", "--num=2"]
  refused(*arguments, words=[f"--nfe=10000000000: give {CALLS}"])
  assert not (tmp_path / "out.npz").exists()


def test_guidance_of_pairs_is_finite():
  with pytest.raises(UsageError, match=r"^guidance=nan: give a finite number"):
    PairOptions(guidance=np.nan)


@pytest.mark.parametrize(("start", "end"), [(0.8, 0.2), (1.5, 2), (-2, -1)])
def test_an_interval_without_times(folder, run, start, end):
  config = changed(run.config, "sample.guidance_start", start)
  config = changed(config, "sample.guidance_end", float(end))
  with pytest.raises(UsageError, match=f"^sample.guidance_start={start}"):
    jaxflow.load(folder, config=config)


def test_a_config_that_is_none(folder):
  with pytest.raises(UsageError, match=r"^config=\{\}: give a ConfigDict"):
    jaxflow.load(folder, config={})


# Fields that would be overwritten, or decide nothing.


@pytest.mark.parametrize(
  ("field", "value", "text"),
  [
    ("data.shape", (3,), "data.shape=(3,): this run sees (2,); "),
    ("data.num_classes", 3, "data.num_classes=3: this run sees 0; "),
    ("data.class_names", ("a",), "data.class_names=('a',): this run has 0 "),
    ("init.step", 3, "init.step=3 needs init.workdir: "),
    ("init.ema", "online", "init.ema='online' needs init.workdir: "),
    ("flow_map.name", "trajectory", "flow_map.name='trajectory': "),
    ("flow_map.name", "edm_denoiser", "flow_map.name='edm_denoiser': "),
    ("flow_map.name", "guided_velocity", "flow_map.name='guided_velocity': "),
    ("method", "shortcut", "method='shortcut' lacks "),
    ("method", "consistency_training", "method='consistency_training' lacks "),
  ],
)
def test_a_field_that_decides_nothing(tmp_path, field, value, text):
  if field == "flow_map.name":
    config = small()
    jaxflow.config.update(config, {"flow_map": {"name": value}})
  else:
    config = changed(small(), field, value)
  with pytest.raises(UsageError) as caught:
    jaxflow.train(config, tmp_path / "new")
  assert str(caught.value).startswith(text)
  assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("value", ["reflow", "score_matching"])
def test_the_method_stands_behind_the_config(tmp_path, value):
  workdir = f"--workdir={tmp_path / 'new'}"
  given = "--config=ring:flow_matching", f"--config.method={value}"
  text = f"--config.method={value}: give --config=NAME:{value}"
  refused("train", *given, workdir, words=[text])
  assert not (tmp_path / "new").exists()


def test_flow_maps_of_another_row_that_are_obeyed():
  """A flow is sampled by one step of any solver of its velocity."""
  for name in ("average_velocity", "ddim_step", "ode_step"):
    config = small()
    jaxflow.config.update(config, {"flow_map": {"name": name}})
    resolved = resolve(config, shape=(2,), num_classes=8, teacher=None)
    assert make_plan(resolved).sample.solver in (name, "euler")


def test_what_agrees_with_the_data_is_kept(run):
  assert run.config.data.shape == (2,) and run.config.data.num_classes == 0
  assert jaxflow.train(run.config, log=lambda line: None).finished
  labelled = changed(run.config, "data.conditional", True)
  text = "data.num_classes=0: this run sees 8; give that, or None"
  with pytest.raises(UsageError, match=text):
    jaxflow.train(labelled)
  labelled.data.num_classes = 8
  made = jaxflow.train(labelled, log=lambda line: None)
  assert made.config.data.num_classes == 8


def test_every_class_has_a_name():
  config = changed(small(), "data.conditional", True)
  given = {"shape": (2,), "num_classes": 3, "teacher": None}
  for names in (("a", "b"), ("a", "b", "a")):
    wrong = changed(config, "data.class_names", names)
    text = "this run has 3 classes; give 3 different names, or None"
    with pytest.raises(UsageError, match=text):
      resolve(wrong, **given)
  named = changed(config, "data.class_names", ("a", "b", "c"))
  assert resolve(named, **given).data.class_names == ("a", "b", "c")


def test_the_config_of_another_teacher(folder):
  config = small("consistency_distillation")
  config.teacher.workdir = str(folder)
  student = jaxflow.train(config, log=lambda line: None)
  assert jaxflow.train(student.config, log=lambda line: None).finished
  other = student.config.copy_and_resolve_references().unlock()
  other.teacher.config.seed = 5
  with pytest.raises(
    UsageError, match=r"^teacher\.config: teacher.workdir has"
  ):
    jaxflow.train(other)


# Folders: of this machine, written as for a shell.

BUCKET = "gs://bucket/x"
NO_URL = "give a path of this machine; buckets and URLs cannot be opened"


@pytest.mark.parametrize(
  "path", [BUCKET, "s3://b", pathlib.Path(BUCKET), "hdfs://host/x", "$AT/x"]
)
def test_urls_are_no_folders(tmp_path, monkeypatch, path):
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv("AT", "gs://bucket")
  for enter in (
    lambda: jaxflow.train(small(), path),
    lambda: jaxflow.load(path),
    lambda: data.load("latents", "train", data_dir=str(path)),
  ):
    with pytest.raises(UsageError, match=NO_URL):
      enter()
  assert not list(tmp_path.iterdir())


def test_every_flag_of_a_path_is_known():
  """The help of one begins with what it is: a folder, a file or a run."""
  begins = re.compile(
    r"(an?|another|the)? ?(trained )?[.\w ]*(folder|file|run)\b"
  )
  for name in main.COMMANDS:
    values = command_flags.defined(main.command_of(name))
    for flag in {*values} - {"config", "config.FIELD", "latents", "shard_size"}:
      found = begins.match(values[flag].help)
      assert not found or flag in command_flags.PATHS, (name, flag, found)


@pytest.mark.parametrize(
  ("command", "flag"),
  [
    *((c, "workdir") for c in ("sample", "evaluate", "bench", "report")),
    *((c, "workdir") for c in ("train", "rectify", "pairs")),
    *(("sample", "out"), ("stats", "out"), ("pairs", "out"), ("encode", "out")),
    *(("rectify", "teacher"), ("bench", "teacher")),
    *(("encode", "autoencoder"), ("encode", "data_dir"), ("encode", "raw_dir")),
  ],
)
def test_urls_are_no_flags(tmp_path, monkeypatch, command, flag):
  monkeypatch.chdir(tmp_path)
  described = main.command_of(command)
  given = {name: "x" for name in described.required} | {flag: BUCKET}
  arguments = [f"--{name}={value}" for name, value in given.items()]
  if described.takes_config:
    arguments.append("--config=ring:reflow")
  refused(command, *arguments, words=[f"--{flag}='{BUCKET}': {NO_URL}"])
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
  "field",
  [
    *("data.raw_dir", "data.data_dir", "init.workdir", "teacher.workdir"),
    *("evaluation.reference", "features.workdir", "data.pairs"),
    "evaluation.network.file",
  ],
)
def test_urls_are_no_fields(tmp_path, monkeypatch, field):
  monkeypatch.chdir(tmp_path)
  config = small("slim_flow")
  network = {"name": "classifier", "file": "x.npz"}
  jaxflow.config.update(config, {"evaluation": {"network": network}})
  config = changed(config, field, BUCKET)
  with pytest.raises(UsageError) as caught:
    jaxflow.train(config, "new")
  assert str(caught.value) == f"{field}='{BUCKET}': {NO_URL}"
  assert not list(tmp_path.iterdir())


def test_paths_are_expanded(folder, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv("HOME", str(folder.parent))
  monkeypatch.setenv("RUNS", str(folder.parent))
  for path in ("~/run", "$RUNS/run", "${RUNS}/run"):
    assert jaxflow.load(path).workdir == folder
    out = f"--out=$RUNS/{tmp_path.name}.npz"
    result = tiny.run("sample", f"--workdir={path}", out, "--num=2")
    assert (
      result.code == 0 and (folder.parent / f"{tmp_path.name}.npz").exists()
    )
    config = changed(small(), "init.workdir", path)
    assert sources(config)["init"].workdir == str(folder)
    config = changed(small(), "data.data_dir", path)
    assert data_plan(config).data_dir == str(folder)
  assert not list(tmp_path.iterdir())


def test_a_variable_that_is_not_set(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  monkeypatch.delenv("NOWHERE", raising=False)
  text = "set $NOWHERE"
  with pytest.raises(UsageError) as caught:
    jaxflow.train(small(), "$NOWHERE/x")
  assert str(caught.value) == f"workdir='$NOWHERE/x': {text}"
  config = changed(small(), "init.workdir", "$NOWHERE/x")
  with pytest.raises(UsageError, match=r"^init\.workdir='.NOWHERE/x': set"):
    jaxflow.train(config, "new")
  assert not list(tmp_path.iterdir())


def test_a_user_that_is_not_there(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  text = "there is no user nobody-here; ./~nobody-here/x is that folder"
  with pytest.raises(UsageError) as caught:
    jaxflow.train(small(), "~nobody-here/x")
  assert str(caught.value) == f"workdir='~nobody-here/x': {text}"
  assert not list(tmp_path.iterdir())
  # The shell leaves these alone as well.
  for path in ("./~nobody-here/x", "cost$5", "x~"):
    assert local_path(path) == pathlib.Path(path)


@pytest.mark.parametrize(
  ("field", "meant"),
  [
    ("train.stepz", "did you mean train.steps?"),
    ("sampel.nfe", "did you mean sample.nfe?"),
    ("guidance", "did you mean sample.guidance?"),
    ("flow_map.solver.steps", "there are flow_map.solver.name"),
    ("ema.sampling", "did you mean ema.sampling.name?"),
    ("ema.a", "there are ema.sampling.name, ema.sampling."),
    ("sample.sampler.eta", "there are sample.sampler.name"),
    ("z", "there are loss.p, sample.guidance, "),
    ("teacher.workdir", "this method, data set or network has no section tea"),
  ],
)
def test_a_misspelt_field(field, meant):
  fields = (
    *("loss.p", "sample.guidance", "sample.nfe", "sample.sampler.name"),
    *("sample.ema", "train.steps", "flow_map.solver.name"),
    *("ema.sampling.name", "ema.sampling.width"),
  )
  assert hint(field, fields).startswith(meant)
