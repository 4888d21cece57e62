"""Every number of a component has a range, and a config keeps to it."""

from collections.abc import Sequence
from typing import get_args, get_origin

import pytest
import tiny

from jaxflow import options
from jaxflow.config import registry
from jaxflow.methods import METHODS


def functions():
  found = {row.loss for row in METHODS.values()}
  found |= {row.flow_map for row in METHODS.values()}
  return found.union(*(names.values() for names in registry.KINDS.values()))


def is_number(annotation):
  plain = options.unmarked(annotation)
  return plain in (int, float) or any(
    x in (int, float) for x in get_args(plain)
  )


def test_every_number_has_a_range():
  """The makers of tuples check these as wholes."""
  seen, bare = 0, []
  for function in functions():
    for p in options.parameters(function).values():
      origin = get_origin(options.unmarked(p.annotation))
      if not is_number(p.annotation) or origin in (tuple, Sequence):
        continue
      seen += 1
      kinds = [type(x) for x in options.marks(p.annotation)]
      if options.Range not in kinds:
        bare.append(f"{function.__module__}.{function}: {p.name}")
  assert seen > 150  # Or else the loop above finds none.
  assert not bare, "\n".join(bare)


WRONG = (
  # Method, flags; the last one is what the message begins with.
  ("flow_matching", "sample.grid.name=karras", "sample.grid.rho=0"),
  ("flow_matching", "sample.grid.name=karras", "sample.grid.rho=-1"),
  ("flow_matching", "sample.grid.name=shifted", "sample.grid.shift=0"),
  ("flow_matching", "times.name=karras", "times.rho=0"),
  ("flow_matching", "times.name=logit_normal", "times.mean=inf"),
  ("flow_matching", "times.name=logit_normal", "times.std=inf"),
  ("flow_matching", "times.name=logit_normal", "times.std=0"),
  ("flow_matching", "times.name=logit_normal", "times.std=-1"),
  ("flow_matching", "path.t_min=0.9", "path.t_max=0.5"),
  ("flow_matching", "path.t_max=2"),
  ("flow_matching", "ema.sampling.name=half_life", "ema.sampling.images=0"),
  ("flow_matching", "ema.sampling.name=half_life", "ema.sampling.ramp=-1"),
  ("flow_matching", "model.time_scale=inf"),
  ("flow_matching", "path.name=variance_preserving", "path.beta_min=-1"),
  ("easy_consistency", "times.q=0"),
  ("easy_consistency", "times.num_stages=0"),
  ("consistency_training", "times.start=-5"),
  ("moment_matching", "loss.weight_power=inf"),
  ("mean_flow", "loss.norm_power=inf"),
  ("mean_flow", "loss.guidance_start=0.9", "loss.guidance_end=0.1"),
)


@pytest.mark.parametrize(("method", "flags"), [(m, f) for m, *f in WRONG])
def test_impossible_number_is_refused(method, flags, tmp_path):
  command = tiny.train_command(tmp_path, "x", method, "train.steps=5", *flags)
  result = tiny.run(*command)
  field = flags[-1].partition("=")[0]
  assert result.code == 2
  assert f"{field}=" in result.err and "give" in result.err, result.err
  assert len(result.err.splitlines()) == 1
  assert not (tmp_path / "x").exists()


def test_the_start_of_an_interval_is_below_its_end(tmp_path):
  command = tiny.train_command(tmp_path, "x", "flow_matching", "path.t_min=1.0")
  result = tiny.run(*command)
  assert "path.t_max=1.0: give more than path.t_min=1.0" in result.err
