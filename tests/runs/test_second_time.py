"""A network without the second time, where the loss asks for jumps."""

import pytest
import tiny

from jaxflow.config import default_config, make_plan
from jaxflow.config.stand_ins import resolve_alone
from jaxflow.errors import UsageError
from jaxflow.methods import METHODS
from jaxflow.runs import inputs

# Their losses ask for jumps from t to an s of its own.
JUMPING = {
  *("mean_flow", "mean_flow_distillation", "rectified_mean_flow"),
  *("alpha_flow", "solution_flow", "decoupled_mean_flow", "twin_flow"),
  *("improved_mean_flow", "pixel_mean_flow", "lagrangian", "shortcut"),
  *("terminal_velocity", "consistency_trajectory", "moment_matching"),
}


def check(method, second_time=None, **loss):
  config = default_config(method, data="ring", model="mlp")
  if second_time is not None:
    config.model.second_time = second_time
  config.loss.update(loss)
  if "pairs" in config.data:
    config.data.pairs = "pairs"
  inputs.check_second_time(
    make_plan(resolve_alone(config, shape=(2,), num_classes=8)[0])
  )


@pytest.mark.parametrize("method", METHODS)
def test_only_losses_of_jumps_need_the_second_time(method):
  check(method)
  if method in JUMPING:
    with pytest.raises(UsageError, match=r"^model.second_time=False: '") as e:
      check(method, second_time=False)
    assert "\n" not in str(e.value)
  elif method != "flow_anchored_consistency":
    check(method, second_time=False)


@pytest.mark.parametrize("expanded", [False, True])
def test_negative_times_stand_for_the_second_time(expanded):
  method = "flow_anchored_consistency"
  check(method, second_time=not expanded, expanded=expanded)
  words = rf"second_time={expanded} with loss.expanded={expanded}: .*change one"
  with pytest.raises(UsageError, match=words):
    check(method, second_time=expanded, expanded=expanded)


def test_a_run_says_so_in_one_line(tmp_path):
  flags = ["model.second_time=False"]
  command = tiny.train_command(tmp_path, "run", "mean_flow", *flags)
  result = tiny.run(*command)
  assert result.code == 2 and result.err.count("\n") == 1
  assert "model.second_time=False: 'mean_flow' learns jumps" in result.err
