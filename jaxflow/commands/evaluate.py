"""Compare a trained run's samples with held-out data."""

import pathlib
import time
from collections.abc import Callable
from typing import Any

import jax

from jaxflow import data, evaluation
from jaxflow.commands.sample import class_labels, drawer
from jaxflow.runs import load, load_data
from jaxflow.training import sharding
from jaxflow.types import Array


def evaluate(
  workdir: pathlib.Path, *, nfe: tuple[int, ...] = ()
) -> list[dict[str, Any]]:
  """Compare a run's samples with held-out data.

  Args:
    workdir: The run's folder.
    nfe: Network calls per sample, one evaluation each; default: the config's.

  Returns:
    A row for each: `model`, `nfe`, `step`, `scores` (name -> Score) and
    `samples_per_second`.

  Raises:
    UsageError: If an argument is wrong or the workdir holds no run.
    RunError: If samples are not finite.
  """
  run, state = load(workdir, field="--workdir", mesh=sharding.make_mesh())
  config = run.model.config
  counts = nfe or tuple(config.evaluation.nfe)
  for count in counts:
    run.model.num_steps(count)
  reference = load_data(config, "test")
  real = load_data(config, "train")
  mixture = data.toy.ring_mixture() if config.data.name == "ring" else None
  rows = []
  for count in counts:
    draw = drawer(run, state, count)
    scores = evaluation.evaluate(
      draw,
      reference,
      real,
      draws=config.evaluation.draws,
      seed=config.seed,
      num=config.evaluation.num,
      mixture=mixture,
    )
    rows.append(
      {
        "model": config.method,
        "nfe": count,
        "step": int(state.step),
        "samples_per_second": _speed(draw, run.model.num_classes),
        "scores": scores,
      }
    )
  return rows


def _speed(draw: Callable[..., Array], num_classes: int) -> float:
  """Measure samples per second in batches of 256, without compilation."""
  num = 256
  labels = class_labels(num_classes, num, None)
  keys = jax.random.split(jax.random.key(0), 5)
  jax.block_until_ready(draw(keys[0], num, labels))
  start = time.perf_counter()
  for key in keys[1:]:
    jax.block_until_ready(draw(key, num, labels))
  return num * (len(keys) - 1) / (time.perf_counter() - start)
