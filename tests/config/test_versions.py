"""Runs that earlier versions made: tests/stored/README.md says which."""

import json
import logging
import pathlib
import tarfile

import jax
import numpy as np
import pytest
import tiny

import jaxflow
from jaxflow.config import (
  flatten,
  load_config,
  make_plan,
  save_config,
  versions,
)
from jaxflow.errors import UsageError

STORED = pathlib.Path(__file__).parents[1] / "stored"
CONFIGS = sorted(STORED.glob("*/*.json"))
GONE = {"evaluation.draws", "evaluation.frechet_num"}
# What db7c611 did not have, with the defaults of the commits that added it.
ABSENT = {
  "adapter.name": "none",
  "data.background": [255, 255, 255],
  "data.channels": None,
  "data.cond_offset": None,
  "data.cond_scale": None,
  "data.dtype": None,
  "data.file": None,
  "data.normalise": None,
  "data.order": "shuffled",
  "data.offset": None,
  "data.range": None,
  "data.scale": None,
  "data.class_names": None,
  "data.config": None,
  "data.coupling.rows": 0,
  "data.coupling.within_class": True,
  "data.crop": "centre",
  "data.dir": None,
  "data.download": False,
  "data.flip": False,
  "data.hub": None,
  "data.image": None,
  "data.label": None,
  "data.max_broken": 0,
  "data.ram_gib": 4.0,
  "data.size": None,
  "data.split.test": None,
  "data.split.train": None,
  "data.stored_dir": None,
  "data.test_share": None,
  "data.threads": 0,
  "evaluation.batch_size": 256,
  "evaluation.during.best": "",
  "evaluation.during.every": 0,
  "evaluation.during.metrics": "",
  "evaluation.during.nfe": [1],
  "evaluation.during.num": 1000,
  "evaluation.during.share": 0.1,
  "evaluation.flow.levels": 0,
  "evaluation.flow.num": 256,
  "evaluation.flow.probes": 1,
  "evaluation.flow.steps": 32,
  "evaluation.kept": 10_000,
  "evaluation.metrics": "",
  "evaluation.network.name": "none",
  "evaluation.reference": "",
  "evaluation.split": "test",
  "loss.loss_space": None,
  "loss.reduction": "mean",
  "train.only": "",
  "train.prng": "threefry2x32",
  "train.schedule_steps": 0,
}
# The quick ones of each commit.
SAMPLED = [
  ("1f9fb9b", "flow_matching"),
  ("1f9fb9b", "mean_flow"),
  ("ba9c613", "consistency_trajectory"),
  ("f92a923", "flow_matching"),
  ("f92a923", "reflow"),
]


def read(commit, name):
  return json.loads((STORED / commit / f"{name}.json").read_text())


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
  """The folders of runs by commit."""
  made = {}
  for archive in STORED.glob("*.tar.gz"):
    folder = tmp_path_factory.mktemp(archive.name.partition(".")[0])
    with tarfile.open(archive) as opened:
      opened.extractall(folder, filter="data")
    made[archive.name.partition(".")[0]] = folder / "runs"
  return made


@pytest.mark.parametrize(
  "file", CONFIGS, ids=lambda file: f"{file.parent.name}-{file.stem}"
)
def test_config_opens(file):
  values = json.loads(file.read_text())
  config = versions.upgraded(values)
  plan = make_plan(config)
  assert plan.model.name == values["method"]
  stored, opened = flatten(values), flatten(config.to_dict())
  kept = {k: v for k, v in stored.items() if k not in GONE}
  if file.parent.name == "db7c611" and file.stem == "digits_unet":
    # Images of 8 pixels have no such height: it changed nothing.
    assert kept.pop("model.attention_resolutions") == [16]
    assert opened["model.attention_resolutions"] == []
  inner = ("teacher.config.", "features.config.")
  for name in GONE:
    for section in inner:
      kept.pop(section + name, None)
  assert {k: opened[k] for k in kept} == kept


def test_there_are_stored_configs():
  commits = {"db7c611", "1f9fb9b", "ba9c613", "f92a923"}
  assert {file.parent.name for file in CONFIGS} == commits
  assert len(CONFIGS) == 44


def test_absent_fields_take_their_first_defaults():
  values = read("db7c611", "flow_matching")
  assert not ABSENT.keys() & flatten(values).keys()
  opened = flatten(versions.upgraded(values).to_dict())
  assert {name: opened[name] for name in ABSENT} == ABSENT
  assert opened.keys() == (flatten(values).keys() | ABSENT.keys()) - GONE


def test_first_defaults_go_before_present_ones(monkeypatch):
  monkeypatch.setattr(versions, "FIRST_DEFAULTS", {"train.max_skipped": 7})
  values = read("f92a923", "flow_matching")
  assert versions.upgraded(values).train.max_skipped == 100
  del values["train"]["max_skipped"]
  assert versions.upgraded(values).train.max_skipped == 7


def test_gone_field_at_its_default_is_dropped_with_a_line(caplog):
  values = read("db7c611", "flow_matching")
  assert values["evaluation"]["draws"] == 4
  with caplog.at_level(logging.WARNING, logger="jaxflow"):
    config = versions.upgraded(values)
  assert "draws" not in config.evaluation
  lines = [r.getMessage() for r in caplog.records if "draws" in r.getMessage()]
  assert lines == ["config.json: evaluation.draws=4 is dropped: it is gone"]


def test_gone_field_in_use_is_refused():
  values = read("db7c611", "flow_matching")
  values["evaluation"]["draws"] = 8
  with pytest.raises(UsageError) as caught:
    versions.upgraded(values)
  assert str(caught.value) == (
    "evaluation.draws=8 of version 0.1.0 is no field of this code, version "
    f"{jaxflow.__version__}: open the run with the code that wrote it, or take "
    "out what was added"
  )


