"""Samplers with more than a network: guidance, scales, stacked blocks."""

import dataclasses

import jax
import numpy as np
import plain_autoencoder as plain
import pytest
from exported import CLASSES, SHAPES, arguments, drawn, params_of, run_of

from jaxflow.config import default_config, make_plan, update
from jaxflow.config.stand_ins import resolve_alone
from jaxflow.data import Scaling
from jaxflow.errors import UsageError
from jaxflow.exports import sampler as sampler_lib
from jaxflow.exports.onnx import make_model
from jaxflow.exports.sampler import exported_sampler
from jaxflow.pretrained import autoencoder_files
from jaxflow.runs.run import Run

pytest.importorskip("onnx", reason="the extra [onnx]")
runtime = pytest.importorskip("onnxruntime", reason="the extra [test]")


def run_with(changes, method="flow_matching", shape=SHAPES[0]):
  """Return the run of a small transformer with other values."""
  config = default_config(method, data="given", model="dit")
  sizes = {"width": 32, "depth": 2, "num_heads": 2, "patch_size": 2}
  update(config, {"model": sizes, "loss": {"label_dropout": 0.1}})
  update(config, changes)
  config, _ = resolve_alone(config, shape=shape, num_classes=CLASSES)
  return Run(make_plan(config))


def both(run, nfe=1, rows=3):
  """Return what ONNX Runtime and JAX draw."""
  sampler = exported_sampler(run, params_of(run), nfe=nfe)
  given = arguments(sampler, rows)
  model = make_model(sampler)
  session = runtime.InferenceSession(model.SerializeToString())
  names = [x.name for x in sampler.inputs]
  (found,) = session.run(None, dict(zip(names, given, strict=True)))
  return found, drawn(sampler, given)


@pytest.mark.parametrize(
  ("changes", "nfe"),
  [
    ({"sample": {"guidance": 2.0}}, 1),
    ({"sample": {"guidance": 2.0, "guidance_end": 0.6}}, 2),
    ({"model": {"scan_layers": True}}, 1),
    ({"model": {"qk_norm": True}}, 1),
    ({"model": {"registers": 3, "scan_layers": True}}, 1),
    (
      {
        "model": {
          **{"context": (2, 1, 1, 2), "registers": 1, "rotary": True},
          **{"norm": "rms", "qk_norm": True, "mlp": "swiglu", "bias": False},
        }
      },
      1,
    ),
  ],
)
def test_networks_and_guidance(changes, nfe):
  found, expected = both(run_with(changes), nfe)
  np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_blocks_of_keys_are_written_out():
  """400 keys are a block of 256 and one that is filled up."""
  model = {"attention": "blocks", "patch_size": 1, "depth": 1}
  found, expected = both(run_with({"model": model}, shape=(20, 20, 1)))
  np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_scales_of_arrays_are_undone(dtype):
  run = run_of("mean_flow", SHAPES[0])
  plain, _ = both(run)
  scaling = Scaling("standard", (20.0,), (50.0,), (0.0, 255.0), dtype)
  data = dataclasses.replace(run.plan.data, scaling=scaling)
  scaled = Run(dataclasses.replace(run.plan, data=data))
  found, _ = both(scaled)
  # NumPy's, in float64, is what jaxflow sample applies.
  expected = scaling.restore(plain).astype(np.float64)
  most = 1 if dtype == "uint8" else 1e-4
  assert np.abs(found - expected).max() <= most
  if dtype == "uint8":
    assert (found == np.rint(found)).all() and found.min() >= 0


def test_latents_are_decoded_in_the_same_graph(monkeypatch):
  run = run_of("mean_flow", SHAPES[1])
  (latents, _) = both(run)
  tensors = plain.tensors(widths=(32, 32))
  model, params = autoencoder_files.from_tensors(tensors)
  decoder = params, lambda weights, x: model.decode(weights, x / 4)
  monkeypatch.setattr(sampler_lib, "make_decoder", lambda data: decoder)
  found, expected = both(run)
  assert found.shape == (3, 64, 64, 3)
  np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5)
  images = plain.Plain(tensors).decode(latents / 4)
  assert images.std() > 0.1
  np.testing.assert_allclose(found, images, rtol=0, atol=2e-5)


def test_the_guidance_scale_is_an_input():
  run = run_of("improved_mean_flow", SHAPES[0])
  sampler = exported_sampler(run, params_of(run), nfe=1)
  assert sampler.note["guidance"] == {"is_input": True, "default": 1.0}
  *rest, scale = arguments(sampler, 3)
  low, high = (drawn(sampler, [*rest, x * scale]) for x in (1, 2))
  assert np.abs(low - high).max() > 1e-4
  draw = run.make_sampler(1)
  own = draw(params_of(run), rest[0], jax.random.key(0), rest[1])
  one = drawn(sampler, [*rest, np.ones((), np.float32)])
  np.testing.assert_allclose(one, own, rtol=0, atol=1e-6)


def test_what_has_no_rule_is_named():
  run = run_of("mean_flow", SHAPES[0])
  network = run.model.network

  def apply(params, xt, t, s, cond, key=None):
    return jax.numpy.sort(network.apply(params, xt, t, s, cond), axis=1)

  model = dataclasses.replace(
    run.model, network=dataclasses.replace(network, apply=apply)
  )
  other = Run(dataclasses.replace(run.plan, model=model))
  sampler = exported_sampler(other, params_of(run), nfe=1)
  with pytest.raises(UsageError, match=r"^format='onnx': .* computes 'sort'"):
    make_model(sampler)
