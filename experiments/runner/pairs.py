"""Pairs of noise and sample, made by networks of several seeds."""

import jax.numpy as jnp
import numpy as np

from experiments.runner.fits import Fits
from jaxflow import data
from jaxflow.commands.pairs import Options, make_draw, solving


def make_pairs(teacher: Fits, options: Options) -> list[data.Dataset]:
  """Solve the teacher's ODE from fresh noise; one set of pairs a seed.

  Classes come in turn; each seed has noise of its own.

  Args:
    teacher: Networks that predict a velocity.
    options: How many pairs, solver, network calls, guidance. Average and grid
      are the teacher's where it names none.
  """
  config = solving(teacher.config, options)
  draw = make_draw(config, options)
  classes = config.data.num_classes
  size = min(options.batch_size, options.num)
  made = []
  for seed, params in zip(
    teacher.seeds, teacher.params(options.ema), strict=True
  ):
    parts = []
    for start in range(0, options.num, size):
      # The last batch is as long as the others: one program draws all.
      number = np.arange(start, start + size, dtype=np.uint32)
      index = jnp.asarray(number + np.uint32(seed) * np.uint32(1 << 24))
      label = (number % classes).astype(np.int32) if classes else None
      noise, samples = draw(params, index, label)
      parts.append((np.asarray(noise), np.asarray(samples), label))
    noise, samples, *labels = (
      None if part[0] is None else np.concatenate(part)[: options.num]
      for part in zip(*parts, strict=True)
    )
    made.append(
      data.Dataset(
        data=samples,
        label=labels[0],
        num_classes=classes,
        name=config.data.name,
        split="train",
        noise=noise,
      )
    )
  return made
