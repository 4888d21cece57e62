"""Folders of diffusers against the library itself, where it is installed."""

import importlib.util

import jax.numpy as jnp
import numpy as np
import pytest
from test_formats import network_of

from jaxflow import paths
from jaxflow.pretrained import formats

needed = ("torch", "diffusers")
pytestmark = pytest.mark.skipif(
  any(importlib.util.find_spec(name) is None for name in needed),
  reason="needs torch and diffusers",
)

UNET = {
  "sample_size": 8,
  "in_channels": 1,
  "out_channels": 1,
  "block_out_channels": (16, 32),
  "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
  "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
  "layers_per_block": 1,
  "norm_num_groups": 8,
}
UNETS = {
  "default": {"num_class_embeds": 7},
  "as released for CIFAR-10": {
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "downsample_padding": 0,
    "attention_head_dim": None,
    "norm_eps": 1e-6,
    "layers_per_block": 2,
  },
  "learned variance": {"out_channels": 2},
  "scale and shift": {
    "resnet_time_scale_shift": "scale_shift",
    "add_attention": False,
  },
  "oblong": {"sample_size": (4, 8), "in_channels": 3, "out_channels": 3},
}
DIT = {
  "num_attention_heads": 2,
  "attention_head_dim": 16,
  "in_channels": 2,
  "num_layers": 2,
  "sample_size": 8,
  "num_embeds_ada_norm": 7,
}
DITS = {
  "default": {},
  "learned variance": {"out_channels": 4, "patch_size": 4},
}


def randomised(model):
  import torch

  torch.manual_seed(0)
  with torch.no_grad():
    for p in model.parameters():
      # Norms and zeros get values that matter too.
      p.copy_(torch.randn_like(p) * (0.5 / max(p[0].numel(), 1) ** 0.5))
  return model.eval()


def outputs(model, shape, labels):
  """Images, times, labels, and what the library makes of them."""
  import torch

  torch.manual_seed(1)
  x, t = torch.randn(3, *shape), torch.tensor([0, 417, 999])
  label = torch.tensor([0, 3, labels - 1]) if labels else None
  with torch.no_grad():
    y = model(x, t, class_labels=label).sample[:, : shape[0]]
  return x.numpy(), t.numpy(), None if label is None else label.numpy(), y


def compare(imported, model, shape, labels):
  x, t, label, expected = outputs(model, shape, labels)
  time = jnp.asarray(t, jnp.float32)
  found = network_of(imported)(
    jnp.asarray(x.transpose(0, 2, 3, 1)),
    time,
    time,
    None if label is None else jnp.asarray(label, jnp.int32),
  )
  expected = expected.numpy().transpose(0, 2, 3, 1)
  worst = np.abs(np.asarray(found) - expected).max()
  assert worst < 1e-5 * max(1, np.abs(expected).max())


def kept(imported, folder):
  """Check that the tensors that are written are those that were read."""
  from safetensors.numpy import load_file

  model = {
    **imported.sections["model"],
    "data_shape": imported.shape,
    "num_classes": imported.num_classes,
  }
  written = formats.format_of("diffusers").write(model, imported.params)
  read = load_file(folder / "diffusion_pytorch_model.safetensors")
  assert written.keys() == read.keys()
  for name, tensor in read.items():
    assert np.array_equal(written[name][: len(tensor)], tensor), name


@pytest.mark.parametrize("name", UNETS)
def test_unet_is_that_of_the_library(tmp_path, name):
  import diffusers

  options = {**UNET, **UNETS[name]}
  model = randomised(diffusers.UNet2DModel(**options))
  model.save_pretrained(tmp_path)
  imported = formats.format_of("diffusers").read(tmp_path)
  size = options["sample_size"]
  sides = size if isinstance(size, tuple) else (size, size)
  labels = options.get("num_class_embeds")
  compare(imported, model, (options["in_channels"], *sides), labels)
  kept(imported, tmp_path)


