r"""Softmax attention in memory linear in the tokens, with all derivatives.

With scores S = q k^T / sqrt(d), L = log sum exp S and P = exp(S - L), attention
is P v. A loop over blocks of keys carries the largest score, the sum and the
weighted values seen so far, so no array of all pairs of tokens is ever there.
The derivative is a loop of its own over the same blocks, linear in the tangents

  d(P v) = P dS v - rowsum(P dS) P v + P dv,   dL = rowsum(P dS)

(products of P and dS entry by entry), where P is computed anew in every block.
It adds up what blocks give and carries nothing else, so its transpose, which is
the backward pass, keeps nothing of a block either; and since it is made of the
same function and of plain JAX, there are derivatives of any order.

References:
  Milakov and Gimelshein, 2018, arXiv:1805.02867: softmax in one pass.
  Rabe and Staats, 2021, arXiv:2112.05682: attention in blocks.
  Dao et al., 2022, arXiv:2205.14135: its backward pass from L.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from jaxflow.types import Array

Kind = Literal["auto", "xla", "blocks", "kernel"]
# Names the results of `attend` that its backward pass needs, for the policies
# of `jax.checkpoint`.
ATTENDED = "attended"

# Keys a block.
BLOCK = 256
# From so many keys on, "auto" takes blocks: for MeanFlow's gradient on a CPU in
# 0.3 of the time and of the memory of all pairs (experiments/attention).
LONG = 1024
# What is added to the score of a masked pair, as a share of the largest number
# there is: the difference of two such is finite.
_MASKED = -0.7


def attention(q: Array, k: Array, v: Array, *, kind: Kind = "auto") -> Array:
  """Return softmax(q k^T / sqrt(d)) v [B, T, heads, d] by a kind of program.

  All kinds compute the same function and have derivatives of any order.

  Args:
    q: Queries [B, T, heads, d].
    k: Keys [B, S, heads, d].
    v: Values [B, S, heads, d].
    kind: "xla", all pairs of tokens at once; "blocks", `attend`; "kernel",
      `fused_attention.fused`, for TPUs; or "auto", blocks from `LONG` keys on.

  Raises:
    UsageError: When kernels are compiled for another platform than TPUs.
  """
  if kind == "kernel":
    # Pallas loads where it is used, and it is made of this module.
    from jaxflow.models.fused_attention import fused

    return fused(q, k, v)
  if _is_whole(kind, k.shape[1]):
    return jax.nn.dot_product_attention(q, k, v, implementation="xla")
  return attend(q, k, v)


def kept(kind: Kind, keys: int) -> Callable[..., Any]:
  """Return the policy of `jax.checkpoint` that keeps products of matrices.

  Of attention in blocks it keeps what that keeps itself: a policy reaches into
  its loop, where it would keep the scores of all pairs.

  Args:
    kind: As of `attention`.
    keys: Number of keys.
  """
  policies = jax.checkpoint_policies
  if _is_whole(kind, keys):
    return policies.dots_saveable
  return policies.save_from_both_policies(
    policies.dots_with_no_batch_dims_saveable,
    policies.save_only_these_names(ATTENDED),
  )


def _is_whole(kind: Kind, keys: int) -> bool:
  """Return whether all pairs of tokens are there at once."""
  return kind == "xla" or (kind == "auto" and keys < LONG)


def attend(
  q: Array,
  k: Array,
  v: Array,
  *,
  mask: Array | None = None,
  block: int = BLOCK,
) -> Array:
  """Return softmax(q k^T / sqrt(d)) v, never for all pairs of tokens at once.

  Scores, weights and sums are float32, or wider if `q` is. A row without any
  key that it may see gets the mean of all values, as of
  `jax.nn.dot_product_attention`.

  Args:
    q: Queries [B, T, heads, d].
    k: Keys [B, S, heads, d].
    v: Values [B, S, heads, d].
    mask: Which keys a query may see, bool, broadcastable to [B, heads, T, S].
    block: Keys a block.

  Returns:
    What is attended to [B, T, heads, d], of the dtype of `q`.
  """
  q_, k_, v_ = (x.swapaxes(1, 2) for x in (q, k, v))
  count = k_.shape[2]
  blocks = -(-count // block)
  fill = -count % blocks
  k_, v_ = (jnp.pad(x, ((0, 0), (0, 0), (0, fill), (0, 0))) for x in (k_, v_))
  out, _ = _attend(blocks, _bias(mask, count, fill), q_, k_, v_)
  return out.astype(q.dtype).swapaxes(1, 2)


def _bias(mask: Array | None, count: int, fill: int) -> Array | None:
  """Return what is added to scores [..., keys]; None: nothing.

  The `fill` keys at the end are none, and have no weight in any row.
  """
  if mask is None and not fill:
    return None
  mask = jnp.ones((1, 1, 1, 1), bool) if mask is None else mask
  mask = jnp.reshape(mask, (1,) * (4 - mask.ndim) + mask.shape)
  bias = jnp.where(mask, 0.0, _least())
  bias = jnp.broadcast_to(bias, (*bias.shape[:-1], count))
  ends = ((0, 0), (0, 0), (0, 0), (0, fill))
  return jnp.pad(bias, ends, constant_values=-jnp.inf)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _attend(
  blocks: int, bias: Array | None, q: Array, k: Array, v: Array
) -> tuple[Array, Array]:
  """Return P v [B, heads, T, d] and L [B, heads, T, 1], in float32 or more."""

  def step(carry, xs):
    most, total, values = carry
    bias, k, v = xs
    scores = _scores(bias, q, k)
    higher = jnp.maximum(most, scores.max(-1, keepdims=True))
    weights, old = jnp.exp(scores - higher), jnp.exp(most - higher)
    total = total * old + weights.sum(-1, keepdims=True)
    return (higher, total, values * old + _product(weights, v)), None

  rows = jnp.zeros((*q.shape[:3], 1), _wide(q))
  begin = rows + _least(), rows, jnp.zeros(q.shape, _wide(q))
  xs = _split(blocks, bias, k, v)
  (most, total, values), _ = jax.lax.scan(step, begin, xs)
  return values / total, most + jnp.log(total)


@_attend.defjvp
def _attend_jvp(blocks, primals, tangents):
  bias, q, k, v = primals
  _, dq, dk, dv = tangents
  out, log_sum = (
    checkpoint_name(x, ATTENDED) for x in _attend(blocks, *primals)
  )

  @functools.partial(jax.checkpoint, prevent_cse=False)
  def step(carry, xs):
    moved, rows = carry
    (bias, k, v), (dk, dv) = xs
    weights = jnp.exp(_scores(bias, q, k) - log_sum)
    change = weights * (_pairs(dq, k) + _pairs(q, dk)) / _root(q)
    moved += _product(change, v) + _product(weights, dv)
    return (moved, rows + change.sum(-1, keepdims=True)), None

  begin = jnp.zeros_like(out), jnp.zeros_like(log_sum)
  xs = _split(blocks, bias, k, v), _split(blocks, None, dk, dv)[1:]
  (moved, rows), _ = jax.lax.scan(step, begin, xs)
  return (out, log_sum), (moved - rows * out, rows)


def _split(blocks: int, bias: Array | None, *arrays: Array):
  """Return bias and arrays of keys with an axis of blocks in front."""
  parts = [x.reshape(*x.shape[:2], blocks, -1, x.shape[3]) for x in arrays]
  if bias is not None:
    bias = jnp.moveaxis(bias.reshape(*bias.shape[:3], blocks, -1), 3, 0)
  return bias, *(jnp.moveaxis(x, 2, 0) for x in parts)


def _scores(bias: Array | None, q: Array, k: Array) -> Array:
  """Return the scores of a block of keys [B, heads, T, block]."""
  scores = _pairs(q, k) / _root(q)
  return scores if bias is None else scores + bias


def _pairs(q: Array, k: Array) -> Array:
  return jnp.einsum("bhtd,bhsd->bhts", q, k, preferred_element_type=_wide(q))


def _product(weights: Array, v: Array) -> Array:
  """Return weighted values; the weights are rounded as the values are."""
  weights = weights.astype(v.dtype)
  return jnp.einsum(
    "bhts,bhsd->bhtd", weights, v, preferred_element_type=_wide(v)
  )


def _wide(x: Array) -> jnp.dtype:
  """Return the type of sums of an array's products."""
  return jnp.promote_types(x.dtype, jnp.float32)


def _root(q: Array) -> float:
  return math.sqrt(q.shape[-1])


def _least() -> float:
  return _MASKED * float(jnp.finfo(jnp.float32).max)
