"""`jaxflow bench` and `jaxflow report` on a run and on its student."""

import csv
import dataclasses
import datetime
import json
import re

import jax
import numpy as np
import pytest
import tiny

import jaxflow
from jaxflow import data
from jaxflow.config import load_config, make_plan, update
from jaxflow.errors import UsageError
from jaxflow.figures import curves
from jaxflow.reports import page, quality
from jaxflow.reports.bench import bench
from jaxflow.reports.page import report
from jaxflow.reports.quality import DataDistance, evaluated_scores
from jaxflow.reports.sampled_runs import open_run, other_run, teacher_of

SCRIPT = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """Return a teacher, and its student with a field that must be escaped."""
  path = tmp_path_factory.mktemp("runs")
  tiny.train(path, "teacher", "flow_matching", "train.steps=20")
  tiny.train(
    path,
    "student",
    "consistency_distillation",
    *("train.steps=20", "train.sample_every=10"),
    *("evaluation.during.every=10", "evaluation.during.num=50"),
    "evaluation.during.share=0.9",
    "evaluation.during.metrics=sliced_wasserstein,recall",
    f"teacher.workdir={path / 'teacher'}",
  )
  # A config of a stranger may hold any text.
  file = path / "student" / "config.json"
  values = json.loads(file.read_text())
  values["data"]["data_dir"] = SCRIPT
  file.write_text(json.dumps(values))
  return path


def plan_of(workdir):
  return make_plan(load_config(workdir))


@pytest.fixture(scope="module")
def benched(folder):
  """Measure the student; return the printed text and the result."""
  lines = []
  costs = bench(
    folder / "student", nfe=(1, 2), batch=(3, 8), seconds=0, log=lines.append
  )
  return lines, costs


def test_bench_measures_the_run_and_its_teacher(folder, benched):
  lines, costs = benched
  stored = json.loads((folder / "student" / "bench.json").read_text())
  assert stored["schema"] == 1
  assert (stored["method"], stored["step"]) == ("consistency_distillation", 20)
  assert stored["device"] == {"kind": "cpu", "platform": "cpu", "count": 8}
  assert stored["jax"] == jax.__version__
  assert stored["compared"] == 500
  assert len(stored["rows"]) == len(costs) == 2 * 2 * 2
  for cost in costs:
    assert 0 < cost.latency.median <= cost.latency.p95
    assert cost.samples_per_second == cost.batch / cost.latency.median
    assert cost.latency.num >= 20
    assert cost.compile_seconds > 0 and cost.memory > 0 and cost.flops > 0
    assert abs(cost.flops_overhead) < 0.1
    assert cost.scores["sliced_wasserstein"].value > 0
  by = {(c.model, c.nfe, c.batch): c for c in costs}
  # FLOPs of a sample do not depend on the batch, and double with the calls.
  for model in ("run", "teacher"):
    one, two = by[model, 1, 8], by[model, 2, 8]
    assert one.flops == by[model, 1, 3].flops
    assert two.flops == pytest.approx(2 * one.flops, rel=0.1)
  # One call leaves no room for solvers of two.
  assert by["teacher", 1, 8].solver in ("euler", "dpm_solver")
  said = next(x for x in lines if x.startswith("teacher, NFE 2: "))
  named = dict(re.findall(r"(\w+) (\d\.\d{4})", said.split("of ")[1]))
  assert set(named) == {"euler", "midpoint", "heun", "dpm_solver"}
  assert by["teacher", 2, 8].solver == min(named, key=lambda x: float(named[x]))
  assert (folder / "student" / "bench.png").stat().st_size < 300_000


def test_teacher_of_the_checkpoint_is_the_one_that_was_trained(folder):
  student = open_run(folder / "student", frozen=("teacher",))
  state = student.state
  assert set(state.frozen) == {"teacher"} and state.opt_state == ()
  teacher = teacher_of(student)
  tiny.assert_same_bits(
    teacher.params, tiny.state_of(folder / "teacher").ema["sampling"]
  )
  distance = DataDistance(student.plan, num=100)
  other = other_run(folder / "teacher", student)
  assert distance(teacher, 1) == distance(other, 1)


def test_costs_without_their_picture(folder, benched, tmp_path):
  (tmp_path / "bench.json").write_text(
    (folder / "student" / "bench.json").read_text()
  )
  parts = "".join(page._costs(tmp_path))
  assert "<table" in parts and "<img" not in parts


