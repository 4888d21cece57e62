"""What a step of each method costs, counted by XLA, against its goal."""

import importlib.util
import pathlib

import fast_compile
import pytest

from jaxflow.methods import METHODS

FILE = pathlib.Path(__file__).parents[1] / "experiments/step_cost/run.py"
CLAIMED = "published mean_flow, omega 1, kappa 0.5"


def load_experiment():
  specification = importlib.util.spec_from_file_location("step_cost", FILE)
  module = importlib.util.module_from_spec(specification)
  specification.loader.exec_module(module)
  return module


experiment = load_experiment()


def ratios_of(config, names):
  names = [experiment.BASELINE, *names]
  steps, _ = experiment.compile_all(config, names, fast_compile.OPTIONS)
  count = {name: experiment.flops(step) for name, step in steps.items()}
  return {name: count[name] / count[experiment.BASELINE] for name in names}


@pytest.fixture(scope="module")
def ratios():
  names = [name for name in experiment.GOALS if name != experiment.HEADS]
  return ratios_of(experiment.QUICK, [*names, CLAIMED])


def test_every_method_is_measured():
  names = experiment.variants(experiment.CONFIG["num_classes"])
  assert {name.split(",")[0] for name in names} >= set(METHODS)


def test_mean_flow_without_guidance(ratios):
  # Forward and backward of all rows, 3; the derivative of a quarter, 1 / 4.
  assert ratios["mean_flow"] == pytest.approx(3.25 / 3, abs=0.03)
  assert ratios["mean_flow"] <= 1.12


def test_mean_flow_with_guidance(ratios):
  # And the null forward of all rows, the conditional one of a quarter.
  ratio = ratios["mean_flow, omega 1, kappa 0.5"]
  assert ratio == pytest.approx(4.5 / 3, abs=0.03)
  assert ratio <= 1.55


def test_the_published_formula_costs_what_ours_saves(ratios):
  # Forward and backward, derivative and two forwards of all rows: 6 / 3.
  assert ratios[CLAIMED] == pytest.approx(6 / 3, abs=0.06)


@pytest.mark.parametrize(
  ("name", "forwards"),
  [
    # An eighth of the rows pays for two calls of the target.
    ("shortcut", 3 + 2 / 8),
    # The target's forward of all rows.
    ("easy_consistency", 4),
    ("improved_consistency_training", 4),
    # The derivative, which shares the forward; and the teacher's forward.
    ("continuous_consistency", 4),
    ("continuous_consistency_distillation", 5),
  ],
)
def test_consistency_methods(ratios, name, forwards):
  assert ratios[name] == pytest.approx(forwards / 3, abs=0.04)
  assert ratios[name] <= experiment.GOALS[name]


def test_improved_mean_flow():
  deeper = experiment.QUICK | {"depth": 3}
  ratio = ratios_of(deeper, [experiment.HEADS])[experiment.HEADS]
  assert ratio <= experiment.GOALS[experiment.HEADS]
