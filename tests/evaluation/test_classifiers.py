"""Classifiers of a data set: their training, and the file that keeps them."""

import json

import jax
import numpy as np
import pytest
import tiny

from jaxflow import data
from jaxflow.config import data_plan, default_config, evaluation_plan, resolve
from jaxflow.errors import RunError, UsageError
from jaxflow.evaluation import classifiers
from jaxflow.evaluation.networks import make_extractor
from jaxflow.models import classifier

SHAPE = (8, 8, 1)


def network(**options):
  options = {"width": 4, "train_steps": 2} | options
  return classifier(data_shape=SHAPE, num_classes=2, **options)


def halves(size=40, split="train", seed=0):
  """Images that are bright above, class 1, or below."""
  noise = np.random.default_rng(seed)
  label = np.arange(size) % 2
  images = noise.uniform(-1, 0, (size, *SHAPE))
  images[label == 1, :4] += 1
  images[label == 0, 4:] += 1
  return data.from_arrays(
    images, label, num_classes=2, name="halves", split=split
  )


def trained(folder, lines=None, train=None, **options):
  return classifiers.trained(
    network(**options),
    "halves",
    halves() if train is None else train,
    lambda: halves(30, "test", 1),
    folder,
    log=(lambda line: None) if lines is None else lines.append,
  )


@pytest.fixture
def untrained(monkeypatch):
  """Take first parameters for trained ones: what is kept is the same."""

  def fit(network, train):
    del train
    params = network.init(jax.random.key(network.seed))
    return jax.tree.map(np.asarray, params)

  monkeypatch.setattr(classifiers, "fit", fit)
  monkeypatch.setattr(classifiers, "_accuracy", lambda *_: 0.75)


def config_of(name, folder, shape):
  config = default_config("mean_flow", data=name, model="mlp")
  config.data.data_dir = str(folder)
  # The run sees no labels, its classifier does.
  config.data.conditional = False
  return resolve(config, shape=shape, num_classes=0, teacher=None)


def plans_of(config, **network):
  """The plans of an evaluation, with this network, and of the data."""
  if network:
    with config.unlocked(), config.ignore_type():
      config.evaluation.network = network
  return evaluation_plan(config), data_plan(config)


def test_digits_are_recognised(tmp_path):
  lines = []
  with tiny.quiet():
    config = config_of("digits", tmp_path / "data", SHAPE)
    extractor = make_extractor(
      *plans_of(config, name="classifier", width=8, train_steps=300),
      tmp_path / "evaluation",
      log=lines.append,
    )
    train, test = (
      data.load("digits", split, data_dir=config.data.data_dir)
      for split in ("train", "test")
    )
  seen = jax.jit(extractor.apply)(extractor.params, test.data)
  assert seen["features"].shape == (360, 64)
  right = np.mean(np.argmax(seen["classes"], axis=1) == test.label)
  assert right >= 0.97
  # Far fewer errors than the nearest mean of a class makes.
  means = [train.data[train.label == k].mean(0).ravel() for k in range(10)]
  far = [((test.data.reshape(360, -1) - mean) ** 2).sum(1) for mean in means]
  nearest = np.mean(np.argmin(far, axis=0) == test.label)
  assert 1 - right < (1 - nearest) / 3
  assert len(lines) == 1
  assert lines[0].startswith("digits_classifier, trained 300 steps in ")
  assert lines[0].endswith(
    f": recognises {100 * right:.1f} % of held-out images"
  )
  assert (tmp_path / "evaluation/digits_classifier.npz").is_file()
  assert extractor.name == "digits_classifier"


def test_kept_classifier_is_not_trained_again(tmp_path, untrained, monkeypatch):
  lines = []
  first = trained(tmp_path, lines)
  monkeypatch.setattr(classifiers, "fit", None)
  again = trained(tmp_path, lines)
  assert again.sha256 == first.sha256
  jax.tree.map(np.testing.assert_array_equal, again.params, first.params)
  path = tmp_path / "halves_classifier.npz"
  assert lines[1].startswith(f"halves_classifier from {path}: recognises ")
  # The accuracy is kept too.
  assert lines[1].rpartition(": ")[2] == lines[0].rpartition(": ")[2]
  assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_training_follows_from_data_and_seed(tmp_path):
  hashes = [
    trained(tmp_path / str(i), seed=seed).sha256
    for i, seed in enumerate((0, 0, 1))
  ]
  assert hashes[0] == hashes[1] != hashes[2]


