"""Scalars and samples for Weights & Biases."""

import importlib
import logging
import pathlib
import secrets
import tempfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxflow.errors import UsageError
from jaxflow.files import part_of, write_text
from jaxflow.training.callbacks import Start

_LOGGER = logging.getLogger(__name__)


class WandbLog:
  """Send config, scalars and pictures of samples to Weights & Biases.

  The files of wandb are in `wandb/` of the run's workdir, or of the current
  folder. A run that is resumed in its workdir goes on as the same run of wandb.

  Args:
    project: The project there.
    name: The run's name there; default: that of the workdir.
    mode: "online", "offline" or "disabled"; default: the environment's
      WANDB_MODE, and online without it. `wandb sync` uploads offline runs.

  Raises:
    UsageError: If wandb is not installed.

  Example: `jaxflow.train(config, "runs/x", callbacks=[WandbLog("digits")])`.
  """

  def __init__(
    self, project: str, *, name: str | None = None, mode: str | None = None
  ):
    try:
      wandb: Any = importlib.import_module("wandb")
    except ImportError as error:
      raise UsageError(
        "WandbLog needs the package wandb: pip install "
        '"jaxflow-generative[wandb]"'
      ) from error
    self._wandb = wandb
    self._project, self._name, self._mode = project, name, mode
    self._run: Any = None

  def on_start(self, start: Start) -> None:
    """Start a run, or go on with that of the workdir."""
    folder, name, number = start.workdir, self._name, None
    if folder is not None:
      name = name or folder.name
      number = _number(part_of(folder, "wandb/run_id"), new=not start.step)
    self._run = self._wandb.init(
      project=self._project,
      name=name,
      mode=self._mode,
      config=dict(start.config),
      dir=folder,
      id=number,
      resume="allow" if number else None,
      # It would take the lines of the console apart.
      settings=self._wandb.Settings(console="off"),
    )

  def on_log(self, step: int, scalars: Mapping[str, float]) -> None:
    """Send the scalars of a step."""
    self._run.log(dict(scalars), step=step)

  def on_samples(self, step: int, samples: np.ndarray) -> None:
    """Send a picture of samples."""
    from jaxflow.figures import drawable, optional_picture, save_samples

    if not drawable(samples.shape[1:]):
      return

    with (
      optional_picture(f"step {step}", _LOGGER.warning),
      tempfile.TemporaryDirectory() as folder,
    ):
      path = pathlib.Path(folder, "samples.png")
      save_samples(samples, path)
      self._run.log({"samples": self._wandb.Image(str(path))}, step=step)

  def close(self) -> None:
    """Finish the run of wandb."""
    if self._run is not None:
      self._run.finish()


def _number(path: pathlib.Path, *, new: bool) -> str:
  """Return the id of a run, and keep it in a file of its workdir."""
  if new or not path.exists():
    write_text(path, secrets.token_hex(4))
  return path.read_text().strip()
