"""A config names a sampler, a grid and where sampling is guided."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from jaxflow import config as configs
from jaxflow import guidance, paths, predictions, sampling
from jaxflow.config import registry
from jaxflow.errors import UsageError
from jaxflow.methods import METHODS
from jaxflow.times import grids

CLASSES = 5
EDM = {
  "path": {"name": "variance_exploding"},
  "sample": {
    "sampler": {"name": "edm_heun"},
    "grid": {"name": "extended", "grid": {"name": "karras"}},
  },
}


def run_of(method="flow_matching", **sections):
  """Build a tiny network of labelled points with these fields."""
  config = configs.default_config(method, data="ring", model="mlp")
  config.model.update(width=16, depth=1, time_features=8)
  configs.update(config, {"loss": {"label_dropout": 0.1}, **sections})
  return tiny.run_of(
    configs.resolve(config, shape=(2,), num_classes=CLASSES, teacher=None)
  )


def drawn(run, nfe):
  """Samples of untrained parameters, and all that made them."""
  params = jax.tree.map(
    lambda x: x + 0.1 * jnp.sin(jnp.arange(x.size).reshape(x.shape)),
    run.model.network.init(jax.random.key(0)),
  )
  noise = jax.random.normal(jax.random.key(1), (4, 2))
  label, key = jnp.arange(4), jax.random.key(2)
  samples = run.make_sampler(nfe)(params, noise, key, label)
  network = functools.partial(run.model.network.apply, params)
  return samples, network, noise, key, label


def expected(sampler, network, path, noise, times, key, label):
  """Return the same samples, put together by hand."""
  x = paths.start(path, noise)
  return sampler(network, x, times, label, path=path, key=key)


@pytest.mark.parametrize(
  ("specification", "sampler"),
  [
    ({"name": "ddim", "eta": 0.5}, sampling.DDIM(eta=0.5)),
    ({"name": "dpm_solver", "order": 3}, sampling.DPMSolver(order=3)),
  ],
)
def test_sampler_of_a_denoiser(specification, sampler):
  run = run_of(sample={"sampler": specification, "guidance": 2.0})
  value, network, *given = drawn(run, 4)
  denoiser = predictions.as_prediction(
    guidance.classifier_free(network, scale=2.0, null_cond=CLASSES),
    paths.Linear(),
    source="velocity",
    target="data",
  )
  noise, key, label = given
  times = jnp.linspace(1.0, 0.0, 5)
  again = expected(sampler, denoiser, paths.Linear(), noise, times, key, label)
  np.testing.assert_allclose(value, again, atol=1e-5)


def test_sampler_of_a_flow_map():
  run = run_of("mean_flow", sample={"sampler": {"name": "gamma", "gamma": 0.5}})
  value, network, noise, key, label = drawn(run, 3)
  flow_map = METHODS["mean_flow"].flow_map(network)
  again = expected(
    sampling.Gamma(gamma=0.5),
    flow_map,
    paths.Linear(),
    noise,
    jnp.linspace(1.0, 0.0, 4),
    key,
    label,
  )
  np.testing.assert_allclose(value, again, atol=1e-5)


def test_edm_sampler():
  run = run_of(**EDM)
  assert isinstance(run.model.path, paths.VarianceExploding)
  value, network, noise, key, label = drawn(run, 7)
  denoiser = predictions.as_prediction(
    network, run.model.path, source="velocity", target="data"
  )
  times = jnp.append(registry.KINDS["grid"]["karras"]()(4), 0.0)
  again = expected(
    sampling.EDMHeun(), denoiser, run.model.path, noise, times, key, label
  )
  np.testing.assert_allclose(value, again, rtol=1e-4, atol=1e-4)


def test_guidance_interval():
  sample = {"guidance": 2.0, "guidance_start": 0.3, "guidance_end": 0.7}
  value, network, noise, _, label = drawn(run_of(sample=sample), 4)
  null = jnp.full_like(label, CLASSES)
  x = noise
  for i in range(4, 0, -1):
    t = jnp.full(4, i / 4)
    slope = network(x, t, t, label)
    if i == 2:
      slope = 2 * slope - network(x, t, t, null)
    x = x - slope / 4
  np.testing.assert_allclose(value, x, atol=1e-5)


@pytest.mark.parametrize(
  ("low", "high", "interval"),
  [(None, None, None), (0.3, None, (0.3, 1.0)), (None, 0.7, (0.0, 0.7))],
)
def test_open_ends_of_the_interval(low, high, interval):
  sample = {"guidance_start": low, "guidance_end": high}
  assert run_of(sample=sample).plan.sample.interval == interval


def test_grid_of_the_path():
  grid = {"name": "log_snr", "t_min": 0.1, "t_max": 0.9}
  made = run_of(sample={"grid": grid}).plan.sample.grid
  value = grids.log_snr_grid(4, path=paths.Linear(), t_min=0.1, t_max=0.9)
  np.testing.assert_array_equal(made(4), value)


@pytest.mark.parametrize("method", METHODS)
def test_default_is_the_sampler_of_the_method(method):
  sampler = METHODS[method].sampler
  assert (
    registry.make(
      "sampler", {"name": "default"}, field="sampler", default=sampler
    )
    is sampler
  )


@pytest.mark.parametrize(
  ("sections", "nfe", "words"),
  [
    (
      {"sample": {"sampler": {"name": "dpm"}}},
      2,
      ["sample.sampler.name='dpm'", "dpm_solver"],
    ),
    (
      {"sample": {"sampler": {"name": "dpm_solver", "order": 4}}},
      2,
      ["sample.sampler: order 4"],
    ),
    (
      {"sample": {"sampler": {"name": "ddim", "order": 4}}},
      2,
      ["sample.sampler.order=4", "is no field"],
    ),
    (EDM, 4, ["nfe=4", "'edm_heun'", "an odd number"]),
    ({**EDM, "path": {"name": "linear"}}, 3, ["'edm_heun'", "Linear"]),
    (
      {"sample": {"grid": {"name": "given", "values": (1.0, 0.5, 0.0)}}},
      4,
      ["sample.grid", "nfe=4", "ask for 2 steps"],
    ),
    (
      {"sample": {"grid": {"name": "log_snr"}}},
      4,
      ["sample.grid", "t_min 0.0", "infinite"],
    ),
    (
      {"sample": {"guidance": 2.0, "guidance_start": 2.0}},
      4,
      ["sample.guidance_start=2.0", "give a time of"],
    ),
    (
      {"sample": {"guidance_start": 0.9, "guidance_end": 0.2}},
      4,
      ["sample.guidance_start=0.9", "no time of"],
    ),
  ],
)
def test_wrong_sampling_is_named(sections, nfe, words):
  with pytest.raises(UsageError) as error:
    run_of(**sections).make_sampler(nfe)
  for word in words:
    assert word in str(error.value)
