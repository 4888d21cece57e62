"""Runs judged: on any devices, in parts, beside files, while they train."""

import copy
import csv
import dataclasses
import functools
import itertools
import json
import pathlib
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from jaxflow import api, data, metrics
from jaxflow.config.flags import config_of_run
from jaxflow.errors import UsageError
from jaxflow.evaluation import (
  during_training,
  evaluator,
  of_run,
  statistics,
  streams,
)
from jaxflow.evaluation.best_checkpoint import Best
from jaxflow.evaluation.collecting import Collector
from jaxflow.evaluation.evaluator import Evaluator
from jaxflow.metrics.moments import Moments
from jaxflow.metrics.summary import SampleSummary
from jaxflow.parallel import sharding
from jaxflow.runs.drawing import streamer
from jaxflow.runs.restoring import load, restore
from jaxflow.training.checkpoints import Checkpoints

DIGITS = '''\
"""Digits for tests: nothing is learnt."""

from jaxflow.config import default_config


def get_config(method):
  config = default_config(method, data="digits", model="dit")
  config.model.update(depth=1, width=16, num_heads=2, patch_size=4)
  config.train.update(steps=2, batch_size=8, steps_per_dispatch=1)
  config.evaluation.network = {"name": "classifier", "train_steps": 30}
  config.evaluation.update(num=300, kept=200)
  config.evaluation.flow.update(num=4, steps=2, levels=17)
  return config
'''
NAMES = {
  *("recognised", "sliced_wasserstein", "energy_distance", "mmd"),
  *(
    f"{name}_digits_classifier"
    for name in ("accuracy", "fd", "kid", "precision", "recall", "density")
  ),
  "coverage_digits_classifier",
}


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
  folder = tmp_path_factory.mktemp("digits")
  (folder / "config.py").write_text(DIGITS)
  result = tiny.run(
    "train",
    f"--config={folder / 'config.py'}:flow_matching",
    f"--workdir={folder / 'run'}",
  )
  assert result.code == 0, result.err
  return folder / "run"


def evaluator_of(workdir, mesh, *changes):
  given = [f"--config.evaluation.{change}" for change in changes]
  config = config_of_run(workdir, given, ("evaluation",))
  run = tiny.run_of(config)
  options = run.plan.evaluation
  state = restore(run, workdir, mesh=mesh)
  made = Evaluator(
    run,
    mesh,
    workdir / "evaluation",
    num=options.num,
    kept=options.kept,
    names=options.metrics,
    samplers={n: streamer(run, n, mesh) for n in options.nfe},
  )
  return made, state


def test_devices_and_batches_change_nothing(digits):
  found = []
  # Neither does 8 divide 50, nor 256 the number of samples.
  for devices, size in ((1, 256), (8, 50)):
    mesh = sharding.make_mesh(devices=jax.devices()[:devices])
    made, state = evaluator_of(digits, mesh, f"batch_size={size}")
    found.append(made.judge(made.draw(state, 2)))
  one, eight = found
  assert set(one) == set(eight) == NAMES
  for name, score in eight.items():
    # 300 samples through networks in float32, metrics in float64.
    for field in ("value", "error", "real", "real_error"):
      wanted = getattr(one[name], field)
      assert getattr(score, field) == pytest.approx(wanted, rel=1e-6), name
  # A network that has learnt nothing is told from real data.
  fd = one["fd_digits_classifier"]
  assert fd.value > 3 * fd.real > 0


