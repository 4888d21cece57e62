"""Whether a program convolves.

With jax 0.10.2 on CPUs the gradient of a convolution takes tens of times as
long inside of a loop as outside (findings/xla_cpu_convolution_scan.sh).
"""

from collections.abc import Iterator
from typing import Any

import jax
from jax.extend import core


def convolves(program: core.ClosedJaxpr | core.Jaxpr) -> bool:
  """Return whether a convolution is anywhere in a traced program."""
  jaxpr = program.jaxpr if isinstance(program, core.ClosedJaxpr) else program
  return any(
    equation.primitive.name == "conv_general_dilated"
    or any(map(convolves, _inner(equation.params)))
    for equation in jaxpr.eqns
  )


def _inner(params: Any) -> Iterator[core.ClosedJaxpr | core.Jaxpr]:
  """Yield the programs that an equation calls: loops, branches, jits."""
  kinds = core.ClosedJaxpr, core.Jaxpr
  leaves = jax.tree.leaves(params, is_leaf=lambda x: isinstance(x, kinds))
  return (leaf for leaf in leaves if isinstance(leaf, kinds))