@pytest.mark.parametrize("name", DITS)
def test_dit_is_that_of_the_library(tmp_path, name):
  import diffusers

  model = randomised(diffusers.DiTTransformer2DModel(**DIT, **DITS[name]))
  model.save_pretrained(tmp_path)
  imported = formats.format_of("diffusers").read(tmp_path)
  assert imported.sections["model"]["own_embeddings"]
  compare(imported, model, (2, 8, 8), 8)
  kept(imported, tmp_path)


def test_blocks_that_embed_alike_share_one_embedding(tmp_path):
  import diffusers

  model = randomised(diffusers.DiTTransformer2DModel(**DIT))
  first, second = model.transformer_blocks
  second.norm1.emb.load_state_dict(first.norm1.emb.state_dict())
  model.save_pretrained(tmp_path)
  imported = formats.format_of("diffusers").read(tmp_path)
  assert not imported.sections["model"]["own_embeddings"]
  compare(imported, model, (2, 8, 8), 8)
  kept(imported, tmp_path)


@pytest.mark.parametrize(
  "schedule", ["linear", "scaled_linear", "squaredcos_cap_v2"]
)
def test_schedule_is_that_of_the_scheduler(tmp_path, schedule):
  import diffusers
  import torch

  scheduler = diffusers.DDIMScheduler(
    beta_schedule=schedule, beta_end=0.012, prediction_type="v_prediction"
  )
  model = diffusers.UNet2DModel(**UNET)
  pipeline = diffusers.DDIMPipeline(unet=model, scheduler=scheduler)
  pipeline.save_pretrained(tmp_path)
  imported = formats.format_of("diffusers").read(tmp_path)
  section = dict(imported.sections["path"])
  assert section.pop("name") == "discrete"
  path, t = paths.Discrete(**section), torch.arange(1000)
  one, zero = torch.ones(1000, 1), torch.zeros(1000, 1)
  # What the scheduler makes of data 1 and noise 0, and the other way round.
  time = jnp.arange(1000.0)
  alpha = scheduler.add_noise(one, zero, t)[:, 0].numpy()
  sigma = scheduler.add_noise(zero, one, t)[:, 0].numpy()
  v = scheduler.get_velocity(one, zero, t)[:, 0].numpy()
  # The library's products of rates are float32.
  assert np.abs(path.alpha(time) - alpha).max() < 5e-6
  assert np.abs(path.sigma(time) - sigma).max() < 5e-6
  assert imported.sections["loss"]["prediction"] == "v"
  assert np.abs(-path.sigma(time) - v).max() < 5e-6


def test_flow_matching_is_the_linear_path(tmp_path):
  import diffusers
  import torch

  scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
  model = randomised(diffusers.UNet2DModel(**UNET))
  diffusers.DDPMPipeline(unet=model, scheduler=scheduler).save_pretrained(
    tmp_path
  )
  imported = formats.format_of("diffusers").read(tmp_path)
  assert imported.sections["path"] == {"name": "linear"}
  data, noise = torch.randn(1, 1, 8, 8), torch.randn(1, 1, 8, 8)
  t = scheduler.timesteps[250:251]
  x = scheduler.scale_noise(data, t, noise)
  time = 750 / 1000
  expected = paths.interpolate(
    paths.Linear(),
    *(jnp.asarray(a.numpy()) for a in (data, noise)),
    jnp.array([time]),
  )
  assert np.abs(expected - x.numpy()).max() < 1e-5
  with torch.no_grad():
    y = model(x, t).sample.numpy().transpose(0, 2, 3, 1)
  found = network_of(imported)(
    jnp.asarray(x.numpy().transpose(0, 2, 3, 1)),
    *(jnp.array([time]),) * 2,
    None,
  )
  assert np.abs(np.asarray(found) - y).max() < 2e-5 * np.abs(y).max()
