"""EDM's and EDM2's networks in plain NumPy, and pickles as they are released.

`Tensors` makes a random tensor when a network first asks for it, so a forward
pass says what a file holds.
"""

import io
import pickle
import sys
import types

import numpy as np
import torch_bytes


class Tensors(dict):
  """Random float32 tensors by name."""

  def __init__(self, seed=0):
    self.rng = np.random.default_rng(seed)

  def get(self, name, *shape, scale=None):
    if name not in self:
      scale = scale or (np.prod(shape[1:]) or 1) ** -0.5
      array = scale * self.rng.standard_normal(shape)
      self[name] = np.asarray(array, np.float32)
    assert self[name].shape == shape
    return self[name].astype(np.float64)


def silu(x):
  return x / (1 + np.exp(-x))


def softmax(x):
  x = np.exp(x - x.max(-1, keepdims=True))
  return x / x.sum(-1, keepdims=True)


def convolve(x, w, pad=None):
  size = w.shape[-1]
  pad = size // 2 if pad is None else pad
  x = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
  h, v = (n - size + 1 for n in x.shape[2:])
  return sum(
    np.einsum("bchw,oc->bohw", x[:, :, i : i + h, j : j + v], w[:, :, i, j])
    for i in range(size)
    for j in range(size)
  )


def resample(x, mode, taps):
  """Halve by a filter, or double by four times it, written as matrices."""
  taps, pad = np.array(taps) / sum(taps), (len(taps) - 1) // 2
  small = x.shape[2] // 2 if mode == "down" else x.shape[2]
  matrix = np.zeros((small, 2 * small))
  for i in range(small):
    for k, tap in enumerate(taps):
      if 0 <= 2 * i + k - pad < 2 * small:
        matrix[i, 2 * i + k - pad] += tap
  if mode == "up":
    matrix = 2 * matrix.T
  return np.einsum("ih,jw,bchw->bcij", matrix, matrix, x)


