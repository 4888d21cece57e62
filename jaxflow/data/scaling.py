"""The scales of arrays of numbers: to samples of a network, and back."""

import dataclasses
import math
from collections.abc import Iterable
from typing import Self

import numpy as np

from jaxflow.errors import UsageError, did_you_mean

NORMALISATIONS = ("standard", "range", "bytes", "none")
# Digits that no order of summation changes, so that a run on another machine
# finds what is stored.
_DIGITS = 9


@dataclasses.dataclass(frozen=True)
class Scaling:
  """A sample is (value - offset) / scale, channel by channel.

  Channels are the last axis.

  Attributes:
    kind: One of `NORMALISATIONS`.
    offset: One number a channel, or one for all.
    scale: As `offset`, above 0.
    range: The lowest and the highest value of the training data, for pictures.
    dtype: Type of the data.
  """

  kind: str
  offset: tuple[float, ...]
  scale: tuple[float, ...]
  range: tuple[float, float]
  dtype: str

  @classmethod
  def of(
    cls, parts: Iterable[np.ndarray], dtype: np.dtype, kind: str | None
  ) -> Self:
    """Return the scaling of training data, which come in parts [n, ...].

    "standard" gives each channel the mean 0 and the deviation 1, "range" makes
    its ends -1 and 1, "bytes" does so with 0 and 255, "none" changes nothing.
    None is "bytes" for pictures of bytes [H, W, C], and else "standard". A
    channel that is constant has the scale 1.

    Example:
      >>> data = np.array([[1.0, 5.0], [3.0, 5.0]])
      >>> found = Scaling.of([data], data.dtype, "standard")
      >>> found.offset, found.scale
      ((2.0, 5.0), (1.0, 1.0))
    """
    found, pictures = None, False
    for part in parts:
      pictures = part.ndim == 4 and dtype == np.uint8
      channels = part.reshape(-1, part.shape[-1]).astype(np.float64)
      found = _joined(found, channels)
    assert found is not None, "data have samples"
    _, mean, squares, low, high = found
    kind = kind or ("bytes" if pictures else "standard")
    ends = float(low.min()), float(high.max())
    constant = low == high
    if kind == "standard":
      mean = np.where(constant, low, mean)
      scale = np.where(constant, 1.0, np.sqrt(squares / found[0]))
    elif kind == "range":
      mean = low / 2 + high / 2
      scale = np.where(constant, 1.0, high / 2 - low / 2)
    elif kind == "bytes":
      ends = 0.0, 255.0
      mean = scale = np.full(1, 127.5)
    else:
      mean, scale = np.zeros(1), np.ones(1)
    lost = np.flatnonzero(~((scale > 0) & (scale < np.inf)))
    if lost.size:
      raise UsageError(
        f"data.normalise={kind!r}: channel {lost[0]} has values from "
        f"{low[lost[0]]:g} to {high[lost[0]]:g}, whose spread no number of 64 "
        "bits holds; scale the data first"
      )
    # Of a mean near 0 the digits behind those of the scale are rounding.
    offset = tuple(
      round(float(x), _DIGITS - math.floor(math.log10(s)))
      for x, s in zip(mean, scale, strict=True)
    )
    rounded = tuple(float(f"{s:.{_DIGITS}g}") for s in scale)
    return cls(kind, offset, rounded, ends, str(dtype))

  @classmethod
  def of_conditions(
    cls, offset: Iterable[float], scale: Iterable[float]
  ) -> Self:
    """Return the scales of labels that are vectors.

    Example:
      >>> Scaling.of_conditions([20.0], [5.0]).normalise(np.array([[25.0]]))
      array([[1.]], dtype=float32)
    """
    ends = tuple(map(float, offset)), tuple(map(float, scale))
    return cls("standard", *ends, (0.0, 0.0), "float64")

  def normalise(self, values: np.ndarray) -> np.ndarray:
    """Return the samples of values [n, ..., C], float32."""
    # In float64: of a time in seconds since 1970 float32 keeps two minutes.
    values = np.asarray(values, np.float64)
    return ((values - self.offset) / self.scale).astype(np.float32)

  def restore(self, samples: np.ndarray) -> np.ndarray:
    """Return the values of samples, in units of the data.

    Whole numbers are rounded, and cut to those of the data's type; others are
    float32, or float64 if the data are.

    Example:
      >>> bytes_ = Scaling("bytes", (127.5,), (127.5,), (0.0, 255.0), "uint8")
      >>> bytes_.restore(np.array([[-1.0, 0.1, 7.0]])).tolist()
      [[0, 140, 255]]
    """
    values = np.asarray(samples, np.float64) * self.scale + self.offset
    dtype = np.dtype(self.dtype)
    if dtype.kind == "f":
      return values.astype(np.result_type(dtype, np.float32))
    info = np.iinfo(np.uint8 if dtype.kind == "b" else dtype)
    low, high = (0, 1) if dtype.kind == "b" else (info.min, info.max)
    most = float(high)
    # The largest of 64 bits is no float64; the next one would be too large.
    most = most if most <= high else np.nextafter(most, 0)
    return np.rint(values).clip(low, most).astype(dtype)

  def picture(self, values: np.ndarray) -> np.ndarray:
    """Return what is drawn of values: images in [-1, 1], or the values."""
    if values.ndim != 4:
      return values
    low, high = self.range
    spread = (high - low) or 1.0
    return ((values - low) * (2 / spread) - 1).astype(np.float32)


def check_kind(kind: str | None) -> None:
  """Raise UsageError unless there is such a normalisation."""
  if kind is not None and kind not in NORMALISATIONS:
    raise UsageError(
      f"data.normalise={kind!r}: {did_you_mean(kind, NORMALISATIONS)}choose"
      f" one of {', '.join(NORMALISATIONS)}"
    )


# Count, mean, sum of squares around it, minimum, maximum of each channel.
_Sums = tuple[int, np.ndarray, np.ndarray, np.ndarray, np.ndarray]


@np.errstate(over="ignore", invalid="ignore")
def _joined(known: _Sums | None, rows: np.ndarray) -> _Sums:
  """Add rows [n, C] to sums, as Chan, Golub, LeVeque 1983 join two parts."""
  mean = rows.mean(axis=0)
  squares = ((rows - mean) ** 2).sum(axis=0)
  part = len(rows), mean, squares, rows.min(axis=0), rows.max(axis=0)
  if known is None:
    return part
  num = known[0] + len(rows)
  apart = mean - known[1]
  share = len(rows) / num
  return (
    num,
    known[1] + apart * share,
    known[2] + squares + apart**2 * known[0] * share,
    np.minimum(known[3], part[3]),
    np.maximum(known[4], part[4]),
  )
