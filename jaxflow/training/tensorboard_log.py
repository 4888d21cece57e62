"""Scalars for TensorBoard."""

import pathlib
import secrets
import time
from collections.abc import Mapping
from typing import Any

from tensorboardX.event_file_writer import EventsWriter

# protobuf makes the classes of these modules when they are imported.
from tensorboardX.proto.event_pb2 import Event, SessionLog  # pyright: ignore
from tensorboardX.proto.summary_pb2 import Summary  # pyright: ignore
from tensorboardX.summary import scalar

from jaxflow.files import writing


class TensorBoardLog:
  """Write scalars of a run in `tensorboard/` of its workdir.

  Args:
    workdir: The run's folder.
    start: Step at which the run starts or resumes; TensorBoard shows nothing
      that an interrupted run wrote beyond it.
    prefix: Of the names of scalars.
  """

  def __init__(
    self, workdir: pathlib.Path, *, start: int = 0, prefix: str = ""
  ):
    self._folder, self._prefix = workdir / "tensorboard", prefix
    with writing(self._folder):
      self._folder.mkdir(parents=True, exist_ok=True)
      # Not SummaryWriter: it waits for ever where its thread cannot write. The
      # name cannot be known before, so no link to a file stands there.
      self._writer = EventsWriter(
        str(self._folder / "events"), f".{secrets.token_hex(8)}"
      )
    begin = SessionLog(status=SessionLog.START)
    self._write(start + 1, session_log=begin)

  def on_log(self, step: int, scalars: Mapping[str, float]) -> None:
    """Write the scalars of a step."""
    values = [
      scalar(self._prefix + name, value).value[0]
      for name, value in scalars.items()
    ]
    self._write(step, summary=Summary(value=values))

  def close(self) -> None:
    """Flush and close the files."""
    with writing(self._folder):
      self._writer.close()

  def _write(self, step: int, **what: Any) -> None:
    event = Event(step=step, wall_time=time.time(), **what)
    with writing(self._folder):
      self._writer.write_event(event)
      self._writer.flush()
