"""A small convolutional classifier, for data sets that no known network sees.

Trained on the data set itself, its last hidden layer tells its classes apart,
which pixels do not, and its logits say what a sample shows. Its numbers compare
runs on one data set, with one classifier; they are no published score.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

import jax
from flax import nnx

from jaxflow.errors import UsageError, check_range
from jaxflow.models import checks
from jaxflow.models.extractors import Extractor, digest
from jaxflow.models.features import Trunk
from jaxflow.models.layers import rectify
from jaxflow.models.network import init_and_module
from jaxflow.models.preprocessing import PROTOCOLS, prepare
from jaxflow.options import SEED, Count, Natural, Seed
from jaxflow.types import Array, PyTree

_FEATURES = 64
_PROTOCOL = "native"
# Pixels a side at which halving ends.
_SMALLEST = 4


@dataclass(frozen=True, kw_only=True)
class Classifier:
  """A classifier that waits for its training, and the options of `classifier`.

  Attributes:
    init: `init(key) -> params`, a nested dict of float32 arrays.
    apply: `apply(params, images) -> {"features": [B, 64], "classes": [B, K]}`.
  """

  init: Callable[[Array], PyTree]
  apply: Callable[[PyTree, Array], dict[str, Array]]
  data_shape: tuple[int, ...]
  num_classes: int
  file: str | None
  width: int
  train_steps: int
  seed: int

  def extractor(self, data: str, params: PyTree) -> Extractor:
    """Return `<data>_classifier`, of host arrays trained on the data set."""
    return Extractor(
      name=classifier_name(data),
      protocol=_PROTOCOL,
      sha256=digest(params),
      params=params,
      apply=self.apply,
    )


class ConvClassifier(nnx.Module):
  """A trunk, a hidden layer of 64 features, logits."""

  def __init__(
    self,
    *,
    data_shape: tuple[int, ...],
    num_classes: int,
    width: int,
    rngs: nnx.Rngs,
  ):
    side = min(data_shape[:2])
    depth = max(1, int(math.log2(side / _SMALLEST)))
    self.trunk: Trunk = Trunk(
      data_shape=data_shape,
      width=width,
      depth=depth,
      norm="group",
      dtype=jax.numpy.float32,
      rngs=rngs,
    )
    places = math.prod(-(-size // 2**depth) for size in data_shape[:2])
    inputs = places * self.trunk.width
    self.hidden: nnx.Linear = nnx.Linear(inputs, _FEATURES, rngs=rngs)
    self.output: nnx.Linear = nnx.Linear(_FEATURES, num_classes, rngs=rngs)

  def __call__(self, x: Array) -> dict[str, Array]:
    """Return features [B, 64] and logits [B, num_classes]."""
    last = self.trunk(x)[-1]
    features = rectify(self.hidden(last.reshape(len(x), -1)))
    return {"features": features, "classes": self.output(features)}


def classifier(
  *,
  data_shape: tuple[int, ...],
  num_classes: Natural = 0,
  file: str | None = None,
  width: Count = 16,
  train_steps: Count = 1600,
  seed: Seed = 0,
) -> Classifier:
  """Make a classifier, not trained yet, of the data that a run is evaluated on.

  Its seed is its own, so that runs of different seeds meet the same one.

  Args:
    data_shape: Shape of one image, (H, W, C).
    num_classes: Number of classes, 2 or more.
    file: Local path of an .npz file that holds it, or is to hold it, so that
      several runs share one; None keeps it in the workdir.
    width: Channels at full size, doubled at every halving.
    train_steps: Steps of training.
    seed: Seed of its first parameters and of the order of the data.

  Raises:
    UsageError: If the data are no labelled images, or a field is out of range.

  Example:
    >>> network = classifier(data_shape=(8, 8, 1), num_classes=10, width=4)
    >>> params = network.init(jax.random.key(0))
    >>> images = jax.numpy.ones((2, 8, 8, 1))
    >>> seen = network.extractor("digits", params).apply(params, images)
    >>> {name: x.shape for name, x in sorted(seen.items())}
    {'classes': (2, 10), 'features': (2, 64)}
  """
  if len(data_shape) != 3 or min(data_shape[:2]) < 2:
    raise UsageError(
      f"data_shape={tuple(data_shape)}: a classifier sees images (height, "
      "width, channels) of 2 pixels a side or more"
    )
  if num_classes < 2:
    raise UsageError(
      f"num_classes={num_classes}: a classifier needs data with two classes or "
      "more"
    )
  checks.at_least(1, width=width, train_steps=train_steps)
  check_range(SEED, seed=seed)

  init, module = init_and_module(
    lambda rngs: ConvClassifier(
      data_shape=data_shape, num_classes=num_classes, width=width, rngs=rngs
    )
  )
  protocol = PROTOCOLS[_PROTOCOL]
  return Classifier(
    init=init,
    apply=lambda params, images: module(params)(prepare(images, protocol)),
    data_shape=tuple(data_shape),
    num_classes=num_classes,
    file=file,
    width=width,
    train_steps=train_steps,
    seed=seed,
  )


def classifier_name(data: str) -> str:
  """Return the name of the classifier of a data set, in files too.

  Example:
    >>> classifier_name("imagenette/160px")
    'imagenette_160px_classifier'
  """
  return re.sub(r"\W+", "_", data) + "_classifier"
