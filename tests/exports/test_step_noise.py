"""Samplers that draw noise between their steps, exported."""

import dataclasses
import functools

import jax
import numpy as np
import pytest
from exported import CLASSES, params_of

from jaxflow.config import default_config, make_plan, update
from jaxflow.config.stand_ins import resolve_alone
from jaxflow.errors import UsageError
from jaxflow.exports.onnx import make_model
from jaxflow.exports.sampler import exported_sampler
from jaxflow.exports.stablehlo import make_program
from jaxflow.runs.run import Run

pytest.importorskip("onnx", reason="the extra [onnx]")
pytest.importorskip("flatbuffers", reason="the extra [stablehlo]")
runtime = pytest.importorskip("onnxruntime", reason="the extra [test]")

SHAPE = (2,)
SEED, INDEX = 2**32 - 1, np.arange(2, 5, dtype=np.int32)
LABEL = INDEX % CLASSES
EXTENDED = {
  "sample": {"grid": {"name": "extended", "grid": {"name": "karras"}}}
}
# Method, fields, calls, and the noises of the steps.
CASES = {
  "consistency": ("consistency_distillation", {}, 3, 2),
  "gamma": ("mean_flow", {"name": "gamma", "gamma": 0.5}, 2, 2),
  "ddim": ("flow_matching", {"name": "ddim", "eta": 0.7}, 2, 2),
  "churn": ("denoising", {"name": "edm_heun", "churn": 5.0}, 3, 2),
  "dpm_solver": ("flow_matching", {"name": "dpm_solver"}, 3, 0),
}


@functools.cache
def run_of(case):
  """Return a small run, calls of its sampler, and noises of its steps."""
  method, sampler, nfe, count = CASES[case]
  config = default_config(method, data="given", model="mlp")
  sizes = {"width": 32, "depth": 1, "time_features": 8}
  update(config, {"model": sizes})
  if sampler:
    update(config, {"sample": {"sampler": sampler}})
  if case == "churn":
    update(config, EXTENDED)
  config, _ = resolve_alone(config, shape=SHAPE, num_classes=CLASSES)
  return Run(make_plan(config)), nfe, count


def keys():
  """Return two keys a row, as `jaxflow sample` makes them."""
  fold = functools.partial(jax.random.fold_in, jax.random.key(SEED))
  rows = jax.vmap(lambda i: jax.random.split(fold(i)))(INDEX)
  return rows[:, 0], rows[:, 1]


def normal(key):
  return jax.random.normal(key, SHAPE)


def expected_of(run, nfe):
  """Return what the sampler of the run draws, its own noise of these keys."""
  first, second = keys()
  draw = run.make_sampler(nfe)
  return np.asarray(
    draw(params_of(run), jax.vmap(normal)(first), second, LABEL)
  )


def noises(count):
  """Return noise of the start, and of the steps `[rows, count, ...]`."""
  first, second = keys()
  parts = [
    jax.vmap(lambda key, i=i: normal(jax.random.fold_in(key, i)))(second)
    for i in range(count)
  ]
  start = np.asarray(jax.vmap(normal)(first))
  return [start, np.stack(parts, axis=1)] if count else [start]


def by_onnx(sampler, given):
  model = make_model(sampler)
  session = runtime.InferenceSession(model.SerializeToString())
  names = [x.name for x in sampler.inputs]
  return session.run(None, dict(zip(names, given, strict=True)))[0]


def by_stablehlo(sampler, given):
  weights, program = make_program(sampler)
  return program.call(weights, *given)


@pytest.mark.parametrize("draw", [by_onnx, by_stablehlo])
@pytest.mark.parametrize("case", CASES)
def test_noise_of_the_steps_is_an_input(case, draw):
  run, nfe, count = run_of(case)
  sampler = exported_sampler(run, params_of(run), nfe=nfe)
  names = [x.name for x in sampler.inputs]
  assert names == ["noise", *["step_noise"] * bool(count), "label"]
  if count:
    assert sampler.inputs[1].shape == ("batch", count, *SHAPE)
  found = draw(sampler, [*noises(count), LABEL])
  np.testing.assert_allclose(found, expected_of(run, nfe), rtol=1e-5, atol=1e-5)


# Both compute the same steps; two of them show that bits are the same.
@pytest.mark.parametrize(
  ("case", "draw", "most"),
  [
    ("consistency", by_stablehlo, 1e-5),
    ("gamma", by_stablehlo, 1e-5),
    # In ONNX the tails of the normal law are of another logarithm.
    ("consistency", by_onnx, 5e-5),
    ("churn", by_onnx, 5e-4),
  ],
)
def test_noise_of_the_steps_is_drawn_of_the_seed(case, draw, most):
  run, nfe, _ = run_of(case)
  sampler = exported_sampler(run, params_of(run), nfe=nfe, noise="seed")
  found = draw(sampler, [np.asarray(SEED, np.uint32), INDEX, LABEL])
  expected = expected_of(run, nfe)
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=most)


def test_a_sampler_of_others_is_named():
  run, _, _ = run_of("consistency")

  def sampler(function, noise, times, cond, *, path, key):
    return function(noise, times[:1], times[1:2], cond)

  sample = dataclasses.replace(
    run.plan.sample, sampler=sampler, solver="theirs"
  )
  other = Run(dataclasses.replace(run.plan, sample=sample))
  params = params_of(run)
  with pytest.raises(UsageError, match=r"^nfe=2: sample.sampler='theirs'"):
    exported_sampler(other, params, nfe=2)
  assert len(exported_sampler(other, params, nfe=1).inputs) == 2
