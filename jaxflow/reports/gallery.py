"""Pictures of a run: what it draws, and what that is near to."""

import pathlib
from collections.abc import Iterator

import jax

from jaxflow import figures
from jaxflow.reports.gallery_data import Picture, Subject
from jaxflow.reports.image_gallery import image_gallery
from jaxflow.reports.plane_gallery import plane_gallery
from jaxflow.reports.sampled_runs import Contestant

# How many samples are compared with data.
_IMAGES = 300
_POINTS = 5000


def gallery(
  workdir: pathlib.Path,
  folder: pathlib.Path,
  run: Contestant,
  mesh: jax.sharding.Mesh,
  *,
  nfe: int,
  num: int | None = None,
) -> Iterator[Picture]:
  """Draw samples of a run and write pictures of them.

  Args:
    workdir: The run's folder.
    folder: Where pictures go.
    run: The run, with its teacher's parameters if it has a teacher.
    mesh: The devices.
    nfe: Network calls per sample.
    num: How many samples are compared with data; default: 300 images, 5000
      points.

  Yields:
    One picture after the other, or the reason why it is left out.
  """
  yield _training(workdir, folder)
  shape = run.run.model.shape
  if len(shape) == 3:
    count, pictures_of = num or _IMAGES, image_gallery
  elif shape == (2,):
    count, pictures_of = num or _POINTS, plane_gallery
  else:
    yield Picture(
      title="Samples",
      text=f"left out: samples of shape {shape} are neither images nor points "
      "in the plane",
    )
    return
  yield from pictures_of(
    Subject.of(run, mesh, nfe=nfe, num=count, folder=folder)
  )


def _training(workdir: pathlib.Path, folder: pathlib.Path) -> Picture:
  title = "Samples during training, from the same noise"
  files = sorted((workdir / "samples").glob("[0-9]*.png"))
  if not files:
    return Picture(
      title=title,
      text="left out: the run wrote no pictures; set train.sample_every",
    )
  file = folder / "training.png"
  figures.save_strip(files, file, names=[f"step {int(x.stem)}" for x in files])
  return Picture(title=title, text="", file=file)
