"""Experiments say what their files say, and their runs are jaxflow's."""

import dataclasses
import functools
import importlib
import json
import pathlib
import re

import jax
import numpy as np
import pytest
import tiny

import jaxflow
from experiments.leaderboard.run import best
from experiments.runner import (
  Claim,
  PlaneJudge,
  Results,
  Row,
  at_least,
  at_most,
  fit,
  make_pairs,
)
from experiments.runner import pages as pages_lib
from experiments.runner.study import Column, Study
from jaxflow import data
from jaxflow.errors import RunError
from jaxflow.losses import flow_matching_loss
from jaxflow.methods import METHODS
from jaxflow.runs.pair_generation import PairOptions

FOLDER = pathlib.Path(__file__).parents[2] / "experiments"
# Experiments on the runner; a new one has no results before its full run.
STUDIES = sorted(
  file.parent.name
  for file in FOLDER.glob("*/run.py")
  if "STUDY = runner.Study(" in file.read_text()
)
WAITING = "Not run in full yet."
QUESTIONS = tuple(
  name
  for name in STUDIES
  if (FOLDER / name / "results" / f"{name}.json").exists()
)


@pytest.mark.parametrize("name", sorted(set(STUDIES) - set(QUESTIONS)))
def test_a_page_without_results_says_so(name):
  assert WAITING in (FOLDER / name / "README.md").read_text()
  assert study_of(name).name == name


def test_every_method_is_on_the_leaderboard():
  results = results_of("leaderboard")
  for name in results.about["settings"]["data"]:
    rows = results.select(data=name)
    methods = {row["labels"]["method"] for row in rows} - {"real images"}
    assert methods == set(METHODS)


def test_the_first_table_of_the_readme_names_the_best():
  text = (FOLDER.parent / "README.md").read_text()
  lines = [line for line in text.splitlines() if line.startswith("|")]
  expected = best(results_of("leaderboard"))
  assert lines[: len(expected)] == expected


@functools.cache
def study_of(name):
  return importlib.import_module(f"experiments.{name}.run").STUDY


def results_of(name):
  return Results.load(FOLDER / name / "results" / f"{name}.json")


def as_in_json(value):
  return json.loads(json.dumps(value))


@pytest.mark.parametrize("name", QUESTIONS)
def test_a_page_says_what_its_file_says(name):
  study, results = study_of(name), results_of(name)
  text = (FOLDER / name / "README.md").read_text()
  assert pages_lib.filled(text, pages_lib.blocks(study, results)) == text
  for word in ("Setup", "Limits", "## Verdict"):
    assert word in text, word
  pictures = re.findall(r"\]\((results/[^)]*\.png)\)", text)
  assert pictures
  for picture in pictures:
    assert (FOLDER / name / picture).stat().st_size <= 300_000, picture
  there = (FOLDER / name / "results").glob("*.png")
  assert {f"results/{p.name}" for p in there} == set(pictures)


@pytest.mark.parametrize("name", QUESTIONS)
def test_results_are_of_these_settings_and_seeds(name):
  study, results = study_of(name), results_of(name)
  assert results.about["settings"] == as_in_json(dict(study.settings))
  assert 3 <= len(results.about["seeds"]) <= 5
  assert results.about["command"].endswith(f"experiments.{name}.run")
  for key in ("hardware", "seconds", "jax", "python", "date"):
    assert results.about[key], key
  assert set(study.quick) <= set(study.settings)


@pytest.mark.parametrize("name", QUESTIONS)
def test_means_and_verdicts_follow_from_the_values(name):
  results = results_of(name)
  for row in results.rows:
    for number in row["numbers"].values():
      values = [x for x in number["values"] if x is not None]
      if not values:
        assert number["mean"] is None
        continue
      assert number["mean"] == pytest.approx(sum(values) / len(values))
      if len(values) > 1:
        deviation = np.std(values, ddof=1)
        assert number["deviation"] == pytest.approx(deviation, abs=1e-12)
  made = [claim.as_json() for claim in study_of(name).claims(results)]
  assert as_in_json(made) == list(results.claims)