@pytest.mark.parametrize(
  ("place", "field"),
  [
    (("train",), "train.warp"),
    (("path",), "path.warp"),
    (("ema", "sampling"), "ema.sampling.warp"),
    ((), "warp"),
  ],
)
def test_unknown_field_is_refused(place, field, tmp_path):
  values = {"version": "7.1.0", **read("f92a923", "flow_matching")}
  section = values
  for name in place:
    section = section[name]
  section["warp"] = 2
  (tmp_path / "config.json").write_text(json.dumps(values))
  with pytest.raises(UsageError) as caught:
    load_config(tmp_path)
  message = str(caught.value)
  assert f"{field}=2 of version 7.1.0" in message
  assert f"version {jaxflow.__version__}" in message and "\n" not in message


def test_fields_of_a_teacher_are_upgraded_too():
  values = read("db7c611", "consistency_trajectory")
  teacher = values["teacher"]["config"]
  assert teacher["evaluation"]["draws"] == 4
  opened = versions.upgraded(values).teacher.config
  assert "draws" not in opened.evaluation and opened.evaluation.kept == 10_000
  teacher["train"]["warp"] = 2
  with pytest.raises(UsageError, match=r"train\.warp=2 of version 0\.1\.0"):
    versions.upgraded(values)


@pytest.mark.parametrize("name", ["flow_matching", "consistency_trajectory"])
def test_round_trip(tmp_path, name):
  config = versions.upgraded(read("f92a923", name)).lock()
  save_config(config, tmp_path / "config.json")
  values = json.loads((tmp_path / "config.json").read_text())
  assert next(iter(values)) == "version"
  assert values["version"] == jaxflow.__version__
  assert load_config(tmp_path).to_dict() == config.to_dict()


@pytest.mark.parametrize(("commit", "name"), SAMPLED)
def test_samples_are_those_of_the_commit(folders, commit, name, monkeypatch):
  monkeypatch.chdir(folders[commit].parent)
  run = jaxflow.load(f"runs/{name}")
  assert run.step == 20
  stored = tiny.arrays(STORED / commit / "samples.npz")
  for nfe in (1, 4):
    expected = stored[f"{name}_nfe{nfe}/samples"]
    samples = run.sample(8, nfe=nfe, seed=0, clip=False)
    np.testing.assert_allclose(samples, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["mean_flow", "reflow"])
def test_samples_of_one_key_come_again(folders, name):
  """db7c611 drew the noise of a batch from one key."""
  run = jaxflow.load(folders["db7c611"] / name)
  noise_key, step_key = jax.random.split(jax.random.key(0))
  noise = jax.random.normal(noise_key, (8, 2))
  stored = tiny.arrays(STORED / "db7c611/samples.npz")
  for nfe in (1, 4):
    expected = stored[f"{name}_nfe{nfe}/samples"]
    samples = run.run.make_sampler(nfe)(run.params, noise, step_key, None)
    np.testing.assert_allclose(samples, expected, rtol=1e-5, atol=1e-5)


def longer(run, steps):
  config = run.config.copy_and_resolve_references()
  with config.unlocked():
    config.train.steps = steps
    config.checkpoint.every = 10
  return config


def parameters(run):
  return jax.tree.leaves(run.params)


def test_run_goes_on_as_one_of_today(folders, tmp_path):
  stored = jaxflow.load(folders["f92a923"] / "mean_flow")
  lines = []
  config = longer(stored, 20)
  fresh = jaxflow.train(config, tmp_path / "fresh", log=lines.append)
  for new, old in zip(parameters(fresh), parameters(stored), strict=True):
    np.testing.assert_allclose(new, old, rtol=1e-4, atol=1e-6)
  both = []
  for folder in (folders["f92a923"] / "mean_flow", tmp_path / "fresh"):
    lines.clear()
    run = jaxflow.train(longer(stored, 30), folder, log=lines.append)
    assert "resumed at step 20" in "\n".join(lines)
    assert run.step == 30 and run.finished
    both.append(parameters(run))
  for new, old in zip(*both, strict=True):
    np.testing.assert_allclose(new, old, rtol=1e-4, atol=1e-6)
  values = json.loads((folder / "config.json").read_text())
  assert values["version"] == jaxflow.__version__
  assert jaxflow.load(folders["f92a923"] / "mean_flow").step == 30


def test_run_before_versions_goes_on(folders):
  folder = folders["db7c611"] / "flow_matching"
  config = longer(jaxflow.load(folder), 30)
  run = jaxflow.train(config, folder, log=lambda line: None)
  assert run.step == 30
  assert all(np.isfinite(x).all() for x in parameters(run))
  assert "draws" not in json.loads((folder / "config.json").read_text())


def test_run_is_evaluated(folders):
  folder = folders["ba9c613"] / "flow_matching"
  config = load_config(folder).copy_and_resolve_references()
  with config.unlocked():
    config.evaluation.num = 50
    config.evaluation.flow.num = 0
    config.evaluation.metrics = "sliced_wasserstein"
  (row,) = jaxflow.load(folder, config=config).evaluate(nfe=(1,))
  assert row["nfe"] == 1 and row["step"] == 20
  score = row["scores"]["sliced_wasserstein"]
  assert score.value > score.real > 0
  values = json.loads((folder / "evaluation.json").read_text())
  assert values["version"] == jaxflow.__version__
  assert values["rows"][0]["scores"]["sliced_wasserstein"]["value"] == (
    score.value
  )
