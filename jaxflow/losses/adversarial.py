"""Adversarial training: criteria of logits, and the discriminator's loss.

With the logits l of real and of generated samples, larger for real,

  logistic   L_D = softplus(-l_real) + softplus(l_fake)                   (1)
             L_G = softplus(-l_fake) = -ln sigmoid(l_fake)                (2)
  hinge      L_D = relu(1 - l_real) + relu(1 + l_fake)                    (3)
             L_G = -l_fake                                                (4)
  relativistic
             L_D = softplus(-(l_real - l_fake))                           (5)
             L_G = softplus(-(l_fake - l_real))                           (6)

Logits are `[B]`, or `[B, heads]` for a discriminator with several heads, whose
losses are averaged. Softplus, because the ln of a sigmoid underflows.

The discriminator D sees data, and the output of one jump G of the generator
from a noisy point; at t = t_max this is the sample of a one-step generator:

  xt = alpha(t) data + sigma(t) noise                                     (7)
  fake = sg G(xt, t, t_min)                                               (8)
  L_D = criterion(D(data), D(fake))                                       (9)

If jumps end at times s of their own, D sees both at s, and s itself:

  real = alpha(s) data + sigma(s) noise',  fake = sg G(xt, t, s)         (10)
  L_D = criterion(D(real, s), D(fake, s))                                (11)

Two terms can be added. Penalties on the slopes of D at real and at generated
points (R1 and R2) are finite differences along Gaussian n1, n2, with a step e
and the gap r = max(|t - s|, 0.001); they are of k rows in m, weighted by m / k:

  g r / e^2 ((D(real + e n1) - D(real))^2 + (D(fake + e n2) - D(fake))^2) (12)

As e goes to 0 their means are g r ||grad D||^2. A centre c keeps logits near 0,
where criteria of differences leave them free:

  c (D(real) + D(fake))^2                                                (13)

References:
  Goodfellow et al. 2014 (arXiv:1406.2661), section 3 for the non-saturating
  (2); Lim, Ye 2017 (arXiv:1705.02894), eq. 3-4 for the hinge;
  Jolicoeur-Martineau 2018 (arXiv:1807.00734) for (5) and (6); Kim et al. 2023
  (arXiv:2310.02279) for (9); Lin et al. 2025 (arXiv:2511.22475) for (10)-(13).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.nn import relu, softplus

from jaxflow import couplings, paths, rows, times
from jaxflow.options import Amount, Positive
from jaxflow.types import Array, Batch, FlowMap, LossOutput
from jaxflow.weights import sample_mean

# The least gap of eq. (12), in units of t.
LEAST_GAP = 1e-3


class Criterion(NamedTuple):
  """The two sides of adversarial training, as losses `[B]` of logits.

  The first is a function of `(real, fake)`; its caller stops the gradient where
  generated samples enter the discriminator. The second is a function of `fake`,
  or of `(fake, real)` where the third says that it compares the two.

  Example:
    >>> real, fake = jnp.array([[2.0]]), jnp.array([[0.5]])
    >>> hinge.discriminator(real, fake).tolist(), hinge.generator(fake).tolist()
    ([1.5], [-0.5])
  """

  discriminator: Callable[[Array, Array], Array]
  generator: Callable[..., Array]
  compares: bool = False


logistic: Criterion = Criterion(
  lambda real, fake: sample_mean(softplus(-real) + softplus(fake)),
  lambda fake: sample_mean(softplus(-fake)),
)
hinge: Criterion = Criterion(
  lambda real, fake: sample_mean(relu(1 - real) + relu(1 + fake)),
  lambda fake: sample_mean(-fake),
)
relativistic: Criterion = Criterion(
  lambda real, fake: sample_mean(softplus(fake - real)),
  lambda fake, real: sample_mean(softplus(real - fake)),
  compares=True,
)


def check_criterion(criterion: Criterion) -> None:
  """Raise ValueError unless a criterion is one.

  Example:
    >>> check_criterion("hinge")
    Traceback (most recent call last):
    ...
    ValueError: criterion='hinge': give a Criterion, losses.adversarial.hinge \
