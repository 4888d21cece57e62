"""One-step emoji: a folder of 3,781 real pictures, and a model of them.

Unpacks the pictures of the npm package emoji-datasource-google 16.0.0 (Noto
Emoji, Apache-2.0) into folders by split and category, trains MeanFlow on them,
and writes a grid of one-step samples.
"""

import argparse
import hashlib
import io
import json
import pathlib
import tarfile
import tempfile
import time

import numpy as np
from absl import logging
from PIL import Image

import jaxflow
from jaxflow.config import Config, update
from jaxflow.files import replace_file

SETTINGS = {
  "size": 24,
  "model": {"depth": 3, "width": 128, "num_heads": 4, "patch_size": 4},
  "optimizer": {"learning_rate": 2e-3, "b2": 0.99},
  "times": {"law": {"name": "uniform"}},
  "loss": {"norm_power": 0.5},
  "train": {"steps": 2000, "batch_size": 32, "sample_every": 0},
  # What the short form changes.
  "quick": {
    "model": {"depth": 1, "width": 16, "num_heads": 2},
    "optimizer": {"warmup_steps": 0},
    "train": {"steps": 2, "batch_size": 8},
  },
  "columns": 16,
}
# A tenth of the emoji, with their skin tones, is held out.
_TEST_SHARE = 0.1
_IMAGES = "package/img/google/64"


def main() -> None:
  """Run the example."""
  parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  parser.add_argument(
    "--package",
    type=pathlib.Path,
    default="emoji-datasource-google-16.0.0.tgz",
    help="what `npm pack emoji-datasource-google@16.0.0` writes",
  )
  parser.add_argument("--workdir", type=pathlib.Path, default="runs/emoji")
  parser.add_argument(
    "--quick", action="store_true", help="two steps, on pictures drawn here"
  )
  arguments = parser.parse_args()
  logging.set_verbosity(logging.ERROR)
  if arguments.quick:
    with tempfile.TemporaryDirectory() as folder:
      package = pathlib.Path(folder, "package.tgz")
      draw_package(package)
      emoji(package, pathlib.Path(folder), quick=True)
    return
  emoji(arguments.package, arguments.workdir, quick=False)


def emoji(package: pathlib.Path, workdir: pathlib.Path, *, quick: bool) -> None:
  """Unpack, train and sample."""
  pictures = workdir / "pictures"
  if not pictures.exists():
    count = unpack(package, pictures)
    print(f"{count:,} pictures in {pictures}", flush=True)
  began = time.perf_counter()
  run = jaxflow.train(config_of(pictures, quick), workdir / "mean_flow")
  print(f"trained in {time.perf_counter() - began:.0f} s")
  if not run.finished:
    return
  classes = run.config.data.class_names
  columns = SETTINGS["columns"]
  labels = np.repeat(classes, columns)
  samples = run.sample(len(labels), labels=labels, nfe=1)
  picture = workdir / "one_step.png"
  save_rows(samples, columns, picture)
  print(f"rows are {', '.join(classes)}: {picture}")


def save_rows(samples: np.ndarray, columns: int, path: pathlib.Path) -> None:
  """Write images [N, H, W, 3] in [-1, 1] as a grid, row by row."""
  _, height, width, channels = samples.shape
  grid = samples.reshape(-1, columns, height, width, channels)
  grid = grid.transpose(0, 2, 1, 3, 4).reshape(-1, columns * width, channels)
  pixels = np.rint((grid + 1) * 127.5).clip(0, 255).astype(np.uint8)
  replace_file(path, lambda x: Image.fromarray(pixels).save(x, "PNG"))


def config_of(pictures: pathlib.Path, quick: bool) -> Config:
  """Return the config: that of configs/images.py with a small network."""
  config = jaxflow.preset("images:mean_flow")
  config.data.update(dir=str(pictures), size=SETTINGS["size"])
  names = ("model", "optimizer", "times", "loss", "train")
  update(config, {name: SETTINGS[name] for name in names})
  if quick:
    update(config, SETTINGS["quick"])
  return config


def unpack(package: pathlib.Path, folder: pathlib.Path) -> int:
  """Write the pictures of a package to split/category/name.png; count them.

  An emoji and its skin tones are nearly one picture, so they share a split.
  """
  count = 0
  with tarfile.open(package) as archive:

    def read(name: str) -> bytes:
      file = archive.extractfile(name)
      assert file is not None
      return file.read()

    for entry in json.loads(read("package/emoji.json")):
      if entry["category"] == "Component":  # Tones alone, five of them.
        continue
      category = entry["category"].split()[0].lower()
      digest = hashlib.sha256(entry["unified"].encode()).digest()[:8]
      held_out = int.from_bytes(digest, "big") < _TEST_SHARE * 2**64
      place = folder / ("test" if held_out else "train") / category
      for form in (entry, *entry.get("skin_variations", {}).values()):
        if form["has_img_google"]:
          picture = read(f"{_IMAGES}/{form['image']}")
          replace_file(
            place / form["image"], lambda x, data=picture: x.write_bytes(data)
          )
          count += 1
  return count


def draw_package(path: pathlib.Path) -> None:
  """Write a package of the same form with discs in place of emoji."""
  entries, files = [], {}
  for number in range(24):
    name = f"{number:04x}.png"
    entries.append(
      {
        "unified": f"{number:04X}",
        "category": ("Animals & Nature", "Flags", "Symbols")[number % 3],
        "image": name,
        "has_img_google": True,
      }
    )
    y, x = np.mgrid[-1:1:64j, -1:1:64j]
    disc = (x**2 + y**2 < 0.2 + number / 48)[..., None]
    pixels = disc * np.array([10 * number, 200, 90, 255])
    file = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(file, "PNG")
    files[f"{_IMAGES}/{name}"] = file.getvalue()
  files["package/emoji.json"] = json.dumps(entries).encode()
  with tarfile.open(path, "w:gz") as archive:
    for name, data in files.items():
      info = tarfile.TarInfo(name)
      info.size = len(data)
      archive.addfile(info, io.BytesIO(data))


if __name__ == "__main__":
  main()
