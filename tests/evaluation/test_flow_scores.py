"""What an evaluation says of a velocity: as the run is sampled, on its grid."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from jaxflow import config as configs
from jaxflow.errors import UsageError
from jaxflow.evaluation import flow_scores
from jaxflow.reports import plane_gallery

FIELDS = ("straightness", "curvature", "truncation")
LABELS = np.arange(4)


def run_of(**sample):
  """Return a tiny untrained network of points with labels, sampled so."""
  config = configs.default_config("flow_matching", data="ring", model="mlp")
  config.model.update(width=16, depth=1, time_features=8)
  config.evaluation.flow.update(num=4, steps=2)
  changes = {"loss": {"label_dropout": 0.1}, "sample": sample}
  configs.update(config, changes | {"sample": {"ema": "online"} | sample})
  return tiny.run_of(
    configs.resolve(config, shape=(2,), num_classes=8, teacher=None)
  )


@pytest.fixture(scope="module")
def params():
  return jax.tree.map(
    lambda x: x + 0.1 * jnp.sin(jnp.arange(x.size).reshape(x.shape)),
    run_of().model.network.init(jax.random.key(0)),
  )


def velocity(run, params, t):
  """Return the velocity of four points at a time, as the run is sampled."""
  points, times = jnp.ones((4, 2)), jnp.full(4, t)
  return run.model.sampled(run.plan.sample)(params)(
    points, times, times, LABELS
  )


def trajectories(run, params):
  times = np.array([1.0, 0.5, 0.0])
  found = flow_scores._trajectories(run, params, LABELS, times)
  return np.concatenate([getattr(found, name).ravel() for name in FIELDS])


def followed(run, params):
  source = types.SimpleNamespace(plan=run.plan, params=params)
  noise = np.asarray(jax.random.normal(jax.random.key(1), (4, 2)))
  return plane_gallery._trajectories(source, noise, LABELS)[0]


def test_a_velocity_is_guided_inside_the_interval_alone(params):
  plain, everywhere = run_of(), run_of(guidance=3.0)
  inside = run_of(guidance=3.0, guidance_start=0.3, guidance_end=0.6)
  for t, like, unlike in ((0.5, everywhere, plain), (0.7, plain, everywhere)):
    found = velocity(inside, params, t)
    np.testing.assert_allclose(found, velocity(like, params, t), atol=1e-6)
    assert not np.allclose(found, velocity(unlike, params, t), atol=1e-3)


@pytest.mark.parametrize("look", [trajectories, followed])
def test_trajectories_are_guided_as_the_samples(look, params):
  plain, everywhere, nowhere = (
    look(run, params)
    for run in (
      run_of(),
      run_of(guidance=3.0),
      # Between two times of either grid, and of every step inside.
      run_of(guidance=3.0, guidance_start=0.4801, guidance_end=0.4802),
    )
  )
  np.testing.assert_allclose(nowhere, plain, atol=1e-5)
  assert not np.allclose(everywhere, plain, atol=1e-3)


def test_a_picture_that_its_grid_cannot_give_is_left_out(params, tmp_path):
  run = run_of(grid={"name": "given", "values": (1.0, 0.0)})
  given = types.SimpleNamespace(
    source=types.SimpleNamespace(plan=run.plan, params=params, role="run"),
    teacher=None,
    inputs=lambda num: (np.ones((4, 2)), LABELS),
  )
  with pytest.raises(UsageError, match=r"^sample\.grid={'name': 'given'"):
    plane_gallery._save_trajectories(given, tmp_path / "a.png")


@pytest.mark.parametrize(
  ("grid", "words"),
  [
    (
      {"name": "log", "t_min": 0.01},
      ["'t_min': 0.01", "from 1 to 0.01", "from 1 to 0;"],
    ),
    ({"name": "given", "values": (1.0, 0.0)}, ["2 steps need 3 times"]),
    ({"name": "given", "values": (1.0, 1.0, 0.0)}, ["do not decrease"]),
  ],
)
def test_a_grid_that_does_not_fit_the_ode_is_one_line(grid, words, params):
  run = run_of(grid=grid)
  state = types.SimpleNamespace(params=params, ema={}, frozen={})
  with pytest.raises(UsageError) as caught:
    flow_scores.flow_scores(run, state)
  line = str(caught.value)
  assert line.startswith(f"sample.grid={{'name': '{grid['name']}'")
  for word in (*words, "evaluation.flow.num=0", "another grid"):
    assert word in line
  assert "\n" not in line
