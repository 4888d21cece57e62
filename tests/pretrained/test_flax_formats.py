"""Networks that were published in JAX, read and written."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax import serialization, traverse_util
from published_flax import Drifting, ImprovedMeanFlow, MeanFlow
from test_formats import network_of

import jaxflow
from jaxflow import models
from jaxflow.errors import UsageError
from jaxflow.models.generator_inputs import noise_labels
from jaxflow.pretrained import formats

SMALL = {"width": 128, "depth": 2, "patch": 2, "channels": 4, "classes": 5}


def tree_of(arrays):
  return traverse_util.unflatten_dict(arrays, sep="/")


def state_of(arrays, factor=0.5):
  """A Flax train state: `params` are `factor` times the average."""
  trained = {name: factor * x for name, x in arrays.items()}
  return {
    "step": 3,
    "params": tree_of(trained),
    "ema_params": tree_of(arrays),
    "opt_state": {"0": {"mu": tree_of(trained)}},
  }


def as_msgpack(folder, state):
  """As `flax.training.checkpoints` writes a file."""
  for step in (1, 20):
    made = state if step == 20 else {"step": step}
    data = serialization.msgpack_serialize(made)
    (folder / f"checkpoint_{step}").write_bytes(data)
  return folder


def as_orbax(folder, state):
  """As `flax.training.checkpoints` writes a folder of Orbax."""
  state = {**state, "opt_state": [state["opt_state"]["0"], None]}
  place = folder / "checkpoint_20"
  ocp.PyTreeCheckpointer().save(place, state)
  return folder


def images(batch=3, side=8, channels=4):
  rng = np.random.default_rng(1)
  return rng.normal(size=(batch, side, side, channels)).astype(np.float32)


def close(found, expected):
  error = np.abs(np.asarray(found) - expected).max()
  return error < 1e-5 * np.abs(expected).max()


TIMES = np.array([1.0, 0.7, 0.4]), np.array([0.0, 0.7, 0.1])
LABELS = np.array([0, 4, 5])


@pytest.mark.parametrize("save", [as_msgpack, as_orbax])
@pytest.mark.parametrize("patch", [2, 4])
def test_mean_flow_is_the_published_network(tmp_path, patch, save):
  arrays = MeanFlow.arrays(**{**SMALL, "patch": patch})
  path = save(tmp_path, state_of(arrays))
  imported = formats.format_of("meanflow").read(path, side=8)
  x, (t, r) = images(), TIMES
  given = [jnp.asarray(v, jnp.float32) for v in (x, t, r)]
  for params, factor in (
    (imported.averages["sampling"], 1),
    (imported.params, 0.5),
  ):
    made = {name: factor * array for name, array in arrays.items()}
    expected = MeanFlow.forward(made, x, t, r, LABELS, heads=2)
    found = jax.jit(network_of(imported, params))(*given, jnp.asarray(LABELS))
    assert close(found, expected)
  assert imported.num_classes == 5
  assert imported.latents == formats.TIMES_CONSTANT


# Millions of parameters: the paper's table of ImageNet models.
@pytest.mark.parametrize(
  ("size", "patch", "count"),
  [("B", 4, 131), ("B", 2, 131), ("M", 2, 308), ("L", 2, 459), ("XL", 2, 676)],
)
def test_counts_of_mean_flow_are_published(size, patch, count):
  network = models.dit(
    **models.SIZES[size],
    data_shape=(32, 32, 4),
    patch_size=patch,
    num_classes=1000,
    scan_layers=True,
  )
  assert abs(parameters(network) / 1e6 - count) < 1


def parameters(network):
  shapes = jax.eval_shape(network.init, jax.random.key(0))
  return sum(math.prod(x.shape) for x in jax.tree.leaves(shapes))


def described(imported):
  return {
    **imported.sections["model"],
    "data_shape": imported.shape,
    "num_classes": imported.num_classes,
  }


def test_mean_flow_is_written_as_it_was_read(tmp_path):
  arrays = MeanFlow.arrays(**SMALL)
  form = formats.format_of("meanflow")
  imported = form.read(as_msgpack(tmp_path, state_of(arrays, 1.0)), side=8)
  written = form.write(described(imported), imported.params)
  assert written.keys() == arrays.keys()
  assert all(np.array_equal(written[k], arrays[k]) for k in arrays)
  np.savez(tmp_path / "net.npz", **written)
  again = form.read(tmp_path / "net.npz", side=8)
  assert jax.tree.all(
    jax.tree.map(np.array_equal, again.params, imported.params)
  )


def test_a_mean_flow_samples_with_its_own_times(tmp_path):
  """One call: x = z - u(z, 1, 0), of the average."""
  arrays = MeanFlow.arrays(**SMALL)
  path = as_msgpack(tmp_path, state_of(arrays))
  said = []
  run = jaxflow.import_run(
    "meanflow", path, tmp_path / "run", side=8, log=said.append
  )
  record = json.loads((tmp_path / "run/import.json").read_text())
  assert any(record["sha256"] in line for line in said)
  noise = images()
  time, label = jnp.ones(3), jnp.asarray(LABELS)
  expected = noise - MeanFlow.forward(
    arrays, noise, np.ones(3), np.zeros(3), LABELS, heads=2
  )
  flow_map = jax.jit(run.flow_map())
  assert close(flow_map(jnp.asarray(noise), time, 0 * time, label), expected)
  assert run.sample(3, labels=[0, 4, 1]).shape == (3, 8, 8, 4)


def test_what_differs_is_said_in_one_line(tmp_path):
  arrays = MeanFlow.arrays(**SMALL)
  arrays["net/blocks/layers_1/attn/q_norm/kernel"] = np.ones(64, np.float32)
  del arrays["net/blocks/layers_0/mlp/fc1/_flax_linear/bias"]
  path = as_msgpack(tmp_path, state_of(arrays))
  read = formats.format_of("meanflow").read
  with pytest.raises(UsageError) as caught:
    read(path)
  assert str(caught.value) == (
    f"path={path} holds another network: it lacks blocks/layers_0/mlp/fc1/"
    "_flax_linear/bias; it also has blocks/layers_1/attn/q_norm/kernel; give "
    "the format that it has"
  )
  np.savez(tmp_path / "other.npz", weight=np.ones(3))
  with pytest.raises(
    UsageError, match=r"other.npz: it has no array net/x_embedder/proj/kernel"
  ):
    read(tmp_path / "other.npz")
  (tmp_path / "damaged").write_bytes(b"\x81\xa1")
  (tmp_path / "list").write_bytes(serialization.msgpack_serialize([1]))
  (tmp_path / "empty").mkdir()
  for name, told in (
    ("damaged", "cannot be read as arrays"),
    ("list", "holds no tree of arrays"),
    ("empty", "the folder holds no checkpoint"),
    ("absent", "cannot be read as arrays"),
  ):
    with pytest.raises(UsageError, match=f"^path=.*{name}: .*{told}"):
      read(tmp_path / name)


CONTEXT = {
  **{"width": 128, "shared": 1, "first": 2, "patch": 2},
  **{"channels": 4, "classes": 5},
}
GUIDANCE = np.array([[7.5, 1.0, 3.0], [0.4, 0.0, 0.1], [0.6, 1.0, 0.9]])


@pytest.mark.parametrize("second", [2, 0])
def test_improved_mean_flow_is_the_published_network(tmp_path, second):
  """Of training, and as released for inference, without the second's blocks."""
  arrays = ImprovedMeanFlow.arrays(**CONTEXT, second=second)
  path = as_orbax(tmp_path, state_of(arrays))
  imported = formats.format_of("imf").read(path, side=8)
  x, (t, r) = images(), TIMES
  expected = ImprovedMeanFlow.forward(
    arrays, x, t, r, LABELS, GUIDANCE, heads=2
  )
  cond = dict(zip(("omega", "t_start", "t_end"), GUIDANCE, strict=True))
  found = jax.jit(network_of(imported, imported.averages["sampling"]))(
    *(jnp.asarray(v, jnp.float32) for v in (x, t, r)),
    {"label": jnp.asarray(LABELS)}
    | {k: jnp.asarray(v, jnp.float32) for k, v in cond.items()},
  )
  assert all(close(*pair) for pair in zip(found, expected, strict=True))
  assert not close(found[0], expected[1])
  form = formats.format_of("imf")
  written = form.write(described(imported), imported.averages["sampling"])
  assert written.keys() == arrays.keys()
  assert all(np.array_equal(written[k], arrays[k]) for k in arrays)


