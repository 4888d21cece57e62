"""Pictures of a run: its samples and their nearest training samples."""

import functools
import pathlib
from collections.abc import Callable

import jax

from jaxflow import figures
from jaxflow.errors import UsageError
from jaxflow.reports.gallery_samples import GallerySamples
from jaxflow.reports.image_gallery import IMAGE_PICTURES
from jaxflow.reports.plane_gallery import PLANE_PICTURES
from jaxflow.reports.sampled_runs import SampledRun

__all__ = ["SavePicture", "gallery"]

# Writes a picture to a file and returns its caption; raises UsageError where
# the picture must be left out.
SavePicture = Callable[[pathlib.Path], str]

# Numbers of samples that are compared with data.
_IMAGES = 300
_POINTS = 5000


def gallery(
  workdir: pathlib.Path,
  source: SampledRun,
  mesh: jax.sharding.Mesh,
  *,
  nfe: int,
  num: int | None = None,
) -> dict[str, SavePicture]:
  """Draw samples of a run and return pictures of them, by title.

  Args:
    workdir: The run's folder.
    source: The run, with its teacher's parameters if it has a teacher.
    mesh: The devices.
    nfe: Network calls per sample.
    num: Number of samples that are compared with data; default: 300 images,
      5000 points.
  """
  found: dict[str, SavePicture] = {
    "Samples during training, from the same noise": functools.partial(
      _save_training, workdir
    )
  }
  shape = source.plan.model.shape
  if len(shape) == 3:
    count, pictures = num or _IMAGES, IMAGE_PICTURES
  elif shape == (2,):
    count, pictures = num or _POINTS, PLANE_PICTURES
  else:
    return found | {"Samples": functools.partial(_refuse, shape)}
  samples = GallerySamples.of(source, mesh, nfe=nfe, num=count)
  return found | {
    title: functools.partial(save, samples) for title, save in pictures.items()
  }


def _save_training(workdir: pathlib.Path, file: pathlib.Path) -> str:
  """Set the pictures of training side by side."""
  files = sorted((workdir / "samples").glob("[0-9]*.png"))
  if not files:
    raise UsageError("the run wrote no pictures; set train.sample_every")
  figures.save_strip(files, file, names=[f"step {int(x.stem)}" for x in files])
  return ""


def _refuse(shape: tuple[int, ...], file: pathlib.Path) -> str:
  """Raise UsageError: samples of this shape cannot be shown."""
  raise UsageError(
    f"samples of shape {shape} are neither images nor points in the plane"
  )
