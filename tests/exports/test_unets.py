"""U-Nets as ONNX graphs."""

import numpy as np
import pytest
from exported import CLASSES, arguments, drawn, params_of

from jaxflow.config import default_config, make_plan, update
from jaxflow.config.stand_ins import resolve_alone
from jaxflow.exports.onnx import make_model
from jaxflow.exports.sampler import exported_sampler
from jaxflow.runs.run import Run

pytest.importorskip("onnx", reason="the extra [onnx]")
runtime = pytest.importorskip("onnxruntime", reason="the extra [test]")
# Channels are 64 at least where heads of attention have 64.
SMALL = {"num_blocks": 1, "attention_resolutions": (4,)}


@pytest.mark.parametrize(
  ("name", "sizes"),
  [
    ("unet", {"channels": 8, "multipliers": (1, 2)}),
    ("unet", {"channels": 8, "multipliers": (1, 2), "architecture": "ncsn++"}),
    ("unet", {"channels": 64, "multipliers": (1, 1), "architecture": "adm"}),
    ("mp_unet", {"channels": 64, "multipliers": (1, 1)}),
  ],
)
def test_onnx_runtime_computes_what_jax_does(name, sizes):
  config = default_config("mean_flow", data="given", model=name)
  update(config, {"model": {**SMALL, **sizes}})
  config, _ = resolve_alone(config, shape=(8, 8, 3), num_classes=CLASSES)
  run = Run(make_plan(config))
  sampler = exported_sampler(run, params_of(run), nfe=1)
  session = runtime.InferenceSession(make_model(sampler).SerializeToString())
  names = [x.name for x in sampler.inputs]
  for rows in (1, 3):
    given = arguments(sampler, rows)
    (found,) = session.run(None, dict(zip(names, given, strict=True)))
    expected = drawn(sampler, given)
    assert expected.std() > 0.1
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
