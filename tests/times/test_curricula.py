"""Curricula against the tables of `schedules`, and as laws of draws."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import references

import jaxflow
from jaxflow import times
from jaxflow.config import make_plan, registry, resolve
from jaxflow.times import curricula
from jaxflow.training import ema

TABLE = references.table("schedules")
PARAMETERS = references.hyper("schedules")
CT, ICT = PARAMETERS["ct"], PARAMETERS["ict"]
ADAPTIVE = curricula.AdaptivePair(start=CT["s0"], end=CT["s1"])
DOUBLING = curricula.DoublingPair(
  start=ICT["s0"], end=ICT["s1"], mean=ICT["mean"], std=ICT["std"]
)
SHRINKING = curricula.ShrinkingPair()
ALL = {"adaptive": ADAPTIVE, "doubling": DOUBLING, "shrinking": SHRINKING}
every_curriculum = pytest.mark.parametrize("name", ALL)


@pytest.mark.parametrize("x", [True, False], ids=["float64", "float32"])
@pytest.mark.parametrize(
  ("curriculum", "name", "total"),
  [(ADAPTIVE, "ct", CT["total"]), (DOUBLING, "ict", ICT["total"])],
)
def test_number_of_points(curriculum, name, total, x):
  with jax.enable_x64(x):
    progress = jnp.asarray(TABLE[f"{name}/step"]) / total
    points = jax.vmap(lambda p: curriculum.at(p).num_points)(progress)
  np.testing.assert_array_equal(points, TABLE[f"{name}/num_scales"])


def test_adaptive_decay(x64):
  law = ema.Adaptive(
    decay=CT["mu0"], start=CT["s0"], end=CT["s1"], steps=CT["total"]
  )
  # The table counts steps from 0, updates are counted from 1.
  decay = law(jnp.asarray(TABLE["ct/step"]) + 1)
  np.testing.assert_allclose(decay, TABLE["ct/mu"], rtol=1e-9)


def test_adaptive_decay_of_0_keeps_the_parameters():
  law = ema.Adaptive(decay=0.0, steps=10)
  assert law(jnp.arange(1, 11)).tolist() == [0.0] * 10


def stage_of(num_points):
  """Return the doubling curriculum while it has so many points."""
  pair = DOUBLING.at(jnp.asarray(np.log2((num_points - 1) / 10) / 8))
  assert pair.num_points == num_points
  return pair


@pytest.mark.parametrize("num_points", [11, 41])
def test_doubling_grid_and_weights(num_points, x64):
  grid = TABLE[f"ict/grid_{num_points}"]
  edges = np.cumsum(TABLE[f"ict/probabilities_{num_points}"])
  assert edges[-1] == pytest.approx(1)
  # The middle of the draws that belong to each index.
  middle = (np.concatenate([[0], edges[:-1]]) + edges) / 2
  t, s = stage_of(num_points).transform(jnp.asarray(middle))
  np.testing.assert_allclose(t, grid[:-1], rtol=1e-9)
  np.testing.assert_allclose(s, grid[1:], rtol=1e-9)
  np.testing.assert_allclose(
    1 / (t - s), TABLE[f"ict/weights_{num_points}"], rtol=1e-9
  )


@pytest.mark.parametrize("num_points", [11, 41])
def test_doubling_probabilities(num_points, x64):
  edges = jnp.cumsum(TABLE[f"ict/probabilities_{num_points}"])[:-1]
  pair, upper = stage_of(num_points), np.arange(1, num_points - 1)
  # An index begins where the probabilities of those before it add up to.
  before, behind = (pair.transform(edges + e)[0] for e in (-1e-9, 1e-9))
  grid = TABLE[f"ict/grid_{num_points}"]
  np.testing.assert_allclose(before, grid[upper - 1], rtol=1e-9)
  np.testing.assert_allclose(behind, grid[upper], rtol=1e-9)


def test_adaptive_indices_are_uniform(x64):
  pair = ADAPTIVE.at(jnp.asarray(0.01))
  intervals = int(pair.num_points) - 1
  edges = jnp.arange(intervals) / intervals
  grid = times.karras_grid(intervals + 1)
  for draws in (edges + 1e-9, edges + 1 / intervals - 1e-9):
    t, s = pair.transform(draws)
    np.testing.assert_allclose(t, grid[:-1], rtol=1e-9)
    np.testing.assert_allclose(s, grid[1:], rtol=1e-9)


@pytest.mark.parametrize(
  ("name", "options", "stage"),
  [
    ("s_q2_stage0", {}, 0),
    ("s_q2_stage3", {}, 3),
    ("s_q4_stage2", {"q": 4.0}, 2),
    ("s_q256_stage0", {"q": 256.0}, 0),
    ("s_q2_stage4_const", {"scale": 0.0}, 4),
  ],
)
def test_shrinking_gap(name, options, stage, x64):
  curriculum = curricula.ShrinkingPair(num_stages=8, **options)
  pair = curriculum.at(jnp.asarray((stage + 0.5) / 8))
  # The table's t is ln t ~ N(-1.1, 2) of the table's draws.
  t, s = pair.transform(jnp.asarray(TABLE["draws/normal"]))
  np.testing.assert_allclose(t, TABLE["ecm/t"], rtol=1e-9)
  np.testing.assert_allclose(s, TABLE[f"ecm/{name}"], rtol=1e-9)


def test_shrinking_stages():
  stages = [SHRINKING.at(jnp.asarray(p)).decay for p in (0, 0.124, 0.125, 1)]
  np.testing.assert_allclose(stages, [1 / 2, 1 / 2, 1 / 4, 1 / 256])


def test_karras_law_is_the_grid(x64):
  level = times.Karras(
    **{k: v for k, v in PARAMETERS["karras"].items() if k != "n"}
  )
  expected = TABLE["grid/karras"]
  u = jnp.linspace(0, 1, len(expected))
  np.testing.assert_allclose(level.transform(u), expected, rtol=1e-9)
  np.testing.assert_allclose(level.inverse(jnp.asarray(expected)), u, atol=1e-9)


@every_curriculum
def test_one_program_for_all_of_training(name):
  traces = []

  @jax.jit
  def draw(key, progress):
    traces.append(None)
    return times.at(ALL[name], progress)(key, 4096)

  gaps = []
  for progress in (0.0, 0.3, 0.6, 1.0):
    t, s = draw(jax.random.key(0), jnp.asarray(progress))
    assert t.shape == s.shape == (4096,)
    assert t.dtype == s.dtype == jnp.float32
    assert (s < t).all() and (s >= 0).all()
    gaps.append(float(((t - s) / t).mean()))
  assert len(traces) == 1
  assert gaps == sorted(gaps, reverse=True) and gaps[-1] < gaps[0] / 4


@every_curriculum
def test_needs_the_progress(name):
  with pytest.raises(ValueError, match="give `progress`"):
    times.at(ALL[name], None)


@every_curriculum
def test_draws_at_the_ends_stay_on_the_grid(name):
  pair = ALL[name].at(jnp.asarray(1.0))
  transform = jax.jit(pair.transform)
  ends = {"shrinking": [-6.0, 6.0]}.get(name, [0.0, 1.0])
  t, s = transform(jnp.asarray(ends))
  assert np.isfinite(t).all() and (s < t).all()


@pytest.mark.parametrize(
  ("options", "words"),
  [({"t_min": 0.0}, "t_min=0.0"), ({"start": 20, "end": 10}, "start=20")],
)
def test_doubling_refuses(options, words):
  with pytest.raises(ValueError, match=words):
    curricula.DoublingPair(**options)


def test_names():
  make = functools.partial(registry.make, field="times", t_min=0.1, t_max=9.0)
  for name in ("adaptive_pair", "doubling_pair"):
    curriculum = make("times", {"name": name})
    assert (curriculum.t_min, curriculum.t_max) == (0.1, 9.0)
  law = {"name": "log_normal", "mean": -0.8, "std": 1.6}
  shrinking = make("times", {"name": "shrinking_pair", "q": 4.0, "law": law})
  assert shrinking.law == times.LogNormal(mean=-0.8, std=1.6)
  decay = registry.make("ema", {"name": "adaptive"}, field="ema", steps=7)
  assert decay.steps == 7


@pytest.mark.parametrize("steps", [100, 1003, 8000, 400_001])
@pytest.mark.parametrize(("start", "end"), [(10, 1280), (10, 200), (4, 100)])
def test_stages_last_whole_steps(steps, start, end):
  """N(k) of the paper's algorithm, in whole numbers, around every switch."""
  stage = math.floor(steps / (math.log2(end // start) + 1))
  switches = np.arange(0, steps, stage)
  k = np.unique(np.clip(np.add.outer(switches, range(-8, 9)), 0, steps - 1))
  expected = [min(start * 2 ** (x // stage), end) + 1 for x in k.tolist()]
  pair = curricula.DoublingPair(start=start, end=end, steps=steps)
  progress = jnp.minimum(jnp.asarray(k) / steps, 1.0)
  assert progress.dtype == jnp.float32
  points = jax.vmap(lambda p: pair.at(p).num_points)(progress)
  np.testing.assert_array_equal(points, expected)


def test_stages_know_the_length_of_the_schedule():
  config = jaxflow.preset("ring:improved_consistency_training")
  config.train.schedule_steps = 777
  config = resolve(config, shape=(2,), num_classes=0, teacher=None)
  assert "steps" not in config.times
  plan = make_plan(config)
  assert plan.model.loss_options["sample_times"].steps == 777
