"""What signatures say of options, and what the config makes of it."""

import dataclasses
import functools
import inspect
import math
from collections.abc import Callable
from typing import Annotated

import pytest

from jaxflow import config as configs
from jaxflow import couplings, flow_maps, losses, options, solvers, times
from jaxflow import weights as weights_lib
from jaxflow.config import components, limits, registry
from jaxflow.errors import UsageError
from jaxflow.methods import METHODS
from jaxflow.types import Pairs, Teacher

every_method = pytest.mark.parametrize("name", METHODS)


def own_loss(
  model_fn: Callable,
  key,
  batch: Pairs,
  *,
  strength: options.Share = 0.5,
  power: Annotated[options.Amount, options.Guides(off=2)] = 2.0,
  split: Annotated[tuple[int, int], options.RowBlock()] = (2, 1),
  step: solvers.Solver = solvers.midpoint,
  near: weights_lib.Perceptual | None = None,
  layer: Annotated[Callable | None, options.Layer("a/b")] = None,
  guide: Teacher | None = None,
  rest: Callable | None = None,
):
  """A loss whose arguments nobody else names."""


@pytest.fixture
def own_method(monkeypatch):
  row = dataclasses.replace(
    METHODS["reflow"], loss=own_loss, config={"times": {"name": "uniform"}}
  )
  methods = {**METHODS, "own": row}
  monkeypatch.setattr(components, "METHODS", methods)
  return configs.default_config("own", data="ring", model="mlp")


@pytest.mark.parametrize(
  ("limit", "inside", "outside"),
  [
    (options.COUNT, [1, 7], [0, -1]),
    (options.AMOUNT, [0, 0.1, 1e9], [-0.1, math.inf, math.nan]),
    (options.POSITIVE, [1e-9, 3], [0, -1, math.inf, math.nan]),
    (options.SHARE, [0, 0.5, 1], [-0.1, 1.1, math.nan]),
    (options.BELOW_ONE, [0, 0.9], [-0.1, 1, math.nan]),
    (options.AT_LEAST_ONE, [1, 2.5], [0.9, math.inf, math.nan]),
  ],
)
def test_ranges_end_where_they_say(limit, inside, outside):
  assert all(limit.allows(x) for x in inside)
  assert not any(limit.allows(x) for x in outside)


def test_marks_are_found_by_their_class():
  found = options.marked(own_loss, options.Range)
  assert found == {"strength": options.SHARE, "power": options.AMOUNT}
  assert list(options.marked(own_loss, options.Layout)) == ["split"]
  assert list(options.marked(own_loss, options.InPairs)) == ["batch"]
  assert options.marked(own_loss, options.DropsLabels) == {}
  # Of a union's member, of a class, and of what is left of a function.
  assert options.marked(own_loss, options.Role)["guide"].section == "teacher"
  assert list(options.marked(times.dyadic.DyadicPair, options.RowBlock)) == [
    "block"
  ]
  bound = functools.partial(own_loss, strength=0.2)
  assert list(options.marked(bound, options.Guides)) == ["power"]


def test_marks_are_found_in_annotations_that_are_texts():
  def loss(model_fn, *, strength: "options.Share" = 0.5): ...

  assert list(options.marked(loss, options.Range)) == ["strength"]


def test_values_are_those_of_marked_options():
  given = {"strength": 0.1, "power": 3.0, "step": "heun"}
  assert options.values(own_loss, options.Range, given) == {
    "strength": 0.1,
    "power": 3.0,
  }
  assert options.value(own_loss, options.Guides, given) == 3.0
  assert options.value(own_loss, options.RowBlock, given) is None
  assert options.value(own_loss, options.RowBlock, given, 7) == 7
  assert options.switched_on(own_loss, options.Guides, given) == {"power": 3.0}
  assert not options.switched_on(own_loss, options.Guides, {"power": 2.0})


