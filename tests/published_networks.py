"""Networks of evaluation written once more, over NumPy or PyTorch.

They take tensors by their published names, in PyTorch's layout [B, C, H, W].
`weight(name, shape)` gives a tensor, or checks its shape.
"""

import numpy as np

NORM = ("running_mean", "running_var", "weight", "bias")


class Plain:
  """What the networks need, in float64, as sums over shifted images."""

  relu = staticmethod(lambda x: np.maximum(x, 0))
  relu6 = staticmethod(lambda x: np.clip(x, 0, 6))
  mean = staticmethod(lambda x: x.mean((2, 3)))
  join = staticmethod(lambda parts: np.concatenate(parts, 1))
  tensor = staticmethod(lambda x: np.asarray(x, np.float64))

  @staticmethod
  def _shifted(x, size, stride, pads, fill=0.0):
    """Return the image as each tap (i, j) of a kernel sees it."""
    top, bottom, left, right = pads
    spread = ((0, 0), (0, 0), (top, bottom), (left, right))
    x = np.pad(x, spread, constant_values=fill)
    rows, columns = (
      (n - k) // stride + 1 for n, k in zip(x.shape[2:], size, strict=True)
    )
    for i in range(size[0]):
      for j in range(size[1]):
        yield (
          *(i, j),
          x[
            :,
            :,
            i : i + rows * stride : stride,
            j : j + columns * stride : stride,
          ],
        )

  def conv(self, x, kernel, stride, pads, groups=1):
    total = 0
    for i, j, seen in self._shifted(x, kernel.shape[2:], stride, pads):
      tap = kernel[:, :, i, j]
      if groups == 1:
        total = total + np.moveaxis(np.tensordot(tap, seen, (1, 1)), 0, 1)
      else:
        total = total + seen * tap.reshape(1, -1, 1, 1)
    return total

  def norm(self, x, mean, variance, weight, bias):
    mean, variance, weight, bias = (
      p.reshape(1, -1, 1, 1) for p in (mean, variance, weight, bias)
    )
    return (x - mean) / np.sqrt(variance + 1e-3) * weight + bias

  def largest(self, x, stride, pad):
    taps = self._shifted(x, (3, 3), stride, (pad,) * 4, -np.inf)
    return np.max([seen for *_, seen in taps], axis=0)

  def average(self, x):
    """Of the 3 x 3 pixels around each, those inside of the image."""
    size, pads = (3, 3), (1, 1, 1, 1)
    total, inside = (
      sum(seen for *_, seen in self._shifted(image, size, 1, pads))
      for image in (x, np.ones_like(x))
    )
    return total / inside


class Torch:
  """The same by PyTorch's own functions."""

  def __init__(self):
    import torch

    self.torch, self.functional = torch, torch.nn.functional
    self.relu, self.relu6 = self.functional.relu, self.functional.relu6

  def tensor(self, x):
    return self.torch.as_tensor(x)

  def mean(self, x):
    return self.functional.adaptive_avg_pool2d(x, 1)[:, :, 0, 0]

  def join(self, parts):
    return self.torch.cat(parts, 1)

  def conv(self, x, kernel, stride, pads, groups=1):
    top, bottom, left, right = pads
    x = self.functional.pad(x, (left, right, top, bottom))
    return self.functional.conv2d(x, kernel, stride=stride, groups=groups)

  def norm(self, x, mean, variance, weight, bias):
    return self.functional.batch_norm(
      x, mean, variance, weight, bias, training=False, eps=1e-3
    )

  def largest(self, x, stride, pad):
    return self.functional.max_pool2d(x, 3, stride, pad)

  def average(self, x):
    return self.functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False)


