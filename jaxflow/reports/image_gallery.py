"""Pictures of a run that draws images."""

from collections.abc import Iterator

import numpy as np

from jaxflow import figures, metrics, reports
from jaxflow.errors import UsageError
from jaxflow.reports.gallery_data import Picture, Subject, from_noise
from jaxflow.runs import decoding

_COLUMNS = 10
_ARCS = 6
_POINTS = 9
# Calls of a teacher beside its student, the first that its solver can make.
_TEACHER_NFE = (16, 8, 4, 2, 1)


def image_gallery(subject: Subject) -> Iterator[Picture]:
  """Write pictures of images.

  Args:
    subject: The run and samples of it, images or latents.

  Yields:
    One picture after the other, or the reason why it is left out.
  """
  picture = decoding.make_picture(subject.run.run.model.config)
  yield _arcs(subject, picture)
  yield _pairs(subject, picture)
  yield _neighbours(subject, picture)


def _arcs(subject: Subject, picture: decoding.Picture) -> Picture:
  """Follow arcs in noise; the class of a row is that of its first end."""
  count = min(_ARCS, len(subject.noise) // 2)
  noise, labels = subject.first(2 * count)
  arcs = reports.slerp(noise[:count], noise[count:], num=_POINTS)
  flat = arcs.reshape(-1, *noise.shape[1:]).astype(np.float32)
  classes = [] if labels is None else labels[:count]
  of_rows = None if labels is None else np.repeat(classes, _POINTS)
  images = picture(subject.draw(flat, of_rows))
  file = subject.folder / "interpolation.png"
  figures.save_matrix(
    images.reshape(count, _POINTS, *images.shape[1:]),
    file,
    columns=[f"{share:.2f}" for share in np.linspace(0, 1, _POINTS)],
    rows=[f"class {x}" for x in classes],
    title="share of the way along an arc between two draws of noise",
  )
  return Picture(
    title="Interpolation in noise",
    text="Each row follows an arc between two draws of noise.",
    file=file,
  )


def _pairs(subject: Subject, picture: decoding.Picture) -> Picture:
  title = "Student and teacher, from the same noise"
  teacher = subject.teacher
  if teacher is None:
    return Picture(title=title, text="left out: the run has no teacher")
  calls = next((n for n in _TEACHER_NFE if teacher.allows(n)), None)
  if calls is None:
    return Picture(
      title=title,
      text=f"left out: the teacher's sampler makes none of {_TEACHER_NFE} "
      "calls",
    )
  noise, labels = subject.first(2 * _COLUMNS)
  mine = subject.samples[: len(noise)]
  its = from_noise(teacher, calls, subject.mesh)(noise, labels)
  images = np.stack([picture(mine), picture(its)])
  width = min(_COLUMNS, len(noise))
  blocks = [
    images[:, first : first + width]
    for first in range(0, len(noise) // width * width, width)
  ]
  file = subject.folder / "teacher.png"
  names = [f"student, NFE {subject.nfe}", f"teacher, NFE {calls}"]
  figures.save_matrix(np.concatenate(blocks), file, rows=names * len(blocks))
  difference = np.sqrt(np.mean((mine - its) ** 2))
  return Picture(
    title=title,
    text=f"Teacher's solver: {teacher.solver}. Root mean square difference of "
    f"{len(mine)} samples: {difference:.4f}.",
    file=file,
  )


def _neighbours(subject: Subject, picture: decoding.Picture) -> Picture:
  title = "Nearest training samples"
  try:
    train, _ = subject.real
  except UsageError as error:
    return Picture(title=title, text=f"left out: {error}")
  samples = subject.samples[:_COLUMNS]
  index, distance = metrics.nearest_neighbours(
    samples, train, k=min(3, len(train))
  )
  names = ["nearest", "second", "third"][: index.shape[1]]
  file = subject.folder / "nearest.png"
  figures.save_matrix(
    np.stack([picture(samples), *(picture(train[i]) for i in index.T)]),
    file,
    rows=["sample", *names],
    captions=[
      [""] * len(samples),
      *([f"{x:.2f}" for x in row] for row in distance.T),
    ],
  )
  return Picture(
    title=title,
    text="Under each its distance to the sample, L2 of all values. "
    + subject.memorised(),
    file=file,
  )