@pytest.mark.parametrize("method", ["consistency_training", "flow_matching"])
def test_a_sample_depends_on_its_number_alone(method, tmp_path):
  workdir = tiny.train(tmp_path, "run", method, "train.steps=5")
  mesh = sharding.make_mesh()
  run, state = load(workdir, mesh=mesh)
  stream = streamer(run, 3, mesh)
  drawn = {
    size: np.concatenate(
      [
        np.asarray(x)[:count]
        for _, count, x in stream(state, jax.random.key(1), 40, None, size=size)
      ]
    )
    for size in (7, 40)
  }
  np.testing.assert_allclose(drawn[7], drawn[40], rtol=2e-5, atol=2e-6)
  first, *_ = stream(state, jax.random.key(1), 40, None, first=32, size=16)
  np.testing.assert_allclose(first[2][:8], drawn[40][32:], rtol=2e-5, atol=2e-6)
  assert len(np.unique(drawn[40], axis=0)) == 40


@pytest.mark.parametrize("size", [100, 200, 300])
def test_speed_is_that_of_batches_but_the_first(size, digits, monkeypatch):
  made, state = evaluator_of(digits, sharding.make_mesh(), f"batch_size={size}")
  # By this clock the first batch takes 1,000 s, it compiles; all others 4 s.
  ticks = itertools.chain([0], itertools.count(1000, 4))
  fake = types.SimpleNamespace(perf_counter=functools.partial(next, ticks))
  monkeypatch.setattr(evaluator, "time", fake)
  made.draw(state, 1)
  assert made.speed(state, 1) == size / 4


def test_every_number_is_printed_and_written(digits):
  result = tiny.run("evaluate", f"--workdir={digits}", "--nfe=1")
  assert result.code == 0, result.err
  written = json.loads((digits / "evaluation.json").read_text())
  assert (written["schema"], written["data"]) == (1, "digits")
  flow, row = written["rows"]
  assert flow["nfe"] is None and row["nfe"] == 1
  assert set(row["scores"]) == NAMES
  assert set(flow["scores"]) == {
    *("negative_log_likelihood", "bits_per_dimension"),
    *("straightness", "curvature", "truncation"),
  }
  network = row["networks"]["digits_classifier"]
  assert network["protocol"] and len(network["sha256"]) == 64
  assert (row["num"], row["reference"]["num"]) == (300, 360)
  for name in {*row["scores"], *flow["scores"]}:
    assert name in result.out
  for score in row["scores"].values():
    assert None not in (score["value"], score["real"], score["error"])
  bits = flow["scores"]["bits_per_dimension"]
  nats = flow["scores"]["negative_log_likelihood"]
  # 64 numbers on levels 2 / 16 apart.
  expected = (nats["value"] / 64 - np.log(2 / 16)) / np.log(2)
  assert bits["value"] == pytest.approx(expected)


def test_metrics_and_calls_are_chosen_on_the_command_line(digits):
  before = (digits / "config.json").read_text()
  result = tiny.run(
    "evaluate",
    f"--workdir={digits}",
    "--nfe=2",
    "--config.evaluation.metrics=fd_digits_classifier,recognised",
    "--config.evaluation.num=50",
    "--config.evaluation.flow.num=0",
    "--config.sample.ema=online",
  )
  assert result.code == 0, result.err
  (row,) = json.loads((digits / "evaluation.json").read_text())["rows"]
  assert set(row["scores"]) == {"fd_digits_classifier", "recognised"}
  assert (row["num"], row["ema"], row["nfe"]) == (50, "online", 2)
  assert (digits / "config.json").read_text() == before


def test_a_run_with_a_teacher_takes_changes(trained_run, tmp_path):
  flags = f"teacher.workdir={trained_run}", "train.steps=2"
  workdir = tiny.train(tmp_path, "student", "consistency_distillation", *flags)
  changes = "--config.evaluation.num=20", "--config.evaluation.metrics=recall"
  result = tiny.run("evaluate", f"--workdir={workdir}", "--nfe=1", *changes)
  assert result.code == 0, result.err
  assert "20 samples at NFE 1 beside the test split of ring" in result.out


