"""The Lagrangian losses and their times equal their reference numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import references

from jaxflow import losses, times

TABLE = references.table("schedules_2026")
CASES = references.cases("lagrangian", "terminal_velocity")


def adapter(case, networks):
  hyper, given = case.hyper, case.given
  batch = references.batch_of(case)
  changes = {}
  if "omega" in given:
    label = batch.pop("cond")
    batch["cond"] = {"label": label, "omega": given["omega"]}
    changes = {
      "flow_times": lambda key, n: given["t_flow"],
      "omega_input": True,
      "scale_output": hyper["scale_output"],
      "null_cond": hyper["num_classes"],
    }
  return losses.lagrangian_loss(
    networks["net"],
    jax.random.key(0),
    batch,
    path=references.path_of(hyper),
    sample_times=lambda key, n: (given["t"], given["s"]),
    block=tuple(hyper.get("block", (1, 1))),
    reduction=hyper["reduce"],
    target_fn=networks["target"] if hyper["target"] == "ema" else None,
    log_weight=networks["weight"] if hyper["adaptive_weight"] else None,
    **changes,
  )


@pytest.mark.parametrize("name", CASES)
def test_float64(name, x64):
  references.check_float64(name, adapter)


@pytest.mark.parametrize("name", CASES)
def test_float32(name):
  references.check_float32(name, adapter)


def test_every_case_is_run():
  assert len(CASES) == 4


@pytest.mark.parametrize("name", CASES)
def test_metrics(name, x64):
  case = references.load(name)
  _, metrics, _ = references.evaluate(case, adapter)
  # All rows carry the flow term, or those that are no interval rows.
  m, k = case.hyper.get("block", (1, 0))
  interval = np.arange(8) % m < max(k, 1)
  flow = ~interval if k else interval
  for metric, part, which in (
    ("raw_interval", "terminal", interval),
    ("raw_flow", "flow", flow),
  ):
    expected = np.asarray(case.mid[part])[which].mean()
    np.testing.assert_allclose(metrics[metric], expected, rtol=1e-9)
  if case.hyper["adaptive_weight"]:
    weight = np.asarray(case.mid["log_weight"])
    expected = (weight[interval].mean() + weight[flow].mean()) / 2
    np.testing.assert_allclose(metrics["log_weight"], expected, rtol=1e-9)


def test_times(x64):
  pair = times.GapPair(
    gap_law=times.LogitNormal(mean=-0.8, std=1.0),
    s_law=times.LogitNormal(mean=-0.4, std=1.0),
  )
  draws = [jnp.asarray(TABLE[f"draws/{k}"]) for k in ("normal", "uniform")]
  t, s = pair.transform(*draws)
  np.testing.assert_allclose(t, TABLE["terminal_velocity/t"], rtol=1e-10)
  np.testing.assert_allclose(s, TABLE["terminal_velocity/s"], rtol=1e-10)


def test_gaps_keep_their_law():
  """The gap is as its law has it, s of its own law below t_max - gap."""
  pair = times.GapPair(gap_law=times.Uniform(), s_law=times.Uniform())
  n = 40_000
  t, s = pair(jax.random.key(0), n)
  assert s.min() >= 0 and (s <= t).all() and t.max() <= 1
  gap = np.asarray(t - s)
  # Given the gap, s is uniform on [0, 1 - gap].
  for share in (gap, np.asarray(s) / (1 - gap)):
    counts, _ = np.histogram(share, bins=10, range=(0, 1))
    # Mean 9, variance 18: five standard deviations above the mean.
    assert ((counts - n / 10) ** 2 / (n / 10)).sum() < 9 + 5 * 18**0.5
  assert abs(np.corrcoef(gap, s / (1 - gap))[0, 1]) < 4 / n**0.5


def test_gaps_stay_inside_of_a_path():
  pair = times.GapPair(
    gap_law=times.LogitNormal(mean=3.0, std=1.0),
    s_law=times.LogitNormal(),
    t_min=0.1,
    t_max=0.9,
  )
  t, s = pair(jax.random.key(0), 1000)
  assert s.min() >= np.float32(0.1) and t.max() <= np.float32(0.9)
  assert (s <= t).all()


def test_gap_pairs_need_quantiles():
  with pytest.raises(ValueError, match="LogNormal cannot be truncated"):
    times.GapPair(gap_law=times.Uniform(), s_law=times.LogNormal())  # pyright: ignore[reportArgumentType]
