"""Checkpoints of the whole train state and the data position, with Orbax.

A folder holds one sub-folder a step, `<step>/state` and `<step>/data`. What
never changes is in each, but for runs with an adapter: they keep it once, in a
folder `frozen` beside. Orbax
writes to a temporary name, all arrays are opened there, `SHA256SUMS` is added,
and then it renames. So a half-written step never counts, and older ones stay
until it does. A step that has changed since is skipped with a warning and the
one before is used.
"""

import contextlib
import dataclasses
import errno
import functools
import logging
import os
import pathlib
import shutil
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath

from jaxflow.errors import RunError, UsageError
from jaxflow.files import SUMS, changed_file, list_sums, part_of, set_aside
from jaxflow.parallel import processes
from jaxflow.training.state import BASE, TrainState
from jaxflow.types import PyTree

# Arrays that a message names, of those that differ.
_LISTED = 4

# Signs of errors where memory or the disk is at fault, not the checkpoint.
_MACHINE = (
  "RESOURCE_EXHAUSTED: Out of memory",
  *(os.strerror(n) for n in (errno.EIO, errno.ESTALE, errno.EMFILE)),
)

# Characters of a folder's name that Orbax takes for a pattern or for a slash:
# such a folder is handed to it through a link.
_SPECIAL = frozenset("*?[\\")

# Names of companions in checkpoints, where these are not their own: the
# discriminator was there before there were others.
_STORED = {"discriminator": "adversary"}

_LOGGER = logging.getLogger(__name__)


