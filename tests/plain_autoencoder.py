"""Stable Diffusion's autoencoder in NumPy, on tensors in PyTorch's layout.

Written from the architecture: [B, C, H, W], float64, one function a layer; it
shares nothing with the library.
"""

import numpy as np

OLD = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


def shapes(widths, layers, latent):
  """Names and shapes of the published tensors."""
  found = {}

  def conv(name, before, after, size=3):
    found[f"{name}.weight"] = (after, before, size, size)
    found[f"{name}.bias"] = (after,)

  def norm(name, width):
    found[f"{name}.weight"] = found[f"{name}.bias"] = (width,)

  def resnet(name, before, after):
    norm(f"{name}.norm1", before)
    conv(f"{name}.conv1", before, after)
    norm(f"{name}.norm2", after)
    conv(f"{name}.conv2", after, after)
    if before != after:
      conv(f"{name}.conv_shortcut", before, after, 1)

  def middle(name, width):
    resnet(f"{name}.resnets.0", width, width)
    norm(f"{name}.attentions.0.group_norm", width)
    for part in OLD:
      found[f"{name}.attentions.0.{part}.weight"] = (width, width)
      found[f"{name}.attentions.0.{part}.bias"] = (width,)
    resnet(f"{name}.resnets.1", width, width)

  def level(name, before, after, blocks, change):
    for i in range(blocks):
      resnet(f"{name}.resnets.{i}", after if i else before, after)
    if change:
      conv(f"{name}.{change}.0.conv", after, after)

  last = len(widths) - 1
  conv("encoder.conv_in", 3, widths[0])
  for i, width in enumerate(widths):
    change = "downsamplers" if i < last else None
    before = widths[max(i - 1, 0)]
    level(f"encoder.down_blocks.{i}", before, width, layers, change)
  middle("encoder.mid_block", widths[-1])
  norm("encoder.conv_norm_out", widths[-1])
  conv("encoder.conv_out", widths[-1], 2 * latent)
  conv("quant_conv", 2 * latent, 2 * latent, 1)
  conv("post_quant_conv", latent, latent, 1)
  conv("decoder.conv_in", latent, widths[-1])
  middle("decoder.mid_block", widths[-1])
  for i, width in enumerate(widths[::-1]):
    change = "upsamplers" if i < last else None
    before = widths[::-1][max(i - 1, 0)]
    level(f"decoder.up_blocks.{i}", before, width, layers + 1, change)
  norm("decoder.conv_norm_out", widths[0])
  conv("decoder.conv_out", widths[0], 3)
  return found


def tensors(widths=(32, 64, 64), layers=1, latent=4, seed=0):
  """Random float32 tensors that keep activations near one."""
  draw = np.random.default_rng(seed)
  found = {}
  for name, shape in shapes(widths, layers, latent).items():
    value = draw.standard_normal(shape)
    if len(shape) > 1:
      value /= np.sqrt(np.prod(shape[1:]))
    else:
      value = 0.3 * value + ("norm" in name and name.endswith("weight"))
    found[name] = value.astype(np.float32)
  return found


def with_old_names(found):
  """Return the tensors under the names of older files."""
  renamed = {}
  for name, value in found.items():
    for new, old in OLD.items():
      name = name.replace(f".{new}.", f".{old}.")
    renamed[name] = value
  return renamed


