"""Whether a traced function treats the rows of a batch one by one.

A function is traced twice: for a batch, and for its interval rows. The axis in
which a variable of the first program differs from that of the second is its
row axis. Rows may be the slower part of an axis, that of tokens [B T, D] for
instance. A program is row-wise if both traces are the same operations, and each
of them is known to leave every row where it is: what it makes of a row depends
on that row alone. A derivative of one's own (`jax.custom_jvp`) is not looked
into: it is that of the interval rows alone, as in a call of their own.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend import core

from jaxflow import rows

_Shape = tuple[int, ...]
# (operation, row axes of what enters it, row axis of the result) -> row-wise?
_Rule = Callable[[core.JaxprEqn, list[int | None], int], bool]

# The operations that the derivative of a program looks into.
OPENED = frozenset({"jit", "remat2", "scan"})
# Further operations that hold programs.
_CLOSED = frozenset({"cond", "while", "custom_jvp_call", "custom_vjp_call"})
# Operations that make rows of nothing. Numbers and random bits differ between
# rows; a copy does not.
_NEW = frozenset({"broadcast_in_dim", "iota", "random_bits"})
_PRODUCTS = frozenset({"dot_general", "conv_general_dilated"})
# Parameters that may differ as shapes do.
_SIZES = frozenset(
  {"shape", "new_sizes", "slice_sizes", "limit_indices", "padding_config"}
)
_ELEMENTWISE = (
  "abs acos acosh add add_any and asin asinh atan atan2 atanh "
  "bitcast_convert_type cbrt ceil clamp convert_element_type copy copy_p cos "
  "cosh digamma div eq erf erf_inv erfc exp exp2 expm1 floor ge gt imag "
  "integer_pow is_finite le lgamma log log1p logistic lt max min mul ne neg "
  "nextafter not optimization_barrier or pow real reduce_precision rem round "
  "rsqrt select_n sharding_constraint shift_left shift_right_arithmetic "
  "shift_right_logical sign sin sinh sqrt square stop_gradient sub tan tanh xor"
)
_REDUCTIONS = (
  "argmax argmin reduce_and reduce_max reduce_min reduce_or reduce_prod "
  "reduce_sum reduce_xor"
)


class _MixedError(Exception):
  """An operation is not known to treat rows one by one."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Split:
  """Interval rows among all rows of a batch.

  Attributes:
    block: Which rows are interval rows, (m, k); see `rows`.
    size: Rows of the batch.
  """

  block: rows.Block
  size: int

  def axis(self, whole: _Shape, part: _Shape) -> int | None:
    """Return the row axis, None of a variable without rows.

    Raises:
      _MixedError: If shapes differ otherwise than in a row axis.
    """
    if whole == part:
      return None
    m, k = self.block
    if len(whole) == len(part):
      (axis, *others) = [i for i in range(len(whole)) if whole[i] != part[i]]
      is_share = whole[axis] * k == part[axis] * m
      if is_share and whole[axis] % self.size == 0 and not others:
        return axis
    raise _MixedError

  def interval(self, x: Any, whole: _Shape, part: _Shape) -> Any:
    """Return the interval rows of a value, whose shape for these is `part`."""
    axis = self.axis(whole, part)
    if axis is None:
      return x
    m, k = self.block
    others = whole[axis] // self.size
    sides = self.size // m, m * others
    split = jnp.reshape(x, (*whole[:axis], *sides, *whole[axis + 1 :]))
    first = jax.lax.slice_in_dim(split, 0, k * others, axis=axis + 1)
    return jnp.reshape(first, part)

  def is_row_wise(self, whole: core.ClosedJaxpr, part: core.Jaxpr) -> bool:
    """Return whether a function is row-wise.

    Args:
      whole: Its program for the batch.
      part: Its program for the interval rows.
    """
    if whole.effects:
      return False
    try:
      self._check(whole.jaxpr, part, opened=True)
    except _MixedError:
      return False
    return True

  def _check(
    self, whole: core.Jaxpr, part: core.Jaxpr, *, opened: bool
  ) -> None:
    """Raise _MixedError unless programs are one, and row-wise.

    An operation that is not opened is computed once more for the interval
    rows. It must have the same rows there, and no products.
    """
    if any(x is not None for x in self._axes(whole.constvars, part.constvars)):
      raise _MixedError  # Numbers of rows, made outside of the program.
    self._axes(whole.invars, part.invars)
    if len(whole.eqns) != len(part.eqns):
      raise _MixedError
    for one, other in zip(whole.eqns, part.eqns, strict=True):
      if one.primitive is not other.primitive:
        raise _MixedError
      if one.primitive.name in OPENED | _CLOSED:
        self._check_programs(one, other, opened=opened)
      else:
        self._check_operation(one, other, opened=opened)

  def _check_programs(
    self, one: core.JaxprEqn, other: core.JaxprEqn, *, opened: bool
  ) -> None:
    name = one.primitive.name
    self._axes(one.outvars, other.outvars)
    for key in ("length", "reverse"):
      if one.params.get(key) != other.params.get(key):
        raise _MixedError
    if name == "scan" and loop_inputs(one) != loop_inputs(other):
      raise _MixedError
    shardings = (one.params.get(f"{x}_shardings", ()) for x in ("in", "out"))
    if any(
      type(x).__name__ != "UnspecifiedValue" for some in shardings for x in some
    ):
      raise _MixedError
    inner, others = programs(one), programs(other)
    if len(inner) != len(others):
      raise _MixedError
    for program, small in zip(inner, others, strict=True):
      self._check(program, small, opened=opened and name in OPENED)

  def _check_operation(
    self, one: core.JaxprEqn, other: core.JaxprEqn, *, opened: bool
  ) -> None:
    name = one.primitive.name
    for key in one.params.keys() - _SIZES:
      if not _equal(one.params[key], other.params[key]):
        raise _MixedError
    given = self._axes(one.invars, other.invars)
    made = self._axes(one.outvars, other.outvars)
    if not opened and name in _PRODUCTS:
      raise _MixedError
    if all(axis is None for axis in given):
      news = {"broadcast_in_dim"} if not opened else _NEW
      if any(axis is not None for axis in made) and name not in news:
        raise _MixedError
      return
    rule = _RULES.get(name)
    for axis in made:
      if axis is None or rule is None or not rule(one, given, axis):
        raise _MixedError

  def _axes(
    self, whole: Sequence[Any], part: Sequence[Any]
  ) -> list[int | None]:
    """Return the row axis of each variable; equal literals have none."""
    if len(whole) != len(part):
      raise _MixedError
    axes = []
    for a, b in zip(whole, part, strict=True):
      axes.append(self.axis(a.aval.shape, b.aval.shape))
      literal = isinstance(a, core.Literal), isinstance(b, core.Literal)
      if any(literal) and not (all(literal) and _equal(a.val, b.val)):
        raise _MixedError
    return axes


