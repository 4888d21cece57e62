"""Low-rank adapters: small matrices learn, the base stays bit for bit."""

import math
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
import tiny
from etils import epath
from safetensors.numpy import load_file

import jaxflow
from jaxflow import models
from jaxflow.errors import UsageError
from jaxflow.models import lora
from jaxflow.parallel import sharding
from jaxflow.runs.restoring import load
from jaxflow.training.checkpoints import Checkpoints

ADAPTER = (
  *("adapter.name=lora", "adapter.rank=2", "adapter.alpha=6"),
  "adapter.on=hidden",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """Return a folder with the runs `plain` and, with an adapter, `new`."""
  path = tmp_path_factory.mktemp("adapters")
  tiny.train(path, "plain", "flow_matching", "train.steps=20", *WIDE)
  return path


# Kernels that are much larger than their adapters.
WIDE = ("model.width=128", "model.depth=2")


def train(folder, tmp_path, name, *flags, steps=20, method="flow_matching"):
  flags = f"train.steps={steps}", "checkpoint.every=10", *WIDE, *flags
  start = f"init.workdir={folder / 'plain'}"
  return tiny.run(
    *tiny.train_command(tmp_path, name, method, start, *ADAPTER, *flags)
  )


@pytest.fixture(scope="module")
def adapted(folder):
  result = train(folder, folder, "new")
  assert result.code == 0, result.err
  return folder / "new", result


def numpy_of(tree):
  return jax.tree.map(np.asarray, tree)


def test_product_is_added_by_arithmetic():
  """Kernels, stacks of kernels, convolutions, and arrays as a whole."""
  draw = np.random.default_rng(0)
  shapes = {
    "kernel": (6, 5),
    "blocks": {"stacked": {"kernel": (3, 6, 5), "bias": (3, 5)}},
    "conv": {"kernel": (2, 2, 4, 5), "bias": (5,)},
    "table": (7, 5),
  }
  params = jax.tree.map(
    lambda shape: jnp.asarray(draw.normal(size=shape), jnp.float32),
    shapes,
    is_leaf=lambda x: isinstance(x, tuple),
  )
  adapter = lora(rank=2, alpha=6.0, on="kernel|bias", whole="table")
  learned = adapter.init(jax.random.key(0), params)
  assert jax.tree.map(jnp.shape, learned) == {
    "kernel": {"in": (6, 2), "out": (2, 5)},
    "blocks": {"stacked": {"kernel": {"in": (3, 6, 2), "out": (3, 2, 5)}}},
    "conv": {"kernel": {"in": (2, 2, 4, 2), "out": (2, 5)}},
    "table": {"change": (7, 5)},
  }
  tiny.assert_same_bits(adapter.merge(params, learned), params)
  learned = jax.tree.map(
    lambda x: jnp.asarray(draw.normal(size=x.shape), jnp.float32), learned
  )
  merged, own = numpy_of(adapter.merge(params, learned)), numpy_of(learned)
  base = numpy_of(params)

  def near(found, before, a, b):
    expected = before + 6 / 2 * np.einsum("...ir,...ro->...io", a, b)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)

  near(merged["kernel"], base["kernel"], *own["kernel"].values())
  pair = own["blocks"]["stacked"]["kernel"]
  for i in range(3):
    near(
      merged["blocks"]["stacked"]["kernel"][i],
      base["blocks"]["stacked"]["kernel"][i],
      *(x[i] for x in pair.values()),
    )
  pair = own["conv"]["kernel"]
  for i, j in np.ndindex(2, 2):
    near(
      merged["conv"]["kernel"][i, j],
      base["conv"]["kernel"][i, j],
      pair["in"][i, j],
      pair["out"],
    )
  np.testing.assert_array_equal(
    merged["table"], base["table"] + own["table"]["change"]
  )
  for path in (("blocks", "stacked", "bias"), ("conv", "bias")):
    found, before = merged, base
    for key in path:
      found, before = found[key], before[key]
    np.testing.assert_array_equal(found, before)


def test_first_numbers_have_the_variance_of_their_inputs():
  params = {"kernel": jax.ShapeDtypeStruct((400, 300), jnp.float32)}
  learned = lora(rank=50, on="").init(jax.random.key(0), params)["kernel"]
  assert learned["in"].std() == pytest.approx(1 / 20, rel=0.02)
  assert not learned["out"].any()


def test_attention_is_found_in_every_network_that_attends():
  image = {"data_shape": (4, 4, 1)}
  sizes = {"channels": 64, "multipliers": (1,), "num_blocks": 1}
  networks = [
    models.dit(**image, depth=2, width=16, num_heads=2),
    models.dit(**image, depth=2, width=16, num_heads=2, scan_layers=True),
    models.unet(**image, **sizes, attention_resolutions=(4,)),
    models.mp_unet(**image, **sizes, attention_resolutions=(4,)),
    models.unet2d(**image, widths=(16, 32), layers=1, groups=4),
  ]
  for network in networks:
    params = jax.eval_shape(network.init, jax.random.key(0))
    learned = jax.eval_shape(lora(rank=1).init, jax.random.key(0), params)
    leaves = jax.tree_util.tree_leaves_with_path(learned)
    assert leaves
    assert all("attention" in jax.tree_util.keystr(path) for path, _ in leaves)


