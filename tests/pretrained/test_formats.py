"""Published networks, read and written."""

import jax.numpy as jnp
import numpy as np
import published_dits
import pytest

from jaxflow import models
from jaxflow.pretrained import formats

SMALL = {"width": 128, "depth": 2, "patch": 2, "side": 8, "channels": 4}


def tensors(**changes):
  options = {**SMALL, "classes": 5, "variance": True, **changes}
  return published_dits.tensors_of(**options, rng=np.random.default_rng(0))


def saved(tmp_path, made, name="net.npz"):
  path = tmp_path / name
  np.savez(path, **made)
  return path


def network_of(imported):
  """The network that an import names, with its parameters."""
  options = dict(imported.sections["model"])
  network = getattr(models, options.pop("name"))(
    **options, data_shape=imported.shape, num_classes=imported.num_classes
  )
  return lambda *args: network.apply(imported.params, *args)


@pytest.mark.parametrize("patch", [2, 4, 8])
@pytest.mark.parametrize("variance", [True, False])
def test_dit_is_the_published_network(tmp_path, patch, variance):
  made = tensors(patch=patch, variance=variance)
  imported = formats.format_of("dit").read(saved(tmp_path, made))
  rng = np.random.default_rng(1)
  x = rng.normal(size=(3, 4, 8, 8)).astype(np.float32)
  t, label = np.array([0.0, 417.0, 999.0]), np.array([0, 4, 5])
  expected = published_dits.forward(made, x, t, label, heads=2)[:, :4]
  time = jnp.asarray(t, jnp.float32)
  found = network_of(imported)(
    jnp.asarray(x.transpose(0, 2, 3, 1)), time, time, jnp.asarray(label)
  )
  found = np.asarray(found).transpose(0, 3, 1, 2)
  assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()
  assert imported.num_classes == 5


def test_sit_runs_from_data_to_noise(tmp_path):
  made = tensors()
  imported = formats.format_of("sit").read(saved(tmp_path, made))
  rng = np.random.default_rng(1)
  x = rng.normal(size=(3, 4, 8, 8)).astype(np.float32)
  # Its time 0 is noise, its velocity data minus noise.
  t, label = np.array([0.0, 0.25, 1.0]), np.array([0, 4, 5])
  expected = -published_dits.forward(made, x, t, label, heads=2)[:, :4]
  time = jnp.asarray(1 - t, jnp.float32)
  found = network_of(imported)(
    jnp.asarray(x.transpose(0, 2, 3, 1)), time, time, jnp.asarray(label)
  )
  found = np.asarray(found).transpose(0, 3, 1, 2)
  assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()


# The published counts, learned variance included; positions are among them.
PUBLISHED = {
  ("XL", 2): 675_129_632,
  ("L", 2): 458_101_280,
  ("B", 2): 130_512_416,
  ("S", 2): 32_962_976,
}
