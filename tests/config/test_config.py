import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from jaxflow import config as configs
from jaxflow import times
from jaxflow.config import components, files, presets, registry
from jaxflow.config import flags as config_flags
from jaxflow.config.limits import LIMITS, check_limits
from jaxflow.errors import UsageError
from jaxflow.methods import METHODS


def default(method="mean_flow", **sections):
  config = configs.default_config(method, data="ring", model="mlp")
  for name, values in sections.items():
    config[name].update(values)
  return config


def parse(folder, *overrides, method="mean_flow"):
  arguments = [f"--config={tiny.config_file(folder)}:{method}", *overrides]
  return config_flags.parse(arguments)


def message(error):
  text = str(error.value)
  assert "\n" not in text
  return text


@pytest.mark.parametrize("method", METHODS)
def test_default_config_has_every_field(method):
  config = default(method)
  assert config.method == method
  check_limits(config)
  for section, name in (
    ("train", "steps"),
    ("checkpoint", "every"),
    ("data", "raw_dir"),
    ("sample", "nfe"),
  ):
    assert name in config[section]


def test_scripts_rely_on_the_teacher_workdir():
  config = default("consistency_distillation")
  assert config.teacher.workdir == ""


def test_overrides_keep_their_types(tmp_path):
  config = parse(
    tmp_path,
    "--config.train.steps=7",
    "--config.optimizer.learning_rate=1",
    "--config.data.conditional=true",
    "--config.data.raw_dir=x=y",
    "--config.loss.block=8,2",
    "--config.evaluation.nfe=3",
    "--config.times.law.mean=0.5",
  )
  assert config.train.steps == 7
  assert config.optimizer.learning_rate == 1.0
  assert isinstance(config.optimizer.learning_rate, float)
  assert config.data.conditional is True
  assert config.data.raw_dir == "x=y"
  assert tuple(config.loss.block) == (8, 2)
  assert tuple(config.evaluation.nfe) == (3,)
  assert config.times.law.mean == 0.5
  assert config.is_locked


@pytest.mark.parametrize(
  ("override", "words"),
  [
    ("train.stpes=1", "--config.train.steps?"),
    ("optimiser.name=adam", "--config.optimizer.name?"),
    ("train.zzzzzz=1", "there are train.accumulate, train.batch_size"),
    ("train.steps=abc", "--config.train.steps=abc: give a whole number, 40"),
    ("train.steps=1.5", "--config.train.steps=1.5: give a whole number, 40"),
    ("train.steps=", "--config.train.steps has no value"),
    ("train.steps", "--config.train.steps has no value"),
    ("optimizer.b1=x", "--config.optimizer.b1=x: give a number, 0.9"),
    ("data.conditional=2", "--config.data.conditional=2: give True or False"),
    ("loss.block=4", "--config.loss.block=4: give 2 whole numbers"),
    ("loss.block=4,x", "--config.loss.block=4,x: give 2 whole numbers"),
    (
      "evaluation.nfe=a",
      "evaluation.nfe=a: give one or more whole numbers",
    ),
  ],
)
def test_wrong_override_is_named(tmp_path, override, words):
  with pytest.raises(UsageError) as error:
    parse(tmp_path, f"--config.{override}")
  assert words in message(error)


@pytest.mark.parametrize(
  ("content", "words"),
  [
    ("def get_config(method): raise ValueError('so\\nso')", "ValueError"),
    ("import no_such_module", "no_such_module"),
    ("def get_config(", "SyntaxError"),
    ("x = 1", "get_config"),
    ("def get_config(method): return {}", "has no method: return"),
    (
      "from jaxflow.config import default_config as f\n"
      "def get_config(method):\n"
      "  c = f(method, data='ring', model='mlp')\n"
      "  c.data = None\n"
      "  return c",
      "has no data: return",
    ),
    (
      tiny.CONFIG.replace("1e-2", "'fast'"),
      "learning_rate",
    ),
  ],
)
def test_config_file_that_fails_is_named(tmp_path, content, words):
  path = tmp_path / "broken.py"
  path.write_text(content)
  with pytest.raises(UsageError) as error:
    presets.load_file(f"{path}:mean_flow")
  assert str(path) in str(error.value)
  assert words in str(error.value)


