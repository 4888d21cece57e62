"""The mesh, the rules for parameters, and what the tensor axis moves."""

import functools
import os
import re

import fast_compile
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxflow import models
from jaxflow.config import default_config, make_plan, resolve
from jaxflow.errors import UsageError
from jaxflow.parallel import memory, sharding
from jaxflow.runs import inputs

# A DiT's parameters with their paths, as averages and optimizers have them too.
XL = 1152
RULED = {
  "blocks/stacked/attention/qkv/kernel": (
    (28, XL, 3 * XL),
    (None, "fsdp", "tensor"),
  ),
  "ema/target/blocks/block_3/attention/qkv/kernel": (
    (XL, 3 * XL),
    ("fsdp", "tensor"),
  ),
  "blocks/stacked/attention/qkv/bias": ((28, 3 * XL), (None, "tensor")),
  "opt_state/0/mu/blocks/block_0/expand/kernel": (
    (XL, 4 * XL),
    ("fsdp", "tensor"),
  ),
  "blocks/block_0/contract/kernel": ((4 * XL, XL), ("tensor", "fsdp")),
  "head_1/blocks/block_0/attention/output/kernel": (
    (XL, XL),
    ("tensor", "fsdp"),
  ),
  "blocks/stacked/modulation/linear/kernel": (
    (28, XL, 6 * XL),
    (None, None, "fsdp"),
  ),
  # An adapter's factors share an axis each with the kernel.
  "blocks/stacked/attention/qkv/kernel/in": (
    (28, XL, 16),
    (None, "fsdp", None),
  ),
  "blocks/block_0/expand/kernel/out": ((16, 4 * XL), (None, "tensor")),
  "blocks/block_0/contract/kernel/in": ((4 * XL, 16), ("tensor", None)),
  "blocks/block_0/contract/kernel/out": ((16, XL), (None, "fsdp")),
  "blocks/block_0/contract/kernel/change": (
    (4 * XL, XL),
    ("tensor", "fsdp"),
  ),
  # The layers of a stack are never split, were there ever so many.
  "blocks/stacked/modulation/linear/bias": ((4096, 8), (None, "fsdp")),
  "input/kernel": ((3, 3, 64, 128), (None, None, None, "fsdp")),
  "label/table": ((1001, XL), (None, "fsdp")),
  "output/bias": ((16,), ()),
}


def mesh_of(**axes):
  return sharding.make_mesh(**axes)


@pytest.mark.parametrize("name", RULED)
def test_rules(name):
  shape, wanted = RULED[name]
  tree = jax.ShapeDtypeStruct(shape, jnp.float32)
  for key in reversed(name.split("/")):
    tree = {key: tree}
  mesh = mesh_of(data=2, fsdp=2, tensor=2)
  (found,) = jax.tree.leaves(sharding.parameter_shardings(tree, mesh))
  assert tuple(found.spec) == wanted


def test_what_no_axis_divides_is_whole_and_named():
  shapes = {
    "blocks": {"block_0": {"expand": {"kernel": (100, 101)}}},
    "patch": {"kernel": (67, 67), "bias": (67,)},
  }
  params = jax.tree.map(
    lambda shape: jax.ShapeDtypeStruct(shape, jnp.float32),
    shapes,
    is_leaf=lambda x: isinstance(x, tuple),
  )
  mesh = mesh_of(data=2, fsdp=2, tensor=2)
  found = sharding.parameter_shardings(params, mesh)
  assert tuple(found["blocks"]["block_0"]["expand"]["kernel"].spec) == (
    "fsdp",
    None,
  )
  assert found["patch"]["kernel"].is_fully_replicated
  assert sharding.undivided(params, mesh) == [
    "blocks/block_0/expand/kernel [100, 101]: tensor",
    "patch/kernel [67, 67]: fsdp",
  ]
  assert sharding.undivided(params, mesh_of()) == []


@pytest.mark.parametrize(
  "axes",
  [{"fsdp": 9}, {"fsdp": 0}, {"data": 9}, {"tensor": -1}, {"tensor": 16}],
)
def test_axes_that_do_not_fit_the_devices(axes):
  name, value = next(iter(axes.items()))
  match = rf"mesh\.{name}={value}\b.* at most 8, the number of devices"
  with pytest.raises(UsageError, match=match):
    mesh_of(**axes)


DIT = functools.partial(
  models.dit,
  data_shape=(8, 8, 4),
  depth=3,
  width=128,
  num_heads=8,
  num_classes=8,
)


@functools.cache
def forward(scan):
  """Return a network, parameters off their initial values, arguments."""
  network = DIT(scan_layers=scan)
  params = jax.tree.map(
    lambda x: jax.random.normal(jax.random.key(x.size), x.shape) * 0.05,
    jax.eval_shape(network.init, jax.random.key(0)),
  )
  xt = jax.random.normal(jax.random.key(1), (8, 8, 8, 4))
  t = jnp.linspace(0.1, 1, 8)
  return network, params, (xt, t, t / 2, jnp.arange(8))


def loss(network, params, xt, t, s, label):
  return jnp.square(network.apply(params, xt, t, s, label) - xt).mean()