class Checkpoints:
  """Saves and restores train states in one folder.

  Args:
    folder: The folder; made if it does not exist.
    keep: How many of the latest steps stay.
    keep_every: Steps that this divides stay for ever; 0: none.
    read_only: Whether to restore only.
  """

  def __init__(
    self,
    folder: pathlib.Path,
    *,
    keep: int = 3,
    keep_every: int = 0,
    read_only: bool = False,
  ):
    self.folder = folder
    self._read_only = read_only
    if not read_only:  # Orbax writes to names that can be known before.
      for path in (folder, *folder.glob("*")):
        part_of(folder.parent, str(path.relative_to(folder.parent)))
    _drop_tracebacks()
    self._names = contextlib.ExitStack()
    self._place = folder.absolute()
    if _SPECIAL & {*str(self._place)}:
      self._place.mkdir(parents=True, exist_ok=True)
      holder = tempfile.TemporaryDirectory(prefix="jaxflow-")
      link = pathlib.Path(self._names.enter_context(holder), "checkpoints")
      link.symlink_to(self._place)
      self._place = link
    absl = logging.getLogger("absl")
    with contextlib.ExitStack() as stack:
      if read_only:  # Orbax warns of every folder that is only read.
        stack.callback(absl.setLevel, absl.level)
        absl.setLevel(logging.ERROR)
      self._manager = ocp.CheckpointManager(
        self._place,
        options=ocp.CheckpointManagerOptions(
          max_to_keep=None if read_only else keep,
          keep_period=keep_every or None,
          read_only=read_only,
          # What a killed process has half written would fill the disk.
          cleanup_tmp_directories=not read_only,
          # Called once in a job, when all of its files are there.
          async_options=ocp.AsyncOptions(
            post_finalization_callback=self._look_at_draft
          ),
        ),
      )

  def steps(self) -> list[int]:
    """Return the saved steps, ascending."""
    return sorted(self._manager.all_steps())

  def save(self, step: int, state: TrainState, data_state: Any) -> None:
    """Save a step; return while the files are still being written.

    Raises:
      RunError: If this step, or the one before, cannot be written.
    """
    if step in self.steps():
      return
    with self._writing():
      self._manager.save(
        step,
        args=ocp.args.Composite(
          state=ocp.args.PyTreeSave(_as_dict(state)),
          data=ocp.args.JsonSave(data_state),
        ),
      )

  def begin(self, state: TrainState) -> None:
    """Store what no checkpoint of a run will hold, before its first one.

    What is there is of a run that never came to a checkpoint.

    Raises:
      RunError: If it cannot be written.
    """
    if BASE not in state.frozen:
      return
    place = self._frozen_place
    processes.once(lambda: shutil.rmtree(place, ignore_errors=True))
    with contextlib.closing(Checkpoints(place)) as checkpoints:
      checkpoints.save(0, _frozen_alone(state), None)

  @property
  def _frozen_place(self) -> pathlib.Path:
    return self.folder.parent / "frozen"

  def _with_frozen(self, state: TrainState, template: TrainState) -> TrainState:
    """Add what `begin` has stored."""
    if BASE not in template.frozen:
      return state
    place, found = self._frozen_place, None
    if place.is_dir():
      with contextlib.closing(Checkpoints(place, read_only=True)) as stored:
        found = stored.restore(_frozen_alone(template), partial=True)
    if found is None:
      raise RunError(
        f"{place} is gone, which holds the weights that the adapter in "
        f"{self.folder} changes: restore it from a copy"
      )
    return dataclasses.replace(state, frozen=found[0].params)

  def _look_at_draft(self) -> None:
    """Open all arrays of the step that has been written; list its sums."""
    drafts = self._place.glob("*.orbax-checkpoint-tmp*")
    draft = max(drafts, key=lambda path: path.stat().st_mtime)
    _open(draft)
    files = [path for path in draft.glob("*/**/*") if path.is_file()]
    list_sums(draft, {str(path.relative_to(draft)): path for path in files})

  def wait(self) -> None:
    """Wait until everything is written; raise RunError if it cannot be."""
    with self._writing():
      self._manager.wait_until_finished()

  @contextlib.contextmanager
  def _writing(self) -> Iterator[None]:
    """Turn errors of Orbax about writing into one line."""
    try:
      yield
    except Exception as error:  # It depends on the layer that was writing.
      saved = saved_steps(self.folder)
      last = f"{self.folder}/{saved[-1]}" if saved else "none"
      raise RunError(
        f"a checkpoint in {self.folder} cannot be written ({_reason(error)}); "
        f"the last good one: {last}; make room or the folder writable, and the "
        "same command goes on from there"
      ) from error

  def close(self) -> None:
    """Wait, then release the folder; raise RunError as `wait` does."""
    with self._names, self._writing():
      self._manager.close()

  def restore(
    self,
    template: TrainState,
    step: int | None = None,
    *,
    partial: bool = False,
  ) -> tuple[TrainState, Any] | None:
    """Restore the latest readable step, or a given one.

    Args:
      template: A state of `jax.ShapeDtypeStruct` with the shardings wanted.
      step: The step; default: the latest.
      partial: Whether the template holds a part of the state; nothing else
        is read.

    Returns:
      The state and the data position, or None if nothing is saved.

    Raises:
      UsageError: If the step does not exist, or its arrays are not those of
        the template (another architecture or method).
      RunError: If no saved step can be read.
    """
    # All must try the same steps, whatever a disk tells each of them.
    saved = processes.of_main(self.steps())
    if step is not None and step not in saved:
      raise UsageError(
        f"step={step} is not in {self.folder}: give one of {saved}"
      )
    damaged: list[int] = []
    for candidate in [step] if step is not None else reversed(saved):
      restored = self._try(template, candidate, partial)
      # A process may read only what its devices hold, and the damage may be
      # elsewhere: all must go on from one step.
      if processes.everywhere(restored is not None) and restored:
        self._set_aside(damaged)
        if damaged:
          _LOGGER.warning("step %d of %s is taken", candidate, self.folder)
        state, position = restored
        return self._with_frozen(state, template), position
      damaged.append(candidate)
      del restored
    if step is not None:
      others = [s for s in saved if s != step]
      raise RunError(
        f"step={step}: this checkpoint in {self.folder} cannot be read: "
        f"give another, of {others or 'none'}"
      )
    if saved:
      raise RunError(
        f"no checkpoint in {self.folder} can be read, tried {damaged}: restore "
        "one from a copy, or train in another workdir"
      )
    return None

  def _try(
    self, template: TrainState, step: int, partial: bool
  ) -> tuple[TrainState, Any] | None:
    """Restore a step, or warn and return None where it is damaged."""
    try:
      folder = self._place / str(step)
      if processes.is_main():
        _check_sums(folder)
      self._check(_open(folder), template, step, partial)
      return self._restore(template, step, partial)
    except UsageError:
      raise
    except (MemoryError, PermissionError, TimeoutError):
      raise  # The checkpoint is good, the machine is not.
    except Exception as error:  # Orbax raises whatever the damage causes.
      if any(sign in str(error) for sign in _MACHINE):
        raise
      _LOGGER.warning(
        "checkpoint %s/%d cannot be read (%s)",
        self.folder,
        step,
        _reason(error) or type(error).__name__,
      )
      return None

  def _set_aside(self, damaged: list[int]) -> None:
    """Rename steps that cannot be read, so that they can be saved again."""
    if self._read_only or not damaged:
      return

    def rename():
      for step in damaged:
        set_aside(self.folder / str(step))

    processes.once(rename)
    self._manager.reload()

  def _restore(self, template, step, partial):
    folder, wanted = self._place / str(step), _as_dict(template)
    # The manager would wait for the other processes where this one has failed.
    restored = ocp.PyTreeCheckpointHandler().restore(
      epath.Path(folder / "state"),
      args=ocp.args.PyTreeRestore(
        wanted,
        restore_args=ocp.checkpoint_utils.construct_restore_args(wanted),
        partial_restore=partial,
      ),
    )
    position = ocp.JsonCheckpointHandler().restore(epath.Path(folder / "data"))
    return _with_arrays(template, restored), position

  def _check(
    self, metadata: PyTree, template: TrainState, step: int, partial: bool
  ) -> None:
    saved = _shapes(getattr(metadata, "tree", metadata))
    wanted = _shapes(_as_dict(template))
    differing = [
      f"{name} is {saved.get(name, 'absent')} there, "
      f"{wanted.get(name, 'absent')} here"
      for name in sorted(wanted if partial else {*saved, *wanted})
      if saved.get(name) != wanted.get(name)
    ]
    if differing:
      raise UsageError(
        f"checkpoint {self.folder}/{step} is of another network or method: "
        f"{len(differing)} arrays differ: {'; '.join(differing[:_LISTED])}"
        f"{'; ...' if len(differing) > _LISTED else ''}; use the config it was "
        "trained with, or another workdir"
      )