or another one
  """
  if not isinstance(criterion, Criterion):
    raise ValueError(
      f"criterion={criterion!r}: give a Criterion, losses.adversarial.hinge or "
      "another one"
    )


def generator_term(
  criterion: Criterion,
  judge: Callable[[Array], Array],
  fake: Array,
  real: Array,
) -> Array:
  """Return the generator's side of a criterion, `[B]`.

  Args:
    criterion: One that compares sees logits of the real samples too.
    judge: The discriminator, of samples `[B, ...]` alone: its logits, `[B]` or
      `[B, heads]`.
    fake: Generated samples `[B, ...]`.
    real: Real samples `[B, ...]`.

  Example:
    >>> judge = lambda x: x[:, 0]
    >>> fake, real = jnp.ones((1, 2)), jnp.zeros((1, 2))
    >>> generator_term(hinge, judge, fake, real).tolist()
    [-1.0]
    >>> round(generator_term(relativistic, judge, fake, real).item(), 4)
    0.3133
  """
  check_criterion(criterion)
  if criterion.compares:
    return criterion.generator(judge(fake), judge(real))
  return criterion.generator(judge(fake))


def discriminator_loss(
  discriminator: Callable[..., Array],
  key: Array,
  batch: Batch,
  *,
  path: paths.Path,
  sample_times: times.TimeSampler | times.PairSampler,
  generator: FlowMap,
  criterion: Criterion = hinge,
  penalty: Amount = 0.0,
  penalty_step: Positive = 0.01,
  penalty_block: rows.Block = (4, 1),
  centre: Amount = 0.0,
) -> LossOutput:
  """Compute the discriminator's loss of each sample, eq. (9) or (11).

  It has the arguments of every loss (`jaxflow.losses`), and the generator's
  flow map, which gets no gradient. The batch's data are the real samples. The
  metrics `real_logit` and `fake_logit` are means, `raw` the mean criterion, and
  `penalty` that of eq. (12), where it is used.

  Args:
    discriminator: Is called as `(x, cond, s)` where `sample_times` draws pairs.
    batch: Optional `noise_end`, the noise' of eq. (10), and `noise_r1`,
      `noise_r2`, the n1 and n2 of eq. (12), of unit variance.
    sample_times: `(key, B) -> t [B]`, for eq. (9), or a pair (t, s) with
      s <= t, for eq. (11).
    penalty: g of eq. (12); 0 leaves the penalties out.
    penalty_step: e of eq. (12), in units of the data.
    penalty_block: (m, k) of eq. (12); m divides B.
    centre: c of eq. (13).

  Raises:
    ValueError: If m of `penalty_block` does not divide the batch.

  Example:
    >>> blind = lambda x, cond: 0 * x[:, 0]
    >>> jump = lambda xt, t, s, cond: xt
    >>> loss, _ = discriminator_loss(
    ...     blind, jax.random.key(0), {"data": jnp.ones((2, 3))},
    ...     path=paths.Linear(), sample_times=times.Uniform(), generator=jump)
    >>> loss.tolist()
    [2.0, 2.0]
  """
  check_criterion(criterion)
  keys = jax.random.split(key, 5)
  data, cond = batch["data"], batch.get("cond")
  noise = couplings.noise_of(batch, keys[1])
  drawn = times.draw(sample_times, keys[0], data)
  if isinstance(drawn, tuple):
    t, s = drawn
    given = cond, s
    real = at_end(path, data, s, batch, keys[2])
  else:
    t, s = drawn, jnp.full_like(drawn, path.t_min)
    given = (cond,)
    real = data
  xt = paths.interpolate(path, data, noise, t)
  fake = jax.lax.stop_gradient(generator(xt, t, s, cond))

  real_logits = discriminator(real, *given)
  fake_logits = discriminator(fake, *given)
  loss = criterion.discriminator(real_logits, fake_logits)
  metrics = {
    "raw": loss.mean(),
    "real_logit": real_logits.mean(),
    "fake_logit": fake_logits.mean(),
  }
  if centre:
    loss = loss + centre * sample_mean((real_logits + fake_logits) ** 2)
  if penalty:
    rows.check_block(penalty_block, data.shape[0])
    m, k = penalty_block
    gap = jnp.maximum(jnp.abs(t - s), LEAST_GAP)

    def steepness(x, logits, name, key):
      """Return one of the squares of eq. (12), of the penalised rows."""
      step = noise_named(batch, name, key)
      near, of, logits = rows.split(
        (x + penalty_step * step, given, logits), penalty_block
      )[0]
      return sample_mean((discriminator(near, *of) - logits) ** 2)

    slopes = steepness(real, real_logits, "noise_r1", keys[3])
    slopes = slopes + steepness(fake, fake_logits, "noise_r2", keys[4])
    both, alone = rows.split((loss, gap), penalty_block)
    term = penalty * both[1] / penalty_step**2 * slopes
    loss = rows.merge(both[0] + m / k * term, alone[0], penalty_block)
    metrics["penalty"] = term.mean()
  return loss, metrics


def at_end(
  path: paths.Path, data: Array, s: Array, batch: Batch, key: Array
) -> Array:
  """Return the real points at s of eq. (10), `[B, ...]`.

  Their noise is `noise_end` of the batch, drawn if absent.

  Example:
    >>> data = jnp.ones((1, 2))
    >>> s, batch = jnp.array([0.0]), {"data": data}
    >>> at_end(paths.Linear(), data, s, batch, jax.random.key(0)).tolist()
    [[1.0, 1.0]]
  """
  noise = noise_named(batch, "noise_end", key)
  return paths.interpolate(path, data, noise, s)


def noise_named(batch: Batch, name: str, key: Array) -> Array:
  """Return the noise of a name in a batch, drawn if absent, like its data."""
  data = batch["data"]
  if name in batch:
    return batch[name]
  return paths.standard_normal(key, data.shape, data.dtype)