def programs(operation: core.JaxprEqn) -> list[core.Jaxpr]:
  """Return the programs in an operation."""
  found = []
  for value in operation.params.values():
    for x in value if isinstance(value, tuple) else [value]:
      program = getattr(x, "jaxpr", x)
      if isinstance(program, core.Jaxpr):
        found.append(program)
  return found


def loop_inputs(scan: core.JaxprEqn) -> tuple[int, int]:
  """Return how many inputs a scan holds, and how many it carries.

  Raises:
    _MixedError: If this version of JAX does not say so.
  """
  params = scan.params
  if "num_carry" in params:
    return params["num_consts"], params["num_carry"]
  if "ft_in" in params:  # jax 0.12
    held, carried, _ = params["ft_in"].unpack()
    return len(held), len(carried)
  raise _MixedError


def _equal(a: Any, b: Any) -> bool:
  try:
    return a is b or bool(a == b)
  except (TypeError, ValueError):  # Arrays have no one truth value.
    return False


def _elementwise(operation, given, made) -> bool:
  return all(axis in (None, made) for axis in given)


def _transposes(operation, given, made) -> bool:
  return operation.params["permutation"][made] == given[0]


def _broadcasts(operation, given, made) -> bool:
  return operation.params["broadcast_dimensions"][given[0]] == made


def _reshapes(operation, given, made) -> bool:
  """Return whether as much is before the rows: they stay the slower part."""
  old, new = operation.invars[0].aval.shape, operation.outvars[0].aval.shape
  return math.prod(old[: given[0]]) == math.prod(new[:made])