def test_config_file_names_a_method(tmp_path):
  path = tiny.config_file(tmp_path)
  with pytest.raises(UsageError) as error:
    presets.load_file(str(path))
  assert f"{path}:mean_flow" in message(error)
  with pytest.raises(UsageError) as error:
    presets.load_file(f"{path}:mean_flo")
  assert "did you mean 'mean_flow'?" in message(error)
  with pytest.raises(UsageError) as error:
    presets.load_file(f"{tmp_path}/absent.py:mean_flow")
  assert "there is no file" in message(error)


@pytest.mark.parametrize(
  ("field", "value"),
  [
    ("train.steps", 0),
    ("train.steps", -5),
    ("train.batch_size", 0),
    ("train.log_every", 0),
    ("train.accumulate", 0),
    ("train.max_skipped", 0),
    ("train.prng", "philox"),
    ("train.sample_every", -1),
    ("checkpoint.every", 0),
    ("checkpoint.keep", 0),
    ("optimizer.learning_rate", -1e-3),
    ("optimizer.learning_rate", math.nan),
    ("optimizer.learning_rate", math.inf),
    ("optimizer.b2", 1.0),
    ("loss.label_dropout", 1.5),
    ("sample.nfe", 0),
    ("seed", -1),
  ],
)
def test_number_out_of_range_is_named(field, value):
  config = default("mean_flow")
  section, _, name = field.rpartition(".")
  (config[section] if section else config)[name] = value
  with pytest.raises(UsageError) as error:
    check_limits(config)
  assert message(error).startswith(f"{field}={value}: give ")


def test_every_limit_is_of_a_field():
  fields = set()
  for method in METHODS:
    fields |= set(files.flatten(default(method).to_dict()))
  assert set(LIMITS) <= fields


def test_config_survives_its_file(tmp_path):
  config = configs.resolve(
    default(loss={"block": (4, 2)}), shape=(2,), num_classes=8, teacher=None
  )
  files.save_config(config, tmp_path / "config.json")
  values = json.loads((tmp_path / "config.json").read_text())
  assert values["data"]["shape"] == [2]
  assert values["data"]["num_classes"] == 8
  loaded = files.load_config(tmp_path)
  files.check_same_run(loaded, config, "w")
  assert loaded.data.shape == (2,)
  assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


@pytest.mark.parametrize(
  "content", ["{", "[]", "{}", '{"data": {"shape": [2]}}', "null", "\x00"]
)
def test_corrupt_config_is_named(tmp_path, content):
  (tmp_path / "config.json").write_text(content)
  with pytest.raises(UsageError) as error:
    files.load_config(tmp_path)
  text = message(error)
  assert f"workdir={str(tmp_path)!r}" in text
  assert "config.json cannot be read" in text


@pytest.mark.parametrize(
  ("field", "value", "refused"),
  [
    ("train.steps", 7, False),
    ("checkpoint.every", 7, False),
    ("teacher.workdir", "elsewhere", True),
    ("train.batch_size", 7, False),
    ("model.width", 7, True),
    ("optimizer.learning_rate", 7.0, False),
    ("optimizer.b1", 0.5, True),
    ("seed", 7, True),
  ],
)
def test_fields_that_may_change_between_runs(field, value, refused):
  old = default("consistency_distillation")
  new = default("consistency_distillation")
  section, _, name = field.rpartition(".")
  (new[section] if section else new)[name] = value
  if not refused:
    files.check_same_run(old, new, "w")
    return
  with pytest.raises(UsageError) as error:
    files.check_same_run(old, new, "w")
  assert f"workdir=w was made with {field}=" in message(error)
  assert f"not {value!r}" in message(error)


def test_another_component_is_named_without_its_options():
  old, new = default("flow_matching"), default("flow_matching")
  configs.update(old, {"ema": {"sampling": {"name": "constant"}}})
  with pytest.raises(UsageError) as error:
    files.check_same_run(old, new, "w")
  assert "with ema.sampling.name='constant', not 'power': give" in message(
    error
  )


def test_another_method_is_what_a_workdir_differs_in_first():
  with pytest.raises(UsageError) as error:
    files.check_same_run(default("mean_flow"), default("flow_matching"), "w")
  assert "method='mean_flow', not 'flow_matching'" in message(error)


