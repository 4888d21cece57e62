"""What compiled programs take of a device: read from text, and from compiling.

Expected FLOPs and bytes are products of sizes; figures of chips are checked
against those that are published for whole pods.
"""

import functools
from types import SimpleNamespace

import fast_compile
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from jaxflow.compilation import (
  CHIPS,
  Topology,
  collectives,
  compile_program,
  matmul_flops,
  programs,
)
from jaxflow.compilation.hlo import Module
from jaxflow.compilation.programs import evaluation_step
from jaxflow.config import default_config, make_plan, resolve
from jaxflow.errors import UsageError
from jaxflow.parallel import sharding
from jaxflow.runs.run import Run

SIZE = 64


def test_topologies():
  topology = Topology.parse("v5p:4x4x8")
  assert (topology.size, topology.chip) == (128, CHIPS["v5p"])
  host = Topology.parse("host:8")
  assert (host.size, host.chip, host.shape) == (8, None, (8,))
  assert host.devices() == jax.devices()


@pytest.mark.parametrize(
  ("name", "problem"),
  [
    ("v9:4x4", "none of v4, v5e, v5p, v6e, host"),
    ("v5e", "AxB chips"),
    ("v5e:4x4x4", "AxB chips"),
    ("v5p:4x4", "AxBxC chips"),
    ("v5p:4x0x4", "AxBxC chips"),
    ("host:", "a number of devices"),
    ("host:2x4", "a number of devices"),
    ("host:-1", "a number of devices"),
  ],
)
def test_wrong_topologies(name, problem):
  with pytest.raises(UsageError, match=problem) as caught:
    Topology.parse(name)
  assert f"topology={name}: " in str(caught.value)


@pytest.mark.usefixtures("process_as_before")
def test_host_devices_cannot_grow():
  with pytest.raises(UsageError, match="JAX has 8 host devices already"):
    Topology.parse("host:16").prepare()


@pytest.mark.parametrize(
  ("name", "chips", "peak", "all_reduce"),
  [
    ("v4", 4096, 1.1e18, 1.1e15),
    ("v5e", 256, 50.63e15, 51.2e12),
    ("v6e", 256, 234.9e15, 102.4e12),
    # Its page has no figures of the pod: 459 TFLOP/s, 4800 Gbit/s a chip.
    ("v5p", 8960, 4.11e18, 8960 * 4800e9 / 8),
  ],
)
def test_chips_add_up_to_published_pods(name, chips, peak, all_reduce):
  chip = CHIPS[name]
  assert chips * chip.peak_flops == pytest.approx(peak, rel=0.03)
  assert chips * chip.link_bandwidth == pytest.approx(all_reduce, rel=0.15)


@pytest.mark.parametrize("name", CHIPS)
def test_programs_may_not_use_more_than_there_is(name):
  chip = CHIPS[name]
  assert 0.95 * chip.hbm < chip.usable_hbm <= chip.hbm


def test_times_of_a_chip():
  chip = CHIPS["v5p"]
  assert chip.compute_seconds(4.59e12) == pytest.approx(0.01)
  assert chip.link_seconds(6e9) == pytest.approx(0.01)


