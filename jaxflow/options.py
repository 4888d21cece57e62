"""Marks of options in signatures: their ranges and meanings.

A loss, or a flow map, declares an option where it takes it: the numbers that it
may hold, and what follows from it, stand in its annotation. Who reads a config
asks for marks, and need not know a name:

  def my_loss(..., *, strength: Amount = 1.0,
              scale: Annotated[Amount, Guides(off=1)] = 1.0): ...
"""

import dataclasses
import functools
import inspect
import numbers
import sys
from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeVar, get_args, get_origin

Mark = TypeVar("Mark")


@dataclasses.dataclass(frozen=True)
class Range:
  """Which numbers an option may hold."""

  text: str  # The numbers to give, for messages.
  allows: Callable[[Any], bool]


# A whole number may be larger than floats.
_MOST = sys.float_info.max
COUNT = Range("1 or more", lambda x: x >= 1)
AMOUNT = Range("a finite number, 0 or more", lambda x: 0 <= x <= _MOST)
FINITE = Range("a finite number", lambda x: -_MOST <= x <= _MOST)
POSITIVE = Range("a finite number above 0", lambda x: 0 < x <= _MOST)
SHARE = Range("a share from 0 to 1", lambda x: 0 <= x <= 1)
BELOW_ONE = Range("0 or more, below 1", lambda x: 0 <= x < 1)
# Layers are made one by one.
LAYERS = Range("1 to 10000", lambda x: 1 <= x <= 10_000)
# Network calls of a sample; XLA must hold a time for each.
CALLS = Range(
  "a whole number, at least 1, at most 1000000",
  lambda x: isinstance(x, numbers.Integral) and 1 <= int(x) <= 10**6,
)
# `jax.random.key` keeps 32 bits: a larger seed would draw as another does.
SEED = Range(
  "a whole number from 0 to 4294967295",
  lambda x: isinstance(x, numbers.Integral) and 0 <= int(x) < 2**32,
)
AT_LEAST_ONE = Range("a finite number, 1 or more", lambda x: 1 <= x <= _MOST)
POSITIVE_SHARE = Range("a number above 0, at most 1", lambda x: 0 < x <= 1)
# Infinity is no limit.
LIMIT = Range("0 or more", lambda x: x >= 0)


@dataclasses.dataclass(frozen=True)
class Above:
  """An option that must exceed another one of the same function."""

  other: str


@dataclasses.dataclass(frozen=True)
class Guides:
  """An option that guides by the null label, which the network must know."""

  off: float  # The value that does not guide.
  # Whether it has no effect on a model without labels; others must leave it at
  # `off`.
  optional: bool = False


@dataclasses.dataclass(frozen=True)
class GuidesTeacher:
  """An option that guides the teacher by the null label."""

  off: float  # The value that does not guide.


class DropsLabels:
  """The share of rows whose label becomes null; above 0 it needs labels."""


class Layout:
  """The treatment of the rows of a batch, which times have to know."""


class RowBlock(Layout):
  """A pair `(m, k)`: of every m rows the first k; m divides the batch."""


class RowGroup(Layout):
  """How many rows of a batch stand together and share their class.

  The number divides the batch.
  """


class SharedWithFlowMap:
  """An option that must equal the flow map's option of the same name."""


class DataStd:
  """The standard deviation of the data, in the network's preconditioning."""


@dataclasses.dataclass(frozen=True)
class Predicts:
  """The prediction of the raw network, as `predicts` finds it."""

  # On the network that a flow map takes; "" on an option of a loss, whose value
  # says it.
  what: str = ""


@dataclasses.dataclass(frozen=True)
class Term:
  """The weight of a term that is left out at 0."""

  argument: str  # The loss's argument that the term needs.


@dataclasses.dataclass(frozen=True)
class Layer:
  """One layer of the network; the config names it."""

  pattern: str  # Regular expression of its parameter's path, the default.


class Transition(Layout):
  """The time at which a first stage hands over to the trained network."""


@dataclasses.dataclass(frozen=True)
class Role:
  """Another network, described by a section of the config."""

  section: str
  jumps: bool = False  # Whether the loss takes its flow map, no velocity.
  timed: bool = False  # Whether it must see the time of its points.


@dataclasses.dataclass(frozen=True)
class Memory:
  """A value that a loss keeps from step to step, and returns anew.

  The loss returns `(loss, metrics, memories)`, the new values by argument. A
  step that is skipped keeps the old ones.
  """

  # Makes the first value: a pytree of arrays. It takes, by name, options of the
  # loss, `data_shape`, `num_classes`, and `channels`, those of every layer of
  # the feature network.
  init: Callable[..., Any]


class FirstSamples:
  """The samples at the start of training that fill a memory.

  Nothing is learnt from them, so training has to be longer.
  """


class Unpaired:
  """A batch whose noise belongs to no row: its order has no meaning."""


class InPairs:
  """A batch with the noise from which a teacher made its data."""


class Jumps:
  """A network that must see both ends of a jump, `model.second_time`."""


@dataclasses.dataclass(frozen=True)
class Outputs:
  """How many predictions a function takes of its network, `model.heads`."""

  number: int


class OneTime:
  """Whether the network sees one time alone, and not `model.second_time`."""


