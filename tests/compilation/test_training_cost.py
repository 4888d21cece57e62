"""What a step of each method costs, counted by XLA, against its goal."""

import pytest

from experiments.training_cost import run as experiment
from experiments.training_cost import steps
from experiments.training_cost.variants import BASELINE, variants
from jaxflow.methods import METHODS

SMALL = experiment.QUICK["network"]
CLAIMED = "published mean_flow, omega 1, kappa 0.5"
# Two heads share no block of a network of one.
HEADS = "improved_mean_flow"


def ratios_of(config, names):
  count = steps.count_all(config, [BASELINE, *names])
  return {name: count[name].flops / count[BASELINE].flops for name in names}


@pytest.fixture(scope="module")
def ratios():
  names = [name for name in experiment.GOALS if name != HEADS]
  return ratios_of(SMALL, [*names, CLAIMED])


def test_every_method_is_measured():
  names = variants(SMALL["num_classes"])
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
    # A quarter pays for the derivative, both backwards and the target.
    ("lagrangian", 3 * 3 / 4 + 7 / 4),
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
  deeper = SMALL | {"depth": 3}
  published = f"published {HEADS}"
  found = ratios_of(deeper, [HEADS, published])
  assert found[HEADS] <= experiment.GOALS[HEADS]
  # Of 3 blocks 2 are a head's: both are 5 / 3 of a network. Value and gradient,
  # the derivative through one head, three calls of the other.
  assert found[published] == pytest.approx((5 + 1 + 3) / 3, abs=0.09)