def test_only_what_is_named_is_computed(trained_run):
  arguments = "evaluate", f"--workdir={trained_run}", "--nfe=1"
  few = "--config.evaluation.flow.num=4", "--config.evaluation.flow.steps=2"
  for names in ("curvature", "recall", "recall,straightness"):
    chosen = f"--config.evaluation.metrics={names}"
    assert tiny.run(*arguments, *few, chosen).code == 0
    rows = json.loads((trained_run / "evaluation.json").read_text())["rows"]
    assert {x for row in rows for x in row["scores"]} == set(names.split(","))


def test_a_killed_evaluation_goes_on(digits, monkeypatch):
  mesh = sharding.make_mesh()
  made, state = evaluator_of(digits, mesh, "batch_size=64")
  whole = made.draw(state, 1)
  monkeypatch.setattr(streams, "_SAVE_EVERY", 0.0)
  seen = []

  def look(rows, *, dying):
    if dying and len(seen) == 2:
      raise KeyboardInterrupt
    seen.append(len(rows))
    return made.look(rows)

  folder = digits / "partial"
  for dying in (True, False):
    part = copy.copy(made)
    part.look = functools.partial(look, dying=dying)
    partial = streams.Partial(folder, {"work": 1})
    if dying:
      with pytest.raises(KeyboardInterrupt):
        part.draw(state, 1, partial=partial)
      assert len(list(folder.iterdir())) == 1
    else:
      drawn = part.draw(state, 1, partial=partial)
  # Five batches in all: none was drawn twice.
  assert len(seen) == 5 and len(list(folder.iterdir())) == 1
  # Another call, where the file is still there, draws nothing.
  partial = streams.Partial(folder, {"work": 1})
  again = made.draw(state, 1, partial=partial)
  np.testing.assert_array_equal(again.samples, whole.samples)
  assert drawn.num == whole.num
  np.testing.assert_array_equal(drawn.samples, whole.samples)
  for name, moments in whole.moments.items():
    np.testing.assert_array_equal(drawn.moments[name].scatter, moments.scatter)


def test_a_part_of_other_data_or_numbers_is_not_gone_on_from(
  trained_run, tmp_path, monkeypatch
):
  monkeypatch.setattr(streams, "_SAVE_EVERY", 0.0)
  config = config_of_run(trained_run)
  with config.unlocked():
    config.evaluation.metrics = "recall"

  def parts(seed=None, **options):
    """Evaluate, on points of a seed if given, and count the files by then."""
    run = api.load(trained_run, config=config, **options)
    plan = run.run.plan
    if seed is not None:
      points = np.random.default_rng(seed).normal(size=(200, 2))
      given = data.from_arrays(points, name="given", split="any")
      sources = {"train": given, "test": given}
      plan = dataclasses.replace(
        plan, data=dataclasses.replace(plan.data, sources=sources)
      )
    of_run.evaluate_state(
      dataclasses.replace(run.run, plan=plan),
      run.state,
      run.mesh,
      tmp_path,
      nfe=(1,),
    )
    return len(list(tmp_path.glob("partial-*.npz")))

  # Two splits of real data, and the samples.
  assert parts() == parts() == 3
  assert parts(dtype=jnp.bfloat16) == 4
  # Two splits of other data; samples beside a reference of another size.
  assert parts(seed=0) == parts(seed=0) == 7
  # Other data of the same size: the samples are the same without classes.
  assert parts(seed=1) == 9


@pytest.mark.parametrize("damage", [b"", b"no zip", None])
def test_a_damaged_part_is_made_again(damage, tmp_path, monkeypatch):
  monkeypatch.setattr(streams, "_SAVE_EVERY", -1.0)
  collector = Collector(kept=2)
  collector.add(0, 2, {"samples": np.ones((2, 1))})
  partial = streams.Partial(tmp_path, {"work": 1})
  partial.keep(collector)
  (path,) = tmp_path.iterdir()
  path.write_bytes(path.read_bytes()[:60] if damage is None else damage)
  fresh = Collector(kept=2)
  streams.Partial(tmp_path, {"work": 1}).load(fresh)
  assert fresh.seen == 0