def test_the_page_of_verdicts_is_that_of_the_files():
  text = (FOLDER / "README.md").read_text()
  page = pages_lib.verdict_page(FOLDER)
  assert pages_lib.filled(text, {"verdicts": page}) == text
  assert all(f"[{name}]({name})" in page for name in QUESTIONS)


@pytest.mark.parametrize(
  ("left", "right", "verdict"),
  [
    # Mean difference -1, deviation 1, error 1 / sqrt(4) = 0.5: -1 + 2 x 0.5.
    ([0.0, 0.0, 2.0, 2.0], [2.0, 2.0, 2.0, 2.0], "undecided"),
    ([0.0, 1.0, 0.0, 1.0], [1.0, 2.0, 2.0, 3.0], "confirmed"),
    ([1.0, 2.0, 2.0, 3.0], [0.0, 1.0, 0.0, 1.0], "refuted"),
    ([1.0, 1.0], [1.0, 1.0], "undecided"),
    ([3.0], [2.0], "refuted"),
    # A run that diverged is worse than any number, if all seeds say so.
    ([1.0, 1.0, 1.0], [np.nan, np.inf, 2.0], "confirmed"),
    ([np.nan, 1.0, 1.0], [1.0, 2.0, 2.0], "undecided"),
    ([np.nan, 2.0, 3.0], [1.0, 1.0, 2.0], "refuted"),
    ([np.nan, np.nan, np.nan], [1.0, 1.0, 2.0], "refuted"),
  ],
)
def test_checks_are_decided_at_two_standard_errors(left, right, verdict):
  assert at_most("", left, right).verdict == verdict


@pytest.mark.parametrize(
  ("left", "right", "verdict"),
  [
    ([1.0, 2.0, 2.0, 3.0], [0.0, 1.0, 0.0, 1.0], "confirmed"),
    ([0.0, 1.0, 0.0, 1.0], [1.0, 2.0, 2.0, 3.0], "refuted"),
    # A run that diverged is worse than any number here too.
    ([np.nan, np.nan, np.nan], [0.4, 0.4, 0.4], "refuted"),
    ([0.9, 0.9, 0.9], [np.nan, 0.5, 0.6], "confirmed"),
    ([0.9, 0.9, np.nan], [0.5, 0.5, 0.6], "undecided"),
  ],
)
def test_checks_of_what_should_be_larger(left, right, verdict):
  assert at_least("", left, right).verdict == verdict


def test_a_difference_and_its_error():
  mean, error = at_most("", [0.0, 0.0, 2.0, 2.0], 2.0).difference
  # Differences -2 -2 0 0: variance 4 / 3, over 4 seeds.
  assert (mean, error) == pytest.approx((-1.0, np.sqrt(4 / 3 / 4)))
  assert at_most("", [1.0], [2.0], factor=3.0).difference == (-5.0, 0.0)


@pytest.mark.parametrize(
  ("verdicts", "verdict"),
  [
    (["confirmed", "confirmed"], "confirmed"),
    (["refuted", "refuted"], "refuted"),
    (["confirmed", "refuted"], "depends"),
    (["confirmed", "refuted", "undecided"], "depends"),
    (["confirmed", "undecided"], "undecided"),
    (["refuted", "undecided"], "refuted"),
    ([], "undecided"),
  ],
)
def test_a_claim_is_what_its_checks_are(verdicts, verdict):
  sides = {
    "confirmed": ([0.0, 0.0], [1.0, 1.0]),
    "refuted": ([1.0, 1.0], [0.0, 0.0]),
    "undecided": ([0.0, 2.0], [1.0, 1.0]),
  }
  checks = [at_most("", *sides[name]) for name in verdicts]
  assert Claim(text="", checks=checks).verdict == verdict


