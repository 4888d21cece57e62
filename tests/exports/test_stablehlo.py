"""JAX without jaxflow computes what is sampled."""

import json
import subprocess
import sys

import jax
import numpy as np
import pytest
import tiny
from exported import (
  SHAPES,
  arguments,
  exported,
  one_call,
  one_call_methods,
)

import jaxflow
from jaxflow.exports.stablehlo import LOADER, make_program

pytest.importorskip("flatbuffers", reason="the extra [stablehlo]")


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("method", one_call_methods())
def test_one_call_of_every_method(method, shape):
  sampler, expected = one_call(method, shape)
  weights, program = make_program(sampler)
  assert program.platforms == ("cpu", "cuda", "tpu")
  again = jax.export.deserialize(bytearray(program.serialize()))
  for rows in (1, 3, 64):
    given = arguments(sampler, rows)
    found = again.call(weights, *given)
    np.testing.assert_allclose(found, expected[:rows], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
  ("dtype", "most", "size"), [("float16", 2e-3, 0.55), ("int8", 5e-2, 0.3)]
)
def test_rounded_weights(dtype, most, size):
  sampler = exported("mean_flow", SHAPES[0], width=128)
  given = arguments(sampler, 16)
  made = [make_program(sampler, x) for x in ("float32", dtype)]
  whole, rounded = (sum(x.nbytes for x in w.values()) for w, _ in made)
  assert rounded <= size * whole
  first, second = (np.asarray(p.call(w, *given)) for w, p in made)
  assert 0 < np.abs(first - second).max() <= most * np.abs(first).max()


CALL = """
import sys
import numpy as np
class Refuse:
  def find_spec(self, name, *rest):
    if name.split(".")[0] in ("jaxflow", "flax", "safetensors"):
      raise ImportError(name)
sys.meta_path.insert(0, Refuse())
sys.path.insert(0, sys.argv[1])
from load import load
sample, note = load()
noise = np.load(f"{sys.argv[1]}/noise.npy")
np.save(f"{sys.argv[1]}/samples.npy", sample(noise))
"""


def test_the_loader_needs_jax_alone(tmp_path):
  workdir = tiny.train(tmp_path, "run", "mean_flow", "train.steps=10")
  out = tmp_path / "model"
  run = jaxflow.load(workdir)
  run.export("stablehlo", out)
  noise = np.random.default_rng(0).standard_normal((5, 2), np.float32)
  np.save(out / "noise.npy", noise)
  call = [sys.executable, "-c", CALL, out]
  subprocess.run(call, check=True)
  expected = run.run.make_sampler(1)(run.params, noise, jax.random.key(0), None)
  found = np.load(out / "samples.npy")
  np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
  note = json.loads((out / "sampler.json").read_text())
  for version in (0, 10_000):
    other = {**note, "calling_convention_version": version}
    (out / "sampler.json").write_text(json.dumps(other))
    failed = subprocess.run(call, capture_output=True, text=True)
    assert f"calling convention {version}: this jax reads" in failed.stderr


def test_the_loader_is_short():
  code = LOADER.split('"""')[2]
  assert len(code.strip().splitlines()) <= 25
