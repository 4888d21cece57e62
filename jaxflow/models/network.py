"""The boundary between Flax modules and the rest: two pure functions.

A `Network` knows nothing of Flax. Its parameters are a nested dict of float32
arrays, its `apply` is an ordinary function of them, so `jax.jit`, `jax.vmap`,
`jax.grad` and `jax.jvp` compose with it in any order.
"""

import contextlib
import itertools
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

import jax
import jax.numpy as jnp
from flax import nnx

from jaxflow import conditions
from jaxflow.errors import UsageError
from jaxflow.types import Array, PyTree

# How messages write a call, and the batch that `check_network` calls with.
_CALL = "apply(params, xt, t, s, cond, key=None)"
_ROWS = 2


class Apply(Protocol):
  """A network as a function of its parameters.

  `key` is a dropout key; None means that nothing is dropped. Every call with
  one key drops the same units, so the primal, the tangent and the target of a
  loss agree.
  """

  def __call__(
    self,
    params: PyTree,
    xt: Array,
    t: Array,
    s: Array,
    cond: PyTree,
    key: Array | None = None,
  ) -> Any:
    """Return the prediction at `xt`, of its shape; of heads, a tuple."""
    ...


@dataclass(frozen=True)
class Network:
  """A pair of pure functions.

  Attributes:
    init: `init(key) -> params`, a nested dict of float32 arrays.
    apply: `apply(params, xt, t, s, cond, key=None) -> prediction`.
    hidden: `hidden(params, xt, t, s, cond) -> activations`, a tuple with one
      array [B, ..., width] a layer; None where a network shows none.
    rows: Of arrays whose rows belong to several inputs: how many rows each
      input has, in their order, by the path of the array.
    null_cond: The condition of one sample that stands for none, a pytree of
      arrays without batch axis. It declares the structure, shapes and types of
      the conditions that the network takes; None: labels as the data have them.
    project: `project(params) -> params`, which training applies behind every
      update, so that parameters stay in a set of the network's choice; None
      where they may take any value.
  """

  init: Callable[[Array], PyTree]
  apply: Apply
  hidden: Callable[..., tuple[Array, ...]] | None = None
  rows: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
  null_cond: PyTree = field(default=None, compare=False)
  project: Callable[[PyTree], PyTree] | None = None


def check_network(
  network: Network,
  *,
  shape: tuple[int, ...],
  heads: int = 1,
  guidance_inputs: bool = False,
) -> None:
  """Raise UsageError unless a network can be called as losses call it.

  Nothing is computed.

  Args:
    network: The network, with the null condition of the data if it is called
      with conditions: for labels, their number.
    shape: Shape of one sample.
    heads: Number of predictions, in a tuple if more than one.
    guidance_inputs: Whether `cond` is that of `guidance.inputs`.

  Raises:
    UsageError: If a call fails, or a prediction has another shape.

  Example:
    >>> def apply(params, xt, t, s, cond, key=None):
    ...   return params["scale"] * xt
    >>> init = lambda key: {"scale": jnp.ones(())}
    >>> check_network(Network(init, apply), shape=(2,))
  """
  params = _abstract_parameters(network)
  time = jax.ShapeDtypeStruct((_ROWS,), jnp.float32)
  xt = jax.ShapeDtypeStruct((_ROWS, *shape), jnp.float32)
  cond = conditions.shapes(network.null_cond, _ROWS)
  if guidance_inputs:
    cond = {"label": cond, "omega": time, "t_start": time, "t_end": time}
  key = jax.eval_shape(jax.random.key, 0)
  with _failing(
    f"{_CALL} fails for xt {xt.shape}, t and s {time.shape}, cond "
    f"{jax.tree.map(lambda x: x.shape, cond)}"
  ):
    made = jax.eval_shape(
      lambda p, x, t, y, k: network.apply(p, x, t, t, y, key=k),
      *(params, xt, time, cond, key),
    )
  expected = xt.shape if heads == 1 else (xt.shape,) * heads
  found = jax.tree.map(lambda x: x.shape, made)
  if found != expected:
    raise UsageError(
      f"network: {_CALL} returns {found} for xt {xt.shape}: return {expected}"
    )


def _abstract_parameters(network: Network) -> PyTree:
  """Return the shapes of the parameters; raise UsageError if there are none."""
  with _failing("init(key) fails"):
    params = jax.eval_shape(network.init, jax.random.key(0))
  for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]:
    if not jnp.issubdtype(leaf.dtype, jnp.floating):
      raise UsageError(
        f"network: init(key) gives {leaf.dtype} at "
        f"{jax.tree_util.keystr(path)}: all of it is trained; give float32 "
        "arrays"
      )
  return params


