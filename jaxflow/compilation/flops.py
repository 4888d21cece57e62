"""FLOPs of the matrix products of a compiled program, with rounds of loops."""

from jaxflow.compilation.hlo import Module
from jaxflow.compilation.loops import executions
from jaxflow.compilation.products import product_flops


def matmul_flops(module: Module) -> int:
  """Count the FLOPs of all matrix products and convolutions.

  Args:
    module: A compiled program; of a program for many devices, one's part.

  Returns:
    Their number, as `loops.executions` counts rounds and branches.

  Example:
    >>> import jax, jax.numpy as jnp
    >>> x = jnp.ones((2, 3))
    >>> text = jax.jit(jnp.dot).lower(x, x.T).compile().as_text()
    >>> matmul_flops(Module.parse(text))
    24
  """
  return sum(
    count * product_flops(module.computations[name])
    for name, count in executions(module).counts.items()
  )
