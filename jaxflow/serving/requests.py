"""What a request asks for, read from JSON that anyone may have written."""

import base64
import binascii
import dataclasses
import json
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxflow import conditions
from jaxflow.errors import UsageError, check_range, did_you_mean
from jaxflow.options import SEED
from jaxflow.plans import Plan
from jaxflow.runs.drawing import as_seen, checked_conditions
from jaxflow.types import PyTree

FORMATS = ("json", "png", "npz", "raw")
_FIELDS = (
  *("num", "labels", "cond", "noise", "seed", "guidance", "nfe", "format"),
)
# Bytes of a body beside its numbers, and of a number, as text and in base 64.
_BODY, _TEXT, _BASE64 = 1 << 16, 32, 6
# Characters of a class's name, and the largest scale of guidance.
_LONGEST, _GUIDANCE = 200, 100.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
  """Samples that are asked for.

  Attributes:
    num: How many.
    labels: Their classes `[num]` or vectors, as asked for; None without.
    seen: What the network sees: these, or the condition that it declares.
    noise: Unit noise `[num, ...]`; NaN where it is that of the seed.
    seed: Seed of the noise.
    guidance: The scale, or None where the network takes none.
    nfe: Network calls a sample.
    format: One of `FORMATS`.
  """

  num: int
  labels: np.ndarray | None
  seen: PyTree
  noise: np.ndarray
  seed: int
  guidance: float | None
  nfe: int
  format: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reader:
  """Reads requests to one run.

  Attributes:
    plan: The plan of the run.
    nfes: Numbers of calls that are served, the default first.
    guidance: The scale where a request names none; None: the network takes
      none.
    max_num: The most samples of a request.
    drawn: Whether samples are images, which a PNG shows.
  """

  plan: Plan
  nfes: tuple[int, ...]
  guidance: float | None
  max_num: int
  drawn: bool

  @property
  def max_body(self) -> int:
    """The most bytes of a body: those of `max_num` samples with their noise."""
    model = self.plan.model
    numbers = sum(np.size(x) for x in jax.tree.leaves(model.null_cond))
    one = _BASE64 * math.prod(model.shape) + _TEXT * numbers
    return _BODY + self.max_num * one

  def read(self, body: bytes) -> Request:
    """Return what a body asks for.

    Raises:
      UsageError: If it is no JSON object, or a field is unknown or wrong.
    """
    given = _object(body)
    for name in given:
      if name not in _FIELDS:
        hint = did_you_mean(name[:_LONGEST], _FIELDS)
        raise UsageError(
          f"{name[:_LONGEST]!r} is no field: {hint}give {', '.join(_FIELDS)}"
        )
    given = {name: x for name, x in given.items() if x is not None}
    labels = given.get("labels")
    each = len(labels) if isinstance(labels, list) and self._listed else 1
    num = _whole("num", given.get("num", each))
    if not 1 <= num <= self.max_num:
      raise UsageError(f"num={num}: give 1 to {self.max_num}")
    seed = _whole("seed", given.get("seed", 0))
    check_range(SEED, seed=seed)
    nfe = _whole("nfe", given.get("nfe", self.nfes[0]))
    if nfe not in self.nfes:
      served = " or ".join(map(str, self.nfes))
      raise UsageError(f"nfe={nfe}: this server draws with {served}")
    format = given.get("format", "json")
    if format not in FORMATS:
      raise UsageError(
        f"format={str(format)[:40]!r}: give {', '.join(FORMATS)}"
      )
    if format == "png" and not self.drawn:
      raise UsageError("format='png': samples are no images; give json or npz")
    if self.plan.declares_condition:
      seen, labels = self._cond(given, num), None
    else:
      if "cond" in given:
        raise UsageError("cond: the network declares none; leave it out")
      labels = self._labels(labels, num)
      seen = as_seen(self.plan, labels)
    return Request(
      num=num,
      labels=labels,
      seen=seen,
      noise=self._noise(given.get("noise"), num),
      seed=seed,
      guidance=self._scale(given),
      nfe=nfe,
      format=format,
    )

  @property
  def _listed(self) -> bool:
    """Whether a list of labels has one for each sample."""
    return self.plan.data.conditions is None

  def _scale(self, given: dict[str, Any]) -> float | None:
    if "guidance" not in given:
      return self.guidance
    if self.guidance is None:
      raise UsageError("guidance: the network takes none; leave it out")
    scale = _number("guidance", given["guidance"])
    if not 0 <= scale <= _GUIDANCE:
      raise UsageError(f"guidance={scale}: give 0 to {_GUIDANCE:g}")
    return scale

  def _noise(self, given: Any, num: int) -> np.ndarray:
    """Return noise of base 64, NaN without."""
    shape = num, *self.plan.model.shape
    if given is None:
      return np.full(shape, np.nan, np.float32)
    try:
      if not isinstance(given, str):
        raise ValueError
      found = base64.b64decode(given, validate=True)
      noise = np.frombuffer(found, "<f4").astype(np.float32).reshape(shape)
    except (ValueError, binascii.Error) as error:
      raise UsageError(
        f"noise: give float32 of the shape {list(shape)}, little-endian, in "
        "base 64"
      ) from error
    if not np.isfinite(noise).all():
      raise UsageError("noise: give finite numbers")
    return noise

  def _cond(self, given: dict[str, Any], num: int) -> PyTree:
    """Return what the network declares, given by the names of its arrays."""
    null_cond = self.plan.model.null_cond
    told = conditions.describe(null_cond)
    if "labels" in given:
      raise UsageError(f"labels: give cond in their place, {told}")
    if not isinstance(given.get("cond"), dict):
      raise UsageError(f"cond: give an object of {told}")
    own = conditions.leaves(null_cond)
    try:
      arrays = {
        k: _array(x, own[k]) if k in own else x
        for k, x in given["cond"].items()
      }
      tree = conditions.from_leaves(arrays, null_cond)
    except ValueError as error:
      raise UsageError(f"cond: {error}") from error
    return checked_conditions(self.plan, num, cond=tree)

  def _labels(self, labels: Any, num: int) -> np.ndarray | None:
    """Return labels in units of the data."""
    if self._listed:
      flat = labels if isinstance(labels, list) else [labels]
      if labels is not None and not (
        all(type(x) is int for x in flat) or all(type(x) is str for x in flat)
      ):
        raise UsageError(
          "labels: give a number or a name of a class, or a list of either"
        )
      if any(isinstance(x, str) and len(x) > _LONGEST for x in flat):
        raise UsageError(f"labels: a name has over {_LONGEST} characters")
      if isinstance(labels, list) and len(labels) != num:
        raise UsageError(f"labels: {len(labels)} for num={num}; give one each")
    elif labels is None:
      raise UsageError("labels are missing: give the numbers of the condition")
    else:
      labels = _vectors(labels)
    return checked_conditions(self.plan, num, labels)


