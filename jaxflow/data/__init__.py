"""Data sets in memory or on disk, resumable batches, their way to devices."""

from jaxflow.data.arrays import ArrayFile, Arrays, arrays_of
from jaxflow.data.batches import Batches
from jaxflow.data.devices import Prefetch, to_devices
from jaxflow.data.folders.latent_folder import LatentFolder
from jaxflow.data.folders.latents import Latents, LatentSpace
from jaxflow.data.folders.pairs import Pairs
from jaxflow.data.loading import known_mixture, latent_space, load
from jaxflow.data.scaling import Scaling
from jaxflow.data.sets import toy
from jaxflow.data.source import (
  Dataset,
  NoSplitError,
  Source,
  class_names,
  classes_without_samples,
  conditions_of,
  digest,
  from_arrays,
  has_labels,
  held_out,
  in_memory,
  known_labels,
  scaling_of,
  without_labels,
)
from jaxflow.data.streams import (
  FreshNoise,
  Mixed,
  SampledBatches,
  Transported,
)

__all__ = [
  "ArrayFile",
  "Arrays",
  "Batches",
  "Dataset",
  "FreshNoise",
  "LatentFolder",
  "LatentSpace",
  "Latents",
  "Mixed",
  "NoSplitError",
  "Pairs",
  "Prefetch",
  "SampledBatches",
  "Scaling",
  "Source",
  "Transported",
  "arrays_of",
  "class_names",
  "classes_without_samples",
  "conditions_of",
  "digest",
  "from_arrays",
  "has_labels",
  "held_out",
  "in_memory",
  "known_labels",
  "known_mixture",
  "latent_space",
  "load",
  "scaling_of",
  "to_devices",
  "toy",
  "without_labels",
]
