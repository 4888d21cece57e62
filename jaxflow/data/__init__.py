"""Data sets in memory or on disk, resumable batches, their way to devices."""

from jaxflow.data.batches import Batches as Batches
from jaxflow.data.dataset import Dataset as Dataset
from jaxflow.data.dataset import from_arrays as from_arrays
from jaxflow.data.devices import prefetch as prefetch
from jaxflow.data.devices import to_devices as to_devices
from jaxflow.data.folders.latent_folder import LatentFolder as LatentFolder
from jaxflow.data.folders.latents import Latents as Latents
from jaxflow.data.folders.latents import LatentSpace as LatentSpace
from jaxflow.data.folders.pairs import Pairs as Pairs
from jaxflow.data.loading import known_mixture as known_mixture
from jaxflow.data.loading import latent_space as latent_space
from jaxflow.data.loading import load as load
from jaxflow.data.mixed import Drawn as Drawn
from jaxflow.data.mixed import FreshNoise as FreshNoise
from jaxflow.data.mixed import Mixed as Mixed
from jaxflow.data.sets import toy as toy
from jaxflow.data.source import Source as Source
from jaxflow.data.source import digest as digest
from jaxflow.data.source import in_memory as in_memory
from jaxflow.data.source import without_labels as without_labels
