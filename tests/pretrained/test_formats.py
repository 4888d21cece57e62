"""Published networks, read and written."""

import hashlib
import json
import math
import os
import pickle
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import published_dits
import pytest
import torch_bytes

import jaxflow
from jaxflow import models
from jaxflow.config import update
from jaxflow.errors import UsageError
from jaxflow.models.embeddings import position_table
from jaxflow.pretrained import formats

SMALL = {"width": 128, "depth": 2, "patch": 2, "side": 8, "channels": 4}


def tensors(**changes):
  options = {**SMALL, "classes": 5, "variance": True, **changes}
  return published_dits.tensors_of(**options, rng=np.random.default_rng(0))


def saved(tmp_path, made, name="net.npz"):
  path = tmp_path / name
  np.savez(path, **made)
  return path


def network_of(imported, params=None):
  """The network that an import names, with its parameters."""
  options = dict(imported.sections["model"])
  network = getattr(models, options.pop("name"))(
    **options, data_shape=imported.shape, num_classes=imported.num_classes
  )
  params = imported.params if params is None else params
  return lambda *args: network.apply(params, *args)


@pytest.mark.parametrize("patch", [2, 4, 8])
@pytest.mark.parametrize("variance", [True, False])
def test_dit_is_the_published_network(tmp_path, patch, variance):
  made = tensors(patch=patch, variance=variance)
  imported = formats.format_of("dit").read(saved(tmp_path, made))
  rng = np.random.default_rng(1)
  x = rng.normal(size=(3, 4, 8, 8)).astype(np.float32)
  t, label = np.array([0.0, 417.0, 999.0]), np.array([0, 4, 5])
  expected = published_dits.forward(made, x, t, label, heads=2)[:, :4]
  time = jnp.asarray(t, jnp.float32)
  found = network_of(imported)(
    jnp.asarray(x.transpose(0, 2, 3, 1)), time, time, jnp.asarray(label)
  )
  found = np.asarray(found).transpose(0, 3, 1, 2)
  assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()
  assert imported.num_classes == 5


def test_sit_runs_from_data_to_noise(tmp_path):
  made = tensors()
  imported = formats.format_of("sit").read(saved(tmp_path, made))
  rng = np.random.default_rng(1)
  x = rng.normal(size=(3, 4, 8, 8)).astype(np.float32)
  # Its time 0 is noise, its velocity data minus noise.
  t, label = np.array([0.0, 0.25, 1.0]), np.array([0, 4, 5])
  expected = -published_dits.forward(made, x, t, label, heads=2)[:, :4]
  time = jnp.asarray(1 - t, jnp.float32)
  found = network_of(imported)(
    jnp.asarray(x.transpose(0, 2, 3, 1)), time, time, jnp.asarray(label)
  )
  found = np.asarray(found).transpose(0, 3, 1, 2)
  assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()


# The published counts, learned variance and positions included: the paper's
# table 1 in millions, of XL/2 the exact one of the released code.
PUBLISHED = {"S": 33, "B": 130, "L": 458, "XL": 675}
EXACT = {"XL": 675_129_632}


@pytest.mark.parametrize("size", PUBLISHED)
def test_counts_are_the_published_ones(size):
  network = models.dit(
    **models.SIZES[size],
    data_shape=(32, 32, 4),
    patch_size=2,
    num_classes=1000,
    second_time=False,
    learned_variance=True,
    scan_layers=True,
  )
  shapes = jax.eval_shape(network.init, jax.random.key(0))
  count = sum(math.prod(x.shape) for x in jax.tree.leaves(shapes))
  count += position_table((16, 16), models.SIZES[size]["width"]).size
  assert abs(count / 1e6 - PUBLISHED[size]) < 1
  assert count == EXACT.get(size, count)


@pytest.mark.parametrize("name", ["dit", "sit"])
def test_what_is_written_is_what_was_read(tmp_path, name):
  made = tensors()
  form = formats.format_of(name)
  imported = form.read(saved(tmp_path, made))
  model = {
    **imported.sections["model"],
    "data_shape": imported.shape,
    "num_classes": imported.num_classes,
  }
  written = form.write(model, imported.params)
  assert written.keys() == made.keys()
  for name, tensor in made.items():
    if name == "pos_embed":
      assert np.abs(written[name] - tensor).max() < 1e-6
    else:
      assert np.array_equal(written[name], tensor), name
    assert written[name].flags.c_contiguous
  stacked = {
    **imported.params,
    "blocks": models.stack_blocks(imported.params["blocks"]),
  }
  again = form.write(model, stacked)
  assert all(np.array_equal(again[k], written[k]) for k in written)


