import json
import math

import pytest
import tiny
from absl import flags

from jaxflow import config as configs
from jaxflow import config_flags
from jaxflow.errors import UsageError
from jaxflow.limits import LIMITS, check_limits
from jaxflow.methods import METHODS


def default(method="mean_flow", **sections):
  config = configs.default_config(method, data="ring", model="mlp")
  for name, values in sections.items():
    config[name].update(values)
  return config


def parse(folder, *overrides, method="mean_flow"):
  arguments = [f"--config={tiny.config_file(folder)}:{method}", *overrides]
  return config_flags.parse(arguments, flags.FlagValues())


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
    ("loss.block=4", "--config.loss.block=4: give 2 whole number(s)"),
    ("loss.block=4,x", "--config.loss.block=4,x: give 2 whole number(s)"),
    ("evaluation.nfe=a", "--config.evaluation.nfe=a: give 1 whole number(s)"),
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
    ("def get_config(method): return {}", "returns dict"),
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
    config_flags.load_file(f"{path}:mean_flow")
  assert str(path) in str(error.value)
  assert words in str(error.value)


def test_config_file_names_a_method(tmp_path):
  path = tiny.config_file(tmp_path)
  with pytest.raises(UsageError) as error:
    config_flags.load_file(str(path))
  assert f"{path}:mean_flow" in message(error)
  with pytest.raises(UsageError) as error:
    config_flags.load_file(f"{path}:mean_flo")
  assert "did you mean 'mean_flow'?" in message(error)
  with pytest.raises(UsageError) as error:
    config_flags.load_file(f"{tmp_path}/absent.py:mean_flow")
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
  config = default("mean_flow")
  for field in LIMITS:
    section, _, name = field.rpartition(".")
    assert name in (config[section] if section else config), field


def test_config_survives_its_file(tmp_path):
  config = configs.resolve(
    default(loss={"block": (4, 2)}), shape=(2,), num_classes=8, teacher=None
  )
  configs.save_config(config, tmp_path / "config.json")
  values = json.loads((tmp_path / "config.json").read_text())
  assert values["data"]["shape"] == [2]
  assert values["data"]["num_classes"] == 8
  loaded = configs.load_config(tmp_path, field="--workdir")
  configs.check_same_run(loaded, config, "w")
  assert loaded.data.shape == (2,)
  assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


@pytest.mark.parametrize(
  "content", ["{", "[]", "{}", '{"data": {"shape": [2]}}', "null", "\x00"]
)
def test_corrupt_config_is_named(tmp_path, content):
  (tmp_path / "config.json").write_text(content)
  with pytest.raises(UsageError) as error:
    configs.load_config(tmp_path, field="teacher.workdir")
  text = message(error)
  assert f"teacher.workdir={str(tmp_path)!r}" in text
  assert "config.json cannot be read" in text


@pytest.mark.parametrize(
  ("field", "value", "refused"),
  [
    ("train.steps", 7, False),
    ("checkpoint.every", 7, False),
    ("teacher.workdir", "elsewhere", True),
    ("train.batch_size", 7, True),
    ("model.width", 7, True),
    ("optimizer.learning_rate", 7.0, True),
    ("seed", 7, True),
  ],
)
def test_fields_that_may_change_between_runs(field, value, refused):
  old = default("consistency_distillation")
  new = default("consistency_distillation")
  section, _, name = field.rpartition(".")
  (new[section] if section else new)[name] = value
  if not refused:
    configs.check_same_run(old, new, "w")
    return
  with pytest.raises(UsageError) as error:
    configs.check_same_run(old, new, "w")
  assert f"--workdir=w was made with {field}=" in message(error)
  assert f"not {value!r}" in message(error)


def test_another_method_is_what_a_workdir_differs_in_first():
  with pytest.raises(UsageError) as error:
    configs.check_same_run(default("mean_flow"), default("flow_matching"), "w")
  assert "method='mean_flow', not 'flow_matching'" in message(error)
