"""From a config to the network that sees images for an evaluation."""

import inspect
import math
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from jaxflow import data
from jaxflow.config import Config, registry
from jaxflow.errors import UsageError
from jaxflow.evaluation.classifiers import trained
from jaxflow.models import Extractor
from jaxflow.parallel import processes
from jaxflow.runs.run import load_data

FIELD = "evaluation.network"

# Images read to train a classifier, and to measure it, of sets on disk.
_MOST_TRAIN, _MOST_TEST = 60_000, 10_000
_MOST_BYTES = 2**31


def make_extractor(
  specification: Mapping[str, Any],
  config: Config,
  cache_folder: pathlib.Path,
  *,
  say: Callable[[str], None] = print,
) -> Extractor | None:
  """Make the network that a config names; a classifier is trained if need be.

  All processes of a job must call it.

  Args:
    specification: The config's `evaluation.network`: `name` and options.
    config: The run's config, resolved.
    cache_folder: Where a trained classifier is kept, `<workdir>/evaluation`.
    say: Takes lines for the user, in the main process.

  Returns:
    The extractor; None for the name "none".

  Raises:
    UsageError: If an option is wrong, a file is not what it should be, or the
      data are no images.
    RunError: If a classifier cannot be written.
  """
  name = specification.get("name")
  maker = registry.choose(
    f"{FIELD}.name", str(name), registry.KINDS["extractor"]
  )
  of_data = "num_classes" in inspect.signature(maker).parameters
  if name != "none":
    _check_images(config, of_data)
  train, context = None, {}
  if of_data:
    train = processes.together(lambda: load_data(config, "train", labels=True))
    context = {"data_shape": train.shape, "num_classes": train.num_classes}
  made = processes.together(
    lambda: registry.make("extractor", specification, field=FIELD, **context)
  )
  if train is None:
    return made
  return trained(
    made,
    config.data.name,
    processes.together(lambda: _read(train, _MOST_TRAIN)),
    lambda: _read(load_data(config, "test", labels=True), _MOST_TEST),
    cache_folder,
    say=say,
  )


def _check_images(config: Config, of_data: bool) -> None:
  """Raise UsageError where there is nothing that a network could see."""
  name, shape = config.data.name, tuple(config.data.shape)
  if len(shape) != 3:
    raise UsageError(
      f"{FIELD}.name: data.name={name!r} has no images but samples of shape "
      f"{shape}; set it to none"
    )
  if of_data and data.latent_space(name, config.data.data_dir) is not None:
    raise UsageError(
      f"{FIELD}.name: a classifier is trained on images, and "
      f"data.name={name!r} has latents; choose another network"
    )


def _read(source: data.Source, most: int) -> data.Dataset:
  """Read a source, or a part of it that memory can hold."""
  fit = _MOST_BYTES // (4 * math.prod(source.shape))
  return data.in_memory(source, max(1, min(most, fit)))
