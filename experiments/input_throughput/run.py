"""Whether the input keeps up with training, on three kinds of data.

Samples per second of the input alone (reading, decoding, batching, transfer to
the devices) beside those that one training step of flow matching on a DiT-S/2
takes, in the same run, on synthetic data: values do not change the time.

  python experiments/input_throughput/run.py          # minutes, writes results
  python experiments/input_throughput/run.py --quick  # one block, prints only
"""

import argparse
import contextlib
import dataclasses
import io
import json
import os
import pathlib
import platform
import sys
import tempfile
import time
from collections.abc import Callable

import jax
import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

import jaxflow
from jaxflow import data
from jaxflow.config import default_config
from jaxflow.data.loading import reading_threads
from jaxflow.models.dit import SIZES
from jaxflow.parallel import sharding

RESULTS = pathlib.Path(__file__).parent / "results"
GOAL = 3.0
CLASSES = 10
PATCH = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
  """How much to measure.

  Attributes:
    depth: Blocks of the network; DiT-S has 12.
    batch_size: Samples a step.
    samples: Samples of each data set.
    steps: Training steps that are timed.
    seconds: How long the input alone is timed.
  """

  depth: int
  batch_size: int
  samples: int
  steps: int
  seconds: float


FULL = Options(depth=12, batch_size=16, samples=8192, steps=3, seconds=5.0)
# A network of one block is hungrier, so its goal is no easier.
QUICK = Options(depth=1, batch_size=4, samples=256, steps=2, seconds=0.3)


class NoisePictures(tfds.core.GeneratorBasedBuilder):
  """PNG files of noise, which compresses worse than photos do."""

  VERSION = tfds.core.Version("1.0.0")
  SAMPLES = FULL.samples

  def _info(self) -> tfds.core.DatasetInfo:
    features = {
      "image": tfds.features.Image(shape=(32, 32, 3)),
      "label": tfds.features.ClassLabel(num_classes=CLASSES),
    }
    return tfds.core.DatasetInfo(
      builder=self,
      features=tfds.features.FeaturesDict(features),
      disable_shuffling=True,
    )

  def _split_generators(self, dl_manager):
    del dl_manager  # Nothing is downloaded.
    return {"train": self._generate_examples(self.SAMPLES)}

  def _generate_examples(self, num):
    generator = np.random.default_rng(0)
    for i in range(num):
      file = io.BytesIO()
      pixels = generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)
      Image.fromarray(pixels).save(file, "PNG")
      file.seek(0)
      yield i, {"image": file, "label": i % CLASSES}


@dataclasses.dataclass(frozen=True)
class Mapped:
  """A source in files that are mapped into memory, as latents are kept.

  Attributes:
    data: Samples [N, ...], float32.
    label: Classes [N], int32.
  """

  data: np.ndarray
  label: np.ndarray
  name: str = "mapped"
  split: str = "train"
  num_classes: int = CLASSES

  @property
  def shape(self) -> tuple[int, ...]:
    """Shape of one sample."""
    return self.data.shape[1:]

  def __len__(self) -> int:
    """Return the number of samples."""
    return len(self.data)

  def take(self, index: np.ndarray) -> dict[str, np.ndarray]:
    """Read samples by their index."""
    return {"data": self.data[index], "cond": self.label[index]}


def in_memory(num: int, folder: pathlib.Path) -> data.Source:
  """Return gray 28x28 images in memory, as Fashion-MNIST's."""
  del folder
  generator = np.random.default_rng(0)
  pixels = generator.integers(0, 256, (num, 28, 28, 1), dtype=np.uint8)
  label = np.arange(num) % CLASSES
  return data.from_arrays(pixels / 127.5 - 1, label, num_classes=CLASSES)


def array_record(num: int, folder: pathlib.Path) -> data.Source:
  """Return 32x32 PNG files in array_record, as CIFAR-10's, kept on disk."""
  NoisePictures.SAMPLES = num
  tfds.disable_progress_bar()
  with contextlib.redirect_stdout(io.StringIO()):
    return data.load(
      *("noise_pictures", "train"),
      data_dir=str(folder),
      ram_gib=0,
      download=True,
    )


def memory_mapped(num: int, folder: pathlib.Path) -> data.Source:
  """Return 32x32x4 float32 arrays in a mapped file, as latents."""
  path = folder / "latents.npy"
  generator = np.random.default_rng(0)
  np.save(path, generator.standard_normal((num, 32, 32, 4), np.float32))
  mapped = np.load(path, mmap_mode="r")
  return Mapped(mapped, np.arange(num, dtype=np.int32) % CLASSES)


