"""How JAX's primitive operations are written in ONNX, one rule each.

A rule is called as `rule(graph, equation, *values)` and returns the value of
the equation, or a list of several. Values may have 1 in place of a larger size
(`onnx_graph`); a rule asks for all sizes with `_full` where that matters.
Controlling primitives, calls, branches and loops of known length, are written
out: the graph has neither functions nor loops.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, cast

import jax
import numpy as np
from jax.extend import core

from jaxflow.errors import UsageError
from jaxflow.exports.onnx_graph import Graph, Value

Rule = Callable[..., Any]

# Random keys are no arrays; a sampler that needs one cannot be exported.
_KEY = np.zeros((), object)
# A folded constant may be larger than what it was made of by this many numbers.
_SLACK = 4096

# Primitives with a node of their own, applied number by number.
_DIRECT = {
  **{"add": "Add", "add_any": "Add", "sub": "Sub", "mul": "Mul", "div": "Div"},
  **{"max": "Max", "min": "Min", "pow": "Pow", "exp": "Exp", "log": "Log"},
  **{"sqrt": "Sqrt", "tanh": "Tanh", "logistic": "Sigmoid", "sin": "Sin"},
  **{"cos": "Cos", "abs": "Abs", "neg": "Neg", "sign": "Sign", "erf": "Erf"},
  **{"floor": "Floor", "ceil": "Ceil", "eq": "Equal", "lt": "Less"},
  **{"le": "LessOrEqual", "gt": "Greater", "ge": "GreaterOrEqual"},
  **{"and": "And", "or": "Or", "xor": "Xor", "not": "Not"},
}
_SAME = (
  *("stop_gradient", "copy", "copy_p", "optimization_barrier"),
  *("sharding_constraint", "reduce_precision"),
)
_REDUCED = {
  **{"reduce_sum": "ReduceSum", "reduce_max": "ReduceMax"},
  **{"reduce_min": "ReduceMin", "reduce_prod": "ReduceProd"},
}
# ONNX Runtime has these for 32 bits without a sign only through 64 bits.
_WIDE = {"Add", "Sub", "Mul", "Max", "Min"}


def lower(graph: Graph, closed: Any, values: Sequence[Value]) -> list[Value]:
  """Write a traced function into a graph; return its outputs."""
  jaxpr = closed.jaxpr if hasattr(closed, "jaxpr") else closed
  constants = getattr(closed, "consts", ())
  known: dict[Any, Value] = dict(
    zip(jaxpr.constvars, (np.asarray(x) for x in constants), strict=True)
  )
  known.update(zip(jaxpr.invars, values, strict=True))

  def read(atom: Any) -> Value:
    if isinstance(atom, core.Literal):
      return np.asarray(atom.val, cast(Any, atom.aval).dtype)
    return known[atom]

  for equation in jaxpr.eqns:
    given = [read(x) for x in equation.invars]
    made = _apply(graph, equation, given)
    results = made if isinstance(made, list) else [made]
    known.update(zip(equation.outvars, results, strict=True))
  return [read(x) for x in jaxpr.outvars]


def _apply(graph: Graph, equation: Any, values: list[Value]) -> Any:
  """Return what an equation computes: an array where all of it is known."""
  name = equation.primitive.name
  if name in _DIRECT or name in _FOLDED:
    folded = _folded(equation, values)
    if folded is not None:
      return folded
  if name in _SAME:
    return values if len(values) > 1 else values[0]
  if name in _DIRECT:
    return _elementwise(graph, _DIRECT[name], equation, *values)
  if name not in RULES:
    raise UsageError(
      f"format='onnx': the network computes {name!r}, which has no ONNX form "
      "here; export format='stablehlo'"
    )
  return RULES[name](graph, equation, *values)


def _folded(equation: Any, values: list[Value]) -> np.ndarray | None:
  """Return a result that is known now, unless it is large."""
  arrays = [x for x in values if isinstance(x, np.ndarray)]
  if len(arrays) < len(values):
    return None
  most = sum(x.size for x in arrays) + _SLACK
  if equation.primitive.name in _WHOLE:
    shapes = [x.aval.shape for x in equation.invars]
    if not all(isinstance(n, int) for shape in shapes for n in shape):
      return None
    arrays = [np.broadcast_to(*x) for x in zip(arrays, shapes, strict=True)]
  else:
    arrays = list(np.broadcast_arrays(*arrays))
  made = np.asarray(equation.primitive.bind(*arrays, **equation.params))
  return made if made.size <= most else None


def _elementwise(
  graph: Graph, kind: str, equation: Any, *values: Value
) -> Value:
  """Add a node that treats every number alike."""
  dtype = equation.outvars[0].aval.dtype
  shape = _together(values)
  inside = values[0].dtype
  if kind in ("And", "Or", "Xor", "Not") and inside != np.bool_:
    kind = f"Bitwise{kind}"
  if kind in _WIDE and inside == np.uint32:
    wide = [graph.cast(x, np.int64) for x in values]
    made = graph.op(kind, *wide, shape=shape)
    return graph.cast(made, dtype)  # Of the lowest 32 bits.
  return graph.op(kind, *values, shape=shape, dtype=dtype)


def _together(values: Sequence[Value]) -> tuple[Any, ...]:
  """Return the shape of values that are broadcast to one another."""
  rank = max(x.ndim for x in values)
  shapes = [(1,) * (rank - x.ndim) + tuple(x.shape) for x in values]
  return tuple(
    next((n for n in sizes if not (isinstance(n, int) and n == 1)), 1)
    for sizes in zip(*shapes, strict=True)
  )


def _full(graph: Graph, equation: Any, values: Sequence[Value]) -> list[Value]:
  """Return the inputs of an equation with all of their sizes."""
  return [
    graph.full(x, atom.aval.shape)
    for x, atom in zip(values, equation.invars, strict=True)
  ]


def _float(value: float) -> np.ndarray:
  return np.asarray(value, np.float32)


def _of(*kinds: str) -> Rule:
  """Return a rule of nodes with one input, one behind the other."""

  def rule(graph, equation, x):
    for kind in kinds:
      x = graph.op(kind, x, shape=x.shape)
    return x

  return rule


def _square(graph, equation, x):
  return graph.op("Mul", x, x, shape=x.shape)


def _integer_pow(graph, equation, x):
  power = equation.params["y"]
  made = x
  for _ in range(abs(power) - 1):
    made = graph.op("Mul", made, x, shape=x.shape)
  return made if power > 0 else _of("Reciprocal")(graph, equation, made)


def _log1p(graph, equation, x):
  return _of("Log")(
    graph, equation, graph.op("Add", x, _float(1), shape=x.shape)
  )


def _expm1(graph, equation, x):
  made = _of("Exp")(graph, equation, x)
  return graph.op("Sub", made, _float(1), shape=x.shape)


def _erfc(graph, equation, x):
  return graph.op(
    "Sub", _float(1), _of("Erf")(graph, equation, x), shape=x.shape
  )


def _ne(graph, equation, x, y):
  shape = _together((x, y))
  made = graph.op("Equal", x, y, shape=shape, dtype=bool)
  return graph.op("Not", made, shape=shape)


def _is_finite(graph, equation, x):
  # A number minus itself is 0, or NaN if it is not finite.
  gone = graph.op("Sub", x, x, shape=x.shape)
  return graph.op("Equal", gone, _float(0), shape=x.shape, dtype=bool)


def _rem(graph, equation, x, y):
  return graph.op("Mod", x, y, shape=_together((x, y)), fmod=1)


def _select(graph, equation, which, *cases):
  if which.dtype != np.bool_ or len(cases) != 2:
    raise UsageError("format='onnx': a choice among three has no ONNX form")
  shape, dtype = _together((which, *cases)), cases[0].dtype
  return graph.op("Where", which, cases[1], cases[0], shape=shape, dtype=dtype)


def _clamp(graph, equation, low, x, high):
  made = graph.op("Max", x, low, shape=_together((x, low)))
  return graph.op("Min", made, high, shape=_together((made, high)))


def _convert(graph, equation, x):
  return graph.cast(x, equation.params["new_dtype"])


def _shift(direction: str) -> Rule:
  def rule(graph, equation, x, y):
    shape = _together((x, y))
    return graph.op("BitShift", x, y, shape=shape, direction=direction)

  return rule


def _polynomial(graph: Graph, x: Value, numbers: Sequence[float]) -> Value:
  """Return a polynomial by Horner's rule, the highest power first."""
  made: Value = _float(numbers[0])
  for number in numbers[1:]:
    made = graph.op("Mul", made, x, shape=x.shape, dtype=x.dtype)
    made = graph.op("Add", made, _float(number), shape=x.shape)
  return made