@pytest.fixture(scope="module")
def stats(digits):
  classifier = digits / "evaluation" / "digits_classifier.npz"
  path = digits.parent / "stats.npz"
  result = tiny.run(
    "stats",
    f"--config={digits.parent / 'config.py'}:flow_matching",
    f"--config.evaluation.network.file={classifier}",
    f"--out={path}",
    "--split=test",
  )
  assert result.code == 0, result.err
  assert "360 samples of digits (test)" in result.out
  return path


class TestStatistics:
  """`jaxflow stats`, and evaluations beside its files."""

  def test_they_are_those_of_the_data(self, digits, stats):
    with np.load(stats) as file:
      about = json.loads(str(file["about"]))
      mu, sigma, features = file["mu"], file["sigma"], file["features"]
    assert about["network"] == "digits_classifier" and about["num"] == 360
    # Rows are kept of the first 200; all 360 count.
    assert features.shape == (200, len(mu)) and sigma.dtype == np.float64
    assert sigma.shape == (len(mu), len(mu))

  def test_a_file_stands_for_the_split(self, digits, stats):
    mesh = sharding.make_mesh()
    plain, state = evaluator_of(digits, mesh)
    stored, _ = evaluator_of(digits, mesh, f"reference={stats}")
    drawn = plain.draw(state, 1)
    name = "fd_digits_classifier"
    a, b = (x.judge(drawn)[name] for x in (plain, stored))
    assert a.value == pytest.approx(b.value, rel=1e-6)
    assert a.real == pytest.approx(b.real, rel=1e-6)
    assert stored.about["reference"]["about"]["split"] == "test"

  def test_published_files_are_read(self, digits, stats, tmp_path):
    mesh, metrics = sharding.make_mesh(), "metrics=fd_digits_classifier"
    plain, state = evaluator_of(digits, mesh, metrics)
    drawn = plain.draw(state, 1)
    (wanted,) = plain.judge(drawn).values()
    for keys in (("mu", "sigma"), ("ref_mu", "ref_sigma")):
      with np.load(stats) as file:
        arrays = dict(zip(keys, (file["mu"], file["sigma"]), strict=True))
      path = tmp_path / f"{keys[0]}.npz"
      np.savez(path, **arrays)
      made, _ = evaluator_of(digits, mesh, f"reference={path}", metrics)
      assert made.about["reference"]["num"] is None
      (score,) = made.judge(drawn).values()
      assert score.value == pytest.approx(wanted.value, rel=1e-6)
      # Of unknown many samples: the error is that of the generated ones.
      assert 0 < score.error < wanted.error

  @pytest.mark.parametrize(
    ("change", "words"),
    [
      (lambda x: x.pop("mu"), "statistics are mu and sigma"),
      (
        lambda x: x.update(
          mu=np.zeros(3), sigma=np.eye(3), features=np.zeros((9, 3))
        ),
        "has 3 numbers",
      ),
      (lambda x: x.update(mu=np.zeros(3)), r"\[D\] and \[D, D\]"),
      (lambda x: x["sigma"].fill(np.nan), "not finite or not symmetric"),
      (lambda x: x["sigma"].__setitem__((0, 1), 9e9), "not symmetric"),
      (lambda x: x.update(sigma=-x["sigma"]), "is no covariance"),
      (lambda x: x.update(about='{"network": "other"}'), "network 'other'"),
      (lambda x: x.update(about='{"sha256": "0"}'), "sha256 '0'"),
      (lambda x: x.update(about="{"), "damaged or no .npz file"),
      (lambda x: x.update(about="[]"), "damaged or no .npz file"),
      (lambda x: x.update(about='{"num": "x"}'), "damaged or no .npz file"),
      (lambda x: x.update(mu=np.array(["a", "b"])), r"\[D\] and \[D, D\]"),
      (lambda x: x.update(mu=np.zeros(0)), r"\[D\] and \[D, D\]"),
      (lambda x: x.update(features=np.zeros((3, 2))), "features have shape"),
      (lambda x: x.update(about='{"num": 2}'), "of 2 samples"),
      (
        lambda x: x.update(about='{"split": "train"}'),
        "set evaluation.split=train",
      ),
    ],
  )
  def test_what_does_not_fit_is_one_line(
    self, digits, stats, change, words, tmp_path, capsys
  ):
    with np.load(stats) as file:
      arrays = {name: file[name] for name in file.files}
    del arrays["sha256"]  # Others have none, whoever writes them.
    change(arrays)
    path = tmp_path / "wrong.npz"
    np.savez(path, **arrays)
    with pytest.raises(UsageError, match=words):
      evaluator_of(digits, sharding.make_mesh(), f"reference={path}")

  def test_every_flipped_bit_is_found(self, tmp_path):
    """An .npz file has sums of its own, which do not cover its names."""
    file, draw = tmp_path / "stats.npz", np.random.default_rng(0)
    rows = draw.normal(size=(40, 3))
    centred = rows - rows.mean(0)
    moments = Moments(40, rows.mean(0), centred.T @ centred)
    drawn = SampleSummary(
      num=40, features={"net": rows}, moments={"net": moments}
    )
    statistics.write_statistics(file, drawn, "net", {"network": "net"})

    def read():
      drawn, about = statistics.read_statistics(file, "net")
      found = drawn.moments["net"]
      numbers = drawn.num, found.mean, found.covariance
      return about, numbers, drawn.features

    whole, refused = read(), 0
    assert whole[0]["num"] == 40
    for _ in range(1500):
      with tiny.flipped_bit(file, draw):
        try:
          found = read()
        except UsageError as error:
          refused += "is damaged" in str(error)
          continue
      # The date of an entry, for instance.
      tiny.assert_same_bits(found, whole)
    assert refused > 1000
    with np.load(file) as arrays:
      changed = dict(arrays)
    changed["mu"] = changed["mu"] + 1e-9
    np.savez(file, **changed)
    with pytest.raises(UsageError, match="its arrays are not those that were"):
      read()
    del changed["sha256"]  # As earlier versions wrote it.
    np.savez(file, **changed)
    read()

  def test_damaged_and_missing_files_are_one_line(self, digits, stats):
    before = tiny.checksums(digits)
    half = stats.parent / "half.npz"
    half.write_bytes(stats.read_bytes()[:1000])
    for path, words in ((half, "damaged"), ("absent.npz", "no such file")):
      result = tiny.run(
        *("evaluate", f"--workdir={digits}"),
        f"--config.evaluation.reference={path}",
      )
      assert result.code == 2 and result.err.count("\n") == 1
      assert words in result.err
    assert tiny.checksums(digits) == before