# As a TPU writes it: the bound of the loop in its condition, a gather that is
# spread over two kernels, a sum that is scattered, products as convolutions.
TEXT = """\
HloModule jit_step, is_scheduled=true, entry_computation_layout={LAYOUT}, \
num_partitions=8

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}

%kernel.1 (p: bf16[4,8]) -> bf16[8,8] {
  %p = bf16[4,8]{1,0:T(8,128)(2,1)} parameter(0)
  ROOT %gather.1 = bf16[8,8]{1,0} all-gather(%p), channel_id=1, \
replica_groups=mesh['a'=4,'b'=2], device_ids=([4,2]T(1,0)) {'b'}, \
dimensions={0}, frontend_attributes={chain_id="7"}
}

%kernel.2 (q: bf16[4,8]) -> bf16[8,8] {
  %q = bf16[4,8]{1,0} parameter(0)
  ROOT %gather.2 = bf16[8,8]{1,0} all-gather(%q), channel_id=1, \
replica_groups=mesh['a'=4,'b'=2], device_ids=([4,2]T(1,0)) {'b'}, \
dimensions={0}, frontend_attributes={chain_id="7"}
}

%all-reduce-scatter.3 (r: f32[16,2]) -> f32[4,2] {
  %r = f32[16,2]{1,0} parameter(0)
  %reduce.1 = f32[16,2]{1,0} all-reduce(%r), channel_id=2, \
replica_groups=[2,4]<=[8], to_apply=%add
  ROOT %part = f32[4,2]{1,0} dynamic-slice(%reduce.1), dynamic_slice_sizes={4,2}
}

%less (c: s32[], d: s32[]) -> pred[] {
  %c = s32[] parameter(0)
  %d = s32[] parameter(1)
  ROOT %lt = pred[] compare(%c, %d), direction=LT
}

%condition (s: (s32[], bf16[4,8])) -> pred[] {
  %s = (s32[]{:T(128)}, /*index=1*/bf16[4,8]{1,0}) parameter(0)
  %i = s32[]{:T(128)} get-tuple-element(%s), index=0
  %limit = s32[]{:T(128)} constant(11)
  ROOT %more = pred[] fusion(%i, %limit), kind=kLoop, calls=%less
}

%body (t: (s32[], bf16[4,8])) -> (s32[], bf16[4,8]) {
  %t = (s32[]{:T(128)}, bf16[4,8]{1,0}) parameter(0)
  %j = s32[] get-tuple-element(%t), index=0
  %x = bf16[4,8]{1,0} get-tuple-element(%t), index=1
  %g = bf16[8,8]{1,0} fusion(%x), kind=kOutput, calls=%kernel.1
  %h = bf16[8,8]{1,0} fusion(%x), kind=kOutput, calls=%kernel.2
  %w = f32[16,2]{1,0} convert(%g)
  %y = f32[4,2]{1,0} fusion(%w), kind=kCustom, calls=%all-reduce-scatter.3
  %z = bf16[4,8]{1,0} convolution(%x, %h), dim_labels=bf_io->bf
  %pace = s32[] constant(2)
  %next = s32[] add(%j, %pace), control-predecessors={%g}
  ROOT %u = (s32[], bf16[4,8]{1,0}) tuple(%next, %z)
}

ENTRY %main (v: bf16[4,8], k: f32[6,256,4,16]) -> bf16[4,8] {
  %v = bf16[4,8]{1,0} parameter(0)
  %k = f32[6,256,4,16]{3,2,1,0} parameter(1)
  %scores = f32[6,4,256,256]{3,2,1,0} convolution(%k, %k), \
window={size=6x4 stride=5x3 lhs_dilate=6x4}, dim_labels=0b1f_0o1i->01bf
  %two = s32[]{:T(128)} constant(2)
  %first = s32[]{:T(128)} copy(%two)
  %init = (s32[], bf16[4,8]{1,0}) tuple(%first, %v)
  %loop = (s32[]{:T(128)}, bf16[4,8]{1,0}) while(%init), \
condition=%condition, body=%body
  %next-start = (bf16[4,8]{1,0}, bf16[4,8]{1,0}, u32[], u32[]) \
collective-permute-start(%v), channel_id=3, source_target_pairs={{0,1},{1,0}}
  %next-done = bf16[4,8]{1,0} collective-permute-done(%next-start)
  %all-start = (bf16[4,8]{1,0}, bf16[16,8]{1,0}) all-gather-start(%v), \
replica_groups={{0,1,2,3},{4,5,6,7}}, dimensions={0}
  %scattered-start = ((f32[16,2]{1,0}), f32[4,2]{1,0}, /*index=2*/u32[]) \
reduce-scatter-start(%w), replica_groups=[2,4]<=[8], dimensions={0}, \
to_apply=%add
  %swapped-start = ((bf16[4,6]{1,0}, bf16[4,2]{1,0}), (bf16[4,6]{1,0}, \
bf16[4,2]{1,0}), u32[]) all-to-all-start(%v, %v), replica_groups=[1,8]<=[8]
  %summed-start = (f32[3]{0}, f32[5]{0}) all-reduce-start(%w, %w), \
replica_groups=[1,8]<=[8], to_apply=%add
  %both-start = ((bf16[4,8]{1,0}, f32[2]{0}), (bf16[8,8]{1,0}, f32[4]{0})) \
all-gather-start(%v, %w), replica_groups=[4,2]<=[8], dimensions={0}
  %alone = f32[16,2]{1,0} all-reduce(%w), replica_groups={{0},{1}}, \
to_apply=%add
  ROOT %out = bf16[4,8]{1,0} get-tuple-element(%loop), index=1
}
"""