# Giles 2012, table 5: the centre, and the tails.
_CENTRE = (
  *(2.81022636e-08, 3.43273939e-07, -3.5233877e-06, -4.39150654e-06),
  *(0.00021858087, -0.00125372503, -0.00417768164, 0.246640727, 1.50140941),
)
_TAILS = (
  *(-0.000200214257, 0.000100950558, 0.00134934322, -0.00367342844),
  *(0.00573950773, -0.0076224613, 0.00943887047, 1.00167406, 2.83297682),
)


def _erf_inv(graph, equation, x):
  op = functools.partial(graph.op, shape=x.shape)
  # 1 - x^2 as a product, which keeps the digits near 1.
  inside = op("Mul", op("Sub", _float(1), x), op("Add", _float(1), x))
  w = op("Neg", op("Log", inside))
  centre = _polynomial(graph, op("Sub", w, _float(2.5)), _CENTRE)
  root = op("Sub", op("Sqrt", op("Max", w, _float(0))), _float(3))
  tails = _polynomial(graph, root, _TAILS)
  central = op("Less", w, _float(5), dtype=bool)
  return op("Mul", op("Where", central, centre, tails, dtype=x.dtype), x)


def _broadcast(graph, equation, x, *_):
  rank = len(equation.params["shape"])
  kept = equation.params["broadcast_dimensions"]
  new = [i for i in range(rank) if i not in kept]
  return _unsqueezed(graph, x, new)