SOURCES: dict[str, Callable[[int, pathlib.Path], data.Source]] = {
  "28x28x1 in memory": in_memory,
  "32x32x3 PNG in array_record": array_record,
  "32x32x4 float32, memory-mapped": memory_mapped,
}


def input_speed(source: data.Source, options: Options) -> float:
  """Return samples per second of the input alone, on the devices.

  Batches are made as a training run makes them.
  """
  slow = not isinstance(source, data.Dataset)
  batches = data.Batches(
    source,
    batch_size=options.batch_size,
    seed=0,
    stack=(1, 1),
    flip=True,
    threads=reading_threads() if slow else 0,
  )
  where = sharding.batch_sharding(sharding.make_mesh())
  with contextlib.closing(data.Prefetch(batches, where)) as ahead:
    jax.block_until_ready(next(ahead))
    count, began = 0, time.perf_counter()
    while time.perf_counter() - began < options.seconds:
      jax.block_until_ready(next(ahead))
      count += 1
    took = time.perf_counter() - began
  return count * options.batch_size / took


class Laps:
  """Keeps how fast every logged step was, and the share of it that waited."""

  def __init__(self):
    self.speeds: list[float] = []
    self.waits: list[float] = []

  def on_log(self, step: int, scalars: dict[str, float]) -> None:
    """Note a step; the first, which compiles, has no speed."""
    del step
    if "data_wait" in scalars:
      self.speeds.append(scalars["samples_per_second"])
      self.waits.append(scalars["data_wait"])


def training_speed(
  source: data.Source, options: Options
) -> tuple[float, float]:
  """Train on a source.

  Returns:
    Samples per second of the step alone, the median over steps without the wait
    for their batches; and the share of time spent waiting for batches.
  """
  config = default_config("flow_matching", data="given", model="dit")
  config.model.update(**SIZES["S"], patch_size=PATCH)
  config.model.depth = options.depth
  config.data.flip = True
  config.train.update(
    steps=options.steps + 1,
    batch_size=options.batch_size,
    steps_per_dispatch=1,
    log_every=1,
  )
  config.sample.nfe = 1
  laps = Laps()
  jaxflow.train(config, data=source, callbacks=[laps], log=lambda line: None)
  speeds, waits = np.array(laps.speeds), np.array(laps.waits)
  seconds = options.batch_size / speeds
  alone = options.batch_size / np.median(seconds * (1 - waits))
  return float(alone), float((seconds * waits).sum() / seconds.sum())


def measure(options: Options) -> dict:
  """Measure every source; return what the results file holds."""
  rows = []
  for name, make in SOURCES.items():
    with tempfile.TemporaryDirectory() as folder:
      source = make(options.samples, pathlib.Path(folder))
      training, share = training_speed(source, options)
      alone = input_speed(source, options)
    rows.append(
      {
        "data": name,
        "input": round(alone, 1),
        "training": round(training, 2),
        "ratio": round(alone / training, 1),
        "data_wait": round(share, 4),
      }
    )
  return {
    "options": dataclasses.asdict(options),
    "device": jax.devices()[0].device_kind,
    "machine": f"{os.cpu_count()} cores, {platform.machine()}",
    "jax": jax.__version__,
    "goal": GOAL,
    "rows": rows,
  }


def markdown(results: dict) -> str:
  """Format the table."""
  lines = [
    "| data | input, samples/s | training, samples/s | ratio | waiting |",
    "|---|--:|--:|--:|--:|",
  ]
  for row in results["rows"]:
    lines.append(
      f"| {row['data']} | {row['input']:,.0f} | {row['training']:,.1f} |"
      f" {row['ratio']:,.0f} | {row['data_wait']:.2%} |"
    )
  return "\n".join(lines) + "\n"


def main() -> int:
  """Run the experiment; 1 if a goal is missed."""
  parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
  parser.add_argument(
    "--quick", action="store_true", help="a smaller network; write nothing"
  )
  parser.add_argument("--batch_size", type=int, help="samples a step")
  given = parser.parse_args()
  options = QUICK if given.quick else FULL
  if given.batch_size:
    options = dataclasses.replace(options, batch_size=given.batch_size)
  results = measure(options)
  print(markdown(results))
  if not given.quick:
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps(results, indent=2) + "\n"
    (RESULTS / "input_throughput.json").write_text(text)
    (RESULTS / "input_throughput.md").write_text(markdown(results))
  missed = [row for row in results["rows"] if row["ratio"] < GOAL]
  for row in missed:
    print(
      f"goal missed: {row['data']}: {row['ratio']} < {GOAL}", file=sys.stderr
    )
  return 1 if missed else 0


if __name__ == "__main__":
  sys.exit(main())