def test_a_student_with_a_second_time_has_no_place_in_dit(tmp_path):
  imported = formats.format_of("dit").read(saved(tmp_path, tensors()))
  params = {**imported.params, "interval": imported.params["time"]}
  with pytest.raises(UsageError, match=r"^network: .* no name for .*interval"):
    formats.format_of("dit").write(
      {**imported.sections["model"], "data_shape": (8, 8, 4)}, params
    )


def test_another_architecture_is_refused_with_what_differs(tmp_path):
  made = tensors()
  made["blocks.1.attn.q_norm.weight"] = np.ones(64, np.float32)
  del made["blocks.0.mlp.fc1.bias"]
  made["blocks.0.attn.proj.bias"] = np.ones(7, np.float32)
  path = saved(tmp_path, made)
  with pytest.raises(UsageError) as caught:
    formats.format_of("dit").read(path)
  assert str(caught.value) == (
    f"path={path} holds another network: it lacks blocks.0.mlp.fc1.bias; it "
    "also has blocks.1.attn.q_norm.weight; blocks.0.attn.proj.bias is (7,) and "
    "not (128,); give the format that it has"
  )
  np.savez(path, weight=np.ones(3))
  with pytest.raises(UsageError, match=r"no tensor x_embedder.* no DiT"):
    formats.format_of("dit").read(path)
  turned = tensors()
  turned["pos_embed"] = turned["pos_embed"][..., ::-1]
  with pytest.raises(UsageError, match="sines and cosines"):
    formats.format_of("dit").read(saved(tmp_path, turned))


def test_a_pickle_with_a_foreign_class_is_refused_unrun(tmp_path):
  ran = tmp_path / "ran"

  class Bad:
    def __reduce__(self):
      return os.mkdir, (str(ran),)

  path = tmp_path / "bad.pt"
  with zipfile.ZipFile(path, "w") as archive:
    archive.writestr("archive/data.pkl", pickle.dumps({"x": Bad()}))
  with pytest.raises(UsageError, match=r"it asks for \w+\.mkdir, no tensor"):
    formats.format_of("dit").read(path)
  assert not ran.exists()


def test_a_checkpoint_of_training_gives_its_average_too(tmp_path):
  """As DiT's training writes it, its arguments beside the tensors."""
  averaged, trained = tensors(), tensors()
  trained = {name: 2 * x for name, x in trained.items()}
  trained["pos_embed"] = averaged["pos_embed"]
  contents, parts = {}, {}
  for part, arrays in (("model", trained), ("ema", averaged)):
    items = {}
    for name, x in arrays.items():
      key = str(len(contents))
      contents[key] = x.tobytes()
      place = torch_bytes.storage(key, x.size)
      strides = torch_bytes.contiguous(x.shape)
      items[name] = torch_bytes.tensor(place, x.shape, strides)
    parts[part] = torch_bytes.ordered_dict(items)
  told = b"}(" + torch_bytes.text("epochs") + torch_bytes.integer(3) + b"u"
  namespace = torch_bytes.name("argparse", "Namespace")
  parts["args"] = namespace + b")\x81" + told + b"b"
  path = tmp_path / "training.pt"
  torch_bytes.write_zip(path, torch_bytes.ordered_dict(parts), contents)
  imported = formats.format_of("dit").read(path)
  kernel = trained["final_layer.linear.weight"].T
  assert np.array_equal(imported.params["output"]["kernel"], kernel)
  average = imported.averages["sampling"]
  assert np.array_equal(average["output"]["kernel"], kernel / 2)


def test_an_import_samples_and_teaches_like_any_run(tmp_path):
  made = tensors(width=64, depth=1, channels=1, classes=10)
  path = saved(tmp_path, made)
  said = []
  digest = hashlib.sha256(path.read_bytes()).hexdigest()
  run = jaxflow.import_run(
    "dit", path, tmp_path / "run", data="digits", log=said.append
  )
  assert any(digest in line for line in said)
  samples = run.sample(3, labels=[0, 5, 9], nfe=2)
  assert samples.shape == (3, 8, 8, 1)
  record = json.loads((tmp_path / "run/import.json").read_text())
  assert (record["format"], record["sha256"]) == ("dit", digest)
  assert run.config.path.name == "discrete"
  student = jaxflow.preset("digits:consistency_distillation")
  update(
    student,
    {
      "model": {**run.config.model.to_dict()},
      "parameterization": {
        "name": "from_path",
        "source": run.config.path.to_dict(),
        "prediction": "noise",
      },
      "teacher": {"workdir": str(tmp_path / "run")},
      "train": {"steps": 1},
      "optimizer": {"warmup_steps": 0},
    },
  )
  told = []
  jaxflow.train(student, log=told.append)
  assert not any("warm start" in line for line in told)


