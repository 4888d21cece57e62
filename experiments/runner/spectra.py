"""How much of images is fine detail: power over spatial frequency."""

import numpy as np
from numpy.typing import NDArray

# In cycles per pixel; 0.5 is the finest that pixels can show along an axis.
HIGH = 0.25


def radial_power(
  images: NDArray[np.float32],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
  """Return the mean power of images in rings of equal frequency.

  The rings are one cycle per image wide, up to the finest along an axis.

  Args:
    images: [N, H, W, C].

  Returns:
    Frequencies in cycles per pixel [R], and the power of each ring [R]: the
    mean of |DFT|^2 / (H W) over it, over images and channels.
  """
  power, radius = _power(images)
  side = min(images.shape[1:3])
  ring = np.round(radius * side).astype(int)
  frequencies = np.arange(side // 2 + 1)
  found = [power[ring == number].mean() for number in frequencies]
  return frequencies / side, np.array(found)


def fine_power(images: NDArray[np.float32]) -> float:
  """Return the mean power [of N, H, W, C] at `HIGH` and above."""
  power, radius = _power(images)
  return float(power[radius >= HIGH].mean())


def _power(
  images: NDArray[np.float32],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
  """Return power and frequency [H, W]."""
  tall, wide = images.shape[1:3]
  found = np.fft.fft2(np.asarray(images, np.float64), axes=(1, 2))
  power = (np.abs(found) ** 2).mean(axis=(0, 3)) / (tall * wide)
  y, x = np.fft.fftfreq(tall), np.fft.fftfreq(wide)
  return power, np.hypot(y[:, None], x[None])
