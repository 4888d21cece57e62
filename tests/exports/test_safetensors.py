"""A folder for a model hub is a run again."""

import json
import pathlib
import sys
import types

import numpy as np
import pytest
import tiny
from safetensors.numpy import load_file, save_file

import jaxflow
from jaxflow.errors import RunError, UsageError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """Return a folder with a run, its export, and the same of a student."""
  path = tmp_path_factory.mktemp("hub")
  workdir = tiny.train(path, "teacher", "flow_matching", "train.steps=10")
  run = jaxflow.load(workdir)
  run.evaluate(nfe=(1,))
  run.export("safetensors", path / "model", licence="cc-by-4.0")
  flags = f"teacher.workdir={path / 'model'}", "train.steps=5"
  student = tiny.train(path, "student", "consistency_distillation", *flags)
  jaxflow.load(student).export("safetensors", path / "of_student")
  return path


def test_it_samples_and_evaluates_as_the_run_does(folder):
  run, again = (jaxflow.load(folder / x) for x in ("teacher", "model"))
  assert again.step == 10
  tiny.assert_same_bits(again.params, run.params)
  np.testing.assert_array_equal(again.sample(5, seed=3), run.sample(5, seed=3))
  # Without a workdir: an evaluation would be written into the folder.
  score = again.evaluate(nfe=(1,))[0]["scores"]
  assert score == run.evaluate(nfe=(1,))[0]["scores"]


def test_names_are_readable_and_contiguous(folder):
  tensors = load_file(folder / "model" / "model.safetensors")
  names = set(tensors) - {"step"}
  assert names and all("/" not in x and "[" not in x for x in names)
  params = jaxflow.load(folder / "teacher").params
  for name in names:
    leaf = params
    for part in name.split("."):
      leaf = leaf[part]
    np.testing.assert_array_equal(tensors[name], leaf)


def test_it_teaches(folder):
  assert jaxflow.load(folder / "student").step == 5


def test_the_card_says_what_it_is(folder):
  text = (folder / "model" / "README.md").read_text()
  _, head, body = text.split("---\n", 2)
  fields = dict(line.split(": ", 1) for line in head.splitlines())
  assert json.loads(fields["license"]) == "cc-by-4.0"
  assert json.loads(fields["datasets"]) == ["ring"]
  (model,) = json.loads(fields["model-index"])
  scores = json.loads((folder / "teacher" / "evaluation.json").read_text())
  wanted = scores["rows"][0]["scores"]
  found = {x["type"]: x["value"] for x in model["results"][0]["metrics"]}
  assert found == {name: score["value"] for name, score in wanted.items()}
  assert "| metric | NFE | samples | real data |" in body
  assert "Lipman et al. 2022" in body


def test_no_folder_of_the_machine_is_told(folder):
  files = [*(folder / "of_student").iterdir()]
  assert len(files) == 3
  for path in files:
    assert str(folder).encode() not in path.read_bytes(), path
  assert jaxflow.load(folder / "of_student").sample(2).shape == (2, 2)


def test_a_hub_is_asked_only_by_name(folder, monkeypatch):
  asked = []

  def snapshot_download(name, *, revision, allow_patterns):
    asked.append((name, revision))
    if name != "owner/name":
      raise OSError("no such repository")
    return str(folder / "model")

  stand_in = types.SimpleNamespace(snapshot_download=snapshot_download)
  monkeypatch.setitem(sys.modules, "huggingface_hub", stand_in)
  assert jaxflow.load("hf://owner/name@v1").sample(2).shape == (2, 2)
  jaxflow.load(folder / "model")
  assert asked == [("owner/name", "v1")]
  for name, line in [
    ("hf://owner", "give hf://OWNER/NAME"),
    ("hf://owner/other", "cannot be downloaded .no such repository"),
  ]:
    with pytest.raises(UsageError, match=line):
      jaxflow.load(name)
  monkeypatch.setitem(sys.modules, "huggingface_hub", None)
  with pytest.raises(UsageError, match="needs the package huggingface_hub"):
    jaxflow.load("hf://owner/name")


def test_damage_is_one_line(folder, tmp_path):
  model = folder / "model"
  (tmp_path / "config.json").write_bytes((model / "config.json").read_bytes())
  tensors = load_file(model / "model.safetensors")
  name = min(set(tensors) - {"step"})

  def refused(changed):
    save_file(changed, pathlib.Path(tmp_path / "model.safetensors"))
    with pytest.raises(RunError) as caught:
      jaxflow.load(tmp_path)
    return str(caught.value)

  assert "is no array" in refused(
    {k: v for k, v in tensors.items() if k != name}
  )
  assert "shape (3,)" in refused({**tensors, name: np.zeros(3, np.float32)})
  assert "more is no parameter" in refused({**tensors, "more": np.zeros(3)})


def test_another_step_is_refused(folder):
  with pytest.raises(UsageError, match="holds step 10 alone"):
    jaxflow.load(folder / "model", step=5)
