"""Scalars for TensorBoard."""

import pathlib
from collections.abc import Mapping

from tensorboardX import SummaryWriter


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
    self._prefix = prefix
    self._writer = SummaryWriter(
      str(workdir / "tensorboard"), purge_step=start + 1
    )

  def on_log(self, step: int, scalars: Mapping[str, float]) -> None:
    """Write the scalars of a step."""
    for name, value in scalars.items():
      self._writer.add_scalar(self._prefix + name, value, step)
    self._writer.flush()

  def close(self) -> None:
    """Flush and close the files."""
    self._writer.close()
