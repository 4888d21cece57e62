"""Student's law of ln t, and pairs at a transition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxflow import times

STUDENTS = [
  {"mean": 0.0, "std": 0.2, "df": 0.01, "t_min": 1.0, "t_max": 80.0},
  {"mean": -1.0, "std": 1.5, "df": 3.0, "t_min": 0.002, "t_max": 80.0},
]


@pytest.mark.parametrize("options", STUDENTS)
def test_it_is_students_law_between_the_ends(options, x64):
  law = times.LogStudent(**options)
  draws = np.linspace(0, 1, 999)
  t = np.asarray(law.transform(jnp.asarray(draws)))
  np.testing.assert_allclose(
    t[[0, -1]], [options["t_min"], options["t_max"]], rtol=1e-12
  )
  ends = np.log([options["t_min"], *t, options["t_max"]])
  below = stats.t.cdf((ends - options["mean"]) / options["std"], options["df"])
  found = (below[1:-1] - below[0]) / (below[-1] - below[0])
  # What the table leaves between its points.
  np.testing.assert_allclose(found, draws, atol=2e-6)


def test_it_may_begin_at_0():
  t = times.LogStudent(df=2.0, t_min=0.0)(jax.random.key(0), 1000)
  assert bool(((t >= 0) & (t <= 80)).all())


LAWS = {
  "student": times.LogStudent(),
  "uniform": times.Uniform(t_max=3.0),
  "log_normal": times.LogNormal(mean=-1.0),
}


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)
def test_pairs(law):
  pair = times.TransitionPair(law=law, transition=1.5, block=(4, 1), gap=0.05)
  t, s = pair(jax.random.key(0), 400)
  boundary = np.arange(400) % 4 == 0
  assert (t[boundary] == 1.5).all()
  assert (t >= 1.5).all() and (s < t).all() and (s >= 0).all()
  # A boundary row is below the transition.
  assert (s[boundary] < 1.5).all()
  sigmoid = 1 / (1 + np.exp(np.asarray(t, float)))
  expected = t * (1 - 0.05 * (1 + 8 * sigmoid))
  np.testing.assert_allclose(s, expected, rtol=1e-6)


def test_a_law_begins_at_the_transition():
  """Instead of what lies below piling up there."""
  pair = times.TransitionPair(law=times.Uniform(t_max=3.0), transition=1.5)
  t, _ = pair(jax.random.key(0), 4000)
  above = t.reshape(-1, 4)[:, 1:].ravel()
  assert (above > 1.5).all()
  np.testing.assert_allclose(above.mean(), 2.25, atol=0.03)
