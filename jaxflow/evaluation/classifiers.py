"""Train the classifier of a data set, or find it trained.

Its file records data, options and seed. A file with other records is never
used, and a file that the user names is never overwritten. Training is a
function of the data and the classifier's own seed. In a job all processes train
alike, and take the main one's result.
"""

import functools
import json
import pathlib
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxflow import data
from jaxflow.errors import UsageError
from jaxflow.files import save_arrays
from jaxflow.models import Classifier, Extractor
from jaxflow.models.classifier import classifier_name
from jaxflow.options import Share
from jaxflow.parallel import processes
from jaxflow.parallel.hashing import parameters_hash
from jaxflow.reading import DAMAGE, checked, read_arrays
from jaxflow.types import Array, PyTree

_SCHEMA = 1
_BATCH = 64
_LEARNING_RATE = 2e-3
_ABOUT = "about"


def trained(
  network: Classifier,
  name: str,
  train: data.Dataset,
  held_out: Callable[[], data.Dataset],
  folder: pathlib.Path,
  *,
  log: Callable[[str], None] = print,
) -> Extractor:
  """Return the extractor `<name>_classifier`, from its file or from training.

  It is trained on labelled images of the data set `name`; `held_out` reads
  others, on which its accuracy is measured. `folder` keeps it if it has no file
  of its own.
  """
  # They decide the parameters.
  wanted = {
    "schema": _SCHEMA,
    "data": name,
    "digest": data.digest([train]),
    "width": network.width,
    "train_steps": network.train_steps,
    "seed": network.seed,
  }
  called = classifier_name(name)
  path = folder / f"{called}.npz"
  if network.file is not None:
    path = pathlib.Path(network.file).expanduser()
  found, note = processes.together(lambda: _read(path, wanted, network))
  if note and processes.is_main():
    log(note)
  kept = processes.everywhere(found is not None)
  if kept and found is not None:
    params, accuracy = found
    said = f"{called} from {path}"
  else:
    test = processes.together(held_out)
    start = time.perf_counter()
    params = fit(network, train)
    accuracy = _accuracy(network, params, test)
    seconds = time.perf_counter() - start
    said = f"{called}, trained {network.train_steps:,} steps in {seconds:.0f} s"
  # Devices of several hosts may round differently.
  params = processes.of_main_arrays(params)
  if processes.is_main():
    log(f"{said}: recognises {100 * accuracy:.1f} % of held-out images")
  if not kept:
    about = wanted | {"accuracy": accuracy}
    processes.once(lambda: _write(path, params, about))
  return network.extractor(name, params)


def fit(network: Classifier, train: data.Dataset) -> PyTree:
  """Return a classifier's parameters, as NumPy arrays, after training."""
  optimizer = optax.adam(
    optax.cosine_decay_schedule(_LEARNING_RATE, network.train_steps)
  )

  def loss(params: PyTree, images: Array, labels: Array) -> Array:
    logits = network.apply(params, images)["classes"]
    return optax.softmax_cross_entropy_with_integer_labels(
      logits, labels
    ).mean()

  # Not lax.scan: on CPUs XLA's convolutions are slow inside of a loop; with
  # jax 0.10.2 a step on digits took 74 ms there and 4 ms here.
  @functools.partial(jax.jit, donate_argnums=0)
  def advance(state, images, labels, index):
    params, moments = state
    gradient = jax.grad(loss)(params, images[index], labels[index])
    update, moments = optimizer.update(gradient, moments, params)
    return optax.apply_updates(params, update), moments

  params = network.init(jax.random.key(network.seed))
  state = params, optimizer.init(params)
  images, labels = jnp.asarray(train.data), jnp.asarray(train.label)
  for index in _batches(len(train), network.train_steps, network.seed):
    state = advance(state, images, labels, index)
  return jax.tree.map(np.asarray, state[0])


def _batches(size: int, steps: int, seed: int) -> np.ndarray:
  """Return which samples are in which batch, [steps, batch], epoch by epoch."""
  batch = min(_BATCH, size)
  generator = np.random.default_rng(seed)
  epochs = -(-steps // (size // batch))
  parts = [
    generator.permutation(size)[: size // batch * batch] for _ in range(epochs)
  ]
  return np.concatenate(parts).reshape(-1, batch)[:steps].astype(np.int32)


def _accuracy(network: Classifier, params: PyTree, test: data.Dataset) -> float:
  """Return the share of images whose class has the largest logit."""
  assert test.label is not None
  apply = jax.jit(lambda p, x: network.apply(p, x)["classes"].argmax(-1))
  size = len(test)
  batch = min(500, size)
  # The last batch is filled up from the start: one program serves all.
  rows = np.resize(np.arange(size), (-(-size // batch), batch))
  seen = [np.asarray(apply(params, test.data[index])) for index in rows]
  return float(np.mean(np.concatenate(seen)[:size] == test.label))


def _read(
  path: pathlib.Path, wanted: dict[str, Any], network: Classifier
) -> tuple[tuple[PyTree, float] | None, str]:
  """Return parameters and accuracy, or None, and a note for the user."""
  if not path.exists():
    return None, ""
  try:
    arrays = read_arrays(path)
    about = checked(json.loads(str(arrays[_ABOUT])), dict, _ABOUT)
    accuracy = checked(about.pop("accuracy"), Share, "accuracy")
    written = about.pop("sha256", None)  # Earlier versions wrote none.
    if about == wanted:
      shapes = jax.eval_shape(network.init, jax.random.key(0))
      params = _parameters(arrays, shapes)
      if written not in (None, parameters_hash(params)):
        raise ValueError("its parameters are not those that were written")
      return (params, accuracy), ""
  except DAMAGE as error:
    reason = " ".join(str(error).split()) or type(error).__name__
    if network.file is not None:  # It may be anything that the user has.
      raise UsageError(
        f"file={network.file} is no classifier ({reason}): give one that "
        "jaxflow wrote, WORKDIR/evaluation/..._classifier.npz, or a new name"
      ) from error
    return None, f"{path} is damaged ({reason}): the classifier is trained anew"
  other = ", ".join(
    f"{k}={about.get(k)!r} for {v!r}"
    for k, v in wanted.items()
    if about.get(k) != v
  )
  if network.file is not None:
    raise UsageError(
      f"file={network.file}: it holds another classifier ({other}); give "
      "another file, or the options of this one"
    )
  return None, f"{path} is another classifier ({other}): it is trained anew"


def _parameters(arrays: Any, shapes: PyTree) -> PyTree:
  """Return the arrays as a tree of these shapes, or raise ValueError."""

  def read(path, leaf):
    array = arrays[_key(path)]
    if array.shape != leaf.shape or array.dtype != leaf.dtype:
      raise ValueError(f"{_key(path)} has shape {array.shape}")
    if not np.isfinite(array).all():
      raise ValueError(f"{_key(path)} is not finite")
    return array

  return jax.tree_util.tree_map_with_path(read, shapes)


def _write(path: pathlib.Path, params: PyTree, about: dict[str, Any]) -> None:
  leaves = jax.tree_util.tree_leaves_with_path(params)
  arrays = {_key(place): leaf for place, leaf in leaves}
  about = about | {"sha256": parameters_hash(params)}
  arrays[_ABOUT] = np.array(json.dumps(about))
  remedy = "make its folder writable, or give evaluation.network.file"
  save_arrays(path, arrays, remedy)


def _key(path: Any) -> str:
  return "/".join(part.key for part in path)