class OneCall:
  """A network whose output is a sample, so that one call is all there is."""


class Sampling:
  """An option of sampling only: it may change when a run is resumed."""


class GuidanceInput(Sampling):
  """The guidance scale of samples, an input of the network."""


Count = Annotated[int, COUNT]
Amount = Annotated[float, AMOUNT]
Limit = Annotated[float, LIMIT]
AtLeastOne = Annotated[float, AT_LEAST_ONE]
BelowOne = Annotated[float, BELOW_ONE]
Finite = Annotated[float, FINITE]
Layers = Annotated[int, LAYERS]
Filling = Annotated[int, COUNT, FirstSamples()]
Natural = Annotated[int, AMOUNT]
Positive = Annotated[float, POSITIVE]
PositiveShare = Annotated[float, POSITIVE_SHARE]
Seed = Annotated[int, SEED]
Share = Annotated[float, SHARE]
# The last time of an interval that begins at `t_min`.
End = Annotated[Positive, Above("t_min")]
LabelDropout = Annotated[Share, DropsLabels()]
DataScale = Annotated[Positive, DataStd(), SharedWithFlowMap()]


@functools.cache
def parameters(function: Callable) -> Mapping[str, inspect.Parameter]:
  """Return the parameters of a function or class by name."""
  return inspect.signature(function, eval_str=True).parameters


def unmarked(annotation: Any) -> Any:
  """Return an annotation without its marks: `float` of `Amount`."""
  marked = get_origin(annotation) is Annotated
  return annotation.__origin__ if marked else annotation


def marks(annotation: Any) -> tuple[Any, ...]:
  """Return the marks of an annotation, and of the members of a union.

  Example:
    >>> [type(mark).__name__ for mark in marks(LabelDropout | None)]
    ['Range', 'DropsLabels']
  """
  own = getattr(annotation, "__metadata__", ())
  inside = (marks(part) for part in get_args(unmarked(annotation)))
  return sum(inside, own)


def marked(function: Callable, kind: type[Mark]) -> dict[str, Mark]:
  """Return the marks of a kind by argument; the arguments without are absent.

  Example:
    >>> def loss(model_fn, *, strength: Amount = 1.0, p: float = 1.0): ...
    >>> marked(loss, Range)["strength"].text
    'a finite number, 0 or more'
  """
  return {
    p.name: mark
    for p in parameters(function).values()
    for mark in marks(p.annotation)
    if isinstance(mark, kind)
  }


def values(
  function: Callable, kind: type, given: Mapping[str, Any]
) -> dict[str, Any]:
  """Return the given values of the arguments that have a mark of a kind."""
  return {k: given[k] for k in marked(function, kind) if k in given}


def value(
  function: Callable, kind: type, given: Mapping[str, Any], default: Any = None
) -> Any:
  """Return the given value of the argument that has a mark of a kind.

  Example:
    >>> def loss(model_fn, *, sigma_data: DataScale = 0.5): ...
    >>> value(loss, DataStd, {"sigma_data": 1.0})
    1.0
    >>> value(loss, DropsLabels, {"sigma_data": 1.0}, default=0.0)
    0.0
  """
  return next(iter(values(function, kind, given).values()), default)


def switched_on(
  function: Callable,
  kind: type[Guides] | type[GuidesTeacher],
  given: Mapping[str, Any],
) -> dict[str, Any]:
  """Return the given values that guide, by argument.

  Example:
    >>> def loss(model_fn, *, scale: Annotated[Amount, Guides(off=1)] = 1): ...
    >>> switched_on(loss, Guides, {"scale": 2}), switched_on(loss, Guides, {})
    ({'scale': 2}, {})
  """
  found = marked(function, kind)
  return {k: x for k, x in given.items() if k in found and x != found[k].off}


def first_memories(function: Callable, given: Mapping[str, Any]) -> dict:
  """Return the first values of a loss's memories, by argument.

  Args:
    function: The loss.
    given: Its options, and what else `Memory.init` may take.

  Example:
    >>> def loss(model_fn, *, size: Count = 2,
    ...          last: Annotated[list, Memory(lambda size: [0] * size)]): ...
    >>> first_memories(loss, {"size": 3})
    {'last': [0, 0, 0]}
  """
  made = {}
  for name, mark in marked(function, Memory).items():
    own = parameters(mark.init)
    made[name] = mark.init(**{k: v for k, v in given.items() if k in own})
  return made


def predicts(
  loss: Callable, flow_map: Callable, given: Mapping[str, Any]
) -> str:
  """Return the prediction of a loss's raw network.

  One of the options that are `given` to the loss says it, or the flow map; a
  flow map that does not has a prediction of its own, called by its name.

  Example:
    >>> def jump(model_fn: Annotated[Callable, Predicts("velocity")]): ...
    >>> def loss(model_fn, *, of: Annotated[str, Predicts()] = "noise"): ...
    >>> predicts(loss, jump, {"of": "noise"}), predicts(len, jump, {})
    ('noise', 'velocity')
  """
  said = [mark.what for mark in marked(flow_map, Predicts).values()]
  return value(loss, Predicts, given, (said or [flow_map.__name__])[0])