def _unsqueezed(graph: Graph, x: Value, axes: list[int]) -> Value:
  """Return a value with axes of size 1 at these places of the result."""
  if not axes:
    return x
  if isinstance(x, np.ndarray):
    return np.expand_dims(x, axes)
  sizes = iter(x.shape)
  rank = x.ndim + len(axes)
  shape = [1 if i in axes else next(sizes) for i in range(rank)]
  return graph.op("Unsqueeze", x, np.array(axes, np.int64), shape=shape)


def _squeeze(graph, equation, x):
  axes = [n % x.ndim for n in equation.params["dimensions"]]
  shape = [n for i, n in enumerate(x.shape) if i not in axes]
  if isinstance(x, np.ndarray):
    return x.reshape(shape)
  return graph.op("Squeeze", x, np.array(axes, np.int64), shape=shape)


def _reshape(graph, equation, x, *_):
  shape = equation.outvars[0].aval.shape
  return graph.reshape(graph.full(x, equation.invars[0].aval.shape), shape)


def _transpose(graph, equation, x):
  return _permuted(graph, x, equation.params["permutation"])


def _permuted(graph: Graph, x: Value, axes: Sequence[int]) -> Value:
  """Return a value with its axes in another order."""
  if list(axes) == list(range(x.ndim)):
    return x
  if isinstance(x, np.ndarray):
    return x.transpose(axes)
  shape = [x.shape[i] for i in axes]
  return graph.op("Transpose", x, shape=shape, perm=list(axes))


def _concatenate(graph, equation, *values):
  axis = equation.params["dimension"]
  rest = {(*x.shape[:axis], *x.shape[axis + 1 :]) for x in values}
  whole = all(
    x.shape[axis] == atom.aval.shape[axis]
    for x, atom in zip(values, equation.invars, strict=True)
  )
  if len(rest) > 1 or not whole:
    values = _full(graph, equation, values)
  if all(isinstance(x, np.ndarray) for x in values):
    return np.concatenate([np.asarray(x) for x in values], axis)
  shape = list(values[0].shape)
  shape[axis] = sum(x.shape[axis] for x in values)
  return graph.op("Concat", *values, shape=shape, axis=axis)


def _stack(graph, equation, *values):
  axis = equation.params["axis"]
  sizes = equation.outvars[0].aval.shape
  parts = [
    _unsqueezed(graph, x, [axis]) for x in _full(graph, equation, values)
  ]
  return graph.op("Concat", *parts, shape=sizes, axis=axis)


def _slice(graph, equation, x):
  p = equation.params
  strides = p["strides"] or (1,) * x.ndim
  ends = zip(p["start_indices"], p["limit_indices"], strides, strict=True)
  return _cut(graph, equation, x, list(ends))


