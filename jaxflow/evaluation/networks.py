"""The network that sees images for an evaluation."""

import dataclasses
import math
import pathlib
from collections.abc import Callable

from jaxflow import data
from jaxflow.errors import UsageError
from jaxflow.evaluation.classifiers import trained
from jaxflow.models import Extractor
from jaxflow.parallel import processes
from jaxflow.plans import DataPlan, EvaluationPlan
from jaxflow.runs.opening import load_data

# Images read to train a classifier, and to measure it, of sets on disk.
_MOST_TRAIN, _MOST_TEST = 60_000, 10_000
_MOST_BYTES = 2**31


def make_extractor(
  plan: EvaluationPlan,
  data_plan: DataPlan,
  folder: pathlib.Path,
  *,
  log: Callable[[str], None] = print,
) -> Extractor | None:
  """Make the network of an evaluation; a classifier is trained if need be.

  All processes of a job must call it. The name "none" gives None; `folder`
  keeps a trained classifier.
  """
  if plan.network != "none":
    _check_images(plan, data_plan)
  if not plan.trained:
    return processes.together(plan.extractor)
  train = processes.together(lambda: load_data(data_plan, "train", labels=True))
  made = processes.together(
    lambda: plan.extractor(
      data_shape=train.shape, num_classes=train.num_classes
    )
  )
  try:
    return trained(
      made,
      data_plan.name,
      processes.together(lambda: _read(train, _MOST_TRAIN, plan.network)),
      lambda: _read(
        load_data(data_plan, "test", labels=True), _MOST_TEST, plan.network
      ),
      folder,
      log=log,
    )
  except data.NoSplitError as error:
    raise UsageError(
      f"evaluation.network.name={plan.network!r} needs held-out images, and "
      f"{error}; choose another network, or none"
    ) from error


def _check_images(plan: EvaluationPlan, data_plan: DataPlan) -> None:
  """Raise UsageError where there is nothing that a network could see."""
  field, name = "evaluation.network.name", data_plan.name
  if len(data_plan.shape or ()) != 3:
    raise UsageError(
      f"{field}: data.name={name!r} has no images but samples of shape "
      f"{data_plan.shape}; set it to none"
    )
  space = data.latent_space(name, data_plan.data_dir)
  if plan.trained and space is not None:
    raise UsageError(
      f"{field}: a classifier is trained on images, and data.name={name!r} has "
      "latents; choose another network"
    )


def _read(source: data.Source, most: int, network: str) -> data.Dataset:
  """Read a source, or a part of it that memory can hold; classes are known."""
  fit = _MOST_BYTES // (4 * math.prod(source.shape))
  found = data.in_memory(source, max(1, min(most, fit)))
  if found.label is None or (found.label < found.num_classes).all():
    return found
  known = found.label < found.num_classes
  if not known.any():
    raise UsageError(
      f"evaluation.network.name={network!r}: no sample of the {found.split} "
      f"split of data.name={found.name!r} has a label; choose another network"
    )
  return dataclasses.replace(
    found, data=found.data[known], label=found.label[known]
  )
