"""Costs of samplers beside their network calls: programs, tables, files."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxflow import compilation
from jaxflow.config import default_config, make_plan, resolve
from jaxflow.errors import UsageError
from jaxflow.metrics.scores import Score
from jaxflow.parallel import sharding
from jaxflow.reports.costs import (
  Cost,
  Latency,
  Quality,
  cost_table,
  leading_metric,
  read_costs,
  save_tradeoff,
  shared_metric,
)
from jaxflow.reports.quality import read_rows

LATENCY = Latency(median=1e-3, p95=2e-3, num=20)


def cost(**fields):
  base = Cost(
    model="run",
    method="mean_flow",
    solver="average_velocity",
    nfe=1,
    batch=8,
    compile_seconds=1.0,
    latency=LATENCY,
    samples_per_second=8000.0,
    memory=10**9,
    flops=1e9,
    network=LATENCY,
    overhead=-0.123,
    overhead_error=0.02,
    flops_overhead=0.0,
    operations_overhead=None,
    scores={"sliced_wasserstein": Quality(value=0.2, real=0.1)},
  )
  return dataclasses.replace(base, **fields)


def plan_of(method, **changes):
  """A network without a bias on what is not multiplied, 8 classes."""
  config = default_config(method, data="ring", model="mlp")
  config.model.update(width=16, depth=1, time_features=8)
  for name, value in changes.items():
    section, field = name.split("__")
    config[section][field] = value
  return make_plan(resolve(config, shape=(2,), num_classes=8, teacher=None))


def programs(plan, nfe, rows):
  mesh = sharding.make_mesh()
  params = jax.eval_shape(plan.model.network.init, jax.random.key(0))
  given = {"nfe": nfe, "rows": rows}
  return (
    compilation.sampler_program(plan, params, mesh, **given),
    compilation.network_program(plan, params, mesh, **given),
  )


@pytest.mark.parametrize(
  ("method", "changes", "rows_of_call"),
  [
    ("mean_flow", {}, 8),
    # Guidance is a doubled batch, in an interval too.
    (
      "flow_matching",
      {"loss__label_dropout": 0.1, "sample__guidance": 2.0},
      16,
    ),
    (
      "flow_matching",
      {
        "loss__label_dropout": 0.1,
        "sample__guidance": 2.0,
        "sample__guidance_start": 0.5,
      },
      16,
    ),
  ],
)
def test_network_call_is_that_of_the_sampler(method, changes, rows_of_call):
  plan = plan_of(method, **changes)
  _, network = programs(plan, 4, 8)
  xt, t, s, label = network.arguments[1:]
  assert xt.shape == (rows_of_call, 2)
  assert t.shape == s.shape == label.shape == (rows_of_call,)


def test_network_call_of_a_network_that_is_told_its_guidance():
  plan = plan_of("improved_mean_flow", loss__label_dropout=0.1)
  *_, cond = programs(plan, 1, 8)[1].arguments
  assert {k: v.shape for k, v in cond.items()} == dict.fromkeys(
    ("label", "omega", "t_start", "t_end"), (8,)
  )


def test_sampler_multiplies_no_more_than_its_network_calls():
  plan = plan_of("mean_flow")
  params = plan.model.network.init(jax.random.key(0))
  reports = [
    compilation.compile_program(program)
    for nfe in (1, 3)
    for program in programs(plan, nfe, 8)
  ]
  one, network, three, _ = (report.flops for report in reports)
  assert one == network > 0
  # What does not change from call to call is multiplied once.
  assert 2 * network < three <= 3 * network
  program = programs(plan, 1, 8)[0]
  noise, key, label = compilation.example_inputs(program, jax.random.key(1))
  assert abs(float(noise.std()) - 1) < 0.5
  assert label.tolist() == [0] * 8
  report = compilation.compile_program(program)
  samples = report.executable(params, noise, key, label)
  sampler = plan.model.make_sampler(plan.sample, 1)
  expected = sampler(params, noise, key, label)
  np.testing.assert_allclose(samples, expected, rtol=1e-5, atol=1e-6)


def test_rows_that_the_devices_do_not_divide_are_on_all_of_them():
  plan = plan_of("mean_flow")
  for rows, split in ((8, False), (3, True)):
    noise = programs(plan, 1, rows)[0].arguments[1]
    assert noise.sharding.is_fully_replicated == split
    assert noise.dtype == jnp.float32


def test_table_fits_the_console():
  rows = [
    cost(),
    cost(model="teacher", solver="dpm_solver", nfe=128, batch=1024),
    cost(batch=1024, samples_per_second=1234567.0, overhead=12.345),
  ]
  lines = cost_table(rows).splitlines()
  assert max(map(len, lines)) <= 100
  text = "\n".join(lines)
  for word in ("batch 8", "batch 1024", "teacher, dpm_solver", "-12.3±2.0"):
    assert word in text
  assert "1,234,567" in text


def test_costs_are_read_as_they_were_written(tmp_path):
  path = tmp_path / "bench.json"
  assert read_costs(path) == []
  rows = [cost(), cost(operations_overhead=0.01)]
  plain = [dataclasses.asdict(row) for row in rows]
  path.write_text(json.dumps({"rows": plain}))
  assert read_costs(path) == rows
  for text in ("{", "{}", '{"rows": [{}]}', '{"rows": [1]}'):
    path.write_text(text)
    with pytest.raises(UsageError, match=r"bench\.json cannot be read"):
      read_costs(path)


def test_evaluations_are_read_or_refused(tmp_path):
  path = tmp_path / "evaluation.json"
  assert read_rows(path) == []
  rows = [{"nfe": 1, "step": 2, "scores": {"fid": {"value": 1.0}}}]
  path.write_text(json.dumps({"schema": 1, "rows": rows}))
  score = Score(value=1.0, error=None)
  assert read_rows(path) == [{**rows[0], "scores": {"fid": score}}]
  for text in ("{", "[]", '{"rows": [{"nfe": 1}]}'):
    path.write_text(text)
    with pytest.raises(UsageError, match=r"evaluation\.json cannot be read"):
      read_rows(path)


@pytest.mark.parametrize(
  ("names", "leading"),
  [
    (["sliced_wasserstein", "fd_vgg", "fid"], "fid"),
    (["fidelity", "sliced_wasserstein", "fd_vgg"], "fd_vgg"),
    (["energy_distance"], None),
  ],
)
def test_leading_metric(names, leading):
  assert leading_metric(dict.fromkeys(names)) == leading


def test_picture_has_the_metric_that_all_share(tmp_path):
  better = {"fid": Quality(value=2.0, real=1.0)}
  one = cost(scores={**cost().scores, **better})
  assert shared_metric([one, one]) == "fid"
  assert shared_metric([one, cost()]) == "sliced_wasserstein"
  assert shared_metric([]) is None
  save_tradeoff([one, cost(model="teacher")], tmp_path / "a.png")
  assert 0 < (tmp_path / "a.png").stat().st_size < 300_000
  with pytest.raises(UsageError, match="run evaluate first"):
    save_tradeoff([cost(scores={})], tmp_path / "b.png")
