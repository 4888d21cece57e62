"""Experiments say what their files say, and their networks are jaxflow's."""

import functools
import importlib
import json
import pathlib
import re

import jax
import numpy as np
import pytest
import tiny

from experiments.runner import (
  Claim,
  PlaneJudge,
  Results,
  Row,
  at_least,
  at_most,
  fit,
)
from experiments.runner import pages as pages_lib
from experiments.runner.study import Column, Study
from jaxflow import data
from jaxflow.runs.pair_generation import PairOptions
from jaxflow.config.presets import load_file
from jaxflow.methods import METHODS

FOLDER = pathlib.Path(__file__).parents[1] / "experiments"
# Experiments on the runner; a new one has no results before its full run.
STUDIES = sorted(
  file.parent.name
  for file in FOLDER.glob("*/run.py")
  if "STUDY = Study(" in file.read_text()
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
  """Return the same two networks as fits and, the second, as a run."""
  folder = tmp_path_factory.mktemp("fits")
  # Adam divides a gradient of zero by its own rounding error, unless it is told
  # how small a gradient may be.
  tiny.train(folder, "teacher", "flow_matching", "seed=1", "optimizer.eps=1e-3")
  config = load_file(f"{tiny.config_file(folder)}:flow_matching")
  config.optimizer.eps = 1e-3
  return fit(config, (0, 1), folder=folder), folder


def test_fits_are_what_jaxflow_trains(teacher):
  fits, folder = teacher
  run = tiny.state_of(folder / "teacher")
  fitted = fits.states[1]
  assert tiny.apart(fitted.params, run.params) <= 1e-5
  assert tiny.apart(fitted.ema, run.ema) <= 1e-5


def test_fits_are_kept(teacher):
  fits, folder = teacher
  config = load_file(f"{tiny.config_file(folder)}:flow_matching")
  config.optimizer.eps = 1e-3
  again = fit(config, (0, 1), folder=folder)
  assert again.seconds == fits.seconds
  np.testing.assert_array_equal(again.sample(8, 2), fits.sample(8, 2))
  assert set(again.log) == set(fits.log)
  config.optimizer.learning_rate *= 2
  assert fit(config, (0, 1)).key != fits.key


def test_students_side_by_side_are_students_in_turn(teacher):
  fits, folder = teacher
  file = tiny.config_file(folder)
  config = load_file(f"{file}:consistency_distillation")
  config.optimizer.eps = 1e-3
  both, turns = (
    fit(config, (0, 1), teacher=fits, snapshots=(20,), together=together)
    for together in (True, False)
  )
  for steps in (20, 40):
    a, b = both.at(steps), turns.at(steps)
    assert int(a.states[0].step) == int(b.states[0].step) == steps
    for x, y in zip(a.params(), b.params(), strict=True):
      assert tiny.apart(x, y) <= 1e-5
  # Seed by seed: two teachers, two students.
  one, two = both.params()
  assert any(
    np.abs(a - b).max() > 1e-3
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True)
  )


def test_pairs_are_the_ends_of_a_teachers_trajectories(teacher):
  from experiments.runner import make_pairs

  fits, _ = teacher
  made = make_pairs(
    fits, PairOptions(num=5, nfe=2, solver="euler", batch_size=4)
  )
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