# The types of all arguments and results stand in the first line.
TEXT = TEXT.replace("LAYOUT", ", ".join(["f32[8]"] * 10_000))


def test_collectives_of_a_text():
  found = {
    (c.kind, c.group, c.count, c.bytes) for c in collectives(Module.parse(TEXT))
  }
  assert found == {
    # Rounds at 2, 4, 6, 8 and 10.
    ("all-gather", 2, 5, 8 * 8 * 2),
    ("reduce-scatter", 4, 5, 16 * 2 * 4),
    ("collective-permute", 8, 1, 4 * 8 * 2),
    ("all-gather", 4, 1, 16 * 8 * 2),
    # What they compute, not what they are given.
    ("reduce-scatter", 4, 1, 16 * 2 * 4),
    ("all-to-all", 8, 1, 4 * (6 + 2) * 2),
    ("all-reduce", 8, 1, (3 + 5) * 4),
    ("all-gather", 2, 1, 8 * 8 * 2 + 4 * 4),
  }


def test_flops_of_a_text():
  products = 5 * 2 * 4 * 8 * 8
  scores = 2 * 6 * 4 * 256 * 256 * 16
  assert matmul_flops(Module.parse(TEXT)) == products + scores


def test_a_kernel_counts_what_it_states():
  kernel = """\
HloModule one

ENTRY %main (x: f32[4,8]) -> f32[4,8] {
  %x = f32[4,8]{1,0} parameter(0)
  %other = f32[4,8]{1,0} custom-call(%x), custom_call_target="unknown"
  ROOT %y = f32[4,8]{1,0} custom-call(%other), \
custom_call_target="tpu_custom_call", backend_config={"custom_call_config":\
{"body":"TUzv(x)=","cost_estimate":{"flops":"1234","transcendentals":"5"}}}
}
"""
  assert matmul_flops(Module.parse(kernel)) == 1234


def compiled(function, *arguments):
  lowered = jax.jit(function).lower(*arguments)
  text = lowered.compile(compiler_options=fast_compile.OPTIONS).as_text()
  return Module.parse(text)


def test_flops_of_loops_and_derivatives():
  """Return a scan of 5 products; of its gradient, 3 times as many."""

  def chain(x, weights):
    return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, weights)[0]

  def loss(x, weights):
    return chain(x, weights).sum()

  x, weights = jnp.ones((8, SIZE)), jnp.ones((5, SIZE, SIZE))
  product = 2 * 8 * SIZE * SIZE
  assert matmul_flops(compiled(chain, x, weights)) == 5 * product
  # The input's gradient is needed before the first product too.
  both = jax.grad(loss, argnums=(0, 1))
  assert matmul_flops(compiled(both, x, weights)) == 3 * 5 * product


def test_flops_of_a_convolution_leave_out_padding():
  convolve = functools.partial(
    jax.lax.conv_general_dilated,
    window_strides=(1, 1),
    padding="SAME",
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
  )
  module = compiled(convolve, jnp.ones((2, 5, 5, 3)), jnp.ones((3, 3, 3, 7)))
  # Along an axis: 3 x 5 pairs, of which 2 see padding.
  assert matmul_flops(module) == 2 * 2 * 3 * 7 * (3 * 5 - 2) ** 2


def test_a_sum_over_eight_devices():
  """Of n floats 4 n bytes, three times in a loop of three rounds."""
  n = 1000
  mesh = sharding.make_mesh()
  everywhere = PartitionSpec(mesh.axis_names)

  @functools.partial(
    jax.shard_map, mesh=mesh, in_specs=everywhere, out_specs=PartitionSpec()
  )
  def summed(x):
    def body(total, _):
      return jax.lax.psum(total[None] * x, mesh.axis_names)[0], None

    return jax.lax.scan(body, jnp.ones(n), None, length=3)[0]

  (found,) = collectives(compiled(summed, jnp.ones((8, n))))
  assert (found.kind, found.group, found.count) == ("all-reduce", 8, 3)
  assert found.bytes == 4 * n
  assert found.bytes_sent == 2 * 7 / 8 * 4 * n


