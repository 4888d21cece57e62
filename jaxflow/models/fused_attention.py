r"""Attention of kernels as a function with derivatives of any order.

Four primitives, each linear in what it is transposed by:

  value              q, k, v -> y, L
  value_and_tangent  q, k, v, dq, dk, dv -> y, L, dy
  tangent            q, k, v, y, L, dq, dk, dv -> dy
  gradient           q, k, v, y, L, c -> gq, gk, gv

JAX linearises by tracing a tangent whose value is not known yet, and transposes
what it has traced. So `value_and_tangent`, the derivative of `value`, is one
kernel where both are wanted (`jax.jvp`), and splits into `value` and `tangent`
where the tangent is unknown or nobody asks for it. The transpose of `tangent`
is `gradient`. A target with a stopped gradient, as of MeanFlow, thus sees
kernels only. Derivatives of tangents and gradients are those of `attend`, in
blocks and in plain JAX: y and L are functions of q, k and v there.

A `jax.custom_jvp` function whose rule has a kernel cannot be transposed, a
`jax.custom_vjp` function has no tangent, and `linear_call` neither maps nor has
derivatives by its residuals; hence primitives.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive, set_current_trace
from jax.interpreters import ad, batching, mlir, partial_eval
from jax.sharding import AbstractMesh, PartitionSpec

from jaxflow.errors import UsageError
from jaxflow.models import attention_kernels as kernels
from jaxflow.models import layers
from jaxflow.models.attention import attend
from jaxflow.models.attention_kernels import Blocks
from jaxflow.types import Array


@dataclasses.dataclass(frozen=True)
class _How:
  """What a call does not depend on: blocks, and where its arrays lie."""

  blocks: Blocks
  mesh: AbstractMesh | None
  spec: PartitionSpec


_BLOCKS = Blocks()


def fused(q: Array, k: Array, v: Array, *, blocks: Blocks = _BLOCKS) -> Array:
  """Return softmax(q k^T / sqrt(d)) v by kernels, on TPUs.

  Scores and sums are float32, or wider if `q` is; weights are rounded as the
  values are. Over a mesh in force, devices share samples and heads out where
  they divide them.

  Args:
    q: Queries [B, T, heads, d].
    k: Keys [B, S, heads, d].
    v: Values [B, S, heads, d].
    blocks: How tokens are cut, and whether kernels are only interpreted.

  Returns:
    What is attended to [B, T, heads, d], of the dtype of `q`.

  Raises:
    UsageError: When compiled for another platform than TPUs.
  """
  mesh, spec = layers.heads_by_device(q.shape[0], q.shape[2])
  how = _How(blocks, mesh, spec)
  q, k, v = (_tokens_last(x) for x in (q, k, v))
  return _tokens_second(_value.bind(q, k, v, how=how)[0])


def _tokens_last(x: Array) -> Array:
  return jnp.moveaxis(x, 1, 3)


def _tokens_second(x: Array) -> Array:
  return jnp.moveaxis(x, 3, 1)


def _primitive(
  kernel: Callable[..., list[Array]], outputs: Callable[..., list[Any]]
) -> Primitive:
  """Make a primitive of arrays [B, heads, features, tokens].

  Args:
    kernel: The function `(blocks, *arrays)`.
    outputs: Shapes of the outputs, given those of the inputs.
  """
  primitive = Primitive(f"attention_{kernel.__name__}")
  primitive.multiple_results = True
  primitive.def_abstract_eval(lambda *given, how: outputs(*given))

  def lowered(*given, how):
    function = functools.partial(kernel, how.blocks)
    if how.mesh is None:
      return function(*given)
    # Kernels are not divided by the compiler.
    return jax.shard_map(
      function,
      mesh=how.mesh,
      in_specs=how.spec,
      out_specs=how.spec,
      check_vma=False,
    )(*given)

  def elsewhere(*given, how):
    if not how.blocks.interpret:
      raise UsageError(
        "model.attention='kernel': kernels are there for TPUs only; give "
        "'auto', 'blocks' or 'xla' on other platforms"
      )
    return lowered(*given, how=how)

  @functools.partial(jax.jit, static_argnames="how")
  def run(*given, how):
    return primitive.bind(*given, how=how)

  def map_(given, axes, *, how):
    # Samples of one device stay its own: the new axis goes behind theirs.
    [size] = {
      x.shape[a] for x, a in zip(given, axes, strict=True) if a is not None
    }
    moved = [_mapped_last(x, a, size) for x, a in zip(given, axes, strict=True)]
    flat = [x.reshape(-1, *x.shape[2:]) for x in moved]
    found = primitive.bind(*flat, how=how)
    return [x.reshape(-1, size, *x.shape[1:]) for x in found], [1] * len(found)

  primitive.def_impl(run)
  batching.primitive_batchers[primitive] = map_
  mlir.register_lowering(primitive, mlir.lower_fun(elsewhere))
  mlir.register_lowering(primitive, mlir.lower_fun(lowered), platform="tpu")
  return primitive


def _mapped_last(x: Array, axis: int | None, size: int) -> Array:
  """Return an array [B, size, heads, features, tokens]."""
  if axis is None:
    return jnp.broadcast_to(x[:, None], (x.shape[0], size, *x.shape[1:]))
  return jnp.moveaxis(x, axis, 1)


def _row(q: Any) -> Any:
  wide = jnp.promote_types(q.dtype, jnp.float32)
  return q.update(shape=(*q.shape[:2], 1, q.shape[3]), dtype=wide)


_value = _primitive(kernels.value, lambda q, k, v: [q, _row(q)])
_both = _primitive(kernels.value_and_tangent, lambda q, *_: [q, _row(q), q])
_tangent = _primitive(kernels.tangent, lambda q, *_: [q])
_gradient = _primitive(kernels.gradient, lambda q, k, v, *_: [q, k, v])


# Derivatives that no kernel computes.


def _plain_value(q: Array, k: Array, v: Array) -> Array:
  return _tokens_last(attend(*(_tokens_second(x) for x in (q, k, v))))


def _plain_tangent(q, k, v, _y, _log_sum, *tangents):
  return [jax.jvp(_plain_value, (q, k, v), tangents)[1]]


def _plain_gradient(q, k, v, _y, _log_sum, c):
  return list(jax.vjp(_plain_value, q, k, v)[1](c))


def _plain_rule(primitive: Primitive, plain: Callable[..., list[Array]]):
  def rule(given, tangents, *, how):
    _, moved = jax.jvp(plain, given, _whole(tangents))
    return primitive.bind(*given, how=how), moved

  return rule


def _whole(tangents: Sequence[Any]) -> tuple[Array, ...]:
  """Return tangents of which none is a symbol of zero."""
  return tuple(ad.instantiate_zeros(x) for x in tangents)


ad.primitive_jvps[_tangent] = _plain_rule(_tangent, _plain_tangent)
ad.primitive_jvps[_gradient] = _plain_rule(_gradient, _plain_gradient)


# Derivatives of kernels by kernels.


def _value_rule(given, tangents, *, how):
  y, log_sum, dy = _both.bind(*given, *_whole(tangents), how=how)
  # L is a function of what the other rules take derivatives by.
  return [y, log_sum], [dy, _zero(log_sum)]


def _both_rule(given, tangents, *, how):
  tangents = _whole(tangents)
  y, log_sum, dy = _both.bind(*given, how=how)
  known = *given[:3], y, log_sum
  [moved] = _tangent.bind(*known, *tangents[:3], how=how)
  # Nothing of it is left where the tangent is not differentiated.
  _, [turned] = jax.jvp(
    lambda q, k, v, *x: _plain_tangent(q, k, v, None, None, *x),
    given,
    tangents,
  )
  return [y, log_sum, dy], [moved, _zero(log_sum), turned]


def _zero(x: Array) -> ad.Zero:
  return ad.Zero(jax.typeof(x).to_tangent_aval())


def _transposed_tangent(cotangents, *given, how):
  [c] = cotangents
  known, linear = given[:5], given[5:]
  if type(c) is ad.Zero:
    return [None] * 8
  found = _gradient.bind(*known, c, how=how)
  return [None] * 5 + [
    g if ad.is_undefined_primal(x) else None
    for x, g in zip(linear, found, strict=True)
  ]


ad.primitive_jvps[_value] = _value_rule
ad.primitive_jvps[_both] = _both_rule
ad.primitive_transposes[_tangent] = _transposed_tangent


# How value and tangent part.


def _split(trace, *given, how):
  """Compute the value before the tangents are known."""
  known = [x.is_known() for x in given]
  if all(known) or not all(known[:3]):
    return trace.default_process_primitive(_both, given, {"how": how})
  with set_current_trace(trace):
    y, log_sum = _value.bind(*given[:3], how=how)
    [dy] = _tangent.bind(*given[:3], y, log_sum, *given[3:], how=how)
  return [y, log_sum, dy]


def _split_equation(_saveable, unknown, ready, equation):
  """Do the same where values are computed again for the backward pass."""
  known = _value_alone(equation) if any(unknown) else equation
  if any(unknown[:3]):
    known = None
  needed = [x for x, r in zip(equation.invars, ready, strict=True) if not r]
  unknown = [known is None, known is None, any(unknown)]
  return known, equation, unknown, [True] * 3, needed


def _drop_unused(used, *others):
  """Compute no tangent that nobody uses."""
  # JAX 0.12 gives one more argument, in front of the equation.
  equation = others[-1]
  if used[2]:
    return [True] * 6, equation
  if any(used):
    return [True] * 3 + [False] * 3, _value_alone(equation)
  return [False] * 6, None


def _value_alone(equation):
  return equation.replace(
    primitive=_value, invars=equation.invars[:3], outvars=equation.outvars[:2]
  )


partial_eval.custom_partial_eval_rules[_both] = _split
partial_eval.partial_eval_jaxpr_custom_rules[_both] = _split_equation
partial_eval.dce_rules[_both] = _drop_unused
