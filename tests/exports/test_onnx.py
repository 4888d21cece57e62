"""ONNX Runtime computes what JAX samples."""

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
  drawn,
  exported,
  one_call,
  one_call_methods,
  params_of,
  run_of,
)

import jaxflow
from jaxflow.errors import UsageError
from jaxflow.exports.onnx import make_model
from jaxflow.exports.onnx_graph import round_to_int8

pytest.importorskip("onnx", reason="the extra [onnx]")
runtime = pytest.importorskip("onnxruntime", reason="the extra [test]")

SESSION = runtime.SessionOptions()
SESSION.intra_op_num_threads = 1


def outputs(model, sampler, values):
  """Run a model on the arguments of a sampler."""
  session = runtime.InferenceSession(model.SerializeToString(), SESSION)
  names = [x.name for x in sampler.inputs]
  assert [x.name for x in session.get_inputs()] == names
  return [
    session.run(["samples"], dict(zip(names, given, strict=True)))[0]
    for given in values
  ]


def test_all_methods_but_those_of_two_calls_are_exported():
  assert len(one_call_methods()) >= 20


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("method", one_call_methods())
def test_one_call_of_every_method(method, shape):
  sampler, expected = one_call(method, shape)
  values = [arguments(sampler, rows) for rows in (1, 3, 64)]
  for samples in outputs(make_model(sampler), sampler, values):
    assert samples.dtype == np.float32
    same = expected[: len(samples)]
    np.testing.assert_allclose(samples, same, rtol=0, atol=1e-5)


@pytest.mark.parametrize("nfe", [2, 4])
def test_several_calls_are_unrolled(nfe):
  sampler = exported("mean_flow", SHAPES[0], nfe=nfe)
  model = make_model(sampler)
  kinds = {node.op_type for node in model.graph.node}
  assert not kinds & {"Loop", "Scan", "If"}
  given = arguments(sampler, 3)
  (samples,) = outputs(model, sampler, [given])
  expected = drawn(sampler, given)
  np.testing.assert_allclose(samples, expected, rtol=0, atol=1e-5)


def test_noise_between_steps_is_no_input():
  with pytest.raises(UsageError, match=r"^nfe=2: this sampler"):
    exported("consistency_distillation", SHAPES[0], nfe=2)


def test_a_seed_draws_what_jaxflow_sample_draws():
  sampler = exported("mean_flow", SHAPES[0], noise="seed")
  index = np.arange(2, 7, dtype=np.int32)
  given = [np.asarray(2**32 - 1, np.uint32), index, index % 10]
  (samples,) = outputs(make_model(sampler), sampler, [given])
  run = run_of("mean_flow", SHAPES[0])
  keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(2**32 - 1), i))
  noise_keys = jax.vmap(lambda key: jax.random.split(key)[0])(keys(index))
  noise = jax.vmap(lambda key: jax.random.normal(key, SHAPES[0]))(noise_keys)
  draw = run.make_sampler(1)
  expected = draw(params_of(run), noise, jax.random.key(0), given[2])
  # Numbers in the tails are those of another logarithm.
  np.testing.assert_allclose(samples, expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
  ("dtype", "most", "size"), [("float16", 2e-3, 0.55), ("int8", 5e-2, 0.3)]
)
def test_rounded_weights(dtype, most, size):
  sampler = exported("mean_flow", SHAPES[0], width=128)
  whole, model = make_model(sampler), make_model(sampler, dtype)
  assert model.ByteSize() <= size * whole.ByteSize()
  given = arguments(sampler, 16)
  (first,), (second,) = (outputs(m, sampler, [given]) for m in (whole, model))
  assert 0 < np.abs(first - second).max() <= most * np.abs(first).max()


def test_rounding_is_half_a_step_at_most():
  weights = np.random.default_rng(0).standard_normal((64, 32), np.float32)
  weights[:, 3] = 0
  rounded, scale = round_to_int8(weights, 1)
  assert np.abs(rounded).max(axis=0).tolist() == [127] * 3 + [0] + [127] * 28
  assert (abs(rounded * scale - weights) <= scale / 2 + 1e-6).all()


LOAD = """
import json, sys
import numpy as np
class Refuse:
  def find_spec(self, name, *rest):
    if name.split(".")[0] in ("jaxflow", "jax"):
      raise ImportError(name)
sys.meta_path.insert(0, Refuse())
import onnxruntime
folder, num = sys.argv[1], 5
note = json.load(open(f"{folder}/sampler.json"))
session = onnxruntime.InferenceSession(f"{folder}/{note['file']}")
noise = np.load(f"{folder}/noise.npy")
(samples,) = session.run(None, {"noise": noise})
np.save(f"{folder}/samples.npy", samples)
"""


def test_the_command_writes_a_folder_that_needs_no_jaxflow(tmp_path):
  workdir = tiny.train(tmp_path, "run", "mean_flow", "train.steps=10")
  out = tmp_path / "model"
  command = ["export", f"--workdir={workdir}", f"--out={out}"]
  result = tiny.run(*command, "--format=onnx")
  assert result.code == 0, result.err
  note = json.loads((out / "sampler.json").read_text())
  assert note["method"] == "mean_flow" and note["nfe"] == 1
  assert note["inputs"] == [
    {"name": "noise", "shape": ["batch", 2], "dtype": "float32"}
  ]
  again = tiny.run(*command, "--format=onnx")
  assert (again.code, again.err.count("\n")) == (2, 1)
  assert "is there already" in again.err
  noise = np.random.default_rng(0).standard_normal((5, 2), np.float32)
  np.save(out / "noise.npy", noise)
  subprocess.run([sys.executable, "-c", LOAD, out], check=True)
  run = jaxflow.load(workdir)
  draw = run.run.make_sampler(1)
  expected = draw(run.params, noise, jax.random.key(0), None)
  found = np.load(out / "samples.npy")
  np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
  ("flags", "line"),
  [
    (["--format=onx"], "format='onx' is unknown: did you mean 'onnx'?"),
    (["--format=edm"], "it is 'mlp' with 1 head(s); the format has the net"),
    (["--format=onnx", "--dtype=int4"], "dtype='int4': give one of float32"),
    (["--format=onnx", "--noise=x"], "noise='x': give input or seed"),
    (["--format=dit", "--dtype=int8"], "dtype=int8: format='dit' takes no"),
    (["--format=onnx", "--licence=mit"], "licence=mit: format='onnx' takes"),
    (["--format=onnx", "--nfe=0"], "nfe=0"),
  ],
)
def test_wrong_options_are_one_line(flags, line, plain, tmp_path):
  out = tmp_path / "model"
  result = tiny.run("export", f"--workdir={plain}", f"--out={out}", *flags)
  assert (result.code, result.err.count("\n")) == (2, 1), result
  assert line in result.err
  assert not out.exists()


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
  folder = tmp_path_factory.mktemp("runs")
  return tiny.train(folder, "plain", "flow_matching", "train.steps=10")