@pytest.mark.parametrize("scan", [False, True])
def test_a_network_over_three_axes_is_the_same_network(scan):
  network, params, args = forward(scan)
  gradient = jax.grad(functools.partial(loss, network))
  mesh = mesh_of(data=2, fsdp=2, tensor=2)
  rows = sharding.row_sharding(mesh)
  over = jax.device_put(params, sharding.parameter_shardings(params, mesh))
  found = jax.jit(gradient)(over, *jax.device_put(args, rows))
  jax.tree.map(
    functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6),
    found,
    jax.jit(gradient)(params, *args),
  )


def test_the_tensor_axis_costs_two_sums_a_block():
  """One after attention and one after the MLP; no parameter, no head moves."""
  network, params, args = forward(False)
  mesh = mesh_of(tensor=8)
  over = sharding.parameter_shardings(params, mesh)
  rows = sharding.row_sharding(mesh)
  compiled = (
    jax.jit(network.apply, in_shardings=(over, rows, rows, rows, rows))
    .lower(params, *args)
    .compile(compiler_options=fast_compile.OPTIONS)
  )
  moved = re.findall(
    r" (all-\w+|collective-\w+|reduce-scatter)(?:-start)?\(", compiled.as_text()
  )
  assert moved == ["all-reduce"] * 2 * 3


def test_a_head_stays_on_one_device():
  config = default_config("flow_matching", data="digits", model="dit")
  config.model.update(num_heads=6, width=96)
  config = resolve(config, shape=(8, 8, 1), num_classes=10, teacher=None)
  plan = make_plan(config)
  with pytest.raises(UsageError, match=r"mesh\.tensor=4 .* model\.num_heads=6"):
    inputs.check_mesh(plan, mesh_of(tensor=4, data=2))
  inputs.check_mesh(plan, mesh_of(tensor=2, data=4))


def plan_of(*, batch_size, accumulate=1, block=(1, 1)):
  config = default_config("improved_mean_flow", data="ring", model="mlp")
  config.train.update(batch_size=batch_size, accumulate=accumulate)
  config.loss.update(block=block, label_dropout=0.0)
  return make_plan(resolve(config, shape=(2,), num_classes=0, teacher=None))


@pytest.mark.parametrize(
  ("axes", "fields", "remedies"),
  [
    ({"data": 3}, {"batch_size": 16}, ["15", "18", "mesh.data=2"]),
    (
      {"data": 3},
      {"batch_size": 16, "block": (4, 1)},
      ["12", "24", "mesh.data=2"],
    ),
    ({"data": 3}, {"batch_size": 10, "accumulate": 4}, ["12"]),
    (
      {"data": 2, "fsdp": 3},
      {"batch_size": 9, "block": (3, 2)},
      ["6", "12", "mesh.data=1"],
    ),
  ],
)
def test_every_remedy_for_a_batch_works(axes, fields, remedies):
  """Each has been followed: all rules allow it."""
  with pytest.raises(UsageError) as caught:
    inputs.check_mesh(plan_of(**fields), mesh_of(**axes))
  text = str(caught.value)
  assert text.startswith(f"train.batch_size={fields['batch_size']} is no multi")
  found = text.rpartition(": use ")[2].replace(", or ", " or ").split(" or ")
  assert found == remedies
  for remedy in remedies:
    name, _, value = remedy.rpartition("=")
    size = {} if name else {"batch_size": int(value)}
    data = {"data": int(value)} if name else {}
    inputs.check_mesh(plan_of(**fields | size), mesh_of(**axes | data))


def test_devices_may_be_left_out():
  assert mesh_of(data=1).size == 1
  assert mesh_of(data=3, fsdp=2).size == 6
  # Of 8 devices, -1 takes twice 3.
  assert dict(mesh_of(fsdp=3).shape) == {"data": 2, "fsdp": 3, "tensor": 1}


def test_a_state_larger_than_the_memory_is_refused():
  mesh = mesh_of(data=4, fsdp=2)
  where = sharding.replicated(mesh)
  host = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")

  def arrays(size):
    return [jax.ShapeDtypeStruct((size // 4,), jnp.float32, sharding=where)]

  # The devices are of one host, and each has a copy.
  memory.check(arrays(host // 9), "the state")
  with pytest.raises(UsageError, match=r"the state would take .* GiB of the"):
    memory.check(arrays(host // 7), "the state")


def test_a_container_may_have_less_memory(monkeypatch, tmp_path):
  limit = tmp_path / "memory.max"
  monkeypatch.setattr(memory, "_CONTAINERS", (limit, tmp_path / "absent"))
  machine = memory.of_host()
  limit.write_text("max\n")
  assert memory.of_host() == machine
  limit.write_text(f"{machine * 2}\n")
  assert memory.of_host() == machine
  limit.write_text("4096\n")
  assert memory.of_host() == 4096


def test_axes_are_named_as_they_were_given():
  with pytest.raises(UsageError) as error:
    sharding.make_mesh(data=-1, fsdp=100)
  assert str(error.value).startswith(
    "mesh.data=-1, mesh.fsdp=100, mesh.tensor=1: give positive axes, or "
  )
