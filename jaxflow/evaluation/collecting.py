"""Look at batches of samples, generated or real, and reduce them to summaries.

Of all samples a process keeps moments of the rows that its own devices hold; of
the first ones, for metrics that compare pairs of samples, everyone keeps the
rows. So any number of samples takes the memory of the first, and nothing else
travels between hosts but moments, once.
"""

import dataclasses
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxflow.errors import NotFiniteError
from jaxflow.metrics.confidences import Confidences
from jaxflow.metrics.moments import Moments
from jaxflow.metrics.summary import SampleSummary
from jaxflow.models import Extractor
from jaxflow.parallel import processes
from jaxflow.types import Array, PyTree

T = TypeVar("T")
# Parts of a collector by name; `Collector.load` reads them back.
Arrays = dict[str, np.ndarray]

# Outputs whose first rows are kept.
_KEPT = ("samples", "features", "classes")
# The other outputs are reduced to moments and sums.
_SUMS = {"moments": Moments, "confidences": Confidences}


def extraction(
  networks: Sequence[Extractor],
  decode: Callable[[PyTree, Array], Array] | None = None,
) -> Callable[[Any, Array], dict[str, Array]]:
  """Return `(params, samples [B, ...]) -> outputs`, to be jitted.

  Outputs are those that `Collector.add` takes, of all networks; `params` holds
  the networks' by name. Where samples are latents, `decode` makes the images
  that networks see, and `params` has its weights as "decoder".
  """

  def outputs_of(params, samples):
    axes = tuple(range(1, samples.ndim))
    found = {"samples": samples, "finite": jnp.isfinite(samples).all(axes)}
    seen = samples if decode is None else decode(params["decoder"], samples)
    for network in networks:
      features = network.apply(params[network.name], seen)
      found |= {f"{kind}/{network.name}": x for kind, x in features.items()}
    return found

  return outputs_of


class Collector:
  """Reduces batches; of the first `kept` samples it keeps everything.

  `seen` is the number of samples that it has met, over all processes.
  """

  def __init__(self, *, kept: int):
    self.seen = 0
    self._kept = kept
    self._broken: dict[str, int] = {}
    self._rows: dict[str, list[np.ndarray]] = {}
    self._moments: dict[str, Moments] = {}
    self._confidences: dict[str, Confidences] = {}

  def add(self, first: int, count: int, outputs: Mapping[str, Any]) -> None:
    """Take a batch in; all processes must call it alike.

    Batches come in the order of their `first` samples; `count` rows count.
    Outputs are arrays [B, ...] over all devices: "samples", and of each network
    "features/NAME", perhaps "spatial/NAME", "logits/NAME", "classes/NAME";
    "finite" [B] says which samples are, True for all where it is missing.
    """
    keep = max(0, min(count, self._kept - first))
    for key, value in outputs.items():
      kind, _, name = key.partition("/")
      if keep and kind in _KEPT:
        whole = processes.gather(value)[:keep]
        self._rows.setdefault(key, []).append(whole)
      if kind in ("samples", "classes"):
        continue
      for start, rows in _local_rows(value):
        rows = rows[: max(0, count - start)]
        if len(rows):
          self._reduce(kind, name, first + start, rows)
    self.seen = first + count

  def _reduce(self, kind: str, name: str, first: int, rows: np.ndarray) -> None:
    """Reduce rows of this process; count and drop rows that are not finite."""
    flat = rows.reshape(len(rows), -1)
    good = np.all(flat if kind == "finite" else np.isfinite(flat), axis=1)
    lost = int(np.count_nonzero(~good))
    self._broken[kind] = self._broken.get(kind, 0) + lost
    rows = rows[good]
    if kind == "finite" or not len(rows):
      return
    if kind == "logits":
      index = np.arange(first, first + len(good))[good]
      part = Confidences.empty(rows.shape[1]).update(rows, index)
      _join(self._confidences, {name: part}, Confidences.merge)
    else:
      name = name if kind == "features" else f"{name}_spatial"
      _join(self._moments, {name: Moments.of(rows)}, Moments.merge)

  def drawn(self, label: np.ndarray | None = None) -> SampleSummary:
    """Return the summary of all processes; `label` is of all samples, [N]."""
    broken, moments, confidences = {}, {}, {}
    for arrays in processes.each(self._sums()):
      _join(broken, _broken_of(arrays), operator.add)
      _join(moments, _of_sums("moments", arrays), Moments.merge)
      _join(confidences, _of_sums("confidences", arrays), Confidences.merge)
    for kind, lost in broken.items():
      if lost:
        what = "samples" if kind == "finite" else kind
        raise NotFiniteError(f"{lost} of {self.seen} {what} are not finite")
    rows = {k: np.concatenate(v) for k, v in self._rows.items()}
    kept = len(rows["samples"]) if "samples" in rows else 0
    return SampleSummary(
      num=self.seen,
      samples=rows.get("samples"),
      label=None if label is None else np.asarray(label)[:kept],
      features=_of_kind("features", rows),
      logits=_of_kind("classes", rows),
      moments=moments,
      confidences=confidences,
    )

  def save(self) -> Arrays:
    """Return all that this process has, to go on from."""
    rows = {f"rows/{k}": np.concatenate(v) for k, v in self._rows.items()}
    return {"seen": np.array(self.seen), **rows, **self._sums()}

  def load(self, arrays: Arrays) -> None:
    """Restore the arrays of `save`."""
    self.seen = int(arrays["seen"])
    self._rows = {k: [v] for k, v in _of_kind("rows", arrays).items()}
    self._broken = _broken_of(arrays)
    self._moments = _of_sums("moments", arrays)
    self._confidences = _of_sums("confidences", arrays)

  def _sums(self) -> Arrays:
    """Return the sums of this process by name, in float64."""
    sums = {"moments": self._moments, "confidences": self._confidences}
    return {f"broken/{k}": np.array(v) for k, v in self._broken.items()} | {
      f"{kind}/{name}/{field.name}": np.asarray(getattr(value, field.name))
      for kind, values in sums.items()
      for name, value in values.items()
      for field in dataclasses.fields(value)
    }


def _broken_of(arrays: Arrays) -> dict[str, int]:
  return {k: int(v) for k, v in _of_kind("broken", arrays).items()}


def _of_sums(kind: str, arrays: Arrays) -> dict[str, Any]:
  """Return the sums of a kind by the name of their network."""
  found: dict[str, dict[str, Any]] = {}
  for key, value in _of_kind(kind, arrays).items():
    name, _, field = key.rpartition("/")
    found.setdefault(name, {})[field] = value if value.ndim else value.item()
  return {name: _SUMS[kind](**fields) for name, fields in found.items()}


def _join(
  known: dict[str, T], more: Mapping[str, T], join: Callable[[T, T], T]
) -> None:
  """Join sums to those that are known, by name, in place."""
  for name, value in more.items():
    known[name] = join(known[name], value) if name in known else value


def _of_kind(kind: str, rows: Arrays) -> Arrays:
  """Return the arrays named `kind/NAME` by NAME."""
  start = f"{kind}/"
  return {
    k.removeprefix(start): v for k, v in rows.items() if k.startswith(start)
  }


def _local_rows(value: Any) -> Iterator[tuple[int, np.ndarray]]:
  """Yield the parts of an array that this process is to reduce.

  Of copies of a row, the first one counts, wherever it is.
  """
  if not isinstance(value, jax.Array):
    yield 0, np.asarray(value)
    return
  for shard in value.addressable_shards:
    if shard.replica_id == 0:
      yield shard.index[0].start or 0, np.asarray(shard.data)
