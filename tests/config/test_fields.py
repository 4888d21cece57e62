"""What is mistyped in a config, before JAX is loaded."""

import pytest

from jaxflow.config import fields as config_fields
from jaxflow.config.fields import EVERY, flatten, written
from jaxflow.config.flags import parse
from jaxflow.config.presets import preset
from jaxflow.errors import UsageError
from jaxflow.methods import METHODS

# Of methods with a teacher and companions, with pairs, and with none.
PRESETS = ["digits:distribution_matching", "digits:reflow", "ring:mean_flow"]


@pytest.mark.parametrize("method", METHODS)
def test_no_field_of_a_config_is_refused(method):
  fields = flatten(preset(f"digits:{method}").to_dict())
  assert flatten(EVERY).keys() <= fields.keys()
  config_fields.check(
    f"--config.{name}={written(value)}"
    for name, value in fields.items()
    if value is not None
  )


def refused(call, *arguments):
  """Return the message of a call, "" if it raises none."""
  try:
    call([*arguments])
  except UsageError as error:
    return str(error)
  return ""


@pytest.mark.parametrize("name", PRESETS)
def test_the_config_would_have_said_the_same(name):
  """All that is refused early is refused later, with the same words."""
  fields = flatten(preset(name).to_dict())
  early = 0
  for field in fields:
    for wrong in (f"{field}{field[-1]}", f"{field[0]}{field}"):
      argument = f"--config.{wrong}=1"
      if said := refused(config_fields.check, argument):
        early += 1
        assert said == refused(parse, f"--config={name}", argument)
    section = field.rpartition(".")[0]
    argument = f"--config.{section}.zzz=1"
    if said := refused(config_fields.check, argument):
      assert said == refused(parse, f"--config={name}", argument)
  assert early > 1.5 * len(flatten(EVERY))


def test_a_value_is_read_as_the_config_reads_it():
  """What is refused early is refused later; the example may be another."""
  values = "1", "-2", "1.5", "1e3", "abc", "true", "0x10", "None", "inf"
  seen = set()
  for field in flatten(EVERY):
    for value in values:
      argument = f"--config.{field}={value}"
      if said := refused(config_fields.check, argument):
        later = refused(parse, "--config=ring:mean_flow", argument)
        assert later.startswith(f"{argument}: give "), (argument, later)
        seen.add(said.partition(": ")[2].partition(",")[0])
  assert seen == {"give a whole number", "give a number", "give True or False"}


def test_options_are_left_to_the_config():
  """Their names stand in signatures, and their sections are not of all."""
  sections = "model", "loss", "times", "flow_map", "teacher", "sample.grid"
  for section in sections:
    assert not refused(config_fields.check, f"--config.{section}.widht=3")