def flags_of(*overrides):
  return [f"--config.{override}" for override in overrides]


def test_a_component_that_is_named_brings_its_own_options(tmp_path):
  config = parse(
    tmp_path, *flags_of("times.law.name=log_normal", "times.law.std=2.0")
  )
  law = {"name": "log_normal", "mean": 0.0, "std": 2.0}
  assert config.times.law.to_dict() == law
  # Nothing of the pair before is left, and what has no default has a place.
  options = "times.name=adjacent_pair", "times.grid.name=karras"
  options += "times.num_points=9", "times.grid.rho=5.0"
  config = parse(tmp_path, *flags_of(*options))
  assert config.times.to_dict() == {
    "name": "adjacent_pair",
    "num_points": 9,
    "grid": {"name": "karras", "rho": 5.0},
  }


def test_options_that_are_none_can_be_set(tmp_path):
  config = parse(
    tmp_path,
    *flags_of("times.solver_steps=2"),
    method="consistency_trajectory",
  )
  assert config.times.solver_steps == 2


def test_an_option_without_a_value_is_named(tmp_path):
  config = parse(tmp_path, *flags_of("times.name=adjacent_pair"))
  with pytest.raises(UsageError, match=r"times\.grid is missing: choose"):
    registry.make("times", config.times, field="times")
  config = parse(
    tmp_path,
    *flags_of("times.name=adjacent_pair", "times.grid.name=uniform"),
  )
  with pytest.raises(UsageError, match=r"times\.num_points is missing"):
    registry.make("times", config.times, field="times")


@pytest.mark.parametrize("method", METHODS)
def test_completed_times_are_the_same(method):
  config = default(method)
  if "times" not in config:
    return
  before = config.times.to_dict()
  components.complete(config)
  context = {"t_min": 0.1, "t_max": 0.9}
  context |= {"batch_size": 64, "steps": 10, "num_steps": 4, "block": (8, 1)}
  drawn = [
    times.at(
      registry.make("times", specification, field="times", **context),
      jnp.asarray(0.5),
    )(jax.random.key(0), 64)
    for specification in (before, config.times)
  ]
  jax.tree.map(np.testing.assert_array_equal, *drawn)


def test_a_text_can_be_emptied(tmp_path):
  assert parse(tmp_path, "--config.init.workdir=").init.workdir == ""
  with pytest.raises(UsageError, match=r"train\.steps has no value"):
    parse(tmp_path, "--config.train.steps=")


def test_naming_what_is_there_changes_nothing(tmp_path):
  config = parse(tmp_path, "--config.times.name=sorted_pair")
  assert config.times.law.name == "logit_normal"
  config = parse(
    tmp_path, "--config.path.name=linear", method="moment_matching"
  )
  assert config.path.t_max == 0.994


def test_another_network_keeps_what_the_method_asks(tmp_path):
  flags = "--config.model.name=dit", "--config.model.depth=2"
  config = parse(tmp_path, *flags)
  assert config.model.second_time and config.model.patch_size
  assert "time_features" not in config.model


def test_required_options_are_fields(tmp_path):
  flags = flags_of("times.name=adjacent_triple", "times.num_steps=4")
  config = parse(tmp_path, *flags, "--config.times.grid.name=uniform")
  made = registry.make("times", config.times, field="times")
  assert made.num_steps == 4


def test_an_optimizer_keeps_its_fields():
  config = default()
  configs.update(config, {"optimizer": {"name": "radam"}})
  assert config.optimizer.name == "radam" and config.optimizer.b1 == 0.9


@pytest.mark.parametrize(
  ("method", "section", "values"),
  [
    ("consistency_trajectory", "loss", {"sigma_data": 0.0}),
    ("easy_consistency", "flow_map", {"sigma_data": -1.0}),
    ("slim_flow", "loss", {"start_time": 0.0}),
    ("slim_flow", "loss", {"guided_weight": -1.0}),
    ("guidance_distillation", "loss", {"omega_max": 0.5}),
  ],
)
def test_numbers_of_losses_have_limits(method, section, values):
  config = default(method, **{section: values})
  with pytest.raises(UsageError, match=next(iter(values))):
    check_limits(config)