# Parameters of the released files for inference, and millions in the paper.
CONTEXT_COUNTS = {
  "B": (12, 768, 88_948_256, 89),
  "M": (24, 768, 173_921_312, 174),
  "L": (32, 1024, 409_071_648, 409),
  "XL": (48, 1024, 610_433_056, 610),
}


@pytest.mark.parametrize("size", CONTEXT_COUNTS)
def test_counts_of_improved_mean_flow_are_published(size):
  depth, width, exact, millions = CONTEXT_COUNTS[size]
  network = models.dit(
    data_shape=(32, 32, 4),
    num_classes=1000,
    depth=depth,
    width=width,
    num_heads=width // 64,
    sees_time=False,
    guidance_inputs=True,
    heads=2,
    head_depth=8,
    further_depth=0,
    context=(8, 4, 2, 4),
    positions="none",
    rotary=True,
    norm="rms",
    qk_norm=True,
    mlp="swiglu",
    mlp_width=int(8 / 3 * width),
    bias=False,
    scan_layers=True,
  )
  assert parameters(network) == exact
  assert round(exact / 1e6) == millions


def test_an_improved_mean_flow_samples_with_its_own_guidance(tmp_path):
  arrays = ImprovedMeanFlow.arrays(**CONTEXT, second=0)
  path = as_msgpack(tmp_path, state_of(arrays))
  run = jaxflow.import_run(
    "imf", path, tmp_path / "run", side=8, log=lambda line: None
  )
  noise, one = images(), np.ones(3)
  flow_map = jax.jit(run.flow_map())
  found = flow_map(
    jnp.asarray(noise), jnp.ones(3), jnp.zeros(3), jnp.asarray(LABELS)
  )
  guidance = np.array([one, 0 * one, one])
  velocity, _ = ImprovedMeanFlow.forward(
    arrays, noise, one, 0 * one, LABELS, guidance, heads=2
  )
  assert close(found, noise - velocity)
  assert run.sample(2, labels=[0, 4], nfe=2).shape == (2, 8, 8, 4)