@contextlib.contextmanager
def _failing(what: str) -> Iterator[None]:
  """Raise UsageError in place of what a user's function raises."""
  try:
    yield
  except UsageError:
    raise
  except Exception as error:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    raise UsageError(f"network: {what}: {lines[0]}") from error


def functional(make_module: Callable[[nnx.Rngs], nnx.Module]) -> Network:
  """Turn a maker of an NNX module into a pair of pure functions.

  The module must hold parameters only (no BatchNorm, no random state) and be
  callable as `module(xt, t, s, cond, key)`; one that shows its activations has
  a method `hidden(xt, t, s, cond)`. Nothing is allocated before the network's
  `init` is called.

  Args:
    make_module: Builds the module from `nnx.Rngs`.

  Example:
    >>> class Scale(nnx.Module):
    ...   def __init__(self, rngs):
    ...     self.weight = nnx.Param(2 * jnp.ones(()))
    ...   def __call__(self, xt, t, s, cond, key):
    ...     return self.weight[...] * xt
    >>> network = functional(Scale)
    >>> params = network.init(jax.random.key(0))
    >>> time = jnp.ones(1)
    >>> network.apply(params, jnp.ones((1, 2)), time, time, None).tolist()
    [[2.0, 2.0]]
  """
  shape = _abstract(make_module)
  init, module = _init_and_module(make_module, shape)

  def apply(params, xt, t, s, cond, key=None):
    return module(params)(xt, t, s, cond, key)

  def hidden(params, xt, t, s, cond):
    return module(params).hidden(xt, t, s, cond)

  return Network(init, apply, hidden if hasattr(shape, "hidden") else None)


def init_and_module(
  make_module: Callable[[nnx.Rngs], nnx.Module],
) -> tuple[Callable[[Array], PyTree], Callable[[PyTree], Any]]:
  """Return `init(key) -> params` and `module(params)` of a maker of modules."""
  return _init_and_module(make_module, _abstract(make_module))


def _init_and_module(
  make_module: Callable[[nnx.Rngs], nnx.Module], shape: nnx.Module
) -> tuple[Callable[[Array], PyTree], Callable[[PyTree], Any]]:
  """Return what `init_and_module` does, of the module with shapes."""
  graph, _ = nnx.split(shape)
  # A merge inside the traced function, with fresh variables, is what lets
  # forward mode pass through it.
  return (
    lambda key: init_parameters(make_module, key),
    lambda params: nnx.merge(graph, params, copy=True),
  )


def abstract_module(
  make_module: Callable[[nnx.Rngs], Any],
) -> tuple[nnx.GraphDef[Any], dict[str, Any]]:
  """Return structure and parameters' shapes of a module, allocating none."""
  graph, state = nnx.split(_abstract(make_module))
  return graph, dict(nnx.to_pure_dict(state))


def _abstract(make_module: Callable[[nnx.Rngs], Any]) -> Any:
  """Return a module whose parameters are shapes."""
  return nnx.eval_shape(lambda: make_module(rngs_of(jax.random.key(0))))


def rngs_of(key: Array) -> nnx.Rngs:
  """Return the keys of `nnx.Rngs(key)`, one after the other.

  nnx counts them in an array, and the longer a program, the longer it takes to
  count in a traced one: seconds for a network of 400 layers.

  Example:
    >>> keys = [make(jax.random.key(0)) for make in (rngs_of, nnx.Rngs)]
    >>> bool((keys[0].params() == keys[1].params()).all())
    True
  """
  keys = (jax.random.fold_in(key, i) for i in itertools.count())
  return cast(nnx.Rngs, types.SimpleNamespace(params=lambda: next(keys)))


def init_parameters(
  make_module: Callable[[nnx.Rngs], Any], key: Array
) -> dict[str, Any]:
  """Return the initial parameters of a module as a nested dict of arrays."""
  return dict(nnx.to_pure_dict(nnx.state(make_module(rngs_of(key)))))


def compute_dtype(dtype: Any) -> jnp.dtype:
  """Return the type of a network's arithmetic: float32 or bfloat16."""
  name = dtype if isinstance(dtype, str) else jnp.dtype(dtype).name
  if name not in ("float32", "bfloat16"):
    raise UsageError(f"dtype={name}: give float32 or bfloat16")
  return jnp.dtype(name)
