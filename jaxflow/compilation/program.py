"""A program that can be compiled from shapes alone."""

import dataclasses
from typing import Any

import jax

from jaxflow.types import PyTree


@dataclasses.dataclass(frozen=True, kw_only=True)
class Program:
  """A program that can be compiled without data or parameters.

  Attributes:
    name: Name of the program.
    function: The jitted function.
    arguments: Its positional arguments as `jax.ShapeDtypeStruct`.
    resident: The arguments that stay in memory, by description.
    steps: Steps of one execution.
    rows: Samples of a step, over all devices.
    notes: Differences from an actual run.
  """

  name: str
  function: Any
  arguments: tuple[PyTree, ...]
  resident: dict[str, PyTree]
  steps: int = 1
  rows: int
  notes: tuple[str, ...] = ()

  def lower(self, platform: str | None) -> jax.stages.Lowered:
    """Lower the program for a platform, "tpu" or None for that of the host.

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
