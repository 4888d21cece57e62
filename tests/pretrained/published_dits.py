"""DiT in plain NumPy, written from the architecture, with random tensors."""

import numpy as np


def tensors_of(*, width, depth, patch, side, channels, classes, variance, rng):
  """Random tensors by their published names, at scales that all matter."""
  made = {}

  def linear(name, after, *before):
    size = np.prod(before)
    made[f"{name}.weight"] = rng.normal(size=(after, *before)) / np.sqrt(size)
    made[f"{name}.bias"] = 0.1 * rng.normal(size=after)

  linear("x_embedder.proj", width, channels, patch, patch)
  linear("t_embedder.mlp.0", width, 256)
  linear("t_embedder.mlp.2", width, width)
  made["y_embedder.embedding_table.weight"] = rng.normal(
    size=(classes + 1, width)
  )
  made["pos_embed"] = positions(side // patch, width)[None]
  for i in range(depth):
    linear(f"blocks.{i}.attn.qkv", 3 * width, width)
    linear(f"blocks.{i}.attn.proj", width, width)
    linear(f"blocks.{i}.mlp.fc1", 4 * width, width)
    linear(f"blocks.{i}.mlp.fc2", width, 4 * width)
    linear(f"blocks.{i}.adaLN_modulation.1", 6 * width, width)
  linear("final_layer.linear", patch**2 * channels * (1 + variance), width)
  linear("final_layer.adaLN_modulation.1", 2 * width, width)
  return {name: x.astype(np.float32) for name, x in made.items()}


def positions(side, width):
  """MAE's table: columns in the first half, rows in the second."""
  omega = 1 / 10000 ** (np.arange(width // 4) / (width // 4))
  parts = []
  for place in (
    np.tile(np.arange(side), side),
    np.repeat(np.arange(side), side),
  ):
    angle = np.outer(place, omega)
    parts += [np.sin(angle), np.cos(angle)]
  return np.concatenate(parts, axis=1)


def forward(tensors, x, t, label, heads):
  """The output [B, C or 2 C, H, W] at images [B, C, H, W], float64."""
  p = {name: tensor.astype(np.float64) for name, tensor in tensors.items()}

  def linear(name, x):
    return x @ p[f"{name}.weight"].T + p[f"{name}.bias"]

  def silu(x):
    return x / (1 + np.exp(-x))

  def norm(x):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)

  def gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))

  kernel = p["x_embedder.proj.weight"]
  width, channels, side, _ = kernel.shape
  batch, _, height, _ = x.shape
  grid = height // side
  cut = x.reshape(batch, channels, grid, side, grid, side)
  h = np.einsum("bcipjq,dcpq->bijd", cut, kernel) + p["x_embedder.proj.bias"]
  h = h.reshape(batch, grid**2, width) + p["pos_embed"]
  omega = np.exp(-np.log(10000) * np.arange(128) / 128)
  angle = t[:, None] * omega
  wave = np.concatenate([np.cos(angle), np.sin(angle)], axis=1)
  c = linear("t_embedder.mlp.2", silu(linear("t_embedder.mlp.0", wave)))
  c = c + p["y_embedder.embedding_table.weight"][label]
  depth = len({k.split(".")[1] for k in p if k.startswith("blocks.")})
  for i in range(depth):
    name = f"blocks.{i}"
    parts = np.split(
      linear(f"{name}.adaLN_modulation.1", silu(c))[:, None], 6, axis=-1
    )
    y = norm(h) * (1 + parts[1]) + parts[0]
    qkv = linear(f"{name}.attn.qkv", y)
    q, k, v = qkv.reshape(batch, -1, 3, heads, width // heads).transpose(
      2, 0, 3, 1, 4
    )
    scores = np.einsum("bhid,bhjd->bhij", q, k) / np.sqrt(width // heads)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    y = np.einsum("bhij,bhjd->bihd", weights, v).reshape(batch, -1, width)
    h = h + parts[2] * linear(f"{name}.attn.proj", y)
    y = norm(h) * (1 + parts[4]) + parts[3]
    y = linear(f"{name}.mlp.fc2", gelu(linear(f"{name}.mlp.fc1", y)))
    h = h + parts[5] * y
  last = linear("final_layer.adaLN_modulation.1", silu(c))[:, None]
  shift, scale = np.split(last, 2, axis=-1)
  out = linear("final_layer.linear", norm(h) * (1 + scale) + shift)
  out = out.reshape(batch, grid, grid, side, side, -1)
  return np.einsum("bijpqc->bcipjq", out).reshape(batch, -1, height, height)
