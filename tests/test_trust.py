"""Files of strangers run nothing: docs/trust.md says which, and how.

The probes are harmless: code that would run leaves a file named `flag`.
"""

import io
import json
import pathlib
import shutil
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
import tiny
from PIL import Image

import jaxflow
from jaxflow import data as jdata
from jaxflow.config import data_plan, default_config, load_config, resolve
from jaxflow.config.files import save_config
from jaxflow.data.folders.shard_folder import ShardFolder
from jaxflow.data.sets import tfds_builders
from jaxflow.errors import UsageError
from jaxflow.evaluation import streams
from jaxflow.evaluation.statistics import read_statistics
from jaxflow.runs.inputs import load_data

NAME = "two_grays"
FEATURES = "tensorflow_datasets.core.features."
QUICK = ("--nfe=1", "--config.evaluation.metrics=sliced_wasserstein")
ADVICE = ("if you trust that folder", "--config.data.data_dir", "TFDS_DATA_DIR")


class TwoGrays(tfds.core.GeneratorBasedBuilder):
  """Forty pictures of 2 x 2 gray pixels."""

  VERSION = tfds.core.Version("1.0.0")

  def _info(self):
    features = {
      "image": tfds.features.Image(shape=(2, 2, 1)),
      "label": tfds.features.ClassLabel(num_classes=2),
    }
    return tfds.core.DatasetInfo(
      builder=self, features=tfds.features.FeaturesDict(features)
    )

  def _split_generators(self, dl_manager):
    return {x: self._generate_examples() for x in ("train", "test")}

  def _generate_examples(self):
    for i in range(40):
      file = io.BytesIO()
      Image.fromarray(np.full((2, 2), 6 * i, np.uint8)).save(file, "PNG")
      file.seek(0)
      yield i, {"image": file, "label": i % 2}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
  """A set in `sets`, a run on it in `run`, and nothing of it in this process.

  TFDS then knows the set by its files alone, as that of a stranger.
  """
  folder = tmp_path_factory.mktemp("trust")
  tfds.disable_progress_bar()
  with tiny.quiet():
    jdata.load(NAME, "train", data_dir=str(folder / "sets"), download=True)
  del tfds.core.registered._DATASET_REGISTRY[NAME]
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(tiny, "CONFIG", tiny.CONFIG.replace("ring", NAME))
    place = f"data.data_dir={folder / 'sets'}"
    tiny.train(folder, "run", "flow_matching", "train.steps=5", place)
  return folder


@pytest.fixture
def probe(tmp_path, monkeypatch):
  """A module that Python finds, and that leaves the flag when imported."""
  flag = tmp_path / "flag"
  (tmp_path / "trust_probe.py").write_text(
    "import pathlib\n"
    "import tensorflow_datasets as tfds\n"
    f"pathlib.Path({str(flag)!r}).touch()\n"
    "class Image(tfds.features.Image): pass\n"
    "class FeaturesDict(tfds.features.FeaturesDict): pass\n"
  )
  monkeypatch.syspath_prepend(tmp_path)
  yield flag
  sys.modules.pop("trust_probe", None)
  registered = tfds.features.FeatureConnector._registered_features
  for name in [name for name in registered if name.startswith("trust_probe")]:
    del registered[name]


class Flag:
  """An object whose pickle leaves the flag where it is read."""

  def __init__(self, path):
    self.path = path

  def __reduce__(self):
    return pathlib.Path.touch, (self.path,)


def evaluate(workdir, *flags):
  return tiny.run("evaluate", f"--workdir={workdir}", *QUICK, *flags)


def change(file, change):
  """Change the values of a JSON file in place."""
  values = json.loads(file.read_text())
  change(values)
  file.write_text(json.dumps(values))


def foreign_class(values):
  values["pythonClassName"] = "trust_probe.FeaturesDict"


def foreign_feature(values):
  image = values["featuresDict"]["features"]["image"]
  image["pythonClassName"] = "trust_probe.Image"


def foreign_class_as_tfds_3_wrote_it(values):
  values.clear()
  image = {"shape": [2, 2, 1], "dtype": "uint8", "encoding_format": "png"}
  content = {"image": {"type": "trust_probe.Image", "content": image}}
  kind = f"{FEATURES}features_dict.FeaturesDict"
  values.update(type=kind, content=content)


def foreign_class_in_text(values):
  """JSON in JSON: TFDS reads that as well."""
  values["pythonClassName"] = f"{FEATURES}sequence_feature.Sequence"
  del values["featuresDict"]
  inner = {"type": "trust_probe.Image", "content": {}}
  text = json.dumps({"feature": inner, "length": None})
  values["jsonFeature"] = {"json": text}


def copy_of_sets(world, tmp_path, changed):
  sets = shutil.copytree(world / "sets", tmp_path / "sets")
  change(sets / NAME / "1.0.0" / "features.json", changed)
  return str(sets)


