"""Files of reference statistics: moments of real data and their description.

Ours hold `mu` [D] and `sigma` [D, D] in float64, of spatial features `mu_s` and
`sigma_s`, the features of the first samples as `features` [K, D] (float32), and
`about`, a JSON description: network, protocol, sha256, num, data, split.
Published files are read as well: pytorch-fid's and EDM's `mu`, `sigma`; ADM's,
with `mu_s`, `sigma_s`; MeanFlow's `ref_mu`, `ref_sigma`. They do not say how
many samples they are of, nor by which protocol.
"""

import json
import math
import pathlib
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxflow.errors import RunError, UsageError
from jaxflow.files import save_arrays
from jaxflow.metrics.moments import Moments
from jaxflow.metrics.summary import SampleSummary

__all__ = ["read_statistics", "write_statistics"]

# Names of mean and covariance, of features and of spatial features.
_KEYS = (("mu", "sigma"), ("ref_mu", "ref_sigma"))
_SPATIAL = ("mu_s", "sigma_s")
# Errors from reading a damaged file or one of another kind.
_DAMAGE = (
  *(OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error),
  *(AttributeError, TypeError, KeyError),
)
# Samples of a file that does not say how many: more than any error can see.
_MANY = 10**9
# A covariance is symmetric but for the rounding of who has written it.
_ASYMMETRY = 1e-4


def write_statistics(
  path: pathlib.Path,
  drawn: SampleSummary,
  network: str,
  about: Mapping[str, Any],
) -> None:
  """Write statistics in one step.

  Args:
    path: An .npz file; one of that name is replaced.
    drawn: Real samples, seen by the network.
    network: Its name.
    about: Facts about them, for JSON.

  Raises:
    RunError: The file cannot be written.

  Example:
    >>> import tempfile
    >>> rows = np.random.default_rng(0).standard_normal((9, 2))
    >>> drawn = SampleSummary(num=9, features={"net": rows},
    ...               moments={"net": Moments.of(rows)})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...   path = pathlib.Path(folder) / "stats.npz"
    ...   write_statistics(path, drawn, "net", {"network": "net"})
    ...   found, about = read_statistics(path, "net")
    >>> found.num, about["num"], bool((found.moments["net"].mean
    ...                                == drawn.moments["net"].mean).all())
    (9, 9, True)
  """
  arrays = _moments(drawn.moments[network], _KEYS[0])
  spatial = drawn.moments.get(f"{network}_spatial")
  if spatial is not None:
    arrays |= _moments(spatial, _SPATIAL)
  if network in drawn.features:
    arrays["features"] = drawn.features[network].astype(np.float32)
  arrays["about"] = np.array(json.dumps({**about, "num": drawn.num}))
  try:
    save_arrays(path, arrays)
  except OSError as error:
    raise RunError(
      f"{path} cannot be written ({error.strerror}): give another file, or "
      "make room"
    ) from error


def read_statistics(
  path: pathlib.Path, network: str
) -> tuple[SampleSummary, dict[str, Any]]:
  """Read statistics, ours or published ones.

  Args:
    path: An .npz file.
    network: Name of the network that is to be compared by.

  Returns:
    The statistics and their description; {} for published files, whose
    number of samples is unknown: they count as exact.

  Raises:
    UsageError: The file is missing, damaged, of another network, or holds no
      statistics.
  """
  where = f"path={str(path)!r}"
  if not path.is_file():
    raise UsageError(
      f"{where}: there is no such file; write it with jaxflow stats"
    )
  try:
    with open(path, "rb") as raw, np.load(raw) as file:
      arrays = {name: file[name] for name in file.files}
    about = json.loads(str(arrays.pop("about", "{}")))
    num = int(about.get("num", _MANY))
  except _DAMAGE as error:
    raise UsageError(
      f"{where} cannot be read ({error}): it is damaged or no .npz file; write "
      "it again with jaxflow stats"
    ) from error
  if about.get("network", network) != network:
    raise UsageError(
      f"{where} is of the network {about['network']!r}, not of {network!r}: "
      "give statistics of the network that evaluation.network names"
    )
  keys = next((keys for keys in _KEYS if set(keys) <= set(arrays)), None)
  if keys is None:
    raise UsageError(
      f"{where} holds {', '.join(arrays) or 'nothing'}: statistics are mu and "
      "sigma, or ref_mu and ref_sigma"
    )
  moments = {network: _checked(arrays, keys, num, where)}
  if set(_SPATIAL) <= set(arrays):
    moments[f"{network}_spatial"] = _checked(arrays, _SPATIAL, num, where)
  features = {}
  if "features" in arrays:
    rows = arrays["features"]
    size = len(moments[network].mean)
    if rows.ndim != 2 or rows.shape[1] != size or not 0 < len(rows) <= num:
      raise UsageError(
        f"{where}: features have shape {rows.shape}, of {num} samples of "
        f"{size} numbers: the file is damaged; write it again with jaxflow "
        "stats"
      )
    features[network] = rows
  return SampleSummary(num=num, features=features, moments=moments), about


def _moments(moments: Moments, keys: tuple[str, str]) -> dict[str, np.ndarray]:
  return dict(zip(keys, (moments.mean, moments.covariance), strict=True))


def _checked(
  arrays: Mapping[str, np.ndarray], keys: tuple[str, str], num: int, where: str
) -> Moments:
  """Return the moments under two keys, or raise UsageError."""
  mean, covariance = (arrays[key] for key in keys)
  size = mean.size
  kinds = {mean.dtype.kind, covariance.dtype.kind}
  shapes = mean.shape, covariance.shape
  if not size or shapes != ((size,), (size, size)) or not kinds <= {*"fiu"}:
    raise UsageError(
      f"{where}: {keys[0]} has shape {mean.shape} and {keys[1]} "
      f"{covariance.shape}: statistics are [D] and [D, D]"
    )
  mean, covariance = mean.astype(np.float64), covariance.astype(np.float64)
  total = mean.sum() + covariance.sum()
  apart = np.abs(covariance - covariance.T).max(initial=0.0)
  if not math.isfinite(total) or apart > _ASYMMETRY * np.abs(covariance).max():
    raise UsageError(
      f"{where}: {keys[1]} is not finite or not symmetric: the file is "
      "damaged; write it again with jaxflow stats"
    )
  values = np.linalg.eigvalsh(covariance)
  if values[0] < -_ASYMMETRY * max(values[-1], 0.0):
    raise UsageError(
      f"{where}: {keys[1]} is no covariance, an eigenvalue of it is negative: "
      "the file is damaged; write it again with jaxflow stats"
    )
  return Moments(num, mean, covariance * (num - 1))