@pytest.mark.parametrize(
  ("changes", "words"),
  [
    (["evaluation.metrics=fdi"], "'fdi' is unknown: did you mean 'fid'?"),
    (["evaluation.metrics=fid"], "'fid': needs moments"),
    (["evaluation.num=4", "evaluation.metrics=kid_digits_classifier"], "few"),
    (["evaluation.split=val"], "evaluation.split='val'"),
    (["evaluation.num=3"], "evaluation.num=3"),
    (["evaluation.network.name=inceptoin"], "did you mean 'inception'"),
    (["evaluation.network.name=inception"], "evaluation.network"),
    (["model.width=3"], "a run keeps its config"),
  ],
)
def test_wrong_requests_are_one_line(digits, changes, words):
  before = tiny.checksums(digits)
  result = tiny.run(
    *("evaluate", f"--workdir={digits}"),
    *(f"--config.{change}" for change in changes),
  )
  assert result.code == 2, result.err
  assert result.err.count("\n") == 1 and words in result.err
  assert tiny.checksums(digits) == before


DURING = (
  "evaluation.during.every=10",
  "evaluation.during.num=50",
  "evaluation.during.share=0.9",
  "evaluation.during.metrics=sliced_wasserstein,recall",
  "evaluation.during.best=sliced_wasserstein",
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
  folder = tmp_path_factory.mktemp("during")
  return tiny.train(folder, "run", "flow_matching", *DURING)


class TestDuring:
  """Evaluations of a run that trains."""

  def rows(self, workdir):
    with open(workdir / "evaluations.csv", newline="") as file:
      return list(csv.DictReader(file))

  def test_average_and_parameters_are_in_the_log(self, trained):
    rows = self.rows(trained)
    assert rows[-1]["step"] == "40"
    for ema in ("sampling", "online"):
      for name in ("sliced_wasserstein", "recall"):
        assert float(rows[-1][f"{ema}/nfe1/{name}"]) >= 0
    assert all(0 < float(row["share"]) < 1 for row in rows)
    boards = list((trained / "tensorboard").iterdir())
    assert any(b"eval/sampling" in path.read_bytes() for path in boards)

  def test_the_best_checkpoint_is_the_one_with_the_best_number(self, trained):
    column = "sampling/nfe1/sliced_wasserstein"
    found = {int(r["step"]): float(r[column]) for r in self.rows(trained)}
    (best,) = json.loads((trained / "best.json").read_text())["checkpoints"]
    assert found[best["step"]] == min(found.values())
    assert best["value"] == pytest.approx(found[best["step"]], rel=1e-4)
    out = trained / "best.npz"
    for step in ("best", str(best["step"])):
      if step != "best" and not (trained / "checkpoints" / step).exists():
        continue
      arguments = "sample", f"--workdir={trained}", f"--step={step}", "--num=4"
      assert tiny.run(*arguments, f"--out={out}").code == 0

  def test_training_is_the_same_with_and_without(self, trained, tmp_path):
    plain = tiny.train(tmp_path, "plain", "flow_matching")
    tiny.assert_same_bits(
      tiny.state_of(plain).params, tiny.state_of(trained).params
    )
    assert not (plain / "best").exists()
    result = tiny.run(
      "sample", f"--workdir={plain}", "--step=best", f"--out={plain / 'a.npz'}"
    )
    assert result.code == 2 and "keeps no best" in result.err

  def test_no_unfinished_work_is_left(self, tmp_path, monkeypatch):
    monkeypatch.setattr(streams, "_SAVE_EVERY", 0.0)
    begun = []
    write = streams.save_arrays
    monkeypatch.setattr(
      streams, "save_arrays", lambda *x: begun.append(1) or write(*x)
    )
    flags = ("train.steps=5", *DURING)
    workdir = tiny.train(tmp_path, "run", "flow_matching", *flags)
    assert begun and not list(workdir.rglob("partial-*"))

  def test_wrong_names_change_nothing(self, tmp_path):
    for flag, words in (
      ("evaluation.during.best=recal", "evaluation.during.best: metric"),
      ("evaluation.during.metrics=nothing", "evaluation.during.metrics"),
      ("evaluation.during.share=1", "evaluation.during.share=1"),
    ):
      command = tiny.train_command(tmp_path, "new", "flow_matching", flag)
      result = tiny.run(*command)
      assert result.code == 2 and words in result.err, result.err
      assert result.err.count("\n") == 1
      assert not (tmp_path / "new").exists()


def test_what_was_best_survives_a_kill_and_earlier_steps(tmp_path, monkeypatch):
  workdir = tiny.train(tmp_path, "run", "flow_matching", "train.steps=5")
  state = tiny.state_of(workdir)

  def best():
    (entry,) = json.loads((workdir / "best.json").read_text())["checkpoints"]
    return entry["step"], entry["value"]

  keeper = Best(workdir, "sliced_wasserstein")
  keeper.offer(10.0, 200, state, {})
  assert best() == (200, 10.0)
  with monkeypatch.context() as patch:
    # Killed once the checkpoint is written, before the file says so.
    def die(self):
      raise KeyboardInterrupt

    patch.setattr(Checkpoints, "close", die)
    with pytest.raises(KeyboardInterrupt):
      keeper.offer(5.0, 400, state, {})
  again = Best(workdir, "sliced_wasserstein")
  again.offer(8.0, 600, state, {})  # The one of step 400 is better.
  again.offer(1.0, 500, state, {})  # An earlier step than some before.
  assert best() == (500, 1.0)
  assert len(list((workdir / "best").glob("[0-9]*"))) == 1
  other = Best(workdir, "recall")
  other.offer(0.1, 600, state, {})
  other.offer(0.05, 700, state, {})
  assert best() == (600, 0.1)


def test_the_last_evaluation_is_made_up_for(tmp_path):
  workdir = tiny.train(tmp_path, "run", "flow_matching", "train.steps=5")
  flags = ("train.steps=5", *DURING)
  result = tiny.run(
    *tiny.train_command(tmp_path, "run", "flow_matching", *flags)
  )
  assert result.code == 0, result.err
  assert "nothing to do" in result.out and "step 5 evaluated" in result.out
  assert (workdir / "best.json").exists()
  again = tiny.run(
    *tiny.train_command(tmp_path, "run", "flow_matching", *flags)
  )
  assert "evaluated" not in again.out


def test_a_best_that_cannot_be_computed_is_told(tmp_path):
  for flags, words in (
    (["evaluation.during.best=fid"], "evaluation.network.name"),
    (["evaluation.during.best=recognised"], "during.best='recognised' cannot"),
  ):
    flags = [*flags, "evaluation.during.every=10"]
    command = tiny.train_command(tmp_path, "new", "flow_matching", *flags)
    result = tiny.run(*command)
    assert result.code == 2 and words in result.err, result.err
    assert result.err.count("\n") == 1


class Clock:
  """A clock that a test sets forward."""

  def __init__(self):
    self.now = 0.0

  def perf_counter(self):
    return self.now


def test_evaluations_take_their_share_at_most(trained_run, monkeypatch):
  clock = Clock()
  monkeypatch.setattr(during_training, "time", clock)
  changes = (
    "num=50",
    "during.every=10",
    "during.share=0.1",
    "during.metrics=recall",
  )
  made, state = evaluator_of(trained_run, sharding.make_mesh(), *changes)
  made.floor_seconds = 1.5

  def draw(self, *arguments, **options):
    clock.now += 2.0  # Twice an evaluation: average and parameters.

  monkeypatch.setattr(Evaluator, "draw", draw)
  taken = []
  watching = during_training.Watch(
    made,
    trained_run,
    begin=0,
    interrupted=lambda: False,
    log=taken.append,
  )
  monkeypatch.setattr(watching, "_steps", 10_000)
  spent = 0.0
  for step in range(1, 401):
    clock.now += 1.0
    before = clock.now
    watching(state, step, None)
    spent += clock.now - before
    # The first is let in on the guess that it takes 3 s, and takes 2.
    assert spent <= 0.1 * clock.now
  # 400 s of training hold 44 s of a tenth; each takes 2 s.
  assert 20 <= spent / 2 <= 22
  watching.close()


@pytest.fixture(scope="module")
def trained_run(tmp_path_factory) -> pathlib.Path:
  folder = tmp_path_factory.mktemp("watched")
  return tiny.train(folder, "run", "flow_matching", "train.steps=5")


def test_the_command_is_a_function(trained_run):
  rows = api.load(trained_run).evaluate(nfe=(2, 1))
  assert [row["nfe"] for row in rows] == [2, 1]
  for row in rows:
    assert isinstance(row["scores"]["sliced_wasserstein"], metrics.Score)