def small(shape=(2,), batch_size=256):
  config = default_config("flow_matching", data="ring", model="mlp")
  config.model.update(width=32, depth=1)
  config.train.update(batch_size=64, steps_per_dispatch=2)
  config.sample.batch_size = config.evaluation.batch_size = batch_size
  config = resolve(config, shape=shape, num_classes=0, teacher=None)
  return Run(make_plan(config))


@pytest.fixture(scope="module")
def reports():
  run, mesh = small(), sharding.make_mesh()
  made = [
    compile_program(p, options=fast_compile.OPTIONS, limit=10**6)
    for p in programs(run, mesh, steps=2)
  ]
  params = jax.tree.leaves(run.template(mesh).params)
  return made, params


def test_a_training_step_sums_its_gradient(reports):
  (step, sampler, evaluation), params = reports
  size = 4 * sum(x.size for x in params)
  moved = sum(c.count * c.bytes for c in step.collectives) / step.steps
  scalars = 4 * 16
  assert size <= moved <= size + scalars
  assert sampler.collectives == []
  # Rows stay on their devices; each host reduces those of its own.
  assert evaluation.collectives == []


def test_memory_and_flops_of_a_training_step(reports):
  (step, sampler, _), params = reports
  size = 4 * sum(x.size for x in params)
  assert step.resident["parameters"] == step.resident["averages"] == size
  # Two moments, a count or two.
  assert 2 * size <= step.resident["optimizer"] <= 2 * size + 16
  # Two steps of 8 points each on a device.
  assert step.resident["batch"] == 2 * 8 * 2 * 4
  assert step.fits and step.total <= 10**6
  # Forward and backward; what sees the data alone has no gradient to hand on.
  ratio = step.flops / (sampler.flops / sampler.rows * step.rows)
  assert 2 < ratio < 3


@pytest.mark.parametrize(("size", "split"), [(24, True), (20, False)])
def test_samples_are_drawn_as_the_commands_draw_them(size, split):
  run = small(batch_size=size)
  step, *others = programs(run, sharding.make_mesh(), steps=1)
  assert step.rows == 64
  for program, field in zip(others, ("sample", "evaluation"), strict=True):
    noise = program.arguments[-3]
    assert program.rows == noise.shape[0] == size
    assert noise.sharding.is_fully_replicated != split
    told = any(f"{field}.batch_size=20" in note for note in program.notes)
    assert told != split


def test_an_evaluation_step_holds_what_networks_see():
  run, mesh = small((8, 8, 1)), sharding.make_mesh()
  network = SimpleNamespace(
    name="linear",
    params=np.zeros((64, 5), np.float32),
    apply=lambda w, x: {"features": x.reshape(len(x), -1) @ w},
  )
  program = evaluation_step(run, mesh, networks=[network])
  assert program.resident["feature networks"] == {"linear": network.params}
  outputs = jax.eval_shape(program.function, *program.arguments)
  rows = run.plan.evaluation.batch_size
  assert outputs["features/linear"].shape == (rows, 5)
  assert outputs["finite"].shape == (rows,)


def test_an_evaluation_step_shows_networks_what_latents_decode_to():
  run, mesh = small((4, 4, 2)), sharding.make_mesh()
  shapes = {"up": jax.ShapeDtypeStruct((32, 64), jnp.float32)}

  def decode(weights, x):
    images = x.reshape(len(x), -1) @ weights["up"]
    return images.reshape(len(x), 8, 8, 1)

  network = SimpleNamespace(
    name="linear",
    params=np.zeros((64, 5), np.float32),
    apply=lambda w, x: {"features": x.reshape(len(x), -1) @ w},
  )
  *_, program = programs(
    run, mesh, steps=1, networks=[network], decoder=(shapes, decode)
  )
  assert program.resident["decoder"] == shapes
  assert program.resident["feature networks"] == {"linear": network.params}
  outputs = jax.eval_shape(program.function, *program.arguments)
  rows = run.plan.evaluation.batch_size
  assert outputs["features/linear"].shape == (rows, 5)
  assert outputs["samples"].shape == (rows, 4, 4, 2)


def test_it_does_not_fit(reports):
  (step, _, _), _ = reports
  assert not step.__class__(**{**vars(step), "limit": step.total - 1}).fits
