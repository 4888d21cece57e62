"""Turn samples into data and pictures: decode latents, undo scales."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxflow import data
from jaxflow.errors import UsageError
from jaxflow.figures import drawable
from jaxflow.plans import DataPlan
from jaxflow.pretrained import autoencoder_files
from jaxflow.pretrained.autoencoder import Autoencoder
from jaxflow.types import Array, PyTree

# (samples [n, ...]) -> images or points to show, [n, ...].
Picture = Callable[[np.ndarray], np.ndarray]

# Images decoded at once: of 256 pixels, their activations take about 1 GB.
_AT_ONCE = 8


def make_picture(plan: DataPlan) -> Picture:
  """Return a function from a run's samples to images in [-1, 1] or points.

  Points are in units of the data. Where the data set says that its samples are
  latents, they are decoded, 8 at a time, to images clipped to [-1, 1].
  """
  scaling = plan.scaling
  if scaling is not None:
    return lambda samples: scaling.picture(scaling.restore(samples))
  return make_data(plan)


def make_data(plan: DataPlan) -> Picture:
  """Return a function from a run's samples to data, in units of the data set.

  Latents are decoded to images; the scaling of arrays is undone; other samples
  stay as they are.
  """
  if plan.scaling is not None:
    return plan.scaling.restore
  space = data.latent_space(plan.name, plan.data_dir)
  return (lambda samples: samples) if space is None else _decoder(space)


def is_drawn(plan: DataPlan) -> bool:
  """Return whether samples of a resolved plan are images or points."""
  if drawable(plan.shape or ()):
    return True
  return data.latent_space(plan.name, plan.data_dir) is not None


def picture_of(plan: DataPlan, values: np.ndarray) -> np.ndarray:
  """Return what is drawn of what `make_data` returns."""
  return values if plan.scaling is None else plan.scaling.picture(values)


def clipped(plan: DataPlan, values: np.ndarray) -> np.ndarray:
  """Return images, of what `make_data` returns, clipped to their range."""
  if values.ndim != 4:
    return values
  low, high = (-1, 1) if plan.scaling is None else plan.scaling.range
  return np.clip(values, low, high)


def make_latents(plan: DataPlan) -> Picture:
  """Return a function from samples to latents in the autoencoder's units."""
  space = data.latent_space(plan.name, plan.data_dir)
  if space is None:
    raise UsageError(
      f"latents: samples of data.name={plan.name!r} are no latents; "
      "leave it out"
    )
  return space.restore


def make_decoder(
  plan: DataPlan,
) -> tuple[PyTree, Callable[[PyTree, Array], Array]] | None:
  """Return weights and a jittable `(weights, samples) -> images`.

  Returns:
    The two, images in [-1, 1]; None where samples are no latents.
  """
  space = data.latent_space(plan.name, plan.data_dir)
  if space is None:
    return None
  model, params = _read(space)

  def decode(params: PyTree, samples: Array) -> Array:
    return jnp.clip(model.decode(params, space.restore(samples)), -1, 1)

  return params, decode


def _decoder(space: data.LatentSpace) -> Picture:
  """Return the decoder; between calls its weights are in host memory."""
  model, params = _read(space)
  jitted = jax.jit(model.decode)

  def decode(samples: np.ndarray) -> np.ndarray:
    latents = space.restore(samples)
    placed = jax.device_put(params)
    images = []
    for start in range(0, len(latents), _AT_ONCE):
      part = latents[start : start + _AT_ONCE]
      # One size for all: one program.
      padded = np.resize(part, (_AT_ONCE, *part.shape[1:]))
      images.append(np.asarray(jitted(placed, padded))[: len(part)])
    return np.clip(np.concatenate(images), -1, 1)

  return decode


def _read(space: data.LatentSpace) -> tuple[Autoencoder, PyTree]:
  """Read the decoder that a folder of latents holds."""
  field = "data.data_dir"
  try:
    return autoencoder_files.from_tensors(
      autoencoder_files.read_tensors(space.decoder),
      parts=autoencoder_files.DECODER,
    )
  except UsageError as error:
    folder, name = str(space.decoder.parent), space.decoder.name
    raise UsageError(
      f"{field}={folder!r}: {name} is damaged; delete it and write it again "
      f"with: {space.command}"
    ) from error