def test_the_network_predicts_what_loss_or_flow_map_says():
  def predicts(loss, flow_map, **given):
    return options.predicts(loss, flow_map, given)

  matching, consistency = losses.flow_matching_loss, losses.consistency_loss
  assert predicts(matching, flow_maps.ode_step, prediction="noise") == "noise"
  assert predicts(consistency, flow_maps.average_velocity) == "velocity"
  assert predicts(consistency, flow_maps.edm_denoiser) == "edm"
  assert predicts(consistency, flow_maps.edm_skip) == "edm_skip"


def test_kinds_are_those_of_annotations():
  assert registry.kinds_of(own_loss) == {"step": "solver", "near": "perceptual"}
  assert registry.kinds_of(losses.mid_training_loss) == {
    "grid": "grid",
    "distance": "distance",
  }

  def loss(*, mixed: couplings.Coupling | couplings.Annealed | None = None): ...

  assert registry.kinds_of(loss) == {"mixed": "coupling"}
  # A function of two arrays need not be a distance.
  moment = registry.kinds_of(losses.moment_matching_loss)
  assert moment == {}


def test_components_among_options_are_made():
  given = {"step": {"name": "heun"}, "near": {"name": "none"}, "strength": 0.1}
  made = registry.make_options(own_loss, given, field="loss")
  assert made == {"step": solvers.heun, "near": None, "strength": 0.1}
  with pytest.raises(UsageError, match=r"loss\.step\.name='heum'.*'heun'"):
    registry.make_options(own_loss, {"step": {"name": "heum"}}, field="loss")


def test_a_loss_of_other_names_has_its_fields_and_sections(own_method):
  assert own_method.loss.to_dict() == {
    "strength": 0.5,
    "power": 2.0,
    "split": (2, 1),
    "step": {"name": "midpoint"},
    "near": {"name": "none"},
    "layer": "a/b",
  }
  assert {"teacher", "features"} <= set(own_method)
  assert "discriminator" not in own_method
  assert "pairs" in own_method.data
  assert "synthetic_share" not in own_method.data
  kinds = components.components(own_method)
  assert kinds["loss.step"] == "solver" and kinds["loss.near"] == "perceptual"


def test_a_loss_of_other_names_has_its_limits(own_method):
  limits.check_limits(own_method)
  own_method.loss.strength = 1.5
  with pytest.raises(UsageError, match=r"^loss\.strength=1\.5: give a share"):
    limits.check_limits(own_method)


@every_method
def test_numbers_out_of_their_ranges_are_named(name):
  row = METHODS[name]
  for section, function in (("loss", row.loss), ("flow_map", row.flow_map)):
    for option, limit in options.marked(function, options.Range).items():
      config = configs.default_config(name, data="ring", model="mlp")
      limits.check_limits(config)
      if option not in config[section]:
        continue  # The data set gives the number of classes.
      kind = type(config[section][option])
      value = {int: -1, float: -math.inf, tuple: (-1, -1)}[kind]
      config[section][option] = value
      with pytest.raises(UsageError) as error:
        limits.check_limits(config)
      assert (
        str(error.value) == f"{section}.{option}={value}: give {limit.text}"
      )


@every_method
def test_marks_of_a_loss_belong_together(name):
  loss = METHODS[name].loss
  accepted = inspect.signature(loss).parameters
  if options.marked(loss, options.Guides):
    # Nothing else shows the network the null label.
    assert len(options.marked(loss, options.DropsLabels)) == 1
    assert "null_cond" in accepted
  if options.marked(loss, options.GuidesTeacher):
    roles = options.marked(loss, options.Role).values()
    assert "teacher" in {role.section for role in roles}
  for term in options.marked(loss, options.Term).values():
    assert accepted[term.argument].default is None
  for kind in (options.DataStd, options.Predicts, options.RowBlock):
    assert len(options.marked(loss, kind)) < 2
  # "pairs" says it of the data, InPairs of every row of a batch.
  assert "pairs" in METHODS[name].needs or not options.marked(
    loss, options.InPairs
  )
