"""Pictures of images that a run draws.

Each function takes the samples and a file, writes the picture and returns its
caption; it raises UsageError where the picture must be left out.
"""

import pathlib

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxflow import conditions, figures, metrics
from jaxflow.errors import UsageError
from jaxflow.reports.gallery_samples import GallerySamples, noise_sampler

_COLUMNS = 10
_CLASSES, _LETTERS = 20, 16
_ARCS = 6
_POINTS = 9
# Calls of a teacher beside its student, the first that its solver can make.
_TEACHER_NFE = (16, 8, 4, 2, 1)


def slerp(a: ArrayLike, b: ArrayLike, *, num: int) -> NDArray[np.float64]:
  """Return points `[N, num, ...]` on arcs between two ends, row by row.

  With angle phi between a and b, the point at share u is
  `(sin((1 - u) phi) a + sin(u phi) b) / sin(phi)`; both ends are included. A
  straight line between two draws of noise in many dimensions passes through
  points that are much shorter than any draw; an arc between them does not.

  References:
    Shoemake 1985, Animating rotation with quaternion curves; White 2016
    (arXiv:1609.04468) for the noise of generators.
  """
  first, last = np.asarray(a, np.float64), np.asarray(b, np.float64)
  if first.shape != last.shape or first.ndim < 2:
    raise UsageError(
      f"a has shape {first.shape} and b {last.shape}; give both the same"
    )
  if num < 2:
    raise UsageError(f"num={num}: give at least 2, the two ends")
  x, y = (end.reshape(len(end), 1, -1) for end in (first, last))
  lengths = np.linalg.norm(x, axis=2) * np.linalg.norm(y, axis=2)
  cosine = (x * y).sum(axis=2) / np.maximum(lengths, 1e-300)
  angle = np.arccos(np.clip(cosine, -1, 1))[..., None]
  share = np.linspace(0, 1, num)[None, :, None]
  # Where the ends lie on one line, the arc is that line.
  straight = np.sin(angle) < 1e-9
  scale = np.where(straight, 1, np.sin(angle))
  of_x = np.where(straight, 1 - share, np.sin((1 - share) * angle) / scale)
  of_y = np.where(straight, share, np.sin(share * angle) / scale)
  return (of_x * x + of_y * y).reshape(len(first), num, *first.shape[1:])


def _save_classes(given: GallerySamples, file: pathlib.Path) -> str:
  """Set samples of the first classes in rows."""
  labels, plan = given.labels, given.source.plan
  if labels is None or labels.ndim != 1:
    raise UsageError("the run has no classes")
  there = range(min(plan.model.num_classes, _CLASSES))
  found = [np.flatnonzero(labels == x)[:_COLUMNS] for x in there]
  count = min(map(len, found))
  if not count:
    raise UsageError(f"there are {len(labels)} samples, not one a class")
  names = plan.data.class_names or [f"class {x}" for x in there]
  rows = np.stack([given.samples[x[:count]] for x in found])
  images = given.picture(rows.reshape(-1, *rows.shape[2:]))
  figures.save_matrix(
    images.reshape(len(found), count, *images.shape[1:]),
    file,
    rows=[str(x)[:_LETTERS] for x in names[: len(found)]],
  )
  more = plan.model.num_classes - len(found)
  rest = f" {more} more classes are not shown." if more else ""
  return f"A class a row, {given.nfe} network call(s) a sample.{rest}"


def _save_arcs(given: GallerySamples, file: pathlib.Path) -> str:
  """Follow arcs in noise; the class of a row is that of its first end."""
  count = min(_ARCS, len(given.noise) // 2)
  noise, labels = given.inputs(2 * count)
  arcs = slerp(noise[:count], noise[count:], num=_POINTS)
  flat = arcs.reshape(-1, *noise.shape[1:]).astype(np.float32)
  of_arcs = conditions.rows(labels, slice(count))
  of_rows = conditions.rows(of_arcs, np.repeat(np.arange(count), _POINTS))
  images = given.picture(given.draw(flat, of_rows))
  classes = given.source.plan.model.num_classes
  figures.save_matrix(
    images.reshape(count, _POINTS, *images.shape[1:]),
    file,
    columns=[f"{share:.2f}" for share in np.linspace(0, 1, _POINTS)],
    rows=[f"class {x}" for x in of_arcs] if classes else (),
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
  its = noise_sampler(teacher, calls)(noise, labels)
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
  "Samples by class": _save_classes,
  "Interpolation in noise": _save_arcs,
  "Student and teacher, from the same noise": _save_teacher,
  "Nearest training samples": _save_neighbours,
}
"""Functions that write pictures of images, by title."""
