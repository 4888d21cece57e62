"""What is told of compiled programs: what was not counted, what is refused."""

import functools

import fast_compile
import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec

from jaxflow.compilation import (
  CHIPS,
  Program,
  Topology,
  collectives,
  compile_program,
  matmul_flops,
  report_record,
  report_table,
)
from jaxflow.compilation.chips import GIB
from jaxflow.compilation.hlo import Module
from jaxflow.compilation.loops import executions
from jaxflow.parallel import sharding

SIZE = 64
PRODUCT = 2 * SIZE**3


def compiled(function, *arguments):
  lowered = jax.jit(function).lower(*arguments)
  text = lowered.compile(compiler_options=fast_compile.OPTIONS).as_text()
  return Module.parse(text)


def chain(length):
  """Return a function of so many products."""

  def products(x):
    for _ in range(length):
      x = jnp.tanh(x @ x)
    return x

  return products


def test_of_branches_the_largest_counts():
  def switched(turn, x):
    return jax.lax.switch(turn, [chain(1), chain(3), chain(2)], x)

  module = compiled(switched, 0, jnp.ones((SIZE, SIZE)))
  assert matmul_flops(module) == 3 * PRODUCT
  assert executions(module).conditionals == 1


def test_only_collectives_of_the_largest_branch_count():
  mesh = sharding.make_mesh()

  def summed(x):
    return chain(2)(jax.lax.psum(x, mesh.axis_names))

  def largest(x):
    return jax.lax.pmax(x, mesh.axis_names)

  @functools.partial(
    jax.shard_map,
    mesh=mesh,
    in_specs=PartitionSpec(),
    out_specs=PartitionSpec(),
    check_vma=False,
  )
  def switched(turn, x):
    return jax.lax.switch(turn, [chain(1), summed, largest], x)

  module = compiled(switched, 0, jnp.ones((SIZE, SIZE)))
  (found,) = collectives(module)
  assert (found.bytes, found.count) == (4 * SIZE**2, 1)
  assert matmul_flops(module) == 2 * PRODUCT


def test_what_is_not_counted_is_told():
  def walk(count, turn, x):
    x = jax.lax.fori_loop(0, count, lambda _, x: chain(2)(x), x)
    return jax.lax.cond(turn, chain(1), lambda x: x, x)

  shapes = ((), jnp.int32), ((), jnp.bool), ((SIZE, SIZE), jnp.float32)
  program = Program(
    name="walk",
    function=jax.jit(walk),
    arguments=tuple(jax.ShapeDtypeStruct(*shape) for shape in shapes),
    resident={},
    rows=1,
    notes=("a stand-in",),
  )
  report = compile_program(program, options=fast_compile.OPTIONS)
  # One round of the loop, and the larger branch.
  assert report.flops == (2 + 1) * PRODUCT
  text = report_table(report, Topology.parse("host:8"))
  assert "\n  note: a stand-in" in text
  assert "\n  note: 1 loop(s) of a length that the program computes" in text
  assert "\n  note: 1 conditional(s)" in text


def test_loops_of_known_length_need_no_note():
  def scanned(x):
    return jax.lax.scan(lambda x, _: (x @ x, None), x, None, length=4)[0]

  module = compiled(scanned, jnp.ones((SIZE, SIZE)))
  assert executions(module).notes == ()
  assert matmul_flops(module) == 4 * PRODUCT


# A TPU's compiler, of a sort of 20 GiB.
REFUSAL = """\
RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory on HBM, the \
total memory required for HLO temporaries (60.00G) exceeds available HBM \
(15.75G). HLO module: jit__lambda.
See https://openxla.org/xla/errors/error_1000 for more details."""


class Refused:
  """A function that the compiler does not take."""

  def __init__(self, message):
    self.message = message

  def trace(self):
    return self

  def lower(self, **_):
    return self

  def compile(self, **_):
    raise jax.errors.JaxRuntimeError(self.message)


def refused(message, **options):
  program = Program(
    name="sort", function=Refused(message), arguments=(), resident={}, rows=1
  )
  return compile_program(program, chip=CHIPS["v5e"], **options)


@pytest.mark.parametrize("limit", [None, 64 * GIB, 4 * GIB])
def test_the_limit_of_the_compiler_is_told(limit):
  report = refused(REFUSAL, limit=limit)
  assert not report.fits
  assert (report.total, report.limit) == (60 * GIB, CHIPS["v5e"].usable_hbm)
  text = report_table(report, Topology.parse("v5e:2x2"))
  assert "60.00 GiB of 15.75 GiB: does not fit" in text
  # A file of results has no NaN.
  row = report_record(report)
  assert row["flops"] is row["temporary"] is None


def test_other_errors_of_the_compiler_are_raised():
  with pytest.raises(jax.errors.JaxRuntimeError, match="no such thing"):
    refused("INTERNAL: no such thing")


def test_temporaries_of_a_host_count():
  """A sort of n x n numbers needs them all at once; the result is a row."""
  n = 500
  shape = jax.ShapeDtypeStruct((n,), jnp.float32)
  function = jax.jit(lambda x: jnp.sort(jnp.outer(x, x), axis=0)[0])
  report = compile_program(
    Program(
      name="sort", function=function, arguments=(shape,), resident={}, rows=1
    ),
    options=fast_compile.OPTIONS,
  )
  assert report.temporaries >= 4 * n**2