def test_every_solver_samples_as_its_config_says(folder):
  found = open_run(folder / "teacher").by_solver()
  assert list(found) == ["euler", "midpoint", "heun", "dpm_solver"]
  noise, key = jax.random.normal(jax.random.key(0), (5, 2)), jax.random.key(1)
  drawn = []
  for name, sampled in found.items():
    changes = {"flow_map": {"solver": {"name": name}}}
    if name == "dpm_solver":
      changes = {"sample": {"sampler": {"name": name}}}
    config = load_config(folder / "teacher").copy_and_resolve_references()
    with config.unlocked(), config.ignore_type():
      update(config, changes)
    plan = make_plan(config)
    assert sampled.plan.sample.solver == plan.sample.solver == name
    mine, its = (
      x.model.make_sampler(x.sample, 4)(sampled.params, noise, key, None)
      for x in (sampled.plan, plan)
    )
    np.testing.assert_array_equal(mine, its)
    drawn.append(np.asarray(mine))
  assert len({x.tobytes() for x in drawn}) == 4


def test_bench_beside_another_run(folder):
  costs = bench(
    folder / "teacher",
    nfe=(1,),
    batch=(8,),
    teacher=folder / "teacher",
    teacher_nfe=(2,),
    seconds=0,
    log=lambda line: None,
  )
  assert [(c.model, c.nfe) for c in costs] == [("run", 1), ("teacher", 2)]


@pytest.mark.parametrize(
  ("flags", "words"),
  [
    (["--workdir=no"], ["--workdir='no' holds no config.json"]),
    (["--nfe=0"], ["--nfe=0", "at least 1"]),
    (["--nfe=two"], ["--nfe=two: give whole numbers"]),
    (["--batch=0"], ["--batch=0: give at least 1"]),
    (["--batch=x"], ["--batch=x: give whole numbers"]),
    (["--teacher_nfe=4"], ["--teacher_nfe=4: the run has no teacher"]),
    (["--teacher=no"], ["--teacher='no' holds no config.json"]),
    (["--teacher={}", "--teacher_nfe=0"], ["--teacher_nfe=0", "at least 1"]),
  ],
)
def test_wrong_bench(folder, flags, words):
  workdir = folder / "teacher"
  flags = [x.format(workdir) for x in flags]
  result = tiny.run("bench", f"--workdir={workdir}", *flags)
  assert (result.code, result.out, result.err.count("\n")) == (2, "", 1), result
  for word in words:
    assert word in result.err


def test_report_is_one_page_that_needs_nothing_else(folder, benched):
  del benched
  workdir = folder / "student"
  score = {"value": 0.5, "error": 0.1, "real": None, "num": 100}
  row = {"nfe": 1, "step": 20, "scores": {SCRIPT: score}}
  (workdir / "evaluation.json").write_text(json.dumps({"rows": [row]}))
  result = tiny.run("report", f"--workdir={workdir}", "--num=50")
  assert result.code == 0, result.err
  page = (workdir / "report.html").read_text()
  assert "<script" not in page
  assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") == 2
  assert not re.findall(r'src="(?!data:)', page)
  # It links to its own headings, to files beside it and to the paper.
  others = re.findall(r'href="(?!#)([^"]*)"', page)
  assert others.pop() == "https://arxiv.org/abs/2303.01469"
  assert all((workdir / name).is_file() for name in others)
  assert {"config.json", "metrics.csv", "bench.json"} <= {*others}
  headings = re.findall(r'<h2 id="(.*?)"', page)
  assert re.findall(r'href="#(.*?)"', page) == headings
  # Curves, costs, samples during training, density, map, trajectories.
  assert page.count('src="data:image/png;base64,') == 6
  assert "left out" not in page
  made = f"UTC by jaxflow {jaxflow.__version__}. With jax {jax.__version__}."
  assert made in page and f"{datetime.datetime.now(datetime.UTC):%Y-}" in page
  for words in ("0.50 ± 0.10", "velocity of the teacher", "Of 50 samples"):
    assert words in page
  assert re.search(r"<td>train\.steps</td><td>20</td>", page)


def test_evaluations_while_training_are_drawn(folder, tmp_path, monkeypatch):
  drawn = []
  monkeypatch.setattr(
    curves, "save_figure", lambda figure, path: drawn.append(figure)
  )
  page._save_curves(folder / "student", tmp_path / "curves.png")
  panels = {axes.get_ylabel(): axes for axes in drawn[0].axes if axes.axison}
  for name in ("sliced_wasserstein", "recall"):
    lines = {line.get_label(): line for line in panels[name].lines}
    assert set(lines) == {"sampling/nfe1", "online/nfe1"}
    with open(folder / "student" / "evaluations.csv", newline="") as file:
      for row in csv.DictReader(file):
        for label, line in lines.items():
          value = dict(zip(*line.get_data(), strict=True))[float(row["step"])]
          assert value == float(row[f"{label}/{name}"])
  assert not {"seconds", "share"} & set(panels)