def test_a_student_begins_as_its_base(folder, tmp_path):
  rate = "optimizer.learning_rate=1e-30"
  assert train(folder, tmp_path, "x", rate, steps=1).code == 0
  state = tiny.state_of(tmp_path / "x")
  base = tiny.state_of(folder / "plain").ema["sampling"]
  tiny.assert_same_bits(state.frozen["base"], base)
  run, sampled = load(tmp_path / "x", mesh=sharding.make_mesh(), ema="online")
  tiny.assert_same_bits(run.select(sampled, "online"), base)


def test_base_stays_and_the_adapter_is_stored_alone(folder, adapted):
  workdir, result = adapted
  base = tiny.state_of(folder / "plain").ema["sampling"]
  state = tiny.state_of(workdir)
  tiny.assert_same_bits(state.frozen["base"], base)
  # Hidden layers of 10 and 128 inputs, 128 outputs and rank 2.
  learned = 2 * (10 + 128) + 2 * (128 + 128)
  size = sum(x.size for x in jax.tree.leaves(base))
  assert sum(x.size for x in jax.tree.leaves(state.params)) == learned
  assert f"{size:,} parameters ({learned:,} learn)" in result.out
  stored = Checkpoints(workdir / "checkpoints", read_only=True)
  assert stored.steps() == [10, 20]
  stored.close()
  # Parameters, one average, two moments; and single numbers that count.
  place = epath.Path(workdir / "checkpoints/20/state")
  found = ocp.PyTreeCheckpointHandler().metadata(place)
  arrays = jax.tree.leaves(getattr(found, "tree", found))
  sizes = [math.prod(x.shape) for x in arrays]
  assert sum(n for n in sizes if n > 1) == 4 * learned
  assert sizes.count(1) < 10

  def bytes_of(path):
    return sum(x.stat().st_size for x in path.rglob("*") if x.is_file())

  small, large = (
    bytes_of(path / "checkpoints/20") for path in (workdir, folder / "plain")
  )
  # Of the small one, the most are the files around the numbers.
  assert large > 4 * 4 * size > 2 * small
  moved = np.abs(np.asarray(state.params["hidden_1"]["kernel"]["out"]))
  assert moved.max() > 1e-3


def test_merged_is_the_function_that_is_trained(folder, adapted, tmp_path):
  """The loss with base and adapter, and of the merged weights alone."""
  workdir, _ = adapted
  state = tiny.state_of(workdir)
  run = jaxflow.load(workdir, average="online")
  expected = lora(rank=2, alpha=6.0, on="hidden").merge(
    state.frozen["base"], state.params
  )
  assert tiny.apart(run.params, expected) < 1e-7
  draw = np.random.default_rng(0)
  batch = {"data": jnp.asarray(draw.normal(size=(16, 2)), jnp.float32)}
  key = jax.random.key(1)
  own, _ = run.run.loss_fn()(state.params, state, key, batch)
  plain, _ = load(folder / "plain", mesh=sharding.make_mesh())
  whole, _ = plain.loss_fn()(run.params, state, key, batch)
  np.testing.assert_allclose(own, whole, rtol=1e-5)
  assert run.sample(4).shape == (4, 2)
  out = tmp_path / "merged"
  result = tiny.run("merge", f"--workdir={workdir}", f"--out={out}")
  assert result.code == 0, result.err
  merged = tiny.state_of(out)
  assert merged.frozen == {}
  for average in ("online", "sampling"):
    its = jaxflow.load(out, average=average).params
    tiny.assert_same_bits(its, jaxflow.load(workdir, average=average).params)
  wide = jaxflow.load(workdir, average="width=0.1").params
  assert jax.tree.map(jnp.shape, wide) == jax.tree.map(jnp.shape, its)
  again = tiny.run("merge", f"--workdir={workdir}", f"--out={out}")
  assert again.code == 2 and "is there already" in again.err


def test_a_plain_run_has_nothing_to_merge(folder, tmp_path):
  command = f"--workdir={folder / 'plain'}", f"--out={tmp_path / 'x'}"
  result = tiny.run("merge", *command)
  assert (result.code, result.err.count("\n")) == (2, 1)
  assert "has no adapter" in result.err