@pytest.mark.parametrize(
  "damage", ["cut", "text", "empty", "shape", "about", "value"]
)
def test_damaged_file_is_said_and_made_again(tmp_path, untrained, damage):
  lines = []
  first = trained(tmp_path, lines)
  path = tmp_path / "halves_classifier.npz"
  content = path.read_bytes()
  with np.load(path) as arrays:
    kept = dict(arrays)
  if damage in ("shape", "about"):
    place = "output/bias" if damage == "shape" else "about"
    kept[place] = np.zeros(3, np.float32)
    np.savez(path, **kept)
  elif damage == "value":
    kept["output/bias"][0] += 1.0
    np.savez(path, **kept)
  else:
    cases = {"cut": content[: len(content) // 2], "text": b"no", "empty": b""}
    path.write_bytes(cases[damage])
  again = trained(tmp_path, lines)
  assert again.sha256 == first.sha256
  assert lines[1].startswith(f"{path} is damaged (")
  assert lines[1].endswith("): the classifier is trained anew")
  assert len(lines) == 3 and "\n" not in "".join(lines)
  assert trained(tmp_path).sha256 == first.sha256


def test_other_options_are_another_classifier(tmp_path, untrained):
  lines = []
  trained(tmp_path)
  trained(tmp_path, lines, seed=3)
  path = tmp_path / "halves_classifier.npz"
  assert lines[0] == (
    f"{path} is another classifier (seed=0 for 3): it is trained anew"
  )
  with np.load(path) as arrays:
    assert json.loads(str(arrays["about"]))["seed"] == 3


def test_runs_share_a_file(tmp_path, untrained, monkeypatch):
  file = tmp_path / "shared/one.npz"
  first = trained(tmp_path / "a", file=str(file))
  monkeypatch.setattr(classifiers, "fit", None)
  assert trained(tmp_path / "b", file=str(file)).sha256 == first.sha256
  assert sorted(path.name for path in tmp_path.iterdir()) == ["shared"]
  # The classifier of other data is never overwritten.
  with pytest.raises(UsageError, match=r"file=.*another classifier \(digest="):
    trained(tmp_path, file=str(file), train=halves(seed=5))
  # Nor is a file of the user's.
  file.write_text("a letter")
  with pytest.raises(UsageError, match=r"is no classifier .* give one that"):
    trained(tmp_path, file=str(file))
  assert file.read_text() == "a letter"


def test_file_that_cannot_be_written(tmp_path, untrained):
  (tmp_path / "blocked").write_text("a file, no folder")
  with pytest.raises(RunError, match=r"cannot be written .* make its folder"):
    trained(tmp_path / "blocked")


def test_batches_are_epochs():
  rows = classifiers._batches(300, 5, 0)
  size = rows.shape[1]
  assert rows.shape[0] == 5 and size <= 300
  whole = 300 // size * size
  for start in range(0, 5 * size - whole + 1, whole):
    epoch = rows.ravel()[start : start + whole]
    assert len(set(epoch.tolist())) == whole


def test_no_network_is_none(tmp_path):
  config = config_of("ring", tmp_path, (2,))
  assert config.evaluation.network.to_dict() == {"name": "none"}
  assert make_extractor(*plans_of(config), tmp_path) is None


@pytest.mark.parametrize(
  ("data_name", "shape", "specification", "message"),
  [
    ("ring", (2,), {"name": "classifier"}, "data.name='ring' has no images"),
    ("ring", (2,), {"name": "inception"}, "shape \\(2,\\); set it to none"),
    ("digits", SHAPE, {"name": "inceptoin"}, "did you mean 'inception'"),
    (
      "digits",
      SHAPE,
      {"name": "inception"},
      "file is missing: give pt_inception",
    ),
    (
      *("digits", SHAPE),
      {"name": "inception", "file": "no.pth"},
      "evaluation.network: file=no.pth: there is no such file; get pt_incep",
    ),
    (
      *("digits", SHAPE),
      {"name": "classifier", "train_steps": 0},
      "evaluation.network: train_steps=0: give 1 or more",
    ),
    (
      *("digits", SHAPE),
      {"name": "classifier", "protocol": "adm"},
      "evaluation.network.protocol: 'classifier' has no such option",
    ),
  ],
)
def test_wrong_network(tmp_path, data_name, shape, specification, message):
  config = config_of(data_name, tmp_path, shape)
  with tiny.quiet(), pytest.raises(UsageError, match=message) as error:
    make_extractor(*plans_of(config, **specification), tmp_path)
  assert "\n" not in str(error.value)


def test_options_are_fields_of_the_config():
  config = default_config("mean_flow", data="digits", model="dit")
  config.evaluation.network = {"name": "classifier"}
  resolved = resolve(config, shape=SHAPE, num_classes=10, teacher=None)
  fields = resolved.evaluation.network.to_dict()
  assert set(fields) == {"name", "file", "width", "train_steps", "seed"}
  config.evaluation.network = {"name": "inception"}
  resolved = resolve(config, shape=SHAPE, num_classes=10, teacher=None)
  assert resolved.evaluation.network.to_dict() == {
    "name": "inception",
    "file": "",
    "protocol": "adm",
  }


def test_classifier_needs_labelled_images():
  with pytest.raises(UsageError, match="num_classes=0: a classifier needs"):
    classifier(data_shape=SHAPE, num_classes=0)
  with pytest.raises(UsageError, match=r"data_shape=\(2,\): a classifier sees"):
    classifier(data_shape=(2,), num_classes=2)
