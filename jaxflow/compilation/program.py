"""A program that can be compiled from shapes alone."""

import dataclasses
from typing import Any

import jax

from jaxflow.types import PyTree


@dataclasses.dataclass(frozen=True, kw_only=True)
class Program:
  """A program that can be compiled without data or parameters.

  Attributes:
    name: What it does.
    function: The jitted function.
    arguments: Its positional arguments as `jax.ShapeDtypeStruct`.
    kept: Those of them that stay in memory, by what they are.
    steps: How many steps one execution takes.
    rows: Samples of a step, over all devices.
    notes: What of it is not as in a run.
  """

  name: str
  function: Any
  arguments: tuple[PyTree, ...]
  resident: dict[str, PyTree]
  steps: int = 1
  rows: int
  notes: tuple[str, ...] = ()

  def lower(self, platform: str | None) -> jax.stages.Lowered:
    """Lower it.

    Args:
      platform: What for, "tpu" for instance; None is the host's.

    Returns:
      The lowered program.

    Example:
      >>> import jax.numpy as jnp
      >>> x = jax.ShapeDtypeStruct((2, 3), jnp.float32)
      >>> function = jax.jit(jnp.sin)
      >>> sine = Program(
      ...   name="sine", function=function, arguments=(x,), resident={}, rows=2
      ... )
      >>> "stablehlo.sine" in sine.lower("tpu").as_text()
      True
    """
    traced = self.function.trace(*self.arguments)
    if platform is None:
      return traced.lower()
    return traced.lower(lowering_platforms=(platform,))