def test_imports_are_refused_in_one_line_and_leave_nothing(tmp_path):
  path = saved(tmp_path, tensors())
  out = tmp_path / "run"
  for told, options in (
    (r"^file=.*its sha256 is \w{64}, not 00", {"sha256": "00"}),
    (r"^null_label=True: format='dit' knows", {"null_label": True}),
    (r"^format='dti' is unknown: did you mean 'dit'\?", {"format": "dti"}),
    (r"^file=.* cannot be read", {"file": tmp_path / "no.pt"}),
  ):
    given = {"format": "dit", "file": path, "workdir": out, **options}
    with pytest.raises(UsageError, match=told):
      jaxflow.import_run(**given, log=lambda line: None)
  assert [x.name for x in tmp_path.iterdir()] == ["net.npz"]
  out.mkdir()
  (out / "a").touch()
  with pytest.raises(UsageError, match=r"^workdir=.* is there already"):
    jaxflow.import_run("dit", path, out, log=lambda line: None)


def test_heads_of_no_published_size_are_assumed_or_given(tmp_path):
  path = saved(tmp_path, made := tensors())
  read = formats.format_of("dit").read
  assumed = [x for x in read(path).notes if "heads of" in x]
  assert len(assumed) == 1 and "2 heads of 64 features" in assumed[0]
  assert "no published size: heads of 64 features are assumed" in assumed[0]
  imported = read(path, heads=4)
  assert any("4 heads of 32 features: as given" in x for x in imported.notes)
  x = np.random.default_rng(1).normal(size=(1, 4, 8, 8)).astype(np.float32)
  t, label = np.array([417.0]), np.array([4])
  expected = published_dits.forward(made, x, t, label, heads=4)[:, :4]
  time = jnp.asarray(t, jnp.float32)
  found = network_of(imported)(
    jnp.asarray(x.transpose(0, 2, 3, 1)), time, time, jnp.asarray(label)
  )
  found = np.asarray(found).transpose(0, 3, 1, 2)
  assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()
  with pytest.raises(UsageError, match=r"^heads=3: give a divisor .* 128$"):
    read(path, heads=3)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused(tmp_path, value):
  made = tensors()
  made["blocks.1.mlp.fc1.bias"][3] = value
  with pytest.raises(UsageError, match=r"blocks\.1\.mlp\.fc1\.bias .* finite"):
    formats.format_of("dit").read(saved(tmp_path, made))


@pytest.mark.parametrize("name", ["dit", "edm", "meanflow"])
def test_a_file_of_one_array_is_no_file_of_weights(tmp_path, name):
  np.save(tmp_path / "tab.npy", np.ones(3))
  with pytest.raises(UsageError, match=r"it is no file of weights: give .*;"):
    formats.format_of(name).read(tmp_path / "tab.npy")


@pytest.mark.parametrize(
  ("changes", "told"),
  [
    ({"channels": 3}, r"samples \(8, 8, 1\), the network \(8, 8, 3\): give"),
    ({"channels": 1, "classes": 5}, "10 classes, the network 5: give"),
  ],
)
def test_the_data_are_those_of_the_network(tmp_path, changes, told):
  made = tensors(width=64, depth=1, **{"classes": 10, **changes})
  path, out = saved(tmp_path, made), tmp_path / "run"
  with pytest.raises(UsageError, match=f"^data.name='digits' has {told}"):
    jaxflow.import_run("dit", path, out, data="digits", log=lambda line: None)
  assert not out.exists()


def test_a_set_that_is_not_there_is_no_hindrance(tmp_path):
  path = saved(tmp_path, tensors(width=64, depth=1, channels=3, classes=10))
  said, empty = [], tmp_path / "empty"
  empty.mkdir()
  jaxflow.import_run(
    *("dit", path, tmp_path / "run"),
    **{"data": "cifar10", "data_dir": empty, "log": said.append},
  )
  assert any("is not compared with its data" in line for line in said)