GENERATOR = {
  **{"width": 128, "depth": 2, "patch": 2, "channels": 4, "side": 8},
  **{"classes": 5, "labels": (3, 6)},
}


def test_drifting_is_the_published_network(tmp_path):
  """As released: the average, in msgpack, beside a metadata.json."""
  arrays = Drifting.arrays(**GENERATOR)
  data = serialization.msgpack_serialize(tree_of(arrays))
  (tmp_path / "ema_params.msgpack").write_bytes(data)
  (tmp_path / "metadata.json").write_text('{"model_config": {}}')
  form = formats.format_of("drifting")
  imported = form.read(tmp_path)
  labels, omega = np.array([0, 4, 1]), np.array([1.0, 1.7, 4.0])
  noise, drawn = images(), np.array([[0, 5, 2], [1, 1, 3], [4, 0, 5]])
  expected = Drifting.forward(arrays, noise, labels, omega, drawn, heads=2)
  cond = {
    "label": jnp.asarray(labels),
    "omega": jnp.asarray(omega, jnp.float32),
    "noise_labels": jnp.asarray(drawn),
  }
  one = jnp.ones(3)
  found = jax.jit(network_of(imported))(jnp.asarray(noise), one, one, cond)
  assert close(found, expected)
  written = form.write(described(imported), imported.params)
  assert written.keys() == arrays.keys()
  assert all(np.array_equal(written[k], arrays[k]) for k in arrays)
  # Its own labels are a function of the noise; a call makes the sample.
  run = jaxflow.import_run(
    "drifting", tmp_path, tmp_path.with_name("run"), log=lambda line: None
  )
  drawn = np.asarray(noise_labels(jnp.asarray(noise), 3, 6))
  expected = Drifting.forward(arrays, noise, labels, np.ones(3), drawn, heads=2)
  flow_map = jax.jit(run.flow_map())
  found = flow_map(jnp.asarray(noise), one, 0 * one, jnp.asarray(labels))
  assert close(found, expected)
  assert run.sample(2, labels=[0, 4]).shape == (2, 8, 8, 4)


def test_noise_labels_are_uniform_and_independent_of_single_values():
  noise = jax.random.normal(jax.random.key(0), (20_000, 8))
  labels = np.asarray(noise_labels(noise, 2, 4))
  counts = np.zeros((4, 4, 2))
  np.add.at(counts, (*labels.T, np.asarray(noise[:, 0] > 1) * 1), 1)
  share = counts / counts.sum((0, 1))
  # Of each of 16 pairs a 16th, whatever one value is: 4 deviations of 3,200.
  assert np.abs(share - 1 / 16).max() < 4 * np.sqrt(1 / 16 / 3_100)
  with pytest.raises(UsageError, match=r"^noise_labels=3: 8 values"):
    noise_labels(noise, 3, 4)


def test_one_format_refuses_the_files_of_another(tmp_path):
  made = {
    "meanflow": MeanFlow.arrays(**SMALL),
    "imf": ImprovedMeanFlow.arrays(**CONTEXT, second=2),
    "drifting": Drifting.arrays(**GENERATOR),
  }
  for name, arrays in made.items():
    np.savez(tmp_path / f"{name}.npz", **arrays)
  for name in made:
    for other in made.keys() - {name}:
      path = tmp_path / f"{other}.npz"
      with pytest.raises(UsageError) as caught:
        formats.format_of(name).read(path)
      said = str(caught.value)
      assert said.startswith(f"path={path}: it has no array "), said
      assert said.endswith("or give another format") and "\n" not in said


# Of the released configs: parameters, and those of the added null label.
@pytest.mark.parametrize(
  ("size", "width", "depth", "shape", "exact", "millions"),
  [
    ("latent B", 768, 12, (32, 32, 4), 132_708_880, 133),
    ("latent L", 1024, 24, (32, 32, 4), 462_909_456, 463),
    ("pixel B", 768, 12, (256, 256, 3), 133_864_704, 134),
    ("pixel L", 1024, 24, (256, 256, 3), 464_450_304, 464),
  ],
)
def test_counts_of_drifting_are_published(
  size, width, depth, shape, exact, millions
):
  network = models.dit(
    data_shape=shape,
    num_classes=1000,
    depth=depth,
    width=width,
    num_heads=width // 64,
    patch_size=16 if size.startswith("pixel") else 2,
    sees_time=False,
    second_time=False,
    summary_tokens=16,
    omega=1.0,
    noise_labels=32,
    positions="learned",
    rotary=True,
    norm="rms",
    qk_norm=True,
    mlp="swiglu",
    mlp_width={768: 2048, 1024: 2752}[width],
    scan_layers=True,
  )
  assert parameters(network) - width == exact
  assert round(exact / 1e6) == millions
