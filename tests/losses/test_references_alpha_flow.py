"""alpha-Flow and SoFlow equal their reference numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import references

from jaxflow import losses, times
from jaxflow.losses import velocity_targets

TABLE = references.table("schedules_2026")
SCHEDULES = references.hyper("schedules_2026")


def adapter(case, networks, **options):
  hyper, given = case.hyper, case.given
  guided = {}
  if hyper["guidance"] == "cfg":
    guided = {
      "omega": hyper["omega"],
      "kappa": hyper["kappa"],
      "guidance_start": hyper["t_start"],
      "guidance_end": hyper["t_end"],
    }
  elif hyper["guidance"] == "solution":
    guided = {
      "omega": hyper["mix"] * hyper["omega"],
      "kappa": 1 - hyper["mix"],
      "decay_start": hyper["decay_start"],
    }
  block = tuple(hyper["block"])

  def ratio(progress, t, s):
    if "alpha" not in given:
      return hyper["alpha"]
    return losses.alpha_flow.rows.split(given["alpha"], block)[0]

  return losses.alpha_flow_loss(
    networks["net"],
    jax.random.key(0),
    references.batch_of(case),
    path=references.path_of(hyper),
    sample_times=lambda key, n: (given["t"], given["s"]),
    ratio=ratio,
    block=block,
    weighting=hyper["weight"],
    norm_power=hyper["norm_power"],
    norm_eps=hyper["norm_eps"],
    clip=hyper.get("clip", 0.0),
    null_cond=hyper["num_classes"],
    **guided,
    **options,
  )


def traced(case, networks):
  """The same, with an alpha that is only known as the program runs."""
  changed = case._replace(
    hyper=case.hyper | {"alpha": jnp.asarray(case.hyper["alpha"])}
  )
  return adapter(changed, networks)


CASES = references.cases("alpha_flow", "solution_flow")


def test_every_case_is_run():
  assert len(CASES) == 4 + 2


@pytest.mark.parametrize("name", CASES)
def test_float64(name, x64):
  references.check_float64(name, adapter)


@pytest.mark.parametrize("name", references.cases("alpha_flow"))
def test_alpha_may_be_traced(name, x64):
  references.check_float64(name, traced)


@pytest.mark.parametrize("name", CASES)
def test_float32(name):
  references.check_float32(name, adapter)


def test_sigmoid(x64):
  hyper = SCHEDULES["alpha_flow"]
  ratio = times.SigmoidRatio(gamma=hyper["gamma"], clamp=hyper["clamp"])
  t = jnp.ones(1)
  alpha = [
    ratio(jnp.asarray(step / hyper["total"]), t, 0 * t)
    for step in TABLE["alpha_flow/step"]
  ]
  np.testing.assert_allclose(alpha, TABLE["alpha_flow/alpha"], rtol=1e-12)
  # Both ends are exact.
  assert {0.0, 1.0} <= set(np.asarray(alpha).tolist())


def test_exponential(x64):
  hyper = SCHEDULES["solution_flow"]
  ratio = times.ExponentialRatio(start=hyper["start"], end=hyper["end"])
  t = jnp.ones(1)
  shares = TABLE["alpha_flow/step"] / SCHEDULES["alpha_flow"]["total"]
  found = [ratio(jnp.asarray(x), t, 0 * t)[0] for x in shares]
  np.testing.assert_allclose(found, TABLE["solution_flow/ratio"], rtol=1e-12)


def test_short_steps_have_a_least_length(x64):
  ratio = times.ExponentialRatio(start=0.5, end=0.5, gap=0.1)
  t = jnp.array([1.0, 0.15, 0.05, 0.3])
  s = jnp.array([0.0, 0.0, 0.0, 0.3])
  # Half of it; a least step of 0.1; all of it; a flow row.
  expected = [0.5, 0.1 / 0.15, 1.0, 1.0]
  np.testing.assert_allclose(ratio(jnp.asarray(0.5), t, s), expected)


def test_guidance_decays(x64):
  start = SCHEDULES["solution_flow"]["decay_start"]
  t = jnp.asarray(TABLE["solution_flow/t"])
  size = len(t)
  # With F_y = F_0 = 0 and v = 1, v_g is omega: 1 + q (w - 1), at kappa = 0.
  v_g, _ = velocity_targets.targets(
    lambda xt, t, s, cond: 0 * xt,
    jnp.ones((size, 1)),
    (jnp.zeros((size, 1)), t, jnp.zeros(size, int)),
    block=(1, 1),
    omega=3.0,
    kappa=0.0,
    interval=(0.0, 1.0),
    decay_start=start,
    null_cond=1,
  )
  q = TABLE["solution_flow/guidance_decay"]
  np.testing.assert_allclose(v_g[:, 0], 1 + 2 * q, rtol=1e-12)


def test_separate_pair():
  def law(t):
    return times.Constant(t=t)

  pair = times.SeparatePair(
    t_law=law(0.5), s_law=law(0.75), flow_law=law(0.25), block=(4, 1), gap=0.125
  )
  t, s = pair(jax.random.key(0), 8)
  assert t.tolist() == [0.5, 0.25, 0.25, 0.25] * 2
  assert s.tolist() == [0.375, 0.25, 0.25, 0.25] * 2
  low = times.SeparatePair(t_law=law(0.0), s_law=law(0.0), flow_law=law(0.0))
  t, s = low(jax.random.key(0), 4)
  np.testing.assert_allclose(t, 1e-4)
  np.testing.assert_allclose(s, [0, 1e-4, 1e-4, 1e-4], atol=1e-12)


def test_rectified_pair(x64):
  first, second = (
    jnp.asarray(TABLE[f"draws/{k}"]) for k in ("uniform", "uniform2")
  )
  pair = times.RectifiedPair(gap_law=times.LogitNormal(mean=-0.8, std=1.0))
  gap = pair.gap_law.transform(jnp.asarray(TABLE["draws/normal"]))
  t, s = pair.transform(first, second, gap)
  np.testing.assert_allclose(t, TABLE["rectified_mean_flow/t"], rtol=1e-12)
  np.testing.assert_allclose(
    s, TABLE["rectified_mean_flow/s"], rtol=1e-12, atol=1e-15
  )
