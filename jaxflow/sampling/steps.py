"""What samplers share: how they are called, their loop and its noise."""

from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from jaxflow.paths import Path, as_times, standard_normal, start
from jaxflow.types import Array, FlowMap, ModelFn, PyTree

# A flow map or a network with its condition, at two times that are scalars.
Call = Callable[[Array, Array, Array], Array]


class Sampler(Protocol):
  """Protocol of samplers: apply a flow map or a denoiser over a grid."""

  def __call__(
    self,
    function: FlowMap | ModelFn,
    noise: Array,
    times: Array,
    cond: PyTree = None,
    /,
    *,
    path: Path,
    key: Array,
  ) -> Array:
    """Return samples of the shape of `noise`."""
    ...


class Steps:
  """A sampler that is defined by its steps, as a flow map's or a denoiser's."""

  def check_path(self, path: Path) -> None:
    """Raise ValueError unless the sampler is made for the path."""

  def noises(self, steps: int) -> int:
    """Return how many arrays of unit noise so many steps draw."""
    return 0

  def __call__(
    self,
    function: FlowMap | ModelFn,
    noise: Array,
    times: Array,
    cond: PyTree = None,
    *,
    path: Path,
    key: Array,
    step_noise: Array | None = None,
  ) -> Array:
    """Return samples at `times[-1]`, `[B, ...]`; see `jaxflow.sampling`."""
    self.check_path(path)
    check_grid(times)
    call, times = bind(function, cond), as_times(times, noise)
    return self._steps(call, noise, times, path, key, step_noise)

  def _steps(
    self,
    call: Call,
    x: Array,
    times: Array,
    path: Path,
    key: Array,
    step_noise: Array | None,
    /,
  ) -> Array:
    """Carry points x from `times[0]` to `times[-1]`."""
    raise NotImplementedError


def make_sampler(
  flow_map_of: Callable[[PyTree], FlowMap],
  *,
  sampler: Sampler,
  path: Path,
  times: Array,
) -> Callable[..., Array]:
  """Make a jitted sampler; with two times it is one network call.

  `flow_map_of` makes the flow map of the network's parameters. The result is
  called as `(params, noise, key, cond)`, with noise of unit variance, and with
  `step_noise` where that is not to be drawn from the key.

  Example:
    >>> from jaxflow import paths, sampling
    >>> half = lambda params: lambda xt, t, s, cond: params * xt
    >>> once = make_sampler(half, sampler=sampling.Jumps(), path=paths.Linear(),
    ...                     times=jnp.array([1.0, 0.0]))
    >>> once(jnp.array(0.5), jnp.ones((1, 1)), jax.random.key(0), None).tolist()
    [[0.5]]
  """
  check_grid(times)

  @jax.jit
  def draw(params, noise, key, cond, step_noise=None):
    x = start(path, noise)
    given = flow_map_of(params), x, as_times(times, x), cond
    drawn = {} if step_noise is None else {"step_noise": step_noise}
    return sampler(*given, path=path, key=key, **drawn)

  return draw


def check_grid(times: Array) -> None:
  """Raise ValueError if a grid has fewer than two times."""
  if len(times) < 2:
    raise ValueError(
      f"a grid of {len(times)} times has no step: give at least two times"
    )


def bind(function: FlowMap | ModelFn, cond: PyTree) -> Call:
  """Bind the condition of a flow map or a network, and take scalar times."""

  def call(x, t, s):
    t, s = (jnp.broadcast_to(time, x.shape[:1]) for time in (t, s))
    return function(x, t, s, cond)

  return call


def scan(
  step: Callable[[Any, Any], tuple[Any, None]], carry: Any, xs: PyTree
) -> Any:
  """Carry a state through steps `xs [n, ...]`; a single one without a loop."""
  if len(jax.tree.leaves(xs)[0]) == 1:
    return step(carry, jax.tree.map(lambda x: x[0], xs))[0]
  return jax.lax.scan(step, carry, xs)[0]


def step_noise_of(
  key: Array, step_noise: Array | None, like: Array
) -> Callable[[Array], Array]:
  """Return a function of i: the unit noise of step i, shaped as `like`.

  The noise of a step depends on the key and on its index alone; with a key for
  each row, that of a row on its key alone, whatever rows stand beside it.
  `step_noise` `[n, B, ...]` takes the place of the key's.
  """
  if step_noise is not None:
    return lambda i: step_noise[i]

  def draw(i):
    fold = jax.random.fold_in
    if key.ndim:
      fold = jax.vmap(fold, in_axes=(0, None))
    return unit_noise(fold(key, i), like.shape, like.dtype)

  return draw


def unit_noise(
  key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32
) -> Array:
  """Draw normal numbers; with `[B]` keys, each row from its own key."""
  if key.ndim == 0:
    return standard_normal(key, shape, dtype)
  return jax.vmap(lambda k: standard_normal(k, shape[1:], dtype))(key)