def _object(body: bytes) -> dict[str, Any]:
  """Return a JSON object, in which each name stands once."""

  def constant(text: str) -> None:
    raise UsageError(f"the body holds {text}, which is no JSON")

  def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(found)) < len(found):
      raise UsageError("the body has a field twice: give each once")
    return dict(found)

  try:
    given = json.loads(
      body.decode(), parse_constant=constant, object_pairs_hook=pairs
    )
  except UsageError:
    raise
  except (ValueError, RecursionError) as error:
    raise UsageError("the body is no JSON: give an object of fields") from error
  if not isinstance(given, dict):
    raise UsageError("the body is no JSON object: give {...} with fields")
  return given


def _whole(name: str, value: Any) -> int:
  if type(value) is not int:
    raise UsageError(f"{name}: give a whole number")
  if abs(value) >= 2**63:
    raise UsageError(f"{name} is too large")
  return value


def _number(name: str, value: Any) -> float:
  try:
    if type(value) in (int, float) and math.isfinite(value):
      return float(value)
  except OverflowError:
    pass
  raise UsageError(f"{name}: give a finite number")


def _vectors(labels: Any) -> Any:
  """Return nested lists of numbers, NaN for null, at most two deep."""
  if not isinstance(labels, list):
    return _number("labels", labels)
  rows = [x if isinstance(x, list) else [x] for x in labels]
  for row in rows:
    row[:] = [np.nan if x is None else _number("labels", x) for x in row]
  if any(isinstance(x, list) for x in labels):
    return rows
  return [row[0] for row in rows]


def _array(value: Any, null: Any) -> np.ndarray:
  """Return nested lists as an array, of the type of reals where one is."""
  found, dtype = np.asarray(value), np.asarray(null).dtype
  if found.dtype.kind not in "iuf" or not jnp.issubdtype(dtype, jnp.floating):
    return found
  with np.errstate(over="ignore"):
    return found.astype(dtype)