def test_a_table_shows_mean_deviation_and_what_diverged():
  rows = [
    Row({"method": "a"}, {"error": [1.0, 3.0]}),
    Row({"method": "b", "steps": 4}, {"error": [1.0, np.nan, 2.0]}),
    Row({"method": "c"}, {"error": [np.inf, np.nan]}),
  ]
  results = Results({}, [row.as_json() for row in rows])
  study = Study(
    name="x",
    question="",
    settings={},
    quick={},
    measure=lambda bench: rows,
    claims=lambda results: [],
    columns=[Column(metric="error", heading="error", format=".2f")],
  )
  assert pages_lib.table(study, results) == [
    ["method", "steps", "error"],
    ["a", "", "2.00 ± 1.41"],
    ["b", "4", "1.50 ± 0.71 (1 diverged)"],
    ["c", "", "diverged"],
  ]
  assert np.isnan(results.values("error", method="c")).all()
  with pytest.raises(KeyError, match="3 rows"):
    results.values("error")


def test_parts_of_a_page_are_filled_and_missed():
  text = "a\n<!-- table -->\nold\n<!-- end -->\nb\n"
  found = pages_lib.filled(text, {"table": "new\n"})
  assert found == "a\n<!-- table -->\nnew\n\n<!-- end -->\nb\n"
  with pytest.raises(ValueError, match="verdict"):
    pages_lib.filled(text, {"verdict": ""})


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
  """Return two flows as fits, and the folder of all runs."""
  folder = tmp_path_factory.mktemp("fits")
  return fit(preset(folder, "flow_matching"), (0, 1), folder), folder


def preset(folder, method):
  return jaxflow.preset(f"{tiny.config_file(folder)}:{method}")


def arrays(tree):
  return np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)])


def test_fits_are_what_jaxflow_trains(teacher):
  fits, folder = teacher
  config = preset(folder, "flow_matching")
  config.seed = 1
  run = jaxflow.train(config, log=lambda line: None)
  np.testing.assert_allclose(
    arrays(fits.runs[1].params), arrays(run.params), atol=1e-6
  )
  # The first of 40 steps, and every tenth.
  assert fits.log["loss"].shape == (2, 5)
  assert fits.steps == 40 and not fits.diverged.any()
  samples = fits.sample(8, 2, seed=3)
  # The noise of seed 1 has the seed 3 * 1000 + 1.
  own = run.sample(8, nfe=2, seed=3001)
  np.testing.assert_allclose(samples[1], own, atol=1e-5)


def test_fits_are_kept(teacher):
  fits, folder = teacher
  before = {f: f.stat().st_mtime_ns for f in fits.folder.rglob("*.csv")}
  again = fit(preset(folder, "flow_matching"), (0, 1), folder)
  assert again.folder == fits.folder
  assert before == {f: f.stat().st_mtime_ns for f in before}
  np.testing.assert_array_equal(again.sample(8, 2), fits.sample(8, 2))
  config = preset(folder, "flow_matching")
  config.optimizer.learning_rate *= 2
  config.train.steps = 5
  assert fit(config, (0,), folder).folder != fits.folder


def test_students_have_the_teacher_and_the_start_of_their_seed(teacher):
  fits, folder = teacher
  config = preset(folder, "consistency_distillation")
  config.optimizer.learning_rate = 1e-9
  config.train.steps = 5
  students = fit(config, (0, 1), folder, teacher=fits)
  # At this rate a student stays what it starts as: its teacher.
  for mine, its in zip(students.params(), fits.params(), strict=True):
    np.testing.assert_allclose(arrays(mine), arrays(its), atol=1e-6)
  config = preset(folder, "flow_matching")
  config.optimizer.learning_rate = 1e-9
  config.train.steps = 5
  later = fit(config, (0, 1), folder, init=fits)
  for mine, its in zip(later.params(), fits.params(), strict=True):
    np.testing.assert_allclose(arrays(mine), arrays(its), atol=1e-6)
  zero, one = students.params()
  assert np.abs(arrays(zero) - arrays(one)).max() > 1e-3