def _open(folder: pathlib.Path) -> PyTree:
  """Open all arrays of a step; return their shapes and types."""
  return ocp.PyTreeCheckpointHandler().metadata(epath.Path(folder / "state"))


class NoCheckpoints:
  """Checkpoints of a run that is kept in memory: there are none."""

  folder = None

  def steps(self) -> list[int]:
    """Return no steps."""
    return []

  def save(self, step: int, state: TrainState, position: Any) -> None:
    """Save nothing."""

  def restore(self, template: TrainState) -> None:
    """Find nothing."""

  def begin(self, state: TrainState) -> None:
    """Save nothing."""

  def wait(self) -> None:
    """Do nothing."""

  close = wait


def _reason(error: Exception) -> str:
  """Return the reason of an error of Orbax, in one line."""
  text = str(error)
  first = text.split("\n")[0].split(". See full TensorStore details")[0]
  known = (os.strerror(n) for n in (errno.ENOSPC, errno.EDQUOT, errno.EACCES))
  return next((k for k in known if k in text), first[:200])


def saved_steps(folder: pathlib.Path) -> list[int]:
  """Return the steps of a folder that are written to their end, ascending."""
  return sorted(ocp.utils.checkpoint_steps(folder)) if folder.is_dir() else []


def _check_sums(folder: pathlib.Path) -> None:
  """Raise ValueError if a file of a step differs from the list of sums."""
  try:
    changed = changed_file(folder)
  except UsageError as error:  # The list itself is damaged.
    raise ValueError(str(error)) from error
  if changed:
    raise ValueError(f"{changed} differs from {SUMS}")


@functools.cache
def _drop_tracebacks() -> None:
  """Drop the tracebacks of what Orbax raises as well, from here on.

  It logs what it fails to write. Where it cannot read or write one array of a
  step, it gives up its event loop, and each of the other arrays prints that it
  is closed, or why it failed as well, some of them much later.
  """
  report = sys.unraisablehook

  def report_others(error):
    abandoned = "Event loop is closed", "Encountered error while reading array"
    if error.object or not str(error.exc_value).startswith(abandoned):
      report(error)

  sys.unraisablehook = report_others
  logging.getLogger("absl").addFilter(
    lambda record: not (record.exc_info and "orbax" in record.pathname)
  )
  logging.getLogger("asyncio").addFilter(
    lambda record: (
      not (
        "never retrieved" in record.getMessage()
        and "orbax" in record.getMessage()
      )
    )
  )


def _as_dict(state: TrainState) -> dict[str, Any]:
  """Return the fields that hold arrays: not all runs have other networks."""
  fields = {
    f.name: getattr(state, f.name) for f in dataclasses.fields(TrainState)
  }
  if BASE in state.frozen:
    del fields["frozen"]
  del fields["companions"]
  for name, own in state.companions.items():
    fields[_STORED.get(name, name)] = own
  return {k: v for k, v in fields.items() if jax.tree.leaves(v)}


def _with_arrays(template: TrainState, found: dict[str, Any]) -> TrainState:
  """Return a state with the arrays that `_as_dict` named."""
  found = dict(found)
  companions = {
    name: found.pop(_STORED.get(name, name), own)
    for name, own in template.companions.items()
  }
  return dataclasses.replace(template, **found, companions=companions)


def _frozen_alone(state: TrainState) -> TrainState:
  """Return a state that has the frozen parameters, and none of its own."""
  return dataclasses.replace(
    state,
    params=state.frozen,
    opt_state=(),
    ema={},
    loss_params={},
    memory={},
    companions={},
    frozen={},
  )


def _shapes(tree: PyTree) -> dict[str, tuple[int, ...]]:
  """Return the shape of every array by its path."""
  return {
    jax.tree_util.keystr(path, simple=True, separator="/"): tuple(leaf.shape)
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    if hasattr(leaf, "shape")
  }
