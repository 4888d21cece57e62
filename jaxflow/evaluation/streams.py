"""Collect samples of a run, or of a data set, as a network sees them."""

import functools
import hashlib
import json
import pathlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxflow import conditions, data, metrics
from jaxflow.errors import UsageError
from jaxflow.evaluation.collecting import Collector, extraction
from jaxflow.files import save_arrays
from jaxflow.models import Extractor
from jaxflow.parallel import processes, sharding
from jaxflow.plans import Plan
from jaxflow.reading import DAMAGE, read_arrays
from jaxflow.runs.inputs import check_condition
from jaxflow.runs.opening import load_data
from jaxflow.types import Array, PyTree

# Samples that are read at once for their labels, or to know the data by.
_AT_ONCE = 256

# Seconds between two savings of collected samples.
_SAVE_EVERY = 30.0
# Seconds between two lines of a long work.
_SAY_EVERY = 10.0

# Computes outputs of a batch, jitted: samples [B, ...] over all devices.
Look = Callable[[Array], Mapping[str, Array]]


class Partial:
  """Files of unfinished work in a folder, kept until they are removed.

  `what` has all inputs of the work, for JSON: other work, or the same with
  other data or networks, never goes on from these files.
  """

  def __init__(self, folder: pathlib.Path, what: Mapping[str, Any]):
    text = json.dumps(what, sort_keys=True, default=str)
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    number = f"{jax.process_index()}of{jax.process_count()}"
    self._path = folder / f"partial-{digest}-{number}.npz"
    self._saved = time.monotonic()

  def load(self, collector: Collector) -> None:
    """Go on where an earlier process stopped, if all have kept as much."""
    try:
      arrays = read_arrays(self._path)
      seen = int(arrays["seen"])
    except DAMAGE:  # Nothing there, or damaged: it is made again.
      arrays, seen = {}, 0
    counts = {int(x["seen"]) for x in processes.each({"seen": np.array(seen)})}
    if len(counts) == 1 and seen:
      collector.load(arrays)

  def keep(self, collector: Collector, *, now: bool = False) -> None:
    """Write the collected samples, if the last writing is long ago or `now`.

    Work that took less than that is not worth a file.
    """
    due = time.monotonic() - self._saved > _SAVE_EVERY
    if processes.of_main(due or (now and self._path.exists())):
      processes.together(lambda: save_arrays(self._path, collector.save()))
      self._saved = time.monotonic()

  def remove(self) -> None:
    """Remove the file of this process: the work is done."""
    self._path.unlink(missing_ok=True)


class Progress:
  """Report the progress of long work on `total` samples, at most every 10 s."""

  def __init__(self, log: Callable[[str], None], what: str, total: int):
    self._log, self._what, self._total = log, what, total
    self._last = time.monotonic()

  def begin(self, seen: int) -> None:
    """Say where work goes on that was stopped."""
    if seen:
      self._log(f"{self._what}: goes on at sample {seen:,} of {self._total:,}")

  def __call__(self, seen: int) -> None:
    """Note that so many samples are done."""
    if time.monotonic() - self._last > _SAY_EVERY:
      self._log(f"{self._what}: {seen:,} of {self._total:,} samples")
      self._last = time.monotonic()


def remove_partials(folder: pathlib.Path) -> None:
  """Remove the files of work that is done or abandoned."""
  for path in folder.glob("partial-*.npz"):
    path.unlink(missing_ok=True)


def collect(
  stream: Callable[[int], Iterable[tuple[int, int, Array]]],
  look: Look,
  *,
  kept: int,
  labels: np.ndarray | None = None,
  partial: Partial | None = None,
  progress: Progress | None = None,
  interrupted: Callable[[], bool] = lambda: False,
) -> metrics.SampleSummary | None:
  """Return the summary of a stream of samples, or None after an interruption.

  From the number of its first sample, a stream gives batches: the number of
  their first sample, how many rows count, the rows. Of the first `kept` samples
  everything is kept; `labels` are of all. `partial` keeps unfinished work, for
  another process to resume. Whether to stop is asked after every batch.
  """
  collector = Collector(kept=kept)
  if partial is not None:
    partial.load(collector)
  if progress is not None:
    progress.begin(collector.seen)
  for first, count, rows in stream(collector.seen):
    collector.add(first, count, look(rows))
    if interrupted():
      return None
    if progress is not None:
      progress(collector.seen)
    if partial is not None:
      partial.keep(collector)
  if partial is not None:
    partial.keep(collector, now=True)
  return collector.drawn(labels)


