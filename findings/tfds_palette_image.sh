#!/usr/bin/env bash
# tensorflow-datasets 4.9.10 decodes a palette PNG in two ways: without OpenCV to
# the indices of its palette, with OpenCV to its colours.
#
# The set is the same, prepared once with array_record and read through
# `as_data_source`, which needs no TensorFlow. Without OpenCV Pillow opens the
# file, whose mode is P, and the array of indices is repeated in three channels.
# No error and no warning is given, so a model trains on grey pictures.
#
# Seen with tensorflow-datasets 4.9.10, array_record 0.8.6, Pillow 12.0.0 and
# opencv-python-headless 4.12.0.88 on Python 3.11; the pixel is (200, 90, 0):
#   without [0, 0, 0]
#   with [200, 90, 0]
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet tensorflow-datasets==4.9.10 \
  array_record==0.8.6 importlib_resources==7.1.0 pillow==12.0.0
cd "$folder"
cat > read.py <<'PYTHON'
import pathlib
import sys

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

class Colours(tfds.core.GeneratorBasedBuilder):
  VERSION = tfds.core.Version("1.0.0")

  def _info(self):
    feature = tfds.features.Image(shape=(4, 4, 3))
    return tfds.core.DatasetInfo(
      builder=self, features=tfds.features.FeaturesDict({"image": feature}))

  def _split_generators(self, manager):
    return {"train": self._generate_examples()}

  def _generate_examples(self):
    yield 0, {"image": "orange.png"}

if not pathlib.Path("orange.png").exists():
  picture = Image.new("RGB", (4, 4), (200, 90, 0))
  picture.quantize(4).save("orange.png")
builder = Colours(data_dir="data", file_format="array_record")
builder.download_and_prepare()
pixel = builder.as_data_source("train")[0]["image"][0, 0]
print(sys.argv[1], pixel.tolist())
true = np.abs(pixel.astype(int) - (200, 90, 0)).max() <= 2
assert true == (sys.argv[1] == "with"), "palettes are decoded in another way now"
PYTHON
"$folder/venv/bin/python" read.py without 2>/dev/null | tail -n 1
"$folder/venv/bin/pip" install --quiet opencv-python-headless==4.12.0.88
"$folder/venv/bin/python" read.py with 2>/dev/null | tail -n 1
