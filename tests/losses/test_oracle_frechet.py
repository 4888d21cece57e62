"""The Frechet distance as a loss: known values, its memory, its gradient."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxflow import losses, paths
from jaxflow.losses.frechet_distance import empty_moments, filled_moments
from jaxflow.metrics.moments import Moments, frechet_distance

DIM = 3
MEAN, STD = np.array([0.5, -1.0, 2.0]), 0.5
EYE = np.eye(DIM)


def as_flow_map(net):
  """Samples are what the network says of the noise."""
  return lambda xt, t, s, cond: net(xt, t, s, cond)


loss_of = functools.partial(
  losses.frechet_distance_loss, path=paths.Linear(), flow_map=as_flow_map
)


def affine(mean, std):
  return lambda xt, t, s, cond: jnp.asarray(mean)[None] + std * xt


def cube():
  """Noise of mean 0 and covariance 1: the corners of a cube."""
  corners = np.array(np.meshgrid(*[[-1.0, 1.0]] * DIM)).reshape(DIM, -1).T
  return {"data": jnp.zeros((8, DIM)), "noise": jnp.asarray(corners)}


def distance(mean, std, kept, decay=0.5):
  """Of samples with this mean and std, and a memory of `kept`."""
  memory = filled_moments([kept], [(MEAN, STD**2 * EYE)])
  _, found, _ = loss_of(
    affine(mean, std), jax.random.key(0), cube(), moments=memory, decay=decay
  )
  return float(found["frechet_distance"])


def test_equal_moments_are_at_distance_0(x64):
  assert abs(distance(MEAN, STD, (MEAN, STD**2 * EYE))) < 1e-12


def test_gaussians_are_apart_by_means_and_stds(x64):
  mean, std = MEAN + 0.3, 2.0
  expected = DIM * (0.3**2 + (std - STD) ** 2)
  found = distance(mean, std, (mean, std**2 * EYE))
  assert found == pytest.approx(expected, rel=1e-12)


def test_moments_of_the_memory_are_those_of_both_laws(x64):
  """Half of the mass around 0, half around 2 (1, ..., 1), both of covariance 1.

  Together mean 1, covariance 1 + (1, ..., 1) (1, ..., 1)^T: its eigenvalues are
  1 and, once, 1 + DIM.
  """
  two = np.full(DIM, 2.0)
  expected = ((1 - MEAN) ** 2).sum() + (DIM - 1) * (1 - STD) ** 2
  expected += (np.sqrt(1 + DIM) - STD) ** 2
  found = distance(two, 1.0, (0 * two, EYE))
  assert found == pytest.approx(expected, rel=1e-12)


def batches(count, rows, seed=0):
  draw = np.random.default_rng(seed).standard_normal
  scale = np.array([1.0, 2.0, 0.1])
  return [
    {
      "data": jnp.asarray(draw((rows, DIM)) * scale + 1),
      "noise": jnp.asarray(draw((rows, DIM))),
    }
    for _ in range(count)
  ]


def test_the_first_samples_only_fill_the_memory(x64):
  memory = empty_moments((DIM,))
  net = affine(MEAN, STD)
  given = batches(5, 8)
  step = functools.partial(loss_of, net, jax.random.key(0), fill=32)
  for batch in given[:4]:
    loss, found, new = step(batch, moments=memory)
    memory = new["moments"]
    assert float(loss.sum()) == float(found["frechet_distance"]) == 0
  assert float(memory["count"]) == 32
  data = np.concatenate([b["data"] for b in given[:4]])
  noise = np.concatenate([b["noise"] for b in given[:4]])
  for name, rows in (
    ("data", data),
    ("generated", np.asarray(MEAN) + STD * noise),
  ):
    (kept,) = memory[name]
    np.testing.assert_allclose(kept["mean"], rows.mean(0), rtol=1e-12)
    expected = np.cov(rows.T, bias=True)
    np.testing.assert_allclose(kept["covariance"], expected, rtol=1e-10)
  # Then it trains, and the data stay.
  loss, _, new = step(given[4], moments=memory)
  assert float(loss.sum()) > 0
  assert float(new["moments"]["count"]) == 32
  np.testing.assert_array_equal(
    new["moments"]["data"][0]["covariance"], memory["data"][0]["covariance"]
  )


def test_it_is_the_distance_of_the_metrics(x64):
  """With decay 0 of one large batch."""
  (batch,) = batches(1, 64)
  net = affine(MEAN, STD)
  data = Moments.of(batch["data"])
  memory = filled_moments(
    [(jnp.zeros(DIM), EYE)],
    [(jnp.asarray(data.mean), jnp.asarray(data.covariance))],
  )
  _, found, _ = loss_of(
    net, jax.random.key(0), batch, moments=memory, decay=0.0
  )
  samples = Moments.of(np.asarray(MEAN) + STD * np.asarray(batch["noise"]))
  expected = frechet_distance(samples, data).value
  assert float(found["frechet_distance"]) == pytest.approx(expected, rel=1e-9)


def test_fewer_samples_than_numbers_have_a_finite_gradient(x64):
  (batch,) = batches(1, 2)
  memory = filled_moments([(jnp.zeros(DIM), EYE)], [(MEAN, STD**2 * EYE)])

  def total(std):
    net = affine(MEAN, std)
    loss, *_ = loss_of(net, jax.random.key(0), batch, moments=memory, decay=0.0)
    return loss.mean()

  assert jnp.isfinite(jax.grad(total)(jnp.asarray(2.0)))


def test_gradient_is_that_of_differences(x64):
  (batch,) = batches(1, 16)
  memory = filled_moments([(0 * MEAN, EYE)], [(MEAN, STD**2 * EYE + 0.1)])

  def frechet(std):
    _, found, _ = loss_of(
      affine(MEAN / 2, std),
      jax.random.key(0),
      batch,
      moments=memory,
      decay=0.25,
    )
    return found["frechet_distance"]

  std, h = jnp.asarray([1.0, 2.0, 0.5]), 1e-5
  gradient = jax.grad(lambda x: frechet(x[None]))(std)
  for i in range(DIM):
    e = h * EYE[i]
    slope = (frechet((std + e)[None]) - frechet((std - e)[None])) / (2 * h)
    assert float(gradient[i]) == pytest.approx(float(slope), rel=1e-6)


def test_small_deviations_have_their_gradient_in_float32():
  """Of rotated samples of deviations s, and data of deviations r, on the axes.

  The distance is sum (sqrt(C_i) - r_i)^2, with C_i = b s_i^2 of the memory and
  (1 - b) s_i^2 of the batch: by s_i its derivative is 2 (1 - b) (s_i - r_i).
  """
  stds = np.array([1.0, 0.05, 0.01])
  axes, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((DIM, DIM)))
  decay, zero = 0.75, np.zeros(DIM)
  batch, kept, data, rotated = jax.tree.map(
    lambda x: jnp.asarray(x, jnp.float32),
    (
      cube(),
      (zero, axes.T @ np.diag(stds**2) @ axes),
      (zero, axes.T @ np.diag(4 * stds**2) @ axes),
      axes,
    ),
  )

  def frechet(std):
    net = lambda xt, t, s, cond: (std[None] * xt) @ rotated  # noqa: E731
    memory = filled_moments([kept], [data])
    _, found, _ = loss_of(
      net, jax.random.key(0), batch, moments=memory, decay=decay
    )
    return found["frechet_distance"]

  found = jax.grad(frechet)(jnp.asarray(stds, jnp.float32))
  # Of the seven digits of variances of 1, one of 1e-4 has three.
  np.testing.assert_allclose(found, -2 * (1 - decay) * stds, rtol=5e-3)


def test_rounding_does_not_turn_the_gradient():
  """Equal moments of deviation 30: rounding is far above `eps`."""
  dim, rows, std = 64, 256, 30.0
  key = jax.random.key(0)
  noise = jax.random.normal(key, (rows, dim), jnp.float32)
  x = np.asarray(std * noise, np.float64)
  law = jnp.asarray(x.mean(0)), jnp.asarray(np.cov(x.T))
  batch = {"data": noise, "noise": noise}

  def total(scale):
    net = lambda xt, t, s, cond: scale * xt  # noqa: E731
    loss, found, _ = loss_of(
      net, key, batch, moments=filled_moments([law], [law]), decay=0.0
    )
    return loss.mean(), found["frechet_distance"]

  # Samples that are a tenth too large have to shrink, and find their distance.
  (_, far), slope = jax.value_and_grad(total, has_aux=True)(1.1 * std)
  assert slope > 0
  # It is a difference of numbers 200 times as large.
  assert far == pytest.approx(0.01 * x.var(0, ddof=1).sum(), rel=5e-3)
  _, near = total(std)
  assert 0 <= near < 5e-3 * far


def test_layers_need_their_weights():
  with pytest.raises(ValueError, match=r"layer_weights=\(1.0, 2.0\)"):
    loss_of(
      affine(MEAN, STD),
      jax.random.key(0),
      cube(),
      moments=empty_moments((DIM,)),
      layer_weights=(1.0, 2.0),
    )


def test_an_array_of_features_is_one_layer(x64):
  """Twice the numbers: the distance is 4 times that of the samples."""
  kept = [(2 * MEAN, 4 * STD**2 * EYE)]
  for features in (lambda x: 2 * x, lambda x: (2 * x,)):
    _, found, _ = loss_of(
      affine(MEAN + 0.3, STD),
      jax.random.key(0),
      cube(),
      moments=filled_moments(kept, kept),
      features=features,
      decay=0.0,
    )
    # Of eight corners the unbiased covariance is 8 / 7.
    apart = STD * (np.sqrt(8 / 7) - 1)
    expected = 4 * DIM * (0.3**2 + apart**2)
    assert float(found["frechet_distance"]) == pytest.approx(expected)


@pytest.mark.parametrize(
  ("features", "channels", "words"),
  [
    # One number would spread over a memory of two, and be wrong.
    (lambda x: x[:, :1], (2,), r"\[2\] channels, .* have \[1\]"),
    (lambda x: (x, x), (DIM,), r"\[3\] channels, .* have \[3, 3\]"),
    (None, (2,), r"\[2\] channels, .* have \[3\]"),
  ],
)
def test_the_memory_must_be_of_the_features(features, channels, words):
  with pytest.raises(ValueError, match=words):
    loss_of(
      affine(MEAN, STD),
      jax.random.key(0),
      cube(),
      moments=empty_moments((DIM,), channels),
      features=features,
    )


def test_numbers_of_half_precision_have_moments_of_float32():
  memory = filled_moments([(MEAN, EYE)], [(MEAN, STD**2 * EYE)])

  def net(xt, t, s, cond):
    return affine(MEAN, 2.0)(xt, t, s, cond).astype(jnp.bfloat16)

  batch = {k: jnp.asarray(x, jnp.bfloat16) for k, x in cube().items()}
  memory = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), memory)
  loss, found, _ = loss_of(
    net, jax.random.key(0), batch, moments=memory, decay=0.5
  )
  # Half of the mass has variance 4, half 1; all numbers are exact here.
  expected = DIM * (np.sqrt(2.5) - STD) ** 2
  assert loss.dtype == jnp.float32
  assert float(found["frechet_distance"]) == pytest.approx(expected, rel=1e-5)


def test_one_row_has_no_covariance(x64):
  batch = {k: x[:1] for k, x in cube().items()}
  one = functools.partial(
    loss_of,
    affine(MEAN, STD),
    jax.random.key(0),
    batch,
    moments=filled_moments([(MEAN, EYE)], [(MEAN, EYE)]),
  )
  with pytest.raises(ValueError, match=r"decay=0.0 .* give 2 rows"):
    one(decay=0.0)
  assert np.isfinite(one(decay=0.5)[0]).all()


def test_a_memory_has_three_matrices_of_a_layer():
  memory = empty_moments((DIM,), (5, 7))
  sizes = [x.size for x in jax.tree.leaves(memory)]
  assert sum(sizes) == sum(3 * d**2 + 2 * d for d in (5, 7)) + 1
