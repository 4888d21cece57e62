"""Options of the methods' formulas are reached by the names of a config."""

import json
from collections.abc import Callable
from typing import Annotated

import pytest
import tiny

import jaxflow
from jaxflow import flow_maps, times
from jaxflow.config import default_config, flags, make_plan, models
from jaxflow.config.stand_ins import resolve_alone
from jaxflow.errors import UsageError
from jaxflow.options import Outputs

REACHED = (
  # Method, flags.
  ("flow_matching", "loss.reduction=sum"),
  ("flow_matching", "loss.loss_space=data", "times.name=logit_normal"),
  ("flow_matching", "times.name=uniform_steps", "times.num_steps=4"),
  ("moment_matching", "flow_map.name=identity"),
  ("moment_matching", "flow_map.name=identity", "loss.gap=0.01"),
  # Laws that a loss can do without: named where there is none, and taken away.
  ("twin_flow", "loss.rectify_times.name=logit_normal"),
  ("lagrangian", "loss.flow_times.name=none"),
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
    (
      "drifting",
      "model.heads=2",
      "model.heads=2: flow_map.name='generator' takes",
    ),
    (
      "mean_flow",
      "model.guidance_inputs=True",
      "no key 'omega'; a network with guidance_inputs reads",
    ),
    (
      "frechet_distance_loss",
      "flow_map.name=guided_velocity",
      "model.heads=1: flow_map.name='guided_velocity' takes",
    ),
    ("mean_flow", "times.law.name=none", "times.law.name='none': give one"),
    (
      "decoupled_mean_flow",
      "loss.flow_times.name=none",
      "loss.flow_times.name='none': give one",
    ),
    ("twin_flow", "loss.rectify_time.name=uniform", "is no field"),
    ("twin_flow", "loss.rectify_times.name=unifrom", "did you mean 'uniform'"),
  ],
)
def test_wrong_values_are_named(method, flag, told, tmp_path):
  result = tiny.run(*command(tmp_path, method, flag))
  assert result.code == 2 and told in result.err, result.err


def test_a_flow_map_says_what_network_it_takes():
  """One of a plug-in may say nothing, and need not take all predictions."""

  def silent(model_fn, *, omega=1.0):
    return flow_maps.guided_velocity(model_fn, omega=omega)

  def of_three(model_fn: Annotated[Callable, Outputs(3)]):
    return flow_maps.average_velocity(lambda *given: model_fn(*given)[2])

  config = default_config("improved_mean_flow", data="ring", model="mlp")
  for flow_map in (silent, flow_maps.guided_velocity):
    models.check_heads(config, flow_map)
  with pytest.raises(UsageError, match=r"model\.heads=2: .*model\.heads=3;"):
    models.check_heads(config, of_three)
  config.model.heads = 3
  for flow_map in (silent, flow_maps.guided_velocity, of_three):
    models.check_heads(config, flow_map)
  with pytest.raises(UsageError, match=r"model\.heads=3: .*model\.heads=1;"):
    models.check_heads(config, flow_maps.average_velocity)


def planned(*given):
  """Return the options of both losses of distribution matching."""
  arguments = [f"--config.{flag}" for flag in given]
  config = flags.parse(["--config=ring:distribution_matching", *arguments])
  plan = make_plan(resolve_alone(config, shape=(2,), num_classes=0)[0])
  return plan.model.loss_options, plan.companions["fake_score"].options


def test_laws_that_a_loss_can_do_without_are_flags():
  law = times.LogitNormal(mean=0.25, std=0.5)
  names = "start_times", "critic_times"
  given = [
    f"loss.{name}.{k}={v}"
    for name in names
    for k, v in {"name": "logit_normal", "mean": 0.25, "std": 0.5}.items()
  ]
  for options in planned(*given):
    for name in names:
      assert options[name] == law
  for options in planned("loss.critic_times.name=none"):
    assert options["critic_times"] is None
    assert "start_times" not in options
  for options in planned():
    assert isinstance(options["critic_times"], times.Uniform)


def test_no_preset_names_a_law_that_its_row_does_not():
  """Runs that are kept have configs without these fields."""
  for name, there in (
    ("twin_flow", set()),
    ("distribution_matching", {"critic_times"}),
    ("f_distillation", set()),
  ):
    laws = {
      k for k in jaxflow.preset(f"ring:{name}").loss if k.endswith("_times")
    }
    assert laws == there


def test_a_law_that_is_taken_away_stays_away(tmp_path):
  """A config.json without the field would get back what the row says."""
  flag = "loss.flow_times.name=none"
  assert tiny.run(*command(tmp_path, "lagrangian", flag)).code == 0
  stored = json.loads((tmp_path / "x/config.json").read_text())
  assert stored["loss"]["flow_times"] == {"name": "none"}
  again = flags.config_of_run(tmp_path / "x")
  assert again.loss.flow_times.name == "none"
