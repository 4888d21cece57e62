"""Transformers in plain NumPy, written from their architecture, float64.

Each has random arrays by their published names, at scales that all matter, and
a forward pass of them.
"""

import numpy as np


class Arrays:
  """Makes random arrays by name."""

  def __init__(self, seed):
    self.rng = np.random.default_rng(seed)
    self.made = {}

  def vector(self, name, *shape, mean=0.0, std=1.0):
    x = mean + std * self.rng.normal(size=shape)
    self.made[name] = x.astype(np.float32)

  def linear(self, name, *shape, bias=True):
    self.vector(f"{name}/kernel", *shape, std=np.prod(shape[:-1]) ** -0.5)
    if bias:
      self.vector(f"{name}/bias", shape[-1], std=0.1)


def silu(x):
  return x / (1 + np.exp(-x))


def gelu(x):
  return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def layer_norm(x):
  centred = x - x.mean(-1, keepdims=True)
  return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)


def rms_norm(x, weight):
  return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * weight


def waves(t):
  angle = t[:, None] * 10000 ** (-np.arange(128) / 128)
  return np.concatenate([np.cos(angle), np.sin(angle)], axis=1)


def attention(q, k, v):
  """Heads [B, T, heads, d] that attend, side by side [B, T, heads d]."""
  scores = np.einsum("bihd,bjhd->bhij", q, k) / np.sqrt(q.shape[-1])
  weights = np.exp(scores - scores.max(-1, keepdims=True))
  weights /= weights.sum(-1, keepdims=True)
  mixed = np.einsum("bhij,bjhd->bihd", weights, v)
  return mixed.reshape(*mixed.shape[:2], -1)


def positions(side, width):
  """MAE's table: columns in the first half, rows in the second."""
  omega = 10000 ** (-np.arange(width // 4) / (width // 4))
  row, column = np.divmod(np.arange(side**2), side)
  parts = []
  for place in (column, row):
    angle = np.outer(place, omega)
    parts += [np.sin(angle), np.cos(angle)]
  return np.concatenate(parts, axis=1)


def patches(x, side):
  """Images [B, H, W, C] as [B, T, side, side, C]."""
  batch, height, _, channels = x.shape
  grid = height // side
  cut = x.reshape(batch, grid, side, grid, side, channels)
  return cut.swapaxes(2, 3).reshape(batch, grid**2, side, side, channels)


def images(tokens, side, channels):
  """The inverse of `patches`, of tokens [B, T, side side C]."""
  grid = int(np.sqrt(tokens.shape[1]))
  cut = tokens.reshape(-1, grid, grid, side, side, channels).swapaxes(2, 3)
  return cut.reshape(-1, grid * side, grid * side, channels)


class MeanFlow:
  """Geng et al. 2025: DiT with the embeddings of t and of t - r."""

  DENSE = "_flax_linear"

  @classmethod
  def arrays(cls, *, width, depth, patch, channels, classes, seed=0):
    made = Arrays(seed)
    made.linear("net/x_embedder/proj", patch, patch, channels, width)
    for name in "th":
      for layer, before in ((0, 256), (2, width)):
        module = f"net/{name}_embedder/mlp/layers_{layer}/{cls.DENSE}"
        made.linear(module, before, width)
    made.vector(
      "net/y_embedder/embedding_table/_flax_embedding/embedding",
      *(classes + 1, width),
    )
    for i in range(depth):
      for module, before, after in (
        ("attn/qkv", width, 3 * width),
        ("attn/proj", width, width),
        ("mlp/fc1", width, 4 * width),
        ("mlp/fc2", 4 * width, width),
        ("adaLN_modulation/layers_1", width, 6 * width),
      ):
        name = f"net/blocks/layers_{i}/{module}/{cls.DENSE}"
        made.linear(name, before, after)
    last = "net/final_layer"
    made.linear(
      f"{last}/adaLN_modulation/layers_1/{cls.DENSE}", width, 2 * width
    )
    made.linear(f"{last}/linear/{cls.DENSE}", width, patch**2 * channels)
    return made.made

  @classmethod
  def forward(cls, arrays, x, t, r, label, heads):
    """The average velocity [B, H, W, C] at images of this shape."""
    p = {name: array.astype(np.float64) for name, array in arrays.items()}

    def linear(name, x):
      module = f"net/{name}/{cls.DENSE}"
      return x @ p[f"{module}/kernel"] + p[f"{module}/bias"]

    def embedded(name, t):
      hidden = silu(linear(f"{name}_embedder/mlp/layers_0", waves(t)))
      return linear(f"{name}_embedder/mlp/layers_2", hidden)

    def modulated(name, x, parts):
      made = linear(f"{name}/adaLN_modulation/layers_1", silu(x))
      return np.split(made[:, None], parts, axis=-1)

    kernel = p["net/x_embedder/proj/kernel"]
    side, _, channels, width = kernel.shape
    h = np.einsum("btijc,ijcd->btd", patches(x, side), kernel)
    h = h + p["net/x_embedder/proj/bias"]
    h = h + positions(int(np.sqrt(h.shape[1])), width)
    c = embedded("t", t) + embedded("h", t - r)
    c = c + p["net/y_embedder/embedding_table/_flax_embedding/embedding"][label]
    depth = len({n.split("/")[2] for n in p if n.startswith("net/blocks/")})
    for i in range(depth):
      name = f"blocks/layers_{i}"
      parts = modulated(name, c, 6)
      y = layer_norm(h) * (1 + parts[1]) + parts[0]
      qkv = linear(f"{name}/attn/qkv", y)
      qkv = qkv.reshape(*qkv.shape[:2], 3, heads, width // heads)
      y = attention(*np.moveaxis(qkv, 2, 0))
      h = h + parts[2] * linear(f"{name}/attn/proj", y)
      y = layer_norm(h) * (1 + parts[4]) + parts[3]
      y = linear(f"{name}/mlp/fc2", gelu(linear(f"{name}/mlp/fc1", y)))
      h = h + parts[5] * y
    shift, scale = modulated("final_layer", c, 2)
    h = linear("final_layer/linear", layer_norm(h) * (1 + scale) + shift)
    return images(h, side, channels)
