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


class ImprovedMeanFlow:
  """Geng et al. 2025: conditions as tokens, no modulation."""

  TOKENS = (
    ("class", "class", 3),
    ("omega", "omega", 2),
    ("t_min", "cfg_t_start", 1),
    ("t_max", "cfg_t_end", 1),
    ("time", "h", 2),
  )
  DENSE = "_flax_linear"

  @classmethod
  def arrays(cls, *, width, shared, first, second, patch, channels, classes):
    made = Arrays(0)
    made.linear("net/x_embedder/proj", patch, patch, channels, width)
    for tokens, name, count in cls.TOKENS:
      made.vector(f"net/{tokens}_tokens", count, width)
      for layer, before in ((0, 256), (2, width)):
        if name != "class":
          module = f"net/{name}_embedder/mlp/layers_{layer}/{cls.DENSE}"
          made.linear(module, before, width)
    made.vector(
      "net/y_embedder/embedding_table/_flax_embedding/embedding",
      *(classes + 1, width),
    )
    hidden = int(8 / 3 * width)
    for kind, count in (
      ("shared_blocks", shared),
      ("u_heads", first),
      ("v_heads", second),
    ):
      for i in range(count):
        block = f"net/{kind}_{i}"
        for x in ("q_proj", "k_proj", "v_proj", "out_proj"):
          made.linear(f"{block}/attn/{x}/{cls.DENSE}", width, width, bias=False)
        for x, *shape in (
          ("w1", width, hidden),
          ("w3", width, hidden),
          ("w2", hidden, width),
        ):
          made.linear(f"{block}/mlp/{x}/{cls.DENSE}", *shape, bias=False)
        for x in "qk":
          made.vector(f"{block}/attn/{x}_norm/kernel", 64, mean=1, std=0.3)
        for x in (1, 2):
          made.vector(f"{block}/norm{x}/kernel", width, mean=1, std=0.3)
        for x in ("attn_scale", "mlp_scale"):
          made.vector(f"{block}/{x}", width)
    for x in "uv":
      made.vector(f"net/{x}_final_layer/norm/kernel", width, mean=1, std=0.3)
      made.linear(
        f"net/{x}_final_layer/linear/{cls.DENSE}", width, patch**2 * channels
      )
    return made.made

  @classmethod
  def forward(cls, arrays, x, t, r, label, guidance, heads):
    """Both predictions [B, H, W, C]; `guidance` is scale, start and end."""
    p = {
      n.removeprefix("net/"): a.astype(np.float64) for n, a in arrays.items()
    }

    def linear(name, x):
      bias = p.get(f"{name}/{cls.DENSE}/bias", 0)
      return x @ p[f"{name}/{cls.DENSE}/kernel"] + bias

    def embedded(name, t):
      hidden = silu(linear(f"{name}_embedder/mlp/layers_0", waves(t)))
      return linear(f"{name}_embedder/mlp/layers_2", hidden)

    kernel = p["x_embedder/proj/kernel"]
    side, _, channels, width = kernel.shape
    h = np.einsum("btijc,ijcd->btd", patches(x, side), kernel)
    h = h + p["x_embedder/proj/bias"]
    table = p["y_embedder/embedding_table/_flax_embedding/embedding"]
    scale, start, end = guidance
    seen = (
      table[label],
      embedded("omega", 1 - 1 / scale),
      embedded("cfg_t_start", start),
      embedded("cfg_t_end", end),
      embedded("h", t - r),
    )
    sequence = [
      p[f"{tokens}_tokens"] + vector[:, None]
      for (tokens, _, _), vector in zip(cls.TOKENS, seen, strict=True)
    ]
    count = h.shape[1]
    h = np.concatenate([*sequence, h], axis=1)

    def turned(x):
      """Complex numbers of neighbouring features, times exp(i angle)."""
      tokens, d = x.shape[1], x.shape[3]
      rate = 10000 ** (-2 * np.arange(d // 2) / d)
      turn = np.exp(1j * np.outer(np.arange(tokens), rate))
      z = (x[..., ::2] + 1j * x[..., 1::2]) * turn[:, None]
      return np.stack([z.real, z.imag], axis=-1).reshape(x.shape)

    def block(name, h):
      y = rms_norm(h, p[f"{name}/norm1/kernel"])
      q, k, v = (
        linear(f"{name}/attn/{c}_proj", y).reshape(
          *y.shape[:2], heads, width // heads
        )
        for c in "qkv"
      )
      q, k = (
        turned(rms_norm(z, p[f"{name}/attn/{c}_norm/kernel"]))
        for c, z in (("q", q), ("k", k))
      )
      y = linear(f"{name}/attn/out_proj", attention(q, k, v))
      h = h + y * p[f"{name}/attn_scale"]
      y = rms_norm(h, p[f"{name}/norm2/kernel"])
      y = silu(linear(f"{name}/mlp/w1", y)) * linear(f"{name}/mlp/w3", y)
      return h + linear(f"{name}/mlp/w2", y) * p[f"{name}/mlp_scale"]

    def blocks(kind, h):
      for i in range(len({n.split("/")[0] for n in p if n.startswith(kind)})):
        h = block(f"{kind}_{i}", h)
      return h

    def output(x, h):
      h = rms_norm(h[:, -count:], p[f"{x}_final_layer/norm/kernel"])
      return images(linear(f"{x}_final_layer/linear", h), side, channels)

    h = blocks("shared_blocks", h)
    return output("u", blocks("u_heads", h)), output("v", blocks("v_heads", h))


class Drifting:
  """Deng et al. 2026: no times, noise labels, tokens of the condition."""

  NETWORK = "LightningDiT_0"

  @classmethod
  def arrays(cls, *, width, depth, patch, channels, side, classes, labels):
    made = Arrays(0)
    net, count, kinds = cls.NETWORK, *labels
    tokens = (side // patch) ** 2
    hidden = -(-int(8 / 3 * width) // 32) * 32

    def dense(name, *shape):
      made.linear(f"{name}/Dense_0", *shape)

    made.vector("Embed_0/embedding", classes, width)
    for i in range(count):
      made.vector(f"noise_embeds_{i}/embedding", kinds, width)
    dense("TimestepEmbedder_0/TorchLinear_0", 256, width)
    dense("TimestepEmbedder_0/TorchLinear_1", width, width)
    made.vector("RMSNorm_0/weight", width, mean=30, std=9)
    dense(f"{net}/TorchLinear_0", patch**2 * channels, width)
    dense(f"{net}/TorchLinear_1", width, width)
    made.vector(f"{net}/pos_embed", 1, tokens, width)
    made.vector(f"{net}/cls_embed", 1, 3, width)
    for i in range(depth):
      name = f"{net}/blocks_{i}"
      for x in (0, 1):
        made.vector(f"{name}/RMSNorm_{x}/weight", width, mean=1, std=0.3)
      for x in "qk":
        made.vector(f"{name}/Attention_0/{x}_norm/weight", 64, mean=1, std=0.3)
      dense(f"{name}/Attention_0/TorchLinear_0", width, 3 * width)
      dense(f"{name}/Attention_0/TorchLinear_1", width, width)
      dense(f"{name}/SwiGLUFFN_0/TorchLinear_0", width, hidden)
      dense(f"{name}/SwiGLUFFN_0/TorchLinear_1", width, hidden)
      dense(f"{name}/SwiGLUFFN_0/TorchLinear_2", hidden, width)
      dense(f"{name}/TorchLinear_0", width, 6 * width)
    last = f"{net}/FinalLayer_0"
    made.vector(f"{last}/RMSNorm_0/weight", width, mean=1, std=0.3)
    dense(f"{last}/TorchLinear_0", width, 2 * width)
    dense(f"{last}/TorchLinear_1", width, patch**2 * channels)
    return made.made

  @classmethod
  def forward(cls, arrays, x, label, omega, noise_labels, heads):
    """The samples [B, H, W, C] of noise of this shape."""
    p = {name: array.astype(np.float64) for name, array in arrays.items()}
    net = cls.NETWORK

    def linear(name, x):
      return x @ p[f"{name}/Dense_0/kernel"] + p[f"{name}/Dense_0/bias"]

    c = p["Embed_0/embedding"][label]
    for i, column in enumerate(noise_labels.T):
      c = c + p[f"noise_embeds_{i}/embedding"][column]
    scale = silu(linear("TimestepEmbedder_0/TorchLinear_0", waves(omega)))
    scale = linear("TimestepEmbedder_0/TorchLinear_1", scale)
    c = c + 0.02 * rms_norm(scale, p["RMSNorm_0/weight"])

    def modulated(name, parts):
      return np.split(linear(name, silu(c))[:, None], parts, axis=-1)

    def turned(x):
      """Features i and i + d / 2 as complex numbers, times exp(i angle)."""
      tokens, half = x.shape[1], x.shape[3] // 2
      rate = 10000 ** (-np.arange(half) / half)
      turn = np.exp(1j * np.outer(np.arange(tokens), rate))
      z = (x[..., :half] + 1j * x[..., half:]) * turn[:, None]
      return np.concatenate([z.real, z.imag], axis=-1)

    channels = x.shape[-1]
    width = p[f"{net}/pos_embed"].shape[-1]
    side = int(
      np.sqrt(len(p[f"{net}/TorchLinear_0/Dense_0/kernel"]) / channels)
    )
    cut = patches(x, side)
    h = linear(f"{net}/TorchLinear_0", cut.reshape(*cut.shape[:2], -1))
    h = h + p[f"{net}/pos_embed"]
    front = linear(f"{net}/TorchLinear_1", c)[:, None] + p[f"{net}/cls_embed"]
    count = h.shape[1]
    h = np.concatenate([front, h], axis=1)
    depth = len({n.split("/")[1] for n in p if "/blocks_" in n})
    for i in range(depth):
      name = f"{net}/blocks_{i}"
      parts = modulated(f"{name}/TorchLinear_0", 6)
      y = rms_norm(h, p[f"{name}/RMSNorm_0/weight"])
      y = y * (1 + parts[1]) + parts[0]
      qkv = linear(f"{name}/Attention_0/TorchLinear_0", y)
      qkv = qkv.reshape(*qkv.shape[:2], 3, heads, width // heads)
      q, k, v = np.moveaxis(qkv, 2, 0)
      q, k = (
        turned(rms_norm(z, p[f"{name}/Attention_0/{w}_norm/weight"]))
        for w, z in (("q", q), ("k", k))
      )
      y = linear(f"{name}/Attention_0/TorchLinear_1", attention(q, k, v))
      h = h + parts[2] * y
      y = rms_norm(h, p[f"{name}/RMSNorm_1/weight"])
      y = y * (1 + parts[4]) + parts[3]
      mlp = f"{name}/SwiGLUFFN_0"
      y = silu(linear(f"{mlp}/TorchLinear_0", y)) * linear(
        f"{mlp}/TorchLinear_1", y
      )
      h = h + parts[5] * linear(f"{mlp}/TorchLinear_2", y)
    last = f"{net}/FinalLayer_0"
    shift, scale = modulated(f"{last}/TorchLinear_0", 2)
    h = rms_norm(h[:, -count:], p[f"{last}/RMSNorm_0/weight"])
    h = linear(f"{last}/TorchLinear_1", h * (1 + scale) + shift)
    return images(h, side, channels)