@pytest.mark.parametrize(
  "changed",
  [
    *(foreign_class, foreign_feature, foreign_class_in_text),
    foreign_class_as_tfds_3_wrote_it,
  ],
)
@pytest.mark.parametrize("name", [NAME, f"{NAME}:1.0.0"])
def test_no_folder_of_data_imports_a_class(
  world, tmp_path, probe, changed, name
):
  """Not even one that the user names."""
  sets = copy_of_sets(world, tmp_path, changed)
  with pytest.raises(UsageError, match=r"names the class 'trust_probe\.") as e:
    jdata.load(name, "train", data_dir=sets)
  assert str(e.value).startswith(f"data.name={name!r}: features.json")
  assert not probe.exists()
  # The probe is one: by itself, TFDS imports it.
  tfds.features.FeatureConnector.cls_from_name("trust_probe.Image")
  assert probe.exists()


def test_a_received_run_opens_no_data_of_its_own(world, tmp_path, probe):
  workdir = shutil.copytree(world / "run", tmp_path / "run")
  sets = copy_of_sets(world, workdir, foreign_class)
  change(
    workdir / "config.json", lambda values: values["data"].update(data_dir=sets)
  )
  for flags in ([], ["--config.sample.batch_size=7"]):
    result = evaluate(workdir, *flags)
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert f"data.data_dir={sets!r}" in result.err
    assert all(word in result.err for word in ADVICE)
  result = tiny.run("report", f"--workdir={workdir}", "--num=20")
  assert result.code == 0, result.err
  page = (workdir / "report.html").read_text()
  assert "left out: data.data_dir=" in page
  # Whoever names the folder gets its data, and still none of its code.
  result = evaluate(workdir, f"--config.data.data_dir={sets}")
  assert result.code == 2 and "names the class" in result.err
  # What needs no data works.
  out = tmp_path / "a.npz"
  result = tiny.run("sample", f"--workdir={workdir}", "--num=2", f"--out={out}")
  assert result.code == 0, result.err
  assert not probe.exists()


def known(monkeypatch, *folders):
  """Let TFDS look in these folders, as $TFDS_DATA_DIR would."""
  monkeypatch.setattr(tfds_builders.file_utils, "_REGISTERED_DATA_DIRS", set())
  constants = tfds_builders.file_utils.constants
  first, *others = map(str, folders)
  monkeypatch.setattr(constants, "DATA_DIR", first)
  for folder in others:
    tfds.core.add_data_dir(folder)


def test_the_users_own_run_is_evaluated_and_resumed(world, monkeypatch):
  workdir, sets = world / "run", world / "sets"
  assert evaluate(workdir).code == 2
  # Repeated by a flag.
  flag = f"--config.data.data_dir={sets}"
  result = evaluate(workdir, flag)
  assert result.code == 0, result.err
  monkeypatch.setattr(tiny, "CONFIG", tiny.CONFIG.replace("ring", NAME))
  command = tiny.train_command(world, "run", "flow_matching")
  result = tiny.run(*command, flag, "--config.train.steps=10")
  assert result.code == 0, result.err
  # Where TFDS looks, or below.
  for folders in ([sets], [world], [world / "other", sets]):
    with monkeypatch.context() as patch:
      known(patch, *folders)
      run = jaxflow.load(workdir)
      assert run.config.data.stored_dir == str(sets)
      assert len(load_data(run.run.plan.data, "test")) == 40
  with monkeypatch.context() as patch:
    known(patch, sets / NAME)
    with pytest.raises(UsageError, match=r"data\.data_dir="):
      load_data(jaxflow.load(workdir).run.plan.data, "test")
  # A config that the user changes, and one that is trained again.
  run = jaxflow.load(workdir)
  with run.config.unlocked():
    run.config.data.data_dir = str(sets)
  named = jaxflow.load(workdir, config=run.config)
  assert len(load_data(named.run.plan.data, "test")) == 40
  with pytest.raises(UsageError, match=r"data\.data_dir="):
    jaxflow.train(jaxflow.load(workdir).config)


def stored(folder, name="digits", **fields):
  """Return the data of a config that was stored with these fields."""
  config = default_config("flow_matching", data=name, model="mlp")
  config.data.update(**fields)
  config = resolve(config, shape=(8, 8, 1), num_classes=10, teacher=None)
  save_config(config, folder / "config.json")
  return data_plan(load_config(folder))


@pytest.mark.parametrize("place", ["elsewhere", "home/../elsewhere"])
def test_a_received_run_writes_no_data_where_it_likes(
  tmp_path, monkeypatch, place
):
  """Digits are prepared once: where TFDS keeps its sets, or below it."""
  known(monkeypatch, tmp_path / "home")
  plan = stored(tmp_path, data_dir=str(tmp_path / place))
  with tiny.quiet():
    assert len(load_data(plan, "test")) == 360
  assert not (tmp_path / "elsewhere").exists()
  assert (tmp_path / "home").is_dir()
  plan = stored(tmp_path, data_dir=str(tmp_path / "home" / "mine"))
  with tiny.quiet():
    assert len(load_data(plan, "test")) == 360
  assert (tmp_path / "home" / "mine").is_dir()


def test_a_received_run_downloads_nothing(tmp_path, monkeypatch):
  known(monkeypatch, tmp_path)
  asked = []
  monkeypatch.setattr(tfds_builders, "unreachable", asked.append)
  plan = stored(tmp_path, "cifar10", download=True)
  with pytest.raises(UsageError, match=r"set data\.download=True"):
    load_data(plan, "test")
  assert not asked