def test_run_resumes_bit_for_bit_without_its_source(folder, adapted, tmp_path):
  source = tmp_path / "a"
  shutil.copytree(folder / "plain", source / "plain")
  assert train(source, tmp_path, "twice", steps=10).code == 0
  shutil.rmtree(source)
  # The folder is named in the config, but read no more.
  result = train(source, tmp_path, "twice")
  assert result.code == 0, result.err
  once, twice = (tiny.state_of(x) for x in (adapted[0], tmp_path / "twice"))
  tiny.assert_same_bits(once, twice)
  shutil.rmtree(tmp_path / "twice/frozen")
  result = train(source, tmp_path, "twice", steps=30)
  assert (result.code, result.err.count("\n")) == (1, 1)
  assert "frozen is gone" in result.err


def test_a_teacher_is_stored_once_and_taught_by_merged_weights(
  adapted, tmp_path
):
  """A run with an adapter teaches one of two times, which has another."""
  workdir, _ = adapted
  flags = (
    *("train.steps=2", f"teacher.workdir={workdir}", *ADAPTER, *WIDE),
    "optimizer.learning_rate=1e-30",
  )
  tiny.train(tmp_path, "x", "consistency_trajectory", *flags)
  state = tiny.state_of(tmp_path / "x")
  its = jaxflow.load(workdir).params
  tiny.assert_same_bits(state.frozen["teacher"], its)
  kernel = state.frozen["base"]["hidden_0"]["kernel"]
  # 2 of the point, 8 of its time; those of the second time are zero.
  np.testing.assert_array_equal(kernel[:10], its["hidden_0"]["kernel"])
  assert kernel.shape == (18, 128) and not kernel[10:].any()
  assert set(state.ema) == {"sampling", "target"}


@pytest.mark.parametrize(
  ("flags", "words"),
  [
    (["adapter.on=hiden"], "adapter.on='hiden' is found in no path: "),
    (["adapter.on=("], "adapter.on='(' is no regular expression"),
    (["adapter.on=bias"], "adapter.on='bias' is found in no path: "),
    (["adapter.rank=200"], "adapter.rank=200: the adapter would have"),
    (["adapter.rank=0"], "adapter.rank=0: give 1 or more"),
    (["init.workdir="], "adapter.name: it changes the weights of another run"),
    (
      ["data.conditional=True", "adapter.on=hidden_1"],
      "adapter.whole: hidden_0/kernel, label/table would stay",
    ),
  ],
)
def test_wrong_adapter(folder, tmp_path, flags, words):
  result = train(folder, tmp_path, "x", *flags)
  assert (result.code, result.err.count("\n")) == (2, 1)
  assert words in result.err
  assert not (tmp_path / "x/config.json").exists()


def test_an_adapter_over_devices_trains_to_the_same(folder):
  """Split over two axes, a transformer's adapter learns as on one device.

  Published names are given to the merged weights.
  """
  draw = np.random.default_rng(0)
  data = {"data": np.tanh(draw.normal(size=(16, 8, 8, 1))).astype(np.float32)}

  def train_on(axes, workdir=None, **fields):
    config = jaxflow.preset("digits:flow_matching")
    config.data.conditional = False
    config.loss.label_dropout = 0.0
    config.model.update(depth=1, width=64, num_heads=4, patch_size=2)
    config.optimizer.warmup_steps = 0
    config.train.update(steps=2, batch_size=16, log_every=2)
    config.mesh.update(axes)
    config.update(fields)
    return jaxflow.train(config, workdir, data=data, log=lambda line: None)

  one, two = {"data": 1}, {"data": 1, "fsdp": 2, "tensor": 2}
  train_on(one, folder / "images")
  adapter = {"name": "lora", "rank": 8, "alpha": 8.0, "whole": "patch"}
  adapter["on"] = "attention|expand"
  start = {"workdir": str(folder / "images"), "ema": "online"}
  whole = train_on(one, folder / "one", adapter=adapter, init=start)
  split = train_on(two, adapter=adapter, init=start)
  assert tiny.apart(split.state.params, numpy_of(whole.state.params)) < 1e-5
  block = split.state.frozen["base"]["blocks"]["block_0"]
  spec = block["attention"]["qkv"]["kernel"].sharding.spec
  assert tuple(spec) == ("fsdp", "tensor")
  file = folder / "exported.safetensors"
  result = tiny.run(
    *("export", f"--workdir={folder / 'one'}", "--format=dit"),
    *("--ema=online", f"--out={file}"),
  )
  assert result.code == 0, result.err
  exported = load_file(file)["x_embedder.proj.weight"]
  base, patch = (
    np.asarray(x["patch"]["kernel"])
    for x in (
      whole.state.frozen["base"],
      jaxflow.load(folder / "one", average="online").params,
    )
  )
  assert np.abs(patch - base).max() > 1e-5
  # [out, in, height, width] in place of [height x width x in, out].
  np.testing.assert_array_equal(
    exported, patch.reshape(2, 2, 1, 64).transpose(3, 2, 0, 1)
  )


def test_pattern_error_names_the_option():
  with pytest.raises(UsageError, match=r"^whole='x' is found in no path"):
    lora(on="a", whole="x").init(jax.random.key(0), {"a": jnp.zeros((64, 64))})