def test_bench_takes_an_evaluation_of_the_same_samples(folder, tmp_path):
  run = open_run(folder / "teacher")
  sampling = run.plan.sample.record
  assert set(sampling) == {"sample", "flow_map"}
  assert not {"nfe", "batch_size", "ema"} & set(sampling["sample"])
  right = {"nfe": 1, "step": 20, "ema": "sampling", "sampling": sampling}
  guided = {**sampling, "sample": {**sampling["sample"], "guidance": 2.0}}
  heun = {**sampling, "flow_map": {"name": "ode_step", "solver": "heun"}}
  score = {"value": 3.0, "real": 1.0}
  for change, found in (
    ({}, True),
    ({"nfe": 2}, False),
    ({"step": 10}, False),
    ({"ema": "online"}, False),
    ({"sampling": guided}, False),
    ({"sampling": heun}, False),
  ):
    row = right | change | {"scores": {"fid": score}}
    (tmp_path / "evaluation.json").write_text(json.dumps({"rows": [row]}))
    assert ("fid" in evaluated_scores(tmp_path, run, 1)) == found, change


def test_report_says_of_which_samples_a_row_is(folder, tmp_path):
  sample = plan_of(folder / "teacher").sample
  sampling = sample.record
  guided = {**sampling, "sample": {**sampling["sample"], "guidance": 2.0}}
  own = {"nfe": 1, "step": 20, "ema": "sampling", "sampling": sampling}
  score = {"value": 0.5, "real": None}
  rows = [
    row | {"scores": {"fid": score}}
    for row in (
      own,
      own | {"nfe": 2},
      own | {"step": 10, "ema": "online"},
      own | {"sampling": guided},
    )
  ]
  (tmp_path / "evaluation.json").write_text(json.dumps({"rows": rows}))
  parts = page._scores(tmp_path, sample, 20)
  titles = re.findall("<h2.*?>(.*?)</h2>", "".join(parts))
  assert titles == [
    "Evaluation",
    "Evaluation with step 10, average &#x27;online&#x27;",
    "Evaluation with sample.guidance=2.0",
  ]
  assert ["".join(parts).count(f"<td>{nfe}</td>") for nfe in (1, 2)] == [3, 1]


def test_report_says_what_is_missing(folder, monkeypatch):
  workdir = folder / "teacher"
  for file in (
    *("metrics.csv", "bench.json"),
    *(workdir / "samples").glob("*.png"),
  ):
    (workdir / file).unlink(missing_ok=True)

  def absent(*args, **kwargs):
    raise UsageError("data.name='ring' is gone")

  monkeypatch.setattr(data, "load", absent)
  file = report(workdir, num=20)
  page = file.read_text()
  for reason in (
    "metrics.csv cannot be read",
    "there is no evaluation.json",
    "there is no bench.json",
    "the run wrote no pictures",
    "data.name=&#x27;ring&#x27; is gone",
  ):
    assert reason in page
  assert page.count("left out: ") == 5
  assert page.count('src="data:image/png;base64,') == 2


def test_report_of_images(tmp_path):
  workdir = tiny.train(
    tmp_path,
    "digits",
    "flow_matching",
    *("data.name=digits", "data.conditional=True", "train.steps=10"),
  )
  text = report(workdir, nfe=2, num=20).read_text()
  titles = re.findall("<h2.*?>(.*?)</h2>", text)
  for title in (
    *("Samples by class", "Interpolation in noise"),
    "Nearest training samples",
  ):
    assert title in titles
  assert "left out: the run has no teacher" in text
  # Curves, the last step's samples, classes, interpolation, neighbours.
  assert text.count('src="data:image/png;base64,') == 5


@pytest.mark.parametrize(
  ("flags", "words"),
  [
    (["--workdir=no"], ["--workdir='no' holds no config.json"]),
    (["--nfe=0"], ["--nfe=0", "at least 1"]),
    (["--num=1"], ["--num=1: give at least 2"]),
  ],
)
def test_wrong_report(folder, flags, words):
  result = tiny.run("report", f"--workdir={folder / 'teacher'}", *flags)
  assert (result.code, result.err.count("\n")) == (2, 1), result
  for word in words:
    assert word in result.err


def test_equal_splits_give_no_distance(folder):
  plan = open_run(folder / "teacher").plan
  same = data.load("ring", "test")
  sources = {"train": same, "test": same}
  plan = dataclasses.replace(
    plan, data=dataclasses.replace(plan.data, sources=sources)
  )
  with pytest.raises(UsageError, match="'ring': test data are training data"):
    DataDistance(plan, num=50)


def test_samples_that_are_not_finite_are_the_worst(folder, monkeypatch):
  run = open_run(folder / "teacher")
  distance = DataDistance(run.plan, num=50)
  monkeypatch.setattr(
    quality,
    "drawer",
    lambda *a: lambda state, key, num, labels: np.full((num, 2), np.nan),
  )
  assert distance(run, 1) == np.inf
