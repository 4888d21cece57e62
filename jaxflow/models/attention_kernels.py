r"""Pallas kernels of softmax attention for TPUs: value, tangent, gradients.

Arrays are [B, heads, d, T], the tokens last: rows of a score block are keys,
its columns queries. What belongs to a query, its largest score for instance, is
then a row along the lanes, and heads of any size fill them. With scores
S = k^T q / sqrt(d), L = log sum exp S, P = exp(S - L) by columns and c the
gradient by the values y = v P,

  y = v P                                                                  (1)
  dS = (dk^T q + k^T dq) / sqrt(d),  dy = v (P dS) + dv P - y sum(P dS)     (2)
  D = v^T c - sum(y c),  gv = c P^T,  gq = k (P D) / sqrt(d),
  gk = q (P D)^T / sqrt(d)                                                 (3)

(products of P with dS and D entry by entry, sums along columns). A grid goes
over samples, heads, blocks of queries and, innermost, blocks of keys, whose
part is added to what is kept in the chip's memory; for (3) by keys it is the
other way round. Before L is known, exp(S - largest so far) stands for P, and
what was added up is scaled whenever the largest grows; (2) is of first order in
P, so its sums scale alike, and value and tangent come from one pass.

References:
  Dao et al., 2022, arXiv:2205.14135: (1) and (3) in blocks.
  Lu and Song, 2024, arXiv:2410.11081, section 4: (2) in the same pass.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from jaxflow.types import Array

# The lanes of a TPU's registers: blocks of tokens are multiples of it.
LANES = 128
# The score of a key that is none: its difference to another is finite, and the
# exponential of that is 0.
_LEAST = -0.7 * float(jnp.finfo(jnp.float32).max)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Blocks:
  """How tokens are cut.

  Attributes:
    queries: The most queries a block.
    keys: The most keys a block.
    lanes: Of what a block is a multiple.
    interpret: Whether to run on any device, step by step, as tests do.
  """

  queries: int = 512
  keys: int = 512
  lanes: int = LANES
  interpret: bool = False


def value(blocks: Blocks, q: Array, k: Array, v: Array) -> list[Array]:
  """Return y [B, heads, d, T], of the dtype of `q`, and L [B, heads, 1, T]."""
  grid = _Grid(blocks, q, k)
  d = q.shape[2]
  return grid.call(
    functools.partial(_value_kernel, grid.valid),
    ("q", q),
    *(("k", x) for x in (k, v)),
    outputs=[("q", d, q.dtype), ("q", 1, grid.wide)],
    sums=[1, 1, d],
    products=2,
  )


def value_and_tangent(
  blocks: Blocks,
  q: Array,
  k: Array,
  v: Array,
  dq: Array,
  dk: Array,
  dv: Array,
) -> list[Array]:
  """Return y, L and dy, from one pass over the keys."""
  grid = _Grid(blocks, q, k)
  d = q.shape[2]
  return grid.call(
    functools.partial(_value_and_tangent_kernel, grid.valid),
    *(("q", x) for x in (q, dq)),
    *(("k", x) for x in (k, v, dk, dv)),
    outputs=[("q", d, q.dtype), ("q", 1, grid.wide), ("q", d, q.dtype)],
    sums=[1, 1, d, 1, d],
    products=6,
  )


def tangent(
  blocks: Blocks,
  q: Array,
  k: Array,
  v: Array,
  y: Array,
  log_sum: Array,
  dq: Array,
  dk: Array,
  dv: Array,
) -> list[Array]:
  """Return dy alone, of y and L that are known, in a list."""
  grid = _Grid(blocks, q, k)
  d = q.shape[2]
  return grid.call(
    functools.partial(_tangent_kernel, grid.valid),
    *(("q", x) for x in (q, dq, y, log_sum)),
    *(("k", x) for x in (k, v, dk, dv)),
    outputs=[("q", d, q.dtype)],
    sums=[1, d],
    products=5,
  )


def gradient(
  blocks: Blocks,
  q: Array,
  k: Array,
  v: Array,
  y: Array,
  log_sum: Array,
  c: Array,
) -> list[Array]:
  """Return gq, gk and gv of the gradient c by y."""
  d, wide = q.shape[2], log_sum.dtype
  shift = (y.astype(wide) * c.astype(wide)).sum(2, keepdims=True)
  given = [
    *(("q", x) for x in (q, log_sum, c, shift)),
    *(("k", x) for x in (k, v)),
  ]
  grid = _Grid(blocks, q, k)
  [gq] = grid.call(
    functools.partial(_query_gradient_kernel, grid.valid),
    *given,
    outputs=[("q", d, q.dtype)],
    sums=[d],
    products=3,
  )
  # Keys that are none have gradients of their own here, which are cut off.
  gk, gv = _Grid(blocks, q, k, outer="k").call(
    _key_gradient_kernel,
    *given,
    outputs=[("k", d, k.dtype), ("k", d, v.dtype)],
    sums=[d, d],
    products=4,
  )
  return [gq, gk, gv]


class _Grid:
  """Samples, heads, blocks of the outer and of the inner axis of tokens.

  The axes are queries, "q", and keys, "k".
  """

  def __init__(self, blocks: Blocks, q: Array, k: Array, outer: str = "q"):
    self.lead, self.features = q.shape[:2], q.shape[2]
    self.wide = jnp.promote_types(q.dtype, jnp.float32)
    self.interpret = blocks.interpret
    self.axes = outer, "k" if outer == "q" else "q"
    self.tokens = {"q": q.shape[3], "k": k.shape[3]}
    self.size, self.count = {}, {}
    for axis, most in (("q", blocks.queries), ("k", blocks.keys)):
      tokens = self.tokens[axis]
      even = -(-tokens // -(-tokens // most))
      self.size[axis] = -(-even // blocks.lanes) * blocks.lanes
      self.count[axis] = -(-tokens // self.size[axis])
    # The number of keys, or None where the blocks have no others.
    self.valid = self.tokens["k"] if self._fill("k") else None

  def call(
    self,
    kernel: Callable[..., None],
    *inputs: tuple[str, Array],
    outputs: list[tuple[str, int, Any]],
    sums: list[int],
    products: int,
  ) -> list[Array]:
    """Run a kernel.

    Args:
      kernel: The function of the blocks of inputs, outputs and sums.
      *inputs: Axis and array [B, heads, features, tokens].
      outputs: Axis, features and dtype.
      sums: Features of what is kept from block to block of the inner axis, for
        all tokens of a block of the outer one.
      products: The kernel's matrix products of a block.
    """
    ends = (0, 0), (0, 0), (0, 0)
    filled = [jnp.pad(x, (*ends, (0, self._fill(a)))) for a, x in inputs]
    shapes = [
      jax.ShapeDtypeStruct((*self.lead, n, self.tokens[a] + self._fill(a)), t)
      for a, n, t in outputs
    ]
    pairs = math.prod(self.lead) * self.tokens["q"] * self.tokens["k"]
    found = pl.pallas_call(
      kernel,
      out_shape=shapes,
      grid=(*self.lead, *(self.count[a] for a in self.axes)),
      in_specs=[self._spec(a, x.shape[2]) for a, x in inputs],
      out_specs=[self._spec(a, n) for a, n, _ in outputs],
      scratch_shapes=[
        pltpu.VMEM((n, self.size[self.axes[0]]), self.wide) for n in sums
      ],
      compiler_params=pltpu.CompilerParams(
        dimension_semantics=("parallel", "parallel", "parallel", "arbitrary")
      ),
      cost_estimate=pl.CostEstimate(
        flops=2 * products * pairs * self.features,
        transcendentals=pairs,
        bytes_accessed=sum(
          x.size * x.dtype.itemsize for x in [*filled, *shapes]
        ),
      ),
      interpret=self.interpret,
    )(*filled)
    return [
      x[..., : self.tokens[o[0]]] for x, o in zip(found, outputs, strict=True)
    ]

  def _fill(self, axis: str) -> int:
    """Return the tokens that blocks have more than there are."""
    return self.size[axis] * self.count[axis] - self.tokens[axis]

  def _spec(self, axis: str, features: int) -> pl.BlockSpec:
    place = 2 + self.axes.index(axis)
    return pl.BlockSpec(
      (None, None, features, self.size[axis]),
      lambda *at: (at[0], at[1], 0, at[place]),
    )


# The kernels see blocks [features, tokens]; sums are kept from call to call.


def _value_kernel(valid, q, k, v, y, log_sum, most, total, values):
  _at_begin(most, total, values)
  weights = _next_weights(valid, q, k, most, total, values)
  values[...] += _sum(v, weights)

  @_at_end
  def _():
    y[...] = (values[...] / total[...]).astype(y.dtype)
    log_sum[...] = most[...] + jnp.log(total[...])


def _value_and_tangent_kernel(
  valid, q, dq, k, v, dk, dv, y, log_sum, dy, most, total, values, rows, moved
):
  _at_begin(most, total, values, rows, moved)
  weights = _next_weights(valid, q, k, most, total, values, rows, moved)
  change = weights * _scores_tangent(q, dq, k, dk)
  values[...] += _sum(v, weights)
  rows[...] += change.sum(0, keepdims=True)
  moved[...] += _sum(v, change) + _sum(dv, weights)

  @_at_end
  def _():
    mean = values[...] / total[...]
    y[...] = mean.astype(y.dtype)
    log_sum[...] = most[...] + jnp.log(total[...])
    dy[...] = ((moved[...] - rows[...] * mean) / total[...]).astype(dy.dtype)


def _tangent_kernel(valid, q, dq, y, log_sum, k, v, dk, dv, dy, rows, moved):
  _at_begin(None, rows, moved)
  weights = jnp.exp(_scores(valid, q, k) - log_sum[...])
  change = weights * _scores_tangent(q, dq, k, dk)
  rows[...] += change.sum(0, keepdims=True)
  moved[...] += _sum(v, change) + _sum(dv, weights)

  @_at_end
  def _():
    mean = y[...].astype(moved.dtype)
    dy[...] = (moved[...] - rows[...] * mean).astype(dy.dtype)


def _query_gradient_kernel(valid, q, log_sum, c, shift, k, v, gq, total):
  _at_begin(None, total)
  weights = jnp.exp(_scores(valid, q, k) - log_sum[...])
  slope = weights * (_pairs(v, c) - shift[...])
  total[...] += _sum(k, slope)

  @_at_end
  def _():
    gq[...] = (total[...] / _root(q)).astype(gq.dtype)


def _key_gradient_kernel(
  q, log_sum, c, shift, k, v, gk, gv, key_sum, value_sum
):
  _at_begin(None, key_sum, value_sum)
  weights = jnp.exp(_scores(None, q, k) - log_sum[...])
  slope = weights * (_pairs(v, c) - shift[...])
  value_sum[...] += _product(c[...], weights, 1)
  key_sum[...] += _product(q[...], slope, 1)

  @_at_end
  def _():
    gk[...] = (key_sum[...] / _root(q)).astype(gk.dtype)
    gv[...] = value_sum[...].astype(gv.dtype)


def _at_begin(most, *sums):
  """Empty what is kept, before the first block of the inner axis."""

  @pl.when(pl.program_id(3) == 0)
  def _():
    if most is not None:
      most[...] = jnp.full(most.shape, _LEAST, most.dtype)
    for kept in sums:
      kept[...] = jnp.zeros(kept.shape, kept.dtype)


def _at_end(function):
  """Run a function after the last block of the inner axis."""
  pl.when(pl.program_id(3) == pl.num_programs(3) - 1)(function)


def _next_weights(valid, q, k, most, total, *sums):
  """Return exp(S - largest so far) [keys, queries]; scale what is kept."""
  scores = _scores(valid, q, k)
  higher = jnp.maximum(most[...], scores.max(0, keepdims=True))
  weights, old = jnp.exp(scores - higher), jnp.exp(most[...] - higher)
  most[...] = higher
  total[...] = total[...] * old + weights.sum(0, keepdims=True)
  for kept in sums:
    kept[...] *= old
  return weights


def _scores(valid, q, k):
  """Return S [keys, queries]."""
  scores = _pairs(k, q) / _root(q)
  if valid is None:
    return scores
  begin = pl.program_id(3) * scores.shape[0]
  place = begin + jax.lax.broadcasted_iota(jnp.int32, scores.shape, 0)
  return jnp.where(place < valid, scores, _LEAST)


def _scores_tangent(q, dq, k, dk):
  return (_pairs(dk, q) + _pairs(k, dq)) / _root(q)


def _pairs(one, other):
  """Return all products of tokens, [tokens of one, tokens of the other]."""
  return _dot(one[...], other[...], 0, 0)


def _sum(values, weights):
  """Return sums over keys [features, queries], of weights [keys, queries]."""
  return _product(values[...], weights, 0)


def _product(values, weights, axis):
  """Return weighted values; the weights are rounded as the values are."""
  return _dot(values, weights.astype(values.dtype), 1, axis)


def _dot(one, other, *axes):
  numbers = ((axes[0],), (axes[1],)), ((), ())
  wide = jnp.promote_types(one.dtype, jnp.float32)
  return jax.lax.dot_general(one, other, numbers, preferred_element_type=wide)


def _root(q):
  return math.sqrt(q.shape[0])
