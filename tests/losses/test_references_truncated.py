"""Truncated consistency equals its reference numbers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import references

from jaxflow import flow_maps, losses, weights
from jaxflow.times.curricula import shrunk

NAME = "tcm_stage2"


def case_of(dtype=jnp.float64):
  """Return the case with its boundary rows, the second of four, first."""
  case = references.load(NAME, dtype)
  order = np.arange(8).reshape(2, 4)[:, [1, 0, 2, 3]].ravel()
  parts = {
    part: jax.tree.map(lambda x: x[order] if x.ndim else x, getattr(case, part))
    for part in ("given", "out", "mid")
  }
  return case._replace(**parts)


def adapter(case, networks):
  hyper, given = case.hyper, case.given
  jump = functools.partial(
    flow_maps.edm_denoiser, sigma_data=hyper["sigma_data"]
  )
  return losses.truncated_consistency_loss(
    networks["net"],
    jax.random.key(0),
    references.batch_of(case),
    path=references.path_of(hyper),
    sample_times=lambda key, n: (given["t"], given["s"]),
    flow_map=jump,
    teacher=jump(networks["stage1"]),
    transition=hyper["transition"],
    block=(4, 1),
    boundary_weight=hyper["weight_boundary"],
    distance=weights.huber(hyper["huber_c"]),
  )


def test_float64(x64):
  case = case_of()
  metrics = references.check(case, adapter, jnp.float64, 1e-9, 1e-9)
  boundary = case.given["boundary"]
  assert boundary.tolist() == 2 * [True, False, False, False]
  for name, mask in (("raw", ~boundary), ("raw_boundary", boundary)):
    expected = case.mid["distance"][mask].mean()
    np.testing.assert_allclose(metrics[name], expected, rtol=1e-9)


def test_float32():
  case = case_of(jnp.float32)
  limits = [
    max(1e-5, 20 * case.f32_error[part]) for part in ("per_sample", "grad")
  ]
  references.check(case, adapter, jnp.float32, *limits)


def test_every_case_is_run():
  assert references.cases("tcm_") == [NAME]


def test_earlier_times(x64):
  case = references.load(NAME)
  hyper = case.hyper
  s = shrunk(
    case.given["t"],
    hyper["q"] ** -(hyper["stage"] + 1),
    scale=hyper["k"],
    slope=hyper["b"],
  )
  # The stored times are rounded to float32.
  np.testing.assert_allclose(s, case.given["s"], rtol=6e-8)


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"transition": 90.0}, "transition=90.0: give a time inside the path"),
    ({"block": (4, 4)}, "boundary rows alone"),
    ({"block": (3, 1)}, "no multiple of the block"),
  ],
)
def test_wrong_options(options, message):
  case = case_of(jnp.float32)
  with pytest.raises(ValueError, match=message):
    losses.truncated_consistency_loss(
      case.network("net"),
      jax.random.key(0),
      references.batch_of(case),
      path=references.path_of(case.hyper),
      sample_times=lambda key, n: (case.given["t"], case.given["s"]),
      flow_map=flow_maps.edm_denoiser,
      teacher=flow_maps.edm_denoiser(case.network("stage1")),
      **options,
    )
