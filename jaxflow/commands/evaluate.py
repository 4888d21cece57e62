"""Compare a trained run's samples with held-out data."""

import dataclasses
import functools
import json
import math
import pathlib
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from jaxflow import data, evaluation, processes
from jaxflow.commands.sample import class_labels, drawer, streamer
from jaxflow.config import Config
from jaxflow.config.files import load_config
from jaxflow.errors import RunError, UsageError
from jaxflow.runs import Run, load, load_data
from jaxflow.training import sharding
from jaxflow.types import Array

# Training samples read for each held-out one, of sets that stay on disk.
_TRAIN_PER_TEST = 5


def evaluate(
  workdir: pathlib.Path, *, nfe: tuple[int, ...] = ()
) -> list[dict[str, Any]]:
  """Compare a run's samples with held-out data; write `evaluation.json`.

  Args:
    workdir: The run's folder.
    nfe: Network calls per sample, one evaluation each; default: the config's.

  Returns:
    A row for each: `model`, `nfe`, `step`, `samples_per_second` and `scores`
    (name -> Score). The file holds the same, each Score as a mapping.

  Raises:
    UsageError: If an argument is wrong or the workdir holds no run.
    RunError: If samples are not finite, or the file cannot be written.
  """
  config = load_config(workdir, field="--workdir")
  run = Run.of(config)
  size = math.prod(run.model.shape)
  if config.evaluation.frechet_num and size > evaluation.LARGEST:
    raise UsageError(
      f"evaluation.frechet_num={config.evaluation.frechet_num}: samples have "
      f"{size} numbers, more than {evaluation.LARGEST}; set it to 0"
    )
  counts = nfe or tuple(config.evaluation.nfe)
  field = "--nfe" if nfe else "evaluation.nfe"
  mesh = sharding.fitting_mesh(config.mesh)
  draws = {count: drawer(run, count, field, mesh) for count in counts}
  _, state = load(workdir, field="--workdir", mesh=mesh, ema=config.sample.ema)
  reference, real = processes.together(lambda: _real(config))
  mixture = data.toy.ring_mixture() if config.data.name == "ring" else None
  num = min(len(reference), config.evaluation.num)
  labels = class_labels(run.model.num_classes, num, None)
  rows = []
  for count, drawn in draws.items():
    draw = functools.partial(drawn, state)
    try:
      scores = evaluation.evaluate(
        draw,
        reference,
        real,
        draws=config.evaluation.draws,
        seed=config.seed,
        num=config.evaluation.num,
        mixture=mixture,
      )
      if config.evaluation.frechet_num:
        stream = functools.partial(streamer(run, count, field, mesh), state)
        scores["frechet"] = _frechet(stream, config, real, reference)
    except RunError as error:
      raise RunError(
        f"--workdir={workdir}, step {int(state.step)}, nfe={count}: {error}: "
        "training diverged, train again"
      ) from error
    rows.append(
      {
        "model": config.method,
        "nfe": count,
        "step": int(state.step),
        "samples_per_second": _speed(draw, num, labels),
        "scores": scores,
      }
    )
  processes.once(lambda: _write(rows, workdir / "evaluation.json"))
  return rows


def _real(config: Config) -> tuple[data.Dataset, data.Dataset]:
  """Read the held-out data, and training data to set beside it."""
  num = config.evaluation.num
  return (
    data.in_memory(load_data(config, "test"), num, seed=config.seed),
    data.in_memory(
      load_data(config, "train"), _TRAIN_PER_TEST * num, seed=config.seed
    ),
  )


def _frechet(
  stream: Callable[..., Iterator[tuple[Array, int]]],
  config: Config,
  real: data.Dataset,
  reference: data.Dataset,
) -> evaluation.Score:
  """Compare the moments of many samples, which never gather on one host.

  Beside it those of as many training samples, or all there are.
  """
  num = config.evaluation.frechet_num
  labels = class_labels(config.data.num_classes, num, None)
  drawn = evaluation.moments(stream(jax.random.key(config.seed), num, labels))
  size = config.sample.batch_size

  def of(samples):
    parts = (samples[i : i + size] for i in range(0, len(samples), size))
    return evaluation.moments((part, len(part)) for part in parts)

  rows = np.random.default_rng(config.seed).permutation(len(real))[:num]
  expected = of(reference.data)
  found = evaluation.frechet_distance(drawn, expected)
  floor = evaluation.frechet_distance(of(real.data[rows]), expected)
  return evaluation.Score(
    found.value, found.error, floor.value, floor.error, num, len(rows)
  )


def _write(rows: list[dict[str, Any]], path: pathlib.Path) -> None:
  """Write rows as JSON, replacing the file in one step."""
  plain = [
    row
    | {"scores": {k: dataclasses.asdict(v) for k, v in row["scores"].items()}}
    for row in rows
  ]
  part = path.with_suffix(".json.part")
  try:
    part.write_text(json.dumps(plain, indent=2) + "\n")
    part.replace(path)
  except OSError as error:
    raise RunError(
      f"{path} cannot be written ({error.strerror}): make --workdir writable"
    ) from error


def _speed(
  draw: Callable[..., np.ndarray], num: int, labels: np.ndarray | None
) -> float:
  """Measure samples per second, the median of half a second of draws.

  Args:
    draw: The sampler, compiled for `num` samples.
    num: How many samples a draw.
    labels: Their labels `[num]`, or None.
  """
  laps: list[float] = []
  # All processes draw equally often: the main one's clock decides.
  while processes.of_main(sum(laps)) < 0.5:
    start = time.perf_counter()
    draw(jax.random.key(len(laps)), num, labels)
    laps.append(time.perf_counter() - start)
  return num / statistics.median(laps)