def _drops(name: str) -> _Rule:
  """Return the rule of an operation that drops axes."""

  def rule(operation, given, made) -> bool:
    (axis, dropped) = given[0], operation.params[name]
    before = sum(x < axis for x in dropped)
    return axis not in dropped and made == axis - before

  return rule


def _along(name: str) -> _Rule:
  """Return the rule of an operation along other axes."""

  def rule(operation, given, made) -> bool:
    axes = operation.params[name]
    axes = axes if isinstance(axes, tuple) else (axes,)
    return made not in axes and all(axis == made for axis in given)

  return rule


def _pads(operation, given, made) -> bool:
  kept = operation.params["padding_config"][made] == (0, 0, 0)
  return kept and given == [made, None]


def _slices(operation, given, made) -> bool:
  params, size = operation.params, operation.invars[0].aval.shape[made]
  strides = params["strides"]
  whole = params["start_indices"][made] == 0
  whole &= params["limit_indices"][made] == size
  return whole and given == [made] and (not strides or strides[made] == 1)


def _slices_anywhere(operation, given, made) -> bool:
  size = operation.invars[0].aval.shape[made]
  others = all(axis is None for axis in given[1:])
  whole = operation.params["slice_sizes"][made] == size
  return given[0] == made and others and whole


def _updates(operation, given, made) -> bool:
  old, new = (x.aval.shape[made] for x in operation.invars[:2])
  others = all(axis is None for axis in given[2:])
  return given[:2] == [made, made] and others and old == new


def _pools(operation, given, made) -> bool:
  params = operation.params
  alone = params["padding"][made] == (0, 0)
  for name in ("window_dimensions", "window_strides", "base_dilation"):
    alone &= params[name][made] == 1
  return alone and given[0] == made


def _products(operation, given, made) -> bool:
  """Find rows in the batch axes of a result, or in those left of a factor."""
  summed, batch = operation.params["dimension_numbers"]
  begin = len(batch[0])
  for i, axis in enumerate(given):
    ndim = operation.invars[i].aval.ndim
    free = [x for x in range(ndim) if x not in (*summed[i], *batch[i])]
    places = {x: j for j, x in enumerate(batch[i])}
    places |= {x: begin + j for j, x in enumerate(free)}
    begin += len(free)
    if axis is not None and places.get(axis) != made:
      return False
  return True


def _convolves(operation, given, made) -> bool:
  params = operation.params
  numbers = params["dimension_numbers"]
  there = given == [numbers.lhs_spec[0], None] and made == numbers.out_spec[0]
  return there and params["batch_group_count"] == 1


def _gathers(operation, given, made) -> bool:
  """Look rows up in a table, take the same of every row, or each its own."""
  numbers, (axis, index) = operation.params["dimension_numbers"], given
  result = range(operation.outvars[0].aval.ndim)
  taken = [x for x in result if x not in numbers.offset_dims]
  if axis is None:
    return taken[index] == made
  own = numbers.operand_batching_dims
  if index is not None:
    its = dict(zip(own, numbers.start_indices_batching_dims, strict=True))
    return its.get(axis) == index and taken[index] == made
  dropped = (*numbers.collapsed_slice_dims, *own)
  shape = operation.invars[0].aval.shape
  kept = [x for x in range(len(shape)) if x not in dropped]
  whole = operation.params["slice_sizes"][axis] == shape[axis]
  there = axis in kept and numbers.offset_dims[kept.index(axis)] == made
  return there and whole and axis not in numbers.start_index_map


_RULES: dict[str, _Rule] = {
  **dict.fromkeys(_ELEMENTWISE.split(), _elementwise),
  **dict.fromkeys(_REDUCTIONS.split(), _drops("axes")),
  **{f"cum{x}": _along("axis") for x in ("logsumexp", "max", "min", "prod")},
  **{f"reduce_window_{x}": _pools for x in ("max", "min", "sum")},
  "broadcast_in_dim": _broadcasts,
  "concatenate": _along("dimension"),
  "conv_general_dilated": _convolves,
  "cumsum": _along("axis"),
  "dot_general": _products,
  "dynamic_slice": _slices_anywhere,
  "dynamic_update_slice": _updates,
  "gather": _gathers,
  "pad": _pads,
  "reshape": _reshapes,
  "rev": _along("dimensions"),
  "slice": _slices,
  "sort": _along("dimension"),
  "split": _along("axis"),
  "squeeze": _drops("dimensions"),
  "transpose": _transposes,
}