def test_a_download_that_is_no_bool(tmp_path):
  stored(tmp_path, NAME, download=True)
  change(tmp_path / "config.json", lambda x: x["data"].update(download="x"))
  with pytest.raises(UsageError, match=r"data\.download='x'"):
    load_config(tmp_path)


@pytest.mark.parametrize("place", ["a\0b", "~no_such_user/x", "s3://b/x", "/"])
def test_places_that_are_none(tmp_path, place):
  plan = stored(tmp_path, NAME, data_dir=place)
  with pytest.raises(UsageError, match=r"data\.data_dir="):
    load_data(plan, "test")


def test_the_configs_in_a_config_are_a_strangers_too(tmp_path):
  """A student's teacher, for one."""
  (folder := tmp_path / "teacher").mkdir()
  stored(folder, data_dir="/x", download=True)
  values = json.loads((folder / "config.json").read_text())
  teacher = load_config(folder)
  student = default_config(
    "consistency_distillation", data="digits", model="mlp"
  )
  student = resolve(student, shape=(8, 8, 1), num_classes=10, teacher=teacher)
  save_config(student, tmp_path / "config.json")
  change(tmp_path / "config.json", lambda x: x["teacher"].update(config=values))
  found = load_config(tmp_path).teacher.config.data
  assert (found.data_dir, found.stored_dir) == (None, "/x")
  assert not found.download


def test_a_checkpoint_of_a_stranger_imports_nothing(world, tmp_path, probe):
  """It names the classes that wrote its parts, and the types of its leaves."""
  for kind in ("handlers", "types"):
    workdir = shutil.copytree(world / "run", tmp_path / kind)
    for step in (workdir / "checkpoints").iterdir():
      if kind == "handlers":
        handlers = dict.fromkeys(("data", "state"), "trust_probe.Image")
        change(
          step / "_CHECKPOINT_METADATA",
          lambda values, new=handlers: values.update(item_handlers=new),
        )
        continue
      text = (step / "state" / "_METADATA").read_text()
      assert '"jax.Array"' in text
      text = text.replace('"jax.Array"', '"trust_probe.Image"')
      (step / "state" / "_METADATA").write_text(text)
    out = f"--out={tmp_path / 'a.npz'}"
    result = tiny.run("sample", f"--workdir={workdir}", "--num=2", out)
    # Orbax has no use for the first, and no handler for the second.
    assert result.code == {"handlers": 0, "types": 1}[kind], result.err
  assert not probe.exists()


def test_arrays_of_a_stranger_unpickle_nothing(tmp_path):
  """Statistics, and what an evaluation has kept of its work."""
  flag = tmp_path / "flag"
  program = np.array([Flag(flag)], dtype=object)
  file = tmp_path / "a.npz"
  np.savez(file, mu=program, sigma=program, seen=program)
  with pytest.raises(UsageError, match="cannot be read"):
    read_statistics(file, "inception")
  partial = streams.Partial(tmp_path, {})
  file.rename(partial._path)
  partial.load(None)
  assert not flag.exists()
  # The probe is one.
  with np.load(partial._path, allow_pickle=True) as arrays:
    arrays["mu"]
  assert flag.exists()


def test_shards_of_a_stranger_unpickle_nothing(tmp_path):
  flag = tmp_path / "flag"
  latents = {
    **dict.fromkeys(jdata.LatentFolder.HOLDS),
    **{"shape": [1], "num_classes": 0, "counts": {"train": 1, "test": 0}},
    **{"shard_size": 1, "dtype": "O", "data": "x", "autoencoder": "y"},
  }
  folder = jdata.LatentFolder(tmp_path, latents)
  np.save(folder.files("train").path(0), np.array([Flag(flag)], object))
  with pytest.raises(UsageError, match="is damaged"):
    folder.memory_map("train", 0)
  pairs = {
    **dict.fromkeys(jdata.Pairs.HOLDS),
    **{"shape": [1], "num_classes": 0, "num": 1, "shard_size": 1},
    **{"dtype": "O", "grid": {"name": "uniform"}, "workdir": "x"},
    "config": {"sample": {"grid": {"name": "uniform"}}},
  }
  folder = jdata.Pairs(tmp_path, pairs)
  folder.files.write(0, lambda path: write_record(path, b"x" * 16))
  with pytest.raises(UsageError, match="is damaged"):
    folder.load()
  assert not flag.exists()


def write_record(path, record):
  from array_record.python.array_record_module import ArrayRecordWriter

  writer = ArrayRecordWriter(str(path), "group_size:1,uncompressed")
  writer.write(record)
  writer.close()


def test_commands_in_messages_are_quoted(tmp_path):
  """Whoever copies the command of a message runs that command alone."""
  values = {**dict.fromkeys(jdata.LatentFolder.HOLDS), "data": "x; touch flag"}
  folder: ShardFolder = jdata.LatentFolder(tmp_path, values)
  assert "'--data=x; touch flag'" in folder.command()