def _cut(graph: Graph, equation: Any, x: Value, ends: list[Any]) -> Value:
  """Return part of a value: start, end and stride of each axis."""
  sizes = equation.invars[0].aval.shape
  cut = {
    i: end
    for i, end in enumerate(ends)
    if not (end[0] == 0 and end[1] == sizes[i] and end[2] == 1)
  }
  if not cut:
    return x
  if any(x.shape[i] != sizes[i] for i in cut):
    x = graph.full(x, sizes)
  if isinstance(x, np.ndarray):
    return x[tuple(slice(*cut.get(i, (None,))) for i in range(x.ndim))]
  shape = list(x.shape)
  for i, (start, stop, step) in cut.items():
    shape[i] = -(-(stop - start) // step)
  axes = np.array(list(cut), np.int64)
  parts = (np.array(part, np.int64) for part in zip(*cut.values(), strict=True))
  start, stop, step = parts
  return graph.op("Slice", x, start, stop, axes, step, shape=shape)


def _split(graph, equation, x):
  axis, begin, made = equation.params["axis"], 0, []
  for size in equation.params["sizes"]:
    ends = [(0, n, 1) for n in equation.invars[0].aval.shape]
    ends[axis] = (begin, begin + size, 1)
    made.append(_cut(graph, equation, x, ends))
    begin += size
  return made


def _dynamic_slice(graph, equation, x, *starts):
  if not all(isinstance(s, np.ndarray) for s in starts):
    raise UsageError("format='onnx': a slice at a computed place has no form")
  sizes = equation.params["slice_sizes"]
  ends = [(int(s), int(s) + n, 1) for s, n in zip(starts, sizes, strict=True)]
  return _cut(graph, equation, x, ends)


def _gather(graph, equation, x, index):
  """Take one slice at a known place, or rows of a table."""
  numbers, sizes = (
    equation.params["dimension_numbers"],
    equation.params["slice_sizes"],
  )
  places = numbers.start_index_map
  if numbers.operand_batching_dims:
    raise UsageError("format='onnx': this look-up has no ONNX form")
  if isinstance(index, np.ndarray) and index.ndim == 1:
    ends = [(0, n, 1) for n in sizes]
    all_sizes = equation.invars[0].aval.shape
    for place, start in zip(places, index, strict=True):
      start = min(max(int(start), 0), all_sizes[place] - sizes[place])
      ends[place] = (start, start + sizes[place], 1)
    cut = _cut(graph, equation, x, ends)
    return graph.reshape(graph.full(cut, sizes), equation.outvars[0].aval.shape)
  rank = equation.outvars[0].aval.ndim
  leading = index.ndim - 1
  rows = (
    places == (0,)
    and numbers.collapsed_slice_dims == (0,)
    and numbers.offset_dims == tuple(range(leading, rank))
    and tuple(sizes[1:]) == tuple(equation.invars[0].aval.shape[1:])
  )
  if not rows:
    raise UsageError("format='onnx': this look-up has no ONNX form")
  index = graph.full(index, equation.invars[1].aval.shape)
  flat = graph.reshape(index, equation.invars[1].aval.shape[:-1])
  last = np.asarray(equation.invars[0].aval.shape[0] - 1, flat.dtype)
  low = graph.op("Max", flat, np.zeros((), flat.dtype), shape=flat.shape)
  inside = graph.op("Min", low, last, shape=flat.shape)
  table = graph.full(x, equation.invars[0].aval.shape)
  shape = equation.outvars[0].aval.shape
  return graph.op("Gather", table, inside, shape=shape, axis=0)


def _pad(graph, equation, x, value):
  ends = equation.params["padding_config"]
  if any(low < 0 or high < 0 or inside for low, high, inside in ends):
    raise UsageError("format='onnx': padding between numbers has no ONNX form")
  x = graph.full(x, equation.invars[0].aval.shape)
  pads = [end[0] for end in ends] + [end[1] for end in ends]
  shape = equation.outvars[0].aval.shape
  return graph.op("Pad", x, np.array(pads, np.int64), value, shape=shape)


def _iota(graph, equation, *_):
  shape, axis = equation.params["shape"], equation.params["dimension"]
  if not isinstance(shape[axis], int):
    raise UsageError("format='onnx': the numbers of rows have no ONNX form")
  sizes = [n if i == axis else 1 for i, n in enumerate(shape)]
  return np.arange(shape[axis], dtype=equation.params["dtype"]).reshape(sizes)


def _reduce(kind: str) -> Rule:
  def rule(graph, equation, x):
    axes = equation.params["axes"]
    sizes = equation.invars[0].aval.shape
    if any(x.shape[i] != sizes[i] for i in axes):
      x = graph.full(x, sizes)
    shape = [n for i, n in enumerate(x.shape) if i not in axes]
    given = np.array(axes, np.int64)
    return graph.op(kind, x, given, shape=shape, keepdims=0)

  return rule


def _reduce_bool(kind: str) -> Rule:
  def rule(graph, equation, x):
    made = _reduce(kind)(graph, equation, graph.cast(x, np.int32))
    return graph.cast(made, np.bool_)

  return rule


def _dot(graph, equation, x, y):
  """Multiply matrices: axes of both, then those of x alone, of y alone."""
  (sum_x, sum_y), (both_x, both_y) = equation.params["dimension_numbers"]
  sizes_x, sizes_y = (atom.aval.shape for atom in equation.invars)
  if any(x.shape[i] != sizes_x[i] for i in (*sum_x, *both_x)):
    x = graph.full(x, sizes_x)
  if any(y.shape[i] != sizes_y[i] for i in (*sum_y, *both_y)):
    y = graph.full(y, sizes_y)
  free_x = [i for i in range(x.ndim) if i not in (*sum_x, *both_x)]
  free_y = [i for i in range(y.ndim) if i not in (*sum_y, *both_y)]
  shape = [x.shape[i] for i in (*both_x, *free_x)]
  shape += [y.shape[i] for i in free_y]
  x = _permuted(graph, x, (*both_x, *free_x, *sum_x))
  y = _permuted(graph, y, (*both_y, *sum_y, *free_y))
  n, m, k = len(both_x), len(free_x), len(sum_x)
  # One axis each is what a product of matrices takes; x may have more where
  # nothing is shared.
  if k != 1 or (n and m != 1) or m == 0:
    x = _merged(graph, x, n, m)
  if k != 1 or len(free_y) != 1:
    y = _merged(graph, y, n, k)
  made_shape = (*x.shape[:-1], y.shape[-1])
  weight = isinstance(y, np.ndarray) and y.ndim == 2
  made: Value = graph.op(
    "MatMul", x, y, shape=made_shape, channels=1 if weight else None
  )
  if tuple(made_shape) != tuple(shape):
    made = graph.reshape(made, tuple(shape))
  return graph.cast(made, equation.outvars[0].aval.dtype)


def _merged(graph: Graph, x: Value, shared: int, first: int) -> Value:
  """Return matrices: the `first` axes behind the shared ones are the rows."""
  split = shared + first
  rows, columns = math.prod(x.shape[shared:split]), math.prod(x.shape[split:])
  return graph.reshape(x, (*x.shape[:shared], rows, columns))


def _convolution(graph, equation, x, kernel):
  p = equation.params
  if set(p["lhs_dilation"]) - {1} or p["batch_group_count"] != 1:
    raise UsageError("format='onnx': a transposed convolution has no form here")
  order = p["dimension_numbers"]
  x, kernel = _full(graph, equation, (x, kernel))
  x = _permuted(graph, x, order.lhs_spec)
  kernel = _permuted(graph, kernel, order.rhs_spec)
  sizes = equation.outvars[0].aval.shape
  shape = [sizes[i] for i in order.out_spec]
  low, high = zip(*p["padding"], strict=True)
  made = graph.op(
    "Conv",
    x,
    kernel,
    shape=shape,
    channels=0 if isinstance(kernel, np.ndarray) else None,
    strides=list(p["window_strides"]),
    pads=[*low, *high],
    dilations=list(p["rhs_dilation"]),
    group=p["feature_group_count"],
  )
  back = sorted(range(made.ndim), key=lambda i: order.out_spec[i])
  return _permuted(graph, made, back)


def _call(*names: str) -> Rule:
  """Return a rule for a call: what it calls is written out."""

  def rule(graph, equation, *values):
    inner = next(equation.params[k] for k in names if k in equation.params)
    return lower(graph, inner, values)

  return rule


def _cond(graph, equation, which, *values):
  branches = equation.params["branches"]
  if isinstance(which, np.ndarray):
    chosen = min(max(int(which), 0), len(branches) - 1)
    return lower(graph, branches[chosen], values)
  if len(branches) != 2:
    raise UsageError("format='onnx': a choice among three has no ONNX form")
  # Both are computed: which one counts is known at run time only.
  made = [lower(graph, branch, values) for branch in branches]
  first = graph.cast(which, np.bool_)
  return [
    _select(graph, equation, first, a, b) for a, b in zip(*made, strict=True)
  ]


def _scan(graph, equation, *values):
  p = equation.params
  body = getattr(p["jaxpr"], "jaxpr", p["jaxpr"])
  # Versions of jax count what is carried in other ways: it keeps its rank,
  # while rows have one less than what they are rows of.
  carried = _of_one_rank(equation.outvars, body.outvars)
  fixed = _of_one_rank(equation.invars, body.invars) - carried
  atoms = equation.invars[fixed + carried :]
  constants, carry = values[:fixed], list(values[fixed : fixed + carried])
  rows = [
    graph.full(x, a.aval.shape)
    for x, a in zip(values[fixed + carried :], atoms, strict=True)
  ]
  stacked: list[list[Value]] = []
  steps = range(p["length"])
  for i in reversed(steps) if p["reverse"] else steps:
    row = [_row(graph, x, i) for x in rows]
    made = lower(graph, p["jaxpr"], [*constants, *carry, *row])
    carry = made[:carried]
    stacked.append(made[carried:])
  if p["reverse"]:
    stacked.reverse()
  ends = []
  atoms = equation.outvars[carried:]
  for parts, atom in zip(zip(*stacked, strict=True), atoms, strict=True):
    sizes = atom.aval.shape
    whole = [_unsqueezed(graph, graph.full(x, sizes[1:]), [0]) for x in parts]
    ends.append(graph.op("Concat", *whole, shape=sizes, axis=0))
  return [*carry, *ends]


def _of_one_rank(outer: Sequence[Any], inner: Sequence[Any]) -> int:
  """Return how many variables of a loop have the rank of those in its body."""
  pairs = zip(outer, inner, strict=True)
  return sum(x.aval.ndim == y.aval.ndim for x, y in pairs)


def _row(graph: Graph, x: Value, i: int) -> Value:
  """Return one row of a value."""
  if isinstance(x, np.ndarray):
    return x[i]
  at = np.asarray(i, np.int64)
  return graph.op("Gather", x, at, shape=x.shape[1:], axis=0)


RULES: dict[str, Rule] = {
  "square": _square,
  "integer_pow": _integer_pow,
  "rsqrt": _of("Sqrt", "Reciprocal"),
  "round": _of("Round"),
  "log1p": _log1p,
  "expm1": _expm1,
  "erfc": _erfc,
  "erf_inv": _erf_inv,
  "ne": _ne,
  "is_finite": _is_finite,
  "rem": _rem,
  "select_n": _select,
  "clamp": _clamp,
  "convert_element_type": _convert,
  "shift_left": _shift("LEFT"),
  "shift_right_logical": _shift("RIGHT"),
  "broadcast_in_dim": _broadcast,
  "squeeze": _squeeze,
  "reshape": _reshape,
  "transpose": _transpose,
  "concatenate": _concatenate,
  "stack": _stack,
  "slice": _slice,
  "split": _split,
  "dynamic_slice": _dynamic_slice,
  "gather": _gather,
  "pad": _pad,
  "iota": _iota,
  **{name: _reduce(kind) for name, kind in _REDUCED.items()},
  "reduce_and": _reduce_bool("ReduceMin"),
  "reduce_or": _reduce_bool("ReduceMax"),
  "dot_general": _dot,
  "conv_general_dilated": _convolution,
  **dict.fromkeys(("jit", "pjit", "checkpoint", "remat2"), _call("jaxpr")),
  **dict.fromkeys(
    ("custom_jvp_call", "custom_vjp_call", "closed_call"),
    _call("call_jaxpr", "fun_jaxpr"),
  ),
  "cond": _cond,
  "scan": _scan,
  **dict.fromkeys(("random_seed", "random_wrap"), lambda *_: _KEY),
}

# What is computed now where all of it is known, beside those of `_DIRECT`: of
# all sizes, or number by number.
_WHOLE = {
  *(*_REDUCED, "reduce_and", "reduce_or", "argmax", "dot_general"),
  *("scatter", "stack"),
}
_FOLDED = {
  *("square", "integer_pow", "rsqrt", "round", "log1p", "expm1", "erfc"),
  *("erf_inv", "is_finite", "convert_element_type", "ne", "rem", "clamp"),
  *("shift_left", "shift_right_logical", "select_n", *_WHOLE),
}


def lowered(
  function: Callable[..., Any], weights: Any, inputs: Sequence[Any]
) -> Any:
  """Trace a function of weights and abstract inputs."""
  shapes = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), weights
  )
  return jax.make_jaxpr(function)(shapes, *inputs)
