"""Pictures of images that a run draws.

Each function takes the samples and a file, writes the picture and returns its
caption; it raises UsageError where the picture must be left out.
"""

import pathlib

import numpy as np

from jaxflow import figures, metrics, reports
from jaxflow.errors import UsageError
from jaxflow.reports.gallery_samples import GallerySamples, noise_sampler

__all__ = ["IMAGE_PICTURES"]

_COLUMNS = 10
_ARCS = 6
_POINTS = 9
# Calls of a teacher beside its student, the first that its solver can make.
_TEACHER_NFE = (16, 8, 4, 2, 1)


def _save_arcs(given: GallerySamples, file: pathlib.Path) -> str:
  """Follow arcs in noise; the class of a row is that of its first end."""
  count = min(_ARCS, len(given.noise) // 2)
  noise, labels = given.inputs(2 * count)
  arcs = reports.slerp(noise[:count], noise[count:], num=_POINTS)
  flat = arcs.reshape(-1, *noise.shape[1:]).astype(np.float32)
  classes = [] if labels is None else labels[:count]
  of_rows = None if labels is None else np.repeat(classes, _POINTS)
  images = given.picture(given.draw(flat, of_rows))
  figures.save_matrix(
    images.reshape(count, _POINTS, *images.shape[1:]),
    file,
    columns=[f"{share:.2f}" for share in np.linspace(0, 1, _POINTS)],
    rows=[f"class {x}" for x in classes],
    title="share of the way along an arc between two draws of noise",
  )
  return "Each row follows an arc between two draws of noise."


def _save_teacher(given: GallerySamples, file: pathlib.Path) -> str:
  """Set samples of student and teacher from the same noise side by side."""
  teacher = given.teacher
  if teacher is None:
    raise UsageError("the run has no teacher")
  calls = next((n for n in _TEACHER_NFE if teacher.allows(n)), None)
  if calls is None:
    raise UsageError(
      f"the teacher's sampler makes none of {_TEACHER_NFE} calls"
    )
  noise, labels = given.inputs(2 * _COLUMNS)
  mine = given.samples[: len(noise)]
  its = noise_sampler(teacher, calls, given.mesh)(noise, labels)
  images = np.stack([given.picture(mine), given.picture(its)])
  width = min(_COLUMNS, len(noise))
  blocks = [
    images[:, first : first + width]
    for first in range(0, len(noise) // width * width, width)
  ]
  names = [f"student, NFE {given.nfe}", f"teacher, NFE {calls}"]
  figures.save_matrix(np.concatenate(blocks), file, rows=names * len(blocks))
  difference = np.sqrt(np.mean((mine - its) ** 2))
  return (
    f"Teacher's solver: {teacher.plan.sample.solver}. Root mean square "
    f"difference of {len(mine)} samples: {difference:.4f}."
  )


def _save_neighbours(given: GallerySamples, file: pathlib.Path) -> str:
  """Set the nearest training samples under each sample."""
  train, _ = given.real
  samples = given.samples[:_COLUMNS]
  index, distance = metrics.nearest_neighbours(
    samples, train, k=min(3, len(train))
  )
  names = ["nearest", "second", "third"][: index.shape[1]]
  shown = [given.picture(x) for x in (samples, *(train[i] for i in index.T))]
  figures.save_matrix(
    np.stack(shown),
    file,
    rows=["sample", *names],
    captions=[
      [""] * len(samples),
      *([f"{x:.2f}" for x in row] for row in distance.T),
    ],
  )
  return (
    "Under each its distance to the sample, L2 of all values. "
    + given.memorisation()
  )


IMAGE_PICTURES = {
  "Interpolation in noise": _save_arcs,
  "Student and teacher, from the same noise": _save_teacher,
  "Nearest training samples": _save_neighbours,
}
"""Functions that write pictures of images, by title."""