def test_snapshots_are_the_runs_on_their_way(teacher):
  _, folder = teacher
  config = preset(folder, "flow_matching")
  config.optimizer.learning_rate = 2e-2
  fits = fit(config, (0,), folder, snapshots=(10, 20))
  assert [fits.at(n).steps for n in (10, 20, 40)] == [10, 20, 40]
  config.train.steps = 5
  config.optimizer.learning_rate = 1e-9
  early = fits.at(20)
  later = fit(config, (0,), folder, init=early)
  np.testing.assert_allclose(
    arrays(later.params()), arrays(early.params()), atol=1e-6
  )
  assert np.abs(arrays(early.params()) - arrays(fits.params())).max() > 1e-3


def test_fits_with_rounded_parameters(teacher):
  fits, _ = teacher
  zero = fits.mapped(lambda tree: jax.tree.map(np.zeros_like, tree))
  assert not arrays(zero.params()).any() and arrays(fits.params()).any()
  gone = fits.mapped(lambda tree: jax.tree.map(lambda x: x * np.nan, tree))
  assert np.isnan(gone.sample(4, 1)).all()


def test_fits_sampled_in_another_way(teacher):
  fits, _ = teacher
  online = fits.changed({"sample": {"ema": "online"}})
  state = fits.runs[0].state
  np.testing.assert_array_equal(
    arrays(online.params()[0]), arrays(state.params)
  )
  np.testing.assert_array_equal(
    arrays(fits.params()[0]), arrays(state.ema["sampling"])
  )


@functools.wraps(flow_matching_loss)
def lost(*arguments, **options):
  """Return a loss that is no number."""
  loss, metrics = flow_matching_loss(*arguments, **options)
  return loss * np.nan, metrics


def test_training_that_breaks_off_with_every_seed_is_an_error(teacher):
  _, folder = teacher
  config = preset(folder, "flow_matching")
  config.train.update(steps=10, max_skipped=1)
  with pytest.raises(RunError, match="not finite"):
    fit(config, (0,), folder, loss=lost)


def test_a_seed_that_broke_off_has_diverged(teacher):
  fits, _ = teacher
  runs = {**fits.runs, 2: None}
  both = dataclasses.replace(fits, runs=runs)
  assert both.diverged.tolist() == [False, False, True]
  samples = both.sample(4, 1)
  assert np.isfinite(samples[:2]).all() and np.isnan(samples[2]).all()
  # Of the third there is no log.
  assert np.isnan(both.log["loss"][2]).all() and both.seconds > 0
  assert len(both.params()) == 2


def test_pairs_are_the_ends_of_a_teachers_trajectories(teacher):
  fits, _ = teacher
  folder = make_pairs(
    fits, PairOptions(num=5, nfe=2, solver="euler", batch_size=4)
  )
  made = [data.Pairs.open(folder / f"seed_{i}").load() for i in (0, 1)]
  assert [len(pairs) for pairs in made] == [5, 5]
  assert np.abs(made[0].noise - made[1].noise).max() > 0.1
  for pairs, velocity in zip(made, fits.velocities(), strict=True):
    x, one = pairs.noise, np.ones(5, np.float32)
    # Two Euler steps of one half.
    for t in (1.0, 0.5):
      x = x - 0.5 * velocity(x, t * one, t * one, None)
    np.testing.assert_allclose(pairs.data, x, atol=1e-5)


def test_points_of_the_mixture_itself_are_judged_good():
  mixture = data.known_mixture("ring")
  judge = PlaneJudge(mixture, num=5000)
  floor = judge.floor(2000, (0, 1))
  assert (floor["mode_coverage"] == 1).all()
  assert (floor["sliced_wasserstein"] < 0.1).all()
  samples = np.stack(
    [mixture.sample(500, seed=3)[0] + 1, np.full((500, 2), np.nan)]
  )
  found = judge(samples)
  # A shift by (1, 1) has the length sqrt(2), and sqrt(2) / sqrt(2) in a line.
  assert found["sliced_wasserstein"][0] == pytest.approx(1, abs=0.15)
  assert np.isnan(found["sliced_wasserstein"][1])
