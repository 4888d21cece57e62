"""Distribution matching distillation: move samples by a difference of scores.

A generator G makes samples of noise, and the law of what it makes is to be that
of a teacher. Noised to a time t, both laws have a score, hence a mean of the
data given the noised point: x_r is the teacher's, x_f that of a second network,
the fake score, which is trained on the samples:

  x = G(start, t_0),   start = sigma(t_max) noise, t_0 = t_max            (1)
  xt = alpha(t) x + sigma(t) noise_t                                      (2)
  g = sg h (x_f(xt, t) - x_r(xt, t)) / (mean |x - x_r| + 1e-6)            (3)
  L_dm = mean (x - sg (x - g))^2 / 2                                      (4)

whose gradient in x is g / d. For a generator of several steps, t_0 is drawn and
`start` is the batch's data noised to t_0.

With h = 1 this descends KL(generated || teacher). Other divergences weigh by
the ratio r of the two densities, which is read off a critic: a head on hidden
features of a score network, that sees points xt and has logits l,

  r = clip(exp(clip(l(xt, t), -10, 10)), 0.1, 20)                         (5)
  h = H(r) / (mean H(r) + 1e-6),   mean over the batch                    (6)

A memory of the mean ratio in ten bins of t makes (5) comparable over times: it
takes in the batch, bins <- b bins + (1 - b) mean r, and r is divided by it. The
critic also is a discriminator, with A of `losses.adversarial`:

  L = L_dm + w_a A(l(xt', t'))                                            (7)

The fake score F, and with it the critic, learn on fresh samples of (1):

  L_f = w(t) mean (F(xt, t) - target)^2,  flow matching on sg x           (8)
  L_c = w_d D(l(xr, t_r), l(xf, t')) + w_1 (l(xr, t_r) - l(xr + e n, t_r))^2
                                                                          (9)

with xr the noised data, xf the noised samples, n fresh noise. D is the
discriminator's side of A; the last term, a finite difference, keeps the logits
smooth.

References:
  Yin et al. 2023 (arXiv:2311.18828); Yin et al. 2024 (arXiv:2405.14867) for
  the critic and the steps of the fake score; Xu, Nie, Vahdat 2025
  (arXiv:2502.15681) for (5) and (6).
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Annotated, Literal

import jax
import jax.numpy as jnp

from jaxflow import couplings, paths, predictions, times, weights
from jaxflow.losses import adversarial
from jaxflow.losses.flow_matching import flow_matching_loss
from jaxflow.options import Amount, BelowOne, Memory, Term
from jaxflow.paths import Path
from jaxflow.predictions import Prediction
from jaxflow.types import (
  Array,
  Batch,
  Critic,
  FakeScore,
  FlowMap,
  LossAndMemory,
  LossOutput,
  ModelFn,
  Teacher,
  WholeBatch,
)

Divergence = Literal["rkl", "kl", "js", "sf", "neyman", "sh", "jf"]

# H of eq. (6), of the ratio of the teacher's density to the generated one.
DIVERGENCES: Mapping[Divergence, Callable[[Array], Array]] = MappingProxyType(
  {
    "rkl": jnp.ones_like,
    "kl": lambda r: r,
    "js": lambda r: 1 - 1 / (1 + r),
    "sf": lambda r: 1 / (1 + r),
    "neyman": lambda r: 1 / r,
    "sh": jnp.sqrt,
    "jf": lambda r: 1 + r,
  }
)

_LARGEST_LOGIT = 10.0
_RATIOS = 0.1, 20.0
_BINS = 10
_EPS = 1e-6


def first_bins(divergence: Divergence = "rkl") -> Array | None:
  """Return the first mean ratios, [10]; None where no ratio weighs.

  Example:
    >>> first_bins("kl").shape, first_bins()
    ((10,), None)
  """
  return None if divergence == "rkl" else jnp.ones(_BINS, jnp.float32)


def distribution_matching_loss(
  model_fn: ModelFn,
  key: Array,
  batch: WholeBatch,
  *,
  path: Path,
  sample_times: times.TimeSampler,
  flow_map: Callable[[ModelFn], FlowMap],
  teacher: Teacher,
  fake_score: FakeScore,
  start_times: times.Law | None = None,
  critic: Critic | None = None,
  criterion: adversarial.Criterion = adversarial.logistic,
  adversarial_weight: Annotated[Amount, Term("critic")] = 0.0,
  critic_times: times.Law | None = None,
  divergence: Divergence = "rkl",
  ratio_decay: BelowOne = 0.5,
  bins: Annotated[Array | None, Memory(first_bins)] = None,
) -> LossOutput | LossAndMemory:
  """Compute the generator's loss of each sample, eq. (7).

  The value of eq. (4) says little, because (3) is normalised: the metric
  `score_gap`, the mean of |x_f - x_r| in data units, says how far apart the two
  laws are. `raw` is the mean of (4), `adversarial` of A, `ratio` of r.

  Args:
    batch: Optional `noise` of eq. (1), `noise_t` of eq. (2), and `noise_critic`
      of xt' in eq. (7).
    sample_times: Law of t.
    flow_map: A jump to t_min makes the samples.
    teacher: Its guidance is part of x_r. Others: see `jaxflow.losses`.
    fake_score: A network that predicts the velocity of noised samples; it gets
      no gradient.
    start_times: Law of t_0; default: all t_0 are t_max.
    critic: `(xt, t, cond) -> logits`, [B] or [B, heads], larger for data; its
      parameters are constants.
    adversarial_weight: w_a of eq. (7); other than 0 it needs `critic`.
    critic_times: Law of t' and fresh noise; by default xt' is xt.
    divergence: A key of `DIVERGENCES`; all but "rkl" need `critic`.
    ratio_decay: b, what is kept of the mean ratio of a bin.
    bins: Mean ratios of equal shares of [t_min, t_max], [10]; None divides r by
      nothing.

  Returns:
    Loss [B] and metrics, and with `bins` the new bins: `{"bins": [10]}`.

  Raises:
    ValueError: If a term needs a critic and there is none, or if the criterion
      compares with data.

  Example:
    >>> from jaxflow import flow_maps
    >>> net = lambda xt, t, s, cond: 0 * xt
    >>> loss, metrics = distribution_matching_loss(
    ...     net, jax.random.key(0), {"data": jnp.zeros((2, 3))},
    ...     path=paths.Linear(), sample_times=times.Uniform(),
    ...     flow_map=flow_maps.average_velocity,
    ...     teacher=net, fake_score=net)
    >>> loss.tolist(), metrics["score_gap"].item()  # The two scores are equal.
    ([0.0, 0.0], 0.0)
  """
  adversarial.check_criterion(criterion)
  needs_critic = adversarial_weight or divergence != "rkl"
  if needs_critic and critic is None:
    raise ValueError(
      f"critic=None with adversarial_weight={adversarial_weight} and "
      f"divergence={divergence!r}: give a critic, or set 0 and 'rkl'"
    )
  if adversarial_weight and criterion.compares:
    raise ValueError(
      "criterion='relativistic' compares with data, which the samples' critic "
      "does not see: give 'logistic' or 'hinge'"
    )
  if divergence not in DIVERGENCES:
    known = ", ".join(DIVERGENCES)
    raise ValueError(f"divergence={divergence!r}: give one of {known}")
  sample_key, score_key, critic_key = jax.random.split(key, 3)
  cond = batch.get("cond")
  x = _generate(flow_map(model_fn), sample_key, batch, path, start_times)
  xt, t = _noised(x, score_key, batch, "noise_t", path, sample_times)

  x0, x1 = jax.lax.stop_gradient((x, xt))
  fake, real = (
    predictions.convert(
      path, net(x1, t, t, cond), x1, t, source="velocity", target="data"
    )
    for net in (fake_score, teacher)
  )
  scale = weights.sample_mean(jnp.abs(x0 - real)) + _EPS
  h = jnp.ones_like(scale)
  metrics = {"score_gap": jnp.abs(fake - real).mean()}
  logits = None
  if divergence != "rkl":
    assert critic is not None
    logits = critic(xt, t, cond)
    ratio = _ratio(jax.lax.stop_gradient(logits))
    metrics["ratio"] = ratio.mean()
    if bins is not None:
      bins, own = ratios_in_bins(bins, ratio, t, path, ratio_decay)
      ratio = ratio / (own + _EPS)
    weigh = DIVERGENCES[divergence]
    h = weigh(ratio)
    h = h / (h.mean() + _EPS)
  g = paths.expand(h / scale, x) * (fake - real)
  loss = weights.l2(x, jax.lax.stop_gradient(x0 - g)) / 2
  metrics["raw"] = loss.mean()

  if adversarial_weight:
    assert critic is not None
    if critic_times is not None:
      given = critic_key, batch, "noise_critic", path, critic_times
      logits = critic(*_noised(x, *given), cond)
    elif logits is None:
      logits = critic(xt, t, cond)
    term = criterion.generator(logits)
    loss = loss + adversarial_weight * term
    metrics["adversarial"] = term.mean()
  return (loss, metrics) if bins is None else (loss, metrics, {"bins": bins})


def fake_score_loss(
  fake_score: ModelFn,
  key: Array,
  batch: Batch,
  *,
  path: Path,
  sample_times: times.TimeSampler,
  generator: FlowMap,
  start_times: times.Law | None = None,
  loss_space: Prediction = "velocity",
  weight: weights.Weight = weights.uniform,
  critic: Critic | None = None,
  criterion: adversarial.Criterion = adversarial.logistic,
  critic_times: times.Law | None = None,
  discriminator_weight: Amount = 0.01,
  smoothness_weight: Amount = 0.0,
  smoothness_noise: Amount = 0.1,
) -> LossOutput:
  """Compute the loss of fake score and critic of each sample, eq. (8) + (9).

  Its parameters are those of `fake_score` and `critic`. The metrics are `raw`,
  the mean of eq. (8) without its weight, and with a critic the mean logits
  `real_logit` and `fake_logit`.

  Args:
    fake_score: A network that predicts the velocity of noised samples.
    batch: The data are the real samples. Optional `noise` of the samples,
      `noise_t` of eq. (8), and of eq. (9) `noise_critic`, `noise_real` and
      `noise_smoothness`.
    sample_times: Law of t. Others: see `jaxflow.losses`.
    generator: The flow map of the generator; it gets no gradient.
    start_times: As in `distribution_matching_loss`.
    loss_space: Where the errors of eq. (8) are taken; "data", with the weight
      `weights.karras`, is the loss of an EDM denoiser.
    weight: w(t) of eq. (8).
    critic: `(xt, t, cond) -> logits`; without one eq. (9) is left out.
    critic_times: Law of t' and t_r and fresh noise; by default xf is the point
      of eq. (8), and t_r is of the law of t.
    discriminator_weight: w_d of eq. (9).
    smoothness_weight: w_1 of eq. (9).
    smoothness_noise: e of eq. (9), in data units.

  Example:
    >>> net = lambda xt, t, s, cond: 0 * xt
    >>> jump = lambda xt, t, s, cond: 0 * xt
    >>> batch = {"data": jnp.zeros((2, 3)), "noise_t": jnp.ones((2, 3))}
    >>> loss, _ = fake_score_loss(
    ...     net, jax.random.key(0), batch, path=paths.Linear(),
    ...     sample_times=times.Uniform(), generator=jump)
    >>> loss.tolist()
    [1.0, 1.0]
  """
  adversarial.check_criterion(criterion)
  keys = jax.random.split(key, 5)
  cond = batch.get("cond")
  x = _generate(generator, keys[0], batch, path, start_times)
  x = jax.lax.stop_gradient(x)
  time_key, noise_key = jax.random.split(keys[1])
  t = times.draw(sample_times, time_key, x, of="times")
  noise = adversarial.noise_named(batch, "noise_t", noise_key)
  loss, metrics = flow_matching_loss(
    fake_score,
    key,
    {"data": x, "noise": noise, "cond": cond},
    path=path,
    sample_times=lambda key, n: t,
    loss_space=loss_space,
    weight=weight,
  )
  if critic is None:
    return loss, metrics

  law = critic_times or sample_times
  if critic_times is None:
    xf, t_f = paths.interpolate(path, x, noise, t), t
  else:
    xf, t_f = _noised(x, keys[2], batch, "noise_critic", path, law)
  xr, t_r = _noised(batch["data"], keys[3], batch, "noise_real", path, law)
  real, fake = critic(xr, t_r, cond), critic(xf, t_f, cond)
  loss = loss + discriminator_weight * criterion.discriminator(real, fake)
  if smoothness_weight:
    near = adversarial.noise_named(batch, "noise_smoothness", keys[4])
    near = critic(xr + smoothness_noise * near, t_r, cond)
    loss = loss + smoothness_weight * weights.l2(real, near)
  logits = {"real_logit": real.mean(), "fake_logit": fake.mean()}
  return loss, metrics | logits


def _generate(
  generator: FlowMap,
  key: Array,
  batch: Batch,
  path: Path,
  start_times: times.Law | None,
) -> Array:
  """Return the samples of eq. (1)."""
  time_key, noise_key = jax.random.split(key)
  data = batch["data"]
  noise = couplings.noise_of(batch, noise_key)
  t = jnp.broadcast_to(paths.as_times(path.t_max, data), data.shape[:1])
  start = paths.start(path, noise)
  if start_times is not None:
    t = times.draw(start_times, time_key, data, of="times")
    start = paths.interpolate(path, data, noise, t)
  return generator(start, t, jnp.full_like(t, path.t_min), batch.get("cond"))


def _noised(
  x: Array,
  key: Array,
  batch: Batch,
  name: str,
  path: Path,
  law: times.TimeSampler,
) -> tuple[Array, Array]:
  """Return samples at drawn times, and these; the batch may have the noise."""
  time_key, noise_key = jax.random.split(key)
  t = times.draw(law, time_key, x, of="times")
  noise = adversarial.noise_named(batch, name, noise_key)
  return paths.interpolate(path, x, noise, t), t


def _ratio(logits: Array) -> Array:
  """Return r of eq. (5) of logits [B] or [B, heads]: [B]."""
  mean = weights.sample_mean(logits)
  return jnp.clip(
    jnp.exp(jnp.clip(mean, -_LARGEST_LOGIT, _LARGEST_LOGIT)), *_RATIOS
  )


def ratios_in_bins(
  bins: Array, ratio: Array, t: Array, path: Path, decay: float
) -> tuple[Array, Array]:
  """Take the ratios of a batch into the mean of each bin of times.

  Args:
    bins: Mean ratios [bins], of equal shares of [t_min, t_max].
    ratio: Ratios of the samples, [B].
    t: Their times, [B].
    path: Its ends are those of the bins.
    decay: What is kept of the mean of a bin that has samples.

  Returns:
    The new means, and for each sample that of its bin, [B].

  Example:
    >>> bins, t = jnp.ones(2), jnp.array([0.1, 0.2])
    >>> new, own = ratios_in_bins(
    ...     bins, jnp.array([2.0, 4.0]), t, paths.Linear(), 0.5)
    >>> new.round(3).tolist(), own.round(3).tolist()
    ([2.0, 1.0], [2.0, 2.0])
  """
  count = len(bins)
  width = (path.t_max - path.t_min) / count
  place = jnp.floor((t - path.t_min) / width).astype(jnp.int32)
  inside = jax.nn.one_hot(jnp.clip(place, 0, count - 1), count, dtype=t.dtype)
  rows = inside.sum(axis=0)
  mean = ratio @ inside / (rows + _EPS)
  new = jnp.where(rows > 0, decay * bins + (1 - decay) * mean, bins)
  return new.astype(bins.dtype), (inside @ new).astype(ratio.dtype)