def make_look(
  networks: tuple[Extractor, ...],
  decoder: tuple[Any, Callable[..., Array]] | None,
  mesh: jax.sharding.Mesh,
) -> Look:
  """Return `extraction` jitted over a mesh; `decoding.make_decoder` decodes."""
  params = {network.name: network.params for network in networks}
  decode = None
  if decoder is not None:
    params["decoder"], decode = decoder
  params = jax.device_put(params, sharding.replicated(mesh))
  outputs_of = extraction(networks, decode)
  return functools.partial(
    jax.jit(sharding.with_mesh(mesh, outputs_of)), params
  )


class Part(NamedTuple):
  """A source, and the numbers of its samples that may be used."""

  source: data.Source
  rows: np.ndarray


def real_parts(plan: Plan) -> tuple[Part, Part]:
  """Return the split to compare with, and the real samples beside it.

  These are of the other split. Without one, both are halves of the split, in an
  order that the seed decides.
  """
  split, seed = plan.evaluation.split, plan.seed
  other = {"test": "train", "train": "test"}[split]
  try:
    reference = load_data(plan.data, split)
  except data.NoSplitError as error:
    raise UsageError(
      f"evaluation.split={split!r}: {error}; set evaluation.split={other}: one "
      "half of it is compared with the other"
    ) from error
  try:
    fresh = load_data(plan.data, other)
  except data.NoSplitError:
    order = np.random.default_rng(seed).permutation(len(reference))
    first, second = map(np.sort, np.array_split(order, 2))
    return Part(reference, first), Part(reference, second)
  for source in (reference, fresh) if plan.declares_condition else ():
    check_condition(plan.model, source)
  return whole(reference), whole(fresh)


def whole(source: data.Source) -> Part:
  """Return all of a source."""
  return Part(source, np.arange(len(source)))


def choose(part: Part, num: int, seed: int) -> np.ndarray:
  """Return the numbers of at most `num` samples of a part, in random order.

  Classes keep their shares where the labels are in memory.
  """
  source, rows = part
  label = source.label if isinstance(source, data.Dataset) else None
  generator = np.random.default_rng(seed)
  label = None if label is None else label[rows]
  return rows[metrics.random_subset(generator, len(rows), num, label)]


def identity(source: data.Source) -> tuple[int, str]:
  """Return what tells a source from others: its size, a hash of samples."""
  return len(source), data.digest([source], _AT_ONCE)


def real_batches(
  source: data.Source, index: np.ndarray, size: int, mesh: jax.sharding.Mesh
) -> Callable[[int], Iterator[tuple[int, int, Array]]]:
  """Return a stream of samples of a source, `size` at a time, for `collect`."""
  size = min(size, len(index))
  divided = size % sharding.row_shards(mesh) == 0
  where = sharding.row_sharding(mesh) if divided else sharding.replicated(mesh)
  mine = sharding.local_rows(mesh, size) if divided else np.arange(size)

  def stream(first: int) -> Iterator[tuple[int, int, Array]]:
    for start in range(first, len(index), size):
      rows = index[np.arange(start, start + size) % len(index)][mine]
      batch = data.to_devices(source.take(rows)["data"], where)
      yield start, min(size, len(index) - start), batch

  return stream


def labels_of(source: data.Source, index: np.ndarray) -> PyTree:
  """Return the conditions of samples of a source, or None without."""
  if isinstance(source, data.Dataset):
    cond = source.label if source.cond is None else source.cond
    return conditions.rows(cond, index)
  parts = np.array_split(index, max(1, len(index) // _AT_ONCE))
  if "cond" not in source.take(parts[0][:1]):
    return None
  return conditions.joined([source.take(part)["cond"] for part in parts])