def attend(qkv, heads):
  """Return the attention of [B, heads (c 3), H, W], q, k, v innermost."""
  batch, width, height, breadth = qkv.shape
  q, k, v = np.moveaxis(
    qkv.reshape(batch, heads, width // heads // 3, 3, height * breadth), 3, 0
  )
  scores = softmax(np.einsum("bhcq,bhck->bhqk", q, k) / np.sqrt(q.shape[2]))
  out = np.einsum("bhqk,bhck->bhcq", scores, v)
  return out.reshape(batch, width // 3, height, breadth)


def names(side, mult, blocks):
  """Yield part, name, resampling and level of every block."""
  for level in range(len(mult)):
    at = f"{side >> level}x{side >> level}"
    if level:
      yield "enc", f"enc.{at}_down", "down", level, None
    for i in range(blocks):
      yield "enc", f"enc.{at}_block{i}", "keep", level, i
  for level in reversed(range(len(mult))):
    at = f"{side >> level}x{side >> level}"
    if level == len(mult) - 1:
      yield "dec", f"dec.{at}_in0", "keep", level, "attends"
      yield "dec", f"dec.{at}_in1", "keep", level, None
    else:
      yield "dec", f"dec.{at}_up", "up", level, None
    for i in range(blocks + 1):
      yield "dec", f"dec.{at}_block{i}", "keep", level, i


def edm(p, x, noise, onehot, augment, *, kind, channels, mult, blocks, attn):
  """The raw network of EDM at images [B, C, H, W]; its labels may be None."""
  adm, ncsn = kind == "adm", kind == "ncsn++"
  eps, taps = (1e-5, (1, 1)) if adm else (1e-6, (1, 1))
  taps = (1, 3, 3, 1) if ncsn else taps
  root = 1 if adm else np.sqrt(0.5)
  # A buffer of modules that resample.
  square = np.outer(taps, taps)[None, None].astype(np.float32) / sum(taps) ** 2
  side, colours = x.shape[2], x.shape[1]

  def linear(name, x, after):
    w = p.get(f"{name}.weight", after, x.shape[1])
    return x @ w.T + p.get(f"{name}.bias", after, scale=0.3)

  def conv(name, x, after, size, pad=None):
    w = p.get(f"{name}.weight", after, x.shape[1], size, size)
    b = p.get(f"{name}.bias", after, scale=0.3)
    return convolve(x, w, pad) + b[:, None, None]

  def norm(name, x):
    groups = min(32, x.shape[1] // 4)
    y = x.reshape(len(x), groups, -1)
    y = y - y.mean(-1, keepdims=True)
    y = y / np.sqrt((y**2).mean(-1, keepdims=True) + eps)
    w = p.get(f"{name}.weight", x.shape[1], scale=1.0)
    b = p.get(f"{name}.bias", x.shape[1], scale=0.3)
    return y.reshape(x.shape) * w[:, None, None] + b[:, None, None]

  def change(x, mode):
    return x if mode == "keep" else resample(x, mode, taps)

  def block(name, x, e, after, mode, attends):
    h = conv(f"{name}.conv0", change(silu(norm(f"{name}.norm0", x)), mode),
             after, 3)  # fmt: skip
    a = linear(f"{name}.affine", e, after * (1 + adm))[:, :, None, None]
    if adm:
      h = norm(f"{name}.norm1", h) * (1 + a[:, :after]) + a[:, after:]
    else:
      h = norm(f"{name}.norm1", h + a)
    h = conv(f"{name}.conv1", silu(h), after, 3)
    before = x.shape[1]
    x = change(x, mode)
    if mode != "keep":
      for place in ("conv0", "skip"):
        p[f"{name}.{place}.resample_filter"] = square
    if before != after or (mode != "keep" and not adm):
      x = conv(f"{name}.skip", x, after, 1)
    x = (x + h) * root
    if attends:
      qkv = conv(f"{name}.qkv", norm(f"{name}.norm2", x), 3 * after, 1)
      h = attend(qkv, after // 64 if adm else 1)
      x = (x + conv(f"{name}.proj", h, after, 1)) * root
    return x

  features = channels * (1 + ncsn)
  half = features // 2
  if ncsn:
    waves = 2 * np.pi * p.get("map_noise.freqs", half, scale=2.0)
  else:
    waves = 1e-4 ** (np.arange(half) / (half if adm else half - 1))
  angle = noise[:, None] * waves
  parts = [np.cos(angle), np.sin(angle)]
  e = np.concatenate(parts if adm else parts[::-1], axis=1)
  if onehot is not None and not adm:
    count = onehot.shape[1]
    e = e + linear("map_label", onehot * np.sqrt(count), features)
  if augment is not None:
    w = p.get("map_augment.weight", features, augment.shape[1])
    e = e + augment @ w.T
  e = silu(linear("map_layer0", e, 4 * channels))
  e = linear("map_layer1", e, 4 * channels)
  if onehot is not None and adm:
    w = p.get("map_label.weight", 4 * channels, onehot.shape[1], scale=1.0)
    e = e + onehot @ w.T
  e = silu(e)

  image = x
  x = conv(f"enc.{side}x{side}_conv", x, channels, 3)
  skips = [x]
  for part, name, mode, level, i in names(side, mult, blocks):
    after = x.shape[1] if i in (None, "attends") else channels * mult[level]
    attends = side >> level in attn and isinstance(i, int)
    if part == "enc":
      x = block(name, x, e, after, mode, attends)
      if ncsn and mode == "down":
        aux = name.replace("_down", "_aux_residual")
        p[f"{aux}.resample_filter"] = square
        seen = conv(aux, image, after, 3, pad=2)
        # Filtered without a border: one pixel more on each side is there.
        wide = np.pad(seen, ((0, 0), (0, 0), (1, 1), (1, 1)))
        x = image = (x + resample(wide, mode, taps)[:, :, 1:-1, 1:-1]) * root
      skips.append(x)
      continue
    if isinstance(i, int):
      x = np.concatenate([x, skips.pop()], axis=1)
      attends = attends and (adm or i == blocks)
    x = block(name, x, e, after, mode, attends or i == "attends")
  last = ("out_norm", "out_conv") if adm else tuple(
    f"dec.{side}x{side}_aux_{x}" for x in ("norm", "conv")
  )  # fmt: skip
  return conv(last[1], silu(norm(last[0], x)), colours, 3)


def edm2(p, x, noise, onehot, *, channels, mult, blocks, attn):
  """The raw network of EDM2."""
  side, colours = x.shape[2], x.shape[1]
  wide = channels * max(mult)

  def unit(x, axes):
    size = np.sqrt((x**2).mean(axes, keepdims=True))
    return x / (1e-4 + size)

  def mp_silu(x):
    return silu(x) / 0.596

  def mp_sum(a, b, t):
    return ((1 - t) * a + t * b) / np.sqrt((1 - t) ** 2 + t**2)

  def layer(name, x, after, *size, gain=1.0):
    w = p.get(f"{name}.weight", after, x.shape[1], *size, scale=1.7)
    axes = tuple(range(1, w.ndim))
    w = unit(w, axes) * gain / np.sqrt(w[0].size)
    return convolve(x, w) if size else x @ w.T

  def block(part, name, x, e, after, mode, attends):
    before = x.shape[1]
    x = x if mode == "keep" else resample(x, mode, (1, 1))
    if part == "enc":
      if before != after:
        x = layer(f"{name}.conv_skip", x, after, 1, 1)
      x = unit(x, 1)
    y = layer(f"{name}.conv_res0", mp_silu(x), after, 3, 3)
    gain = p.get(f"{name}.emb_gain", scale=0.8)
    c = layer(f"{name}.emb_linear", e, after, gain=gain) + 1
    y = mp_silu(y * c[:, :, None, None])
    y = layer(f"{name}.conv_res1", y, after, 3, 3)
    if part == "dec" and before != after:
      x = layer(f"{name}.conv_skip", x, after, 1, 1)
    x = mp_sum(x, y, 0.3)
    if attends:
      qkv = layer(f"{name}.attn_qkv", x, 3 * after, 1, 1)
      split = qkv.reshape(len(x), after // 64, 64, 3, *x.shape[2:])
      y = attend(unit(split, 2).reshape(qkv.shape), after // 64)
      x = mp_sum(x, layer(f"{name}.attn_proj", y, after, 1, 1), 0.3)
    return np.clip(x, -256, 256)

  freqs = p.get("emb_fourier.freqs", channels, scale=3.0)
  phases = p.get("emb_fourier.phases", channels, scale=3.0)
  e = np.sqrt(2) * np.cos(noise[:, None] * freqs + phases)
  e = layer("emb_noise", e, wide)
  labels = onehot * np.sqrt(onehot.shape[1])
  e = mp_silu(mp_sum(e, layer("emb_label", labels, wide), 0.5))
  x = np.concatenate([x, np.ones_like(x[:, :1])], axis=1)
  x = layer(f"enc.{side}x{side}_conv", x, channels, 3, 3)
  skips = [x]
  for part, name, mode, level, i in names(side, mult, blocks):
    after = x.shape[1] if i in (None, "attends") else channels * mult[level]
    attends = i == "attends" or (side >> level in attn and isinstance(i, int))
    if part == "dec" and isinstance(i, int):
      a, b = x, skips.pop()
      total = np.sqrt((a.shape[1] + b.shape[1]) / 2)
      x = np.concatenate(
        [y * total / np.sqrt(y.shape[1]) for y in (a, b)], axis=1
      )
    x = block(part, name, x, e, after, mode, attends)
    if part == "enc":
      skips.append(x)
  return layer("out_conv", x, colours, 3, 3, gain=p.get("out_gain", scale=1.0))


class Persistent:
  """An object as `torch_utils.persistence` pickles it."""

  def __init__(self, name, state, source="raise SystemExit('it was run')"):
    self.meta = {"type": "class", "version": 6, "module_src": source}
    self.meta |= {"class_name": name, "state": state}


def module(name, tensors, options, inner=()):
  """A module with the tensors of a dict, and modules for their dotted names."""
  own, below = {}, {}
  for key, array in tensors.items():
    head, _, rest = key.partition(".")
    if rest:
      below.setdefault(head, {})[rest] = array
    else:
      own[head] = array
  modules = {key: module("Layer", x, {}) for key, x in below.items()}
  state = {"_parameters": own, "_buffers": {}, "_init_kwargs": options}
  return Persistent(name, state | {"_modules": modules | dict(inner)})


def dump(path, loaded, monkeypatch):
  """Pickle modules and arrays, with the names that PyTorch gives them."""
  known = {}
  for place, attribute in (
    ("torch_utils.persistence", "_reconstruct_persistent_obj"),
    ("torch.storage", "_load_from_bytes"),
    ("torch._utils", "_rebuild_tensor_v2"),
    ("torch._utils", "_rebuild_parameter"),
  ):
    made = lambda *args: None  # noqa: E731
    made.__module__, made.__qualname__ = place, attribute
    made.__name__ = attribute
    known[attribute] = made
    package = place.partition(".")[0]
    monkeypatch.setitem(sys.modules, package, types.ModuleType(package))
    found = sys.modules.get(place)
    if not isinstance(found, types.ModuleType) or not hasattr(found, "_ours"):
      found = types.ModuleType(place)
      found._ours = True
      monkeypatch.setitem(sys.modules, place, found)
    setattr(found, attribute, made)
  numbers = path.with_suffix(".storage")

  class Storage:
    def __init__(self, array):
      place = torch_bytes.storage("0", array.size, legacy=True)
      data = {"0": array.tobytes()}
      torch_bytes.write_legacy(numbers, place, data)
      self.data = numbers.read_bytes()

  class Tensor:
    def __init__(self, array):
      self.array = array

  class Pickler(pickle.Pickler):
    def reducer_override(self, obj):
      if isinstance(obj, Persistent):
        return known["_reconstruct_persistent_obj"], (obj.meta,)
      if isinstance(obj, np.ndarray):
        return known["_rebuild_parameter"], (Tensor(obj), False, {})
      if isinstance(obj, Tensor):
        stride = tuple(torch_bytes.contiguous(obj.array.shape))
        place = Storage(obj.array)
        layout = (place, 0, obj.array.shape, stride, False, {})
        return known["_rebuild_tensor_v2"], layout
      if isinstance(obj, Storage):
        return known["_load_from_bytes"], (obj.data,)
      return NotImplemented

  stream = io.BytesIO()
  Pickler(stream).dump(loaded)
  path.write_bytes(stream.getvalue())
