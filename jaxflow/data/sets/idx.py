"""Reader of the IDX files in which MNIST and Fashion-MNIST are published.

A file is a magic number (two zero bytes, 8 for unsigned bytes, the number of
axes), the length of each axis as a big-endian 32-bit integer, and the values.
"""

import gzip
import hashlib
import math
import pathlib
import struct
import zlib

import numpy as np

from jaxflow.errors import UsageError

_PREFIX = {"train": "train", "test": "t10k"}
_IMAGES = "images-idx3-ubyte"
_LABELS = "labels-idx1-ubyte"
_IMAGE_SHAPE = (28, 28)
_NUM_CLASSES = 10
_REMEDY = (
  "apt-get install dataset-fashion-mnist or point data.raw_dir to a folder"
  " with the four IDX files"
)


def read_split(raw_dir: str, split: str) -> tuple[np.ndarray, np.ndarray]:
  """Read images [N, 28, 28, 1] and labels [N] in 0..9, uint8, of one split.

  Raises:
    UsageError: A file is missing, damaged, or does not fit the others.
  """
  image_path = _find(raw_dir, f"{_PREFIX[split]}-{_IMAGES}")
  label_path = _find(raw_dir, f"{_PREFIX[split]}-{_LABELS}")
  images = _read(image_path, rank=3)
  labels = _read(label_path, rank=1)
  if not images.size or images.shape[1:] != _IMAGE_SHAPE:
    raise _error(image_path, f"holds images of shape {images.shape}, not 28x28")
  if len(images) != len(labels):
    raise _error(
      label_path,
      f"has {len(labels)} labels but {image_path.name} {len(images)} images",
    )
  if labels.max() >= _NUM_CLASSES:
    raise _error(label_path, f"has a label {labels.max()} outside 0..9")
  return images[..., None], labels


def fingerprint(raw_dir: str) -> str:
  """Hash the four files, wherever they lie: 16 hexadecimal digits."""
  digest = hashlib.sha256()
  for prefix in _PREFIX.values():
    for kind in (_IMAGES, _LABELS):
      content = _contents(_find(raw_dir, f"{prefix}-{kind}"))
      # Lengths keep the border between two files part of the hash.
      digest.update(len(content).to_bytes(8, "big"))
      digest.update(content)
  return digest.hexdigest()[:16]


def _error(path: pathlib.Path, problem: str) -> UsageError:
  return UsageError(
    f"data.raw_dir={str(path.parent)!r}: {path.name} {problem}; {_REMEDY}"
  )


def _find(raw_dir: str, name: str) -> pathlib.Path:
  folder = pathlib.Path(raw_dir).expanduser()
  for path in (folder / name, folder / f"{name}.gz"):
    if path.is_file():
      return path
  raise _error(folder / f"{name}[.gz]", "is missing")


def _contents(path: pathlib.Path) -> bytes:
  try:
    return path.read_bytes()
  except OSError as error:
    raise _error(path, f"cannot be read ({error.strerror})") from error


def _read(path: pathlib.Path, rank: int) -> np.ndarray:
  content = _contents(path)
  if path.suffix == ".gz":
    try:
      content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
      raise _error(path, f"is truncated or not gzip ({error})") from error
  magic = bytes((0, 0, 8, rank))
  if content[:4] != magic:
    raise _error(
      path, f"starts with {content[:4].hex()!r}, not IDX magic {magic.hex()!r}"
    )
  header = 4 + 4 * rank
  if len(content) < header:
    raise _error(path, f"is truncated: {len(content)} bytes")
  shape = struct.unpack(f">{rank}I", content[4:header])
  expected = header + math.prod(shape)
  if len(content) != expected:
    raise _error(
      path,
      f"is truncated or damaged: {len(content)} bytes where its header"
      f" {shape} asks for {expected}",
    )
  return np.frombuffer(content, np.uint8, offset=header).reshape(shape)