def inception(ops, weight, x):
  """Inception-v3 with the average and maximum pools of the FID's graph."""

  def basic(name, x, width, kernel=(1, 1), stride=1, padded=True):
    shape = (width, x.shape[1], *kernel)
    pads = [k // 2 * padded for k in kernel for _ in range(2)]
    x = ops.conv(x, weight(f"{name}.conv.weight", shape), stride, pads)
    norm = [weight(f"{name}.bn.{part}", (width,)) for part in NORM]
    return ops.relu(ops.norm(x, *norm))

  def stem(x):
    x = basic("Conv2d_1a_3x3", x, 32, (3, 3), 2, False)
    x = basic("Conv2d_2a_3x3", x, 32, (3, 3), 1, False)
    x = basic("Conv2d_2b_3x3", x, 64, (3, 3))
    x = basic("Conv2d_3b_1x1", ops.largest(x, 2, 0), 80)
    x = basic("Conv2d_4a_3x3", x, 192, (3, 3), 1, False)
    return ops.largest(x, 2, 0)

  def block_a(name, x, pooled):
    five = basic(f"{name}.branch5x5_1", x, 48)
    three = basic(f"{name}.branch3x3dbl_1", x, 64)
    three = basic(f"{name}.branch3x3dbl_2", three, 96, (3, 3))
    return ops.join(
      [
        basic(f"{name}.branch1x1", x, 64),
        basic(f"{name}.branch5x5_2", five, 64, (5, 5)),
        basic(f"{name}.branch3x3dbl_3", three, 96, (3, 3)),
        basic(f"{name}.branch_pool", ops.average(x), pooled),
      ]
    )

  def block_b(name, x):
    three = basic(f"{name}.branch3x3dbl_1", x, 64)
    three = basic(f"{name}.branch3x3dbl_2", three, 96, (3, 3))
    return ops.join(
      [
        basic(f"{name}.branch3x3", x, 384, (3, 3), 2, False),
        basic(f"{name}.branch3x3dbl_3", three, 96, (3, 3), 2, False),
        ops.largest(x, 2, 0),
      ]
    )

  def block_c(name, x, width):
    once = basic(f"{name}.branch7x7_1", x, width)
    once = basic(f"{name}.branch7x7_2", once, width, (1, 7))
    twice = basic(f"{name}.branch7x7dbl_1", x, width)
    for i, kernel in enumerate([(7, 1), (1, 7), (7, 1)]):
      twice = basic(f"{name}.branch7x7dbl_{i + 2}", twice, width, kernel)
    return ops.join(
      [
        basic(f"{name}.branch1x1", x, 192),
        basic(f"{name}.branch7x7_3", once, 192, (7, 1)),
        basic(f"{name}.branch7x7dbl_5", twice, 192, (1, 7)),
        basic(f"{name}.branch_pool", ops.average(x), 192),
      ]
    )

  def block_d(name, x):
    three = basic(f"{name}.branch3x3_1", x, 192)
    seven = basic(f"{name}.branch7x7x3_1", x, 192)
    seven = basic(f"{name}.branch7x7x3_2", seven, 192, (1, 7))
    seven = basic(f"{name}.branch7x7x3_3", seven, 192, (7, 1))
    return ops.join(
      [
        basic(f"{name}.branch3x3_2", three, 320, (3, 3), 2, False),
        basic(f"{name}.branch7x7x3_4", seven, 192, (3, 3), 2, False),
        ops.largest(x, 2, 0),
      ]
    )

  def block_e(name, x, pooled):
    three = basic(f"{name}.branch3x3_1", x, 384)
    twice = basic(f"{name}.branch3x3dbl_1", x, 448)
    twice = basic(f"{name}.branch3x3dbl_2", twice, 384, (3, 3))
    return ops.join(
      [
        basic(f"{name}.branch1x1", x, 320),
        basic(f"{name}.branch3x3_2a", three, 384, (1, 3)),
        basic(f"{name}.branch3x3_2b", three, 384, (3, 1)),
        basic(f"{name}.branch3x3dbl_3a", twice, 384, (1, 3)),
        basic(f"{name}.branch3x3dbl_3b", twice, 384, (3, 1)),
        basic(f"{name}.branch_pool", pooled, 192),
      ]
    )

  x = stem(x)
  for letter, pooled in zip("bcd", (32, 64, 64), strict=True):
    x = block_a(f"Mixed_5{letter}", x, pooled)
  x = block_b("Mixed_6a", x)
  for letter, width in zip("bcde", (128, 160, 160, 192), strict=True):
    if letter == "d":
      spatial = basic("Mixed_6d.branch1x1", x, 192)[:, :7]
    x = block_c(f"Mixed_6{letter}", x, width)
  x = block_d("Mixed_7a", x)
  x = block_e("Mixed_7b", x, ops.average(x))
  x = block_e("Mixed_7c", x, ops.largest(x, 1, 1))
  features = ops.mean(x)
  logits = features @ weight("fc.weight", (1008, 2048)).T
  weight("fc.bias", (1008,))  # In the file, and left out.
  return {"features": features, "spatial": spatial, "logits": logits}


def efficientnet_lite0(ops, weight, x):
  """EfficientNet-Lite0; paddings are those of TensorFlow's "SAME"."""

  def conv(name, x, width, size, stride=1, groups=1):
    pads = []
    for n in x.shape[2:]:
      needed = max((-(-n // stride) - 1) * stride + size - n, 0)
      pads += [needed // 2, needed - needed // 2]
    shape = (width, x.shape[1] // groups, size, size)
    kernel = weight(f"{name}.weight", shape)
    return ops.conv(x, kernel, stride, pads, groups)

  def norm(name, x):
    parts = [weight(f"{name}.{part}", (x.shape[1],)) for part in NORM]
    return ops.norm(x, *parts)

  def block(name, x, size, stride, expansion, width):
    y, inner = x, expansion * x.shape[1]
    if expansion > 1:
      y = conv(f"{name}._expand_conv", y, inner, 1)
      y = ops.relu6(norm(f"{name}._bn0", y))
    y = conv(f"{name}._depthwise_conv", y, inner, size, stride, inner)
    y = conv(
      f"{name}._project_conv", ops.relu6(norm(f"{name}._bn1", y)), width, 1
    )
    y = norm(f"{name}._bn2", y)
    return x + y if x.shape == y.shape else y

  # Table 1 of the paper: kernel, stride, expansion, channels, layers.
  table = [
    *((3, 1, 1, 16, 1), (3, 2, 6, 24, 2), (5, 2, 6, 40, 2), (3, 2, 6, 80, 3)),
    *((5, 1, 6, 112, 3), (5, 2, 6, 192, 4), (3, 1, 6, 320, 1)),
  ]
  x = ops.relu6(norm("_bn0", conv("_conv_stem", x, 32, 3, 2)))
  layers = [
    (size, stride if i == 0 else 1, expansion, width)
    for size, stride, expansion, width, count in table
    for i in range(count)
  ]
  for i, layer in enumerate(layers):
    x = block(f"_blocks.{i}", x, *layer)
  x = ops.relu6(norm("_bn1", conv("_conv_head", x, 1280, 1)))
  features = ops.mean(x)
  logits = features @ weight("_fc.weight", (1000, 1280)).T
  return {
    "features": features,
    "logits": logits + weight("_fc.bias", (1000,)),
  }
