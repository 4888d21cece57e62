"""Options of the methods' formulas are reached by the names of a config."""

import pytest
import tiny

REACHED = (
  # Method, flags.
  ("flow_matching", "loss.reduction=sum"),
  ("flow_matching", "loss.loss_space=data", "times.name=logit_normal"),
  ("flow_matching", "times.name=uniform_steps", "times.num_steps=4"),
  ("moment_matching", "flow_map.name=identity"),
  ("moment_matching", "flow_map.name=identity", "loss.gap=0.01"),
)


def command(folder, method, *flags):
  return tiny.train_command(folder, "x", method, "train.steps=5", *flags)


@pytest.mark.parametrize(("method", "flags"), [(m, f) for m, *f in REACHED])
def test_options_train_and_sample(method, flags, tmp_path):
  result = tiny.run(*command(tmp_path, method, *flags))
  assert result.code == 0, result.err
  out = f"--out={tmp_path / 'samples.npz'}"
  result = tiny.run("sample", f"--workdir={tmp_path / 'x'}", "--num=4", out)
  assert result.code == 0, result.err


@pytest.mark.parametrize(
  ("method", "flag", "told"),
  [
    (
      "flow_matching",
      "loss.reduction=max",
      "reduction='max': choose one of",
    ),
    ("flow_matching", "loss.loss_space=vel", "loss_space='vel'"),
    ("moment_matching", "loss.gap=-1.0", "loss.gap=-1.0: give"),
    ("flow_matching", "flow_map.name=identity", "trains no network for it"),
    ("mean_flow", "flow_map.name=identity", "trains no network for it"),
  ],
)
def test_wrong_values_are_named(method, flag, told, tmp_path):
  result = tiny.run(*command(tmp_path, method, flag))
  assert result.code == 2 and told in result.err, result.err
