"""Pictures as evaluators of others read them: an .npz file, or a folder.

A value x in [-1, 1] becomes the byte floor(127.5 x + 128), clipped to 0 to 255:
equation (1) of `models.preprocessing`, by which evaluations here see images
too. It gives every byte b of the data back, from x = b / 127.5 - 1. Gray
pictures become RGB. Pictures are made batch by batch, so memory holds one
batch, however many there are.
"""

import dataclasses
import functools
import pathlib
import reprlib
import zipfile
from collections.abc import Callable, Iterator, Mapping
from concurrent import futures
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from jaxflow import data
from jaxflow.data.folders.shard_folder import ShardFolder
from jaxflow.data.folders.writing import created_and_locked
from jaxflow.errors import NotFiniteError, UsageError, named
from jaxflow.files import replace_file, writing
from jaxflow.models.preprocessing import quantise, rgb
from jaxflow.options import Count
from jaxflow.parallel import processes
from jaxflow.parallel.hashing import parameters_hash
from jaxflow.plans import DataPlan
from jaxflow.runs.decoding import make_picture
from jaxflow.runs.drawing import as_seen, streamer
from jaxflow.runs.run import Run
from jaxflow.training.state import TrainState
from jaxflow.types import PyTree

# Files that are written at once: each waits for the disk.
_WRITERS = 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pictures:
  """N pictures, made when they are written.

  Attributes:
    num: Their number N.
    size: How many are made at once.
    draw: `(first, size) -> images [size, H, W, 1 or 3]` in [-1, 1], from a
      number on; what lies past the end is left out. Every process calls it.
    label: Their classes [N], or numbers [N, K], or None.
    about: What decides them, for JSON; the fields are flags of a command.
    origin: Where they are from, for JSON.
  """

  num: int
  size: int
  draw: Callable[[int, int], np.ndarray]
  label: np.ndarray | None
  about: Mapping[str, Any]
  origin: Mapping[str, Any]

  def batch(self, first: int) -> np.ndarray:
    """Return bytes [n, H, W, 3] of the pictures from a number on."""
    size = min(self.size, self.num)
    images = self.draw(first, size)[: self.num - first]
    return np.asarray(rgb(quantise(jnp.asarray(images)), "a picture"), np.uint8)


def check_pictures(plan: DataPlan, out: pathlib.Path) -> None:
  """Raise UsageError unless samples of a data set are pictures."""
  shape = plan.shape or ()
  decoded = data.latent_space(plan.name, plan.data_dir) is not None
  if not decoded and not (len(shape) == 3 and shape[2] in (1, 3)):
    raise UsageError(
      f"out={out}: samples of shape {shape} are no pictures [H, W, 1 or 3]; "
      "give a file that ends in .npz, and no --uint8"
    )


def write_pictures(
  out: pathlib.Path, pictures: Pictures, log: Callable[[str], None]
) -> None:
  """Write pictures to an .npz file, or one PNG each to a folder.

  The file has `arr_0`, uint8 [N, H, W, 3], and `arr_1`, the labels; it is whole
  or not there. A folder that was begun is gone on with, and one of other
  pictures is refused.
  """
  if out.suffix == ".npz":
    batches = map(pictures.batch, range(0, pictures.num, pictures.size))
    if processes.is_main():
      save = functools.partial(_save_npz, pictures, batches)
      replace_file(out, save)
    else:  # To draw takes all processes.
      for _ in batches:
        pass
    return
  description = {
    **{k: pictures.about[k] for k in sorted(pictures.about)},
    "num": pictures.num,
    "label": None if pictures.label is None else pictures.label.tolist(),
    "from": dict(pictures.origin),
  }
  create = functools.partial(PictureFolder.create, out, description)
  with named(folder="out"), created_and_locked(out, create):
    _fill(PictureFolder(out, description), pictures, log)


def _save_npz(
  pictures: Pictures, batches: Iterator[np.ndarray], draft: pathlib.Path
) -> None:
  """Write an .npz file as it is made, as `numpy.savez` would."""
  first = next(batches)
  header = {
    "descr": "|u1",
    "fortran_order": False,
    "shape": (pictures.num, *first.shape[1:]),
  }
  with zipfile.ZipFile(draft, "w") as archive:
    # Nobody knows before whether it will exceed 2 GiB.
    with archive.open("arr_0.npy", "w", force_zip64=True) as file:
      np.lib.format.write_array_header_1_0(file, header)
      file.write(first.tobytes())
      for batch in batches:
        file.write(batch.tobytes())
    if pictures.label is not None:
      with archive.open("arr_1.npy", "w", force_zip64=True) as file:
        np.lib.format.write_array(file, pictures.label, allow_pickle=False)


