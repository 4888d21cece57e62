"""DPM-Solver++, multistep: old predictions raise the order at no more calls.

With lam = ln(alpha / sigma), a step from t to s has h = lam_s - lam_t. D0 is
the newest prediction of the data, D1 and D2 the two before it:

  r0 = (lam_0 - lam_1) / h,   r1 = (lam_1 - lam_2) / h                    (1)
  E1 = expm1(-h),   E2 = E1 / h + 1,   E3 = E2 / h - 1/2                  (2)
  order 1   x <- (sigma_s / sigma_t) x - alpha_s E1 D0                    (3)
  order 2   (3) - alpha_s E1 (D0 - D1) / (2 r0)                           (4)
  order 3   (3) + alpha_s E2 P - alpha_s E3 Q                             (5)
    a = (D0 - D1) / r0,   b = (D1 - D2) / r1
    P = a + r0 / (r0 + r1) (a - b),   Q = 2 (a - b) / (r0 + r1)

P and Q are h D' and h^2 D'' of the parabola through the predictions. Published
codes leave the 2 of Q out, which makes (5) a method of order 2. All of it is
linear in x and D, with coefficients of the grid alone, so the loop over steps
is one weighted sum.

References:
  Lu et al. 2022 (arXiv:2211.01095), algorithm 2 and appendix A.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxflow import paths
from jaxflow.options import Count
from jaxflow.paths import Path
from jaxflow.sampling.denoising import Denoising
from jaxflow.sampling.steps import Call, bind, scan
from jaxflow.types import Array, ModelFn, PyTree


@dataclasses.dataclass(frozen=True, kw_only=True)
class DPMSolver(Denoising):
  """DPM-Solver++ 1, 2M or 3M: one call a step.

  The first steps have the order that their history allows. A step to sigma = 0
  or from alpha = 0 has order 1, because its h is infinite.

  Attributes:
    order: 1, 2 or 3.
    lower_order_final: Let the last steps have orders 2 and 1: stabler with few
      steps, of order 2 at most.
    published: Take order 3 as published, without the factor 2 of Q.

  Example:
    >>> zero = lambda xt, t, s, cond: 0 * xt
    >>> DPMSolver()(zero, jnp.ones((1, 1)), jnp.array([1.0, 0.5, 0.25]),
    ...             path=paths.Linear(), key=jax.random.key(0)).tolist()
    [[0.25]]
  """

  order: Count = 2
  lower_order_final: bool = True
  published: bool = False

  def __post_init__(self) -> None:
    if self.order not in (1, 2, 3):
      raise ValueError(f"order {self.order} is not 1, 2 or 3")
    if self.published and self.order != 3:
      raise ValueError("published concerns order 3 only: set it to False")

  def _steps(self, denoise, x, times, path, key, step_noise):
    return scan(*self._loop(denoise, x, times, path, points=False))[0]

  def trajectory(
    self, denoiser: ModelFn, x: Array, times: Array, cond: PyTree, path: Path
  ) -> tuple[Array, Array]:
    """Return the end `[B, ...]`, and the points before it, `[n, B, ...]`.

    Point k of the n steps is at `times[k]`; `denoiser` predicts data.
    """
    denoise = bind(denoiser, cond)
    loop = self._loop(denoise, x, times, path, points=True)
    (end, _), points = jax.lax.scan(*loop)
    return end, points

  def _loop(
    self, denoise: Call, x: Array, times: Array, path: Path, *, points: bool
  ) -> tuple[Callable[[Any, Any], tuple[Any, Any]], Any, PyTree]:
    """Return the arguments of a scan: step, its carry and its inputs."""

    def step(carry, given):
      x, history = carry
      t, scale, weights = given
      history = (denoise(x, t, t), *history)
      end = scale * x + sum(weights[k] * d for k, d in enumerate(history))
      return (end, history[: self.order - 1]), x if points else None

    empty = (jnp.zeros_like(x),) * (self.order - 1)
    return step, (x, empty), (times[:-1], *self.coefficients(path, times))

  def coefficients(self, path: Path, times: Array) -> tuple[Array, Array]:
    """Return what each step multiplies x and D0, D1, D2 with, eq. (3) to (5).

    The factors of x are `[n]`, those of the predictions, newest first,
    `[n, order]`.
    """
    alpha, sigma = path.alpha(times), path.sigma(times)
    gap = jnp.diff(paths.log_snr(path, times) / 2)
    order = self._orders(jnp.isfinite(gap))
    # Where a step is infinite its order is 1; no inf reaches the others.
    h = jnp.where(jnp.isfinite(gap), gap, 1)
    e1 = jnp.where(jnp.isfinite(gap), jnp.expm1(-h), -1)
    e2 = jnp.expm1(-h) / h + 1
    e3 = e2 / h - 0.5
    r0, r1 = (_before(h, k, 1) / h for k in (1, 2))
    mean = r0 / (r0 + r1)
    curve = (1 if self.published else 2) * e3 / (r0 + r1)
    second = -e1 / (2 * r0)
    of_a = e2 * (1 + mean) - curve
    of_b = curve - e2 * mean
    # The factors of D0 - D1 and of D1 - D2.
    new = jnp.select([order == 3, order == 2], [of_a / r0, second], 0)
    old = jnp.where(order == 3, of_b / r1, 0)
    of_data = jnp.stack([new - e1, old - new, -old], axis=1)
    return sigma[1:] / sigma[:-1], (alpha[1:, None] * of_data)[:, : self.order]

  def _orders(self, finite: Array) -> Array:
    """Return the order of every step, `[n]`."""
    n = len(finite)
    step = jnp.arange(n)
    order = jnp.minimum(self.order, step + 1)
    if self.lower_order_final:
      order = jnp.minimum(order, n - step)
    for k in range(3):
      order = jnp.where(
        _before(finite, k, True), order, jnp.minimum(order, max(k, 1))
      )
    return order


def _before(x: Array, k: int, fill: float | bool) -> Array:
  """Return what was k steps before, `[n]`."""
  return jnp.concatenate([jnp.full(k, fill, x.dtype), x])[: len(x)]