class Plain:
  """The network of some tensors."""

  def __init__(self, found):
    self.tensors = {k: v.astype(np.float64) for k, v in found.items()}

  def encode(self, images):
    """Mean and deviation, [B, H, W, 3] to [B, h, w, C] twice."""
    x = self._conv("encoder.conv_in", images.transpose(0, 3, 1, 2))
    for i in range(self._count("encoder.down_blocks.{}.resnets.0")):
      x = self._resnets(f"encoder.down_blocks.{i}", x)
      name = f"encoder.down_blocks.{i}.downsamplers.0.conv"
      if f"{name}.bias" in self.tensors:
        x = np.pad(x, ((0, 0), (0, 0), (0, 1), (0, 1)))
        x = self._conv(name, x, padding=0)[:, :, ::2, ::2]
    x = self._norm("encoder.conv_norm_out", self._middle("encoder", x))
    x = self._conv("quant_conv", self._conv("encoder.conv_out", silu(x)))
    mean, log_variance = np.split(x.transpose(0, 2, 3, 1), 2, axis=-1)
    return mean, np.exp(np.clip(log_variance, -30, 20) / 2)

  def decode(self, latents):
    """Images [B, H, W, 3]."""
    x = self._conv("post_quant_conv", latents.transpose(0, 3, 1, 2))
    x = self._middle("decoder", self._conv("decoder.conv_in", x))
    for i in range(self._count("decoder.up_blocks.{}.resnets.0")):
      x = self._resnets(f"decoder.up_blocks.{i}", x)
      name = f"decoder.up_blocks.{i}.upsamplers.0.conv"
      if f"{name}.bias" in self.tensors:
        x = self._conv(name, np.kron(x, np.ones((2, 2))))
    x = silu(self._norm("decoder.conv_norm_out", x))
    return self._conv("decoder.conv_out", x).transpose(0, 2, 3, 1)

  def _count(self, name):
    i = 0
    while f"{name.format(i)}.conv1.bias" in self.tensors:
      i += 1
    return i

  def _resnets(self, name, x):
    for i in range(self._count(f"{name}.resnets.{{}}")):
      x = self._resnet(f"{name}.resnets.{i}", x)
    return x

  def _resnet(self, name, x):
    hidden = self._conv(f"{name}.conv1", silu(self._norm(f"{name}.norm1", x)))
    hidden = silu(self._norm(f"{name}.norm2", hidden))
    if f"{name}.conv_shortcut.bias" in self.tensors:
      x = self._conv(f"{name}.conv_shortcut", x)
    return x + self._conv(f"{name}.conv2", hidden)

  def _middle(self, name, x):
    x = self._resnet(f"{name}.mid_block.resnets.0", x)
    x = self._attention(f"{name}.mid_block.attentions.0", x)
    return self._resnet(f"{name}.mid_block.resnets.1", x)

  def _attention(self, name, x):
    flat = self._norm(f"{name}.group_norm", x).reshape(*x.shape[:2], -1)

    def linear(part, value):
      weight = self.tensors[f"{name}.{part}.weight"]
      bias = self.tensors[f"{name}.{part}.bias"][:, None]
      return np.einsum("oi,bit->bot", weight, value) + bias

    q, k, v = (linear(part, flat) for part in ("to_q", "to_k", "to_v"))
    scores = np.einsum("bcq,bck->bqk", q, k) / np.sqrt(x.shape[1])
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    out = linear("to_out.0", np.einsum("bqk,bck->bcq", weights, v))
    return x + out.reshape(x.shape)

  def _norm(self, name, x):
    groups = x.reshape(len(x), 32, -1)
    groups = groups - groups.mean(-1, keepdims=True)
    scale = np.sqrt((groups**2).mean(-1, keepdims=True) + 1e-6)
    weight = self.tensors[f"{name}.weight"][:, None, None]
    bias = self.tensors[f"{name}.bias"][:, None, None]
    return (groups / scale).reshape(x.shape) * weight + bias

  def _conv(self, name, x, padding=None):
    weight = self.tensors[f"{name}.weight"]
    size = weight.shape[2]
    rim = size // 2 if padding is None else padding
    x = np.pad(x, ((0, 0), (0, 0), (rim, rim), (rim, rim)))
    windows = np.lib.stride_tricks.sliding_window_view(x, (size, size), (2, 3))
    out = np.einsum("bihwyx,oiyx->bohw", windows, weight, optimize=True)
    return out + self.tensors[f"{name}.bias"][:, None, None]


def silu(x):
  """`x * sigmoid(x)`."""
  return x / (1 + np.exp(-x))