class PictureFolder(ShardFolder):
  """A folder of PNG files, 000000.png first, and `samples.json`."""

  FILE: ClassVar[str] = "samples.json"
  COMMAND: ClassVar[str] = "sample"
  FLAGS: ClassVar[tuple[str, ...]] = ("num", "label", "seed", "nfe", "step")
  HOLDS: ClassVar[Mapping[str, Any]] = {"num": Count}
  ARRAYS: ClassVar[tuple[str, ...]] = ()

  @staticmethod
  def identity(description: Mapping[str, Any]) -> dict[str, Any]:
    """Return all that decides the pictures, without where they are from."""
    return {k: v for k, v in description.items() if k != "from"}

  @staticmethod
  def argument(name: str, description: Mapping[str, Any]) -> tuple[str, Any]:
    """Return how the user calls a name of the description, and its value."""
    flag = f"--{name}" if name in PictureFolder.FLAGS else name
    return flag, reprlib.repr(description.get(name))

  def path(self, number: int) -> pathlib.Path:
    """Return the file of a picture."""
    return self.folder / f"{number:06d}.png"


def _fill(
  folder: PictureFolder, pictures: Pictures, log: Callable[[str], None]
) -> None:
  """Write the pictures that are missing."""

  def missing() -> list[int]:
    with writing(folder.folder):
      for draft in folder.folder.glob(".*.png.*.tmp"):
        draft.unlink()
    there = {path.name for path in folder.folder.glob("*.png")}
    numbers = range(pictures.num)
    absent = (i for i in numbers if folder.path(i).name not in there)
    return sorted({i // pictures.size * pictures.size for i in absent})

  left = processes.of_main(missing() if processes.is_main() else None)
  whole = -(-pictures.num // pictures.size)
  if len(left) < whole:
    log(f"{folder.folder}: {len(left)} of {whole} batches are missing")
  for first in left:
    batch = pictures.batch(first)
    processes.once(functools.partial(_save_pngs, folder, first, batch))


def _save_pngs(folder: PictureFolder, first: int, batch: np.ndarray) -> None:
  """Write a batch, each file whole or not at all."""

  def save(number: int) -> None:
    image = Image.fromarray(batch[number])
    path = folder.path(first + number)
    replace_file(path, lambda draft: image.save(draft, format="PNG"))

  with futures.ThreadPoolExecutor(_WRITERS) as pool:
    list(pool.map(save, range(len(batch))))


def pictures_of_run(
  run: Run,
  state: TrainState,
  mesh: jax.sharding.Mesh,
  *,
  num: int,
  conditions: PyTree,
  nfe: int,
  seed: int,
) -> Pictures:
  """Return samples of a run as pictures, the same as `drawer` draws."""
  plan = run.plan
  stream = streamer(run, nfe, mesh)
  seen, key = as_seen(plan, conditions), jax.random.key(seed)
  picture = processes.together(lambda: make_picture(plan.data))
  own = {}
  if plan.declares_condition:
    own["cond"] = parameters_hash(conditions)

  def draw(first: int, size: int) -> np.ndarray:
    _, _, batch = next(stream(state, key, num, seen, first, size))
    samples = processes.gather(batch)
    check_finite(samples, int(state.step))
    return picture(samples)

  return Pictures(
    num=num,
    size=min(plan.sample.batch_size, num),
    draw=draw,
    label=None if plan.declares_condition else conditions,
    about={
      "seed": seed,
      "nfe": nfe,
      "step": int(state.step),
      "ema": plan.sample.ema,
      "sampling": plan.sample.record,
      **own,
      "parameters": parameters_hash(run.select(state, plan.sample.ema)),
    },
    origin={"method": plan.model.name, "data": plan.data.name},
  )


def check_finite(samples: np.ndarray, step: int) -> None:
  """Raise RunError if samples of a step are not finite."""
  if not np.isfinite(samples).all():
    raise NotFiniteError(
      f"samples of step {step} are not finite: training diverged; take an "
      "earlier step, or train again"
    )
