"""Files of reference statistics, in place of what a network sees of real data.

Ours hold `mu` [D] and `sigma` [D, D] in float64, of spatial features `mu_s` and
`sigma_s`, the features of the first samples as `features` [K, D] (float32),
`about`, a JSON description: network, protocol, sha256, num, data, split, and
`sha256` of the arrays.
Published files are read as well: pytorch-fid's and EDM's `mu`, `sigma`; ADM's,
with `mu_s`, `sigma_s`; MeanFlow's `ref_mu`, `ref_sigma`. They do not say how
many samples they are of, nor by which protocol.
"""

import dataclasses
import json
import math
import pathlib
from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np

from jaxflow.errors import UsageError, named
from jaxflow.files import save_arrays
from jaxflow.metrics.moments import Moments
from jaxflow.metrics.summary import SampleSummary
from jaxflow.models import Extractor
from jaxflow.options import Range
from jaxflow.parallel import processes
from jaxflow.parallel.hashing import parameters_hash
from jaxflow.plans import Plan
from jaxflow.reading import checked, read_arrays, reading

FIELD = "evaluation.reference"
# Names of mean and covariance, of features and of spatial features.
_KEYS = (("mu", "sigma"), ("ref_mu", "ref_sigma"))
_SPATIAL = ("mu_s", "sigma_s")
# Samples of a file that does not say how many: more than any error can see.
_MANY = 10**9
# A covariance is symmetric but for the rounding of who has written it.
_ASYMMETRY = 1e-4
_Num = Annotated[int, Range("2 or more", lambda x: x > 1)] | None
_ABOUT = {"num": _Num, "network": str | None}


def write_statistics(
  path: pathlib.Path,
  drawn: SampleSummary,
  network: str,
  about: Mapping[str, Any],
) -> None:
  """Write the statistics of real samples and facts about them, as .npz."""
  arrays = {}
  for name, keys in ((network, _KEYS[0]), (f"{network}_spatial", _SPATIAL)):
    if name in drawn.moments:
      moments = drawn.moments[name]
      arrays |= {keys[0]: moments.mean, keys[1]: moments.covariance}
  if network in drawn.features:
    arrays["features"] = drawn.features[network].astype(np.float32)
  arrays["about"] = np.array(json.dumps({**about, "num": drawn.num}))
  # The first: an archive whose directory is cut short ends earlier.
  arrays = {"sha256": np.array(parameters_hash(arrays)), **arrays}
  save_arrays(path, arrays, "give another file, or make room")


def read_statistics(
  path: pathlib.Path, network: str
) -> tuple[SampleSummary, dict[str, Any]]:
  """Read statistics of a network, and their description.

  Published files have none, {}. How many samples they are of is unknown: they
  count as exact.
  """
  where = f"path={str(path)!r}"
  if not path.is_file():
    raise UsageError(
      f"{where}: there is no such file; write it with jaxflow stats"
    )
  remedy = "it is damaged or no .npz file; write it again with jaxflow stats"
  with reading(where, remedy):
    arrays = read_arrays(path)
    written = arrays.pop("sha256", None)
    if written is not None and written != parameters_hash(arrays):
      raise ValueError("its arrays are not those that were written")
    text = str(arrays.pop("about", "{}"))
    about = checked(json.loads(text), _ABOUT, "about")
  num = about.get("num", _MANY)
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stored:
  """Statistics that a config names, and their description in the file."""

  path: str
  network: str
  drawn: SampleSummary
  about: Mapping[str, Any]

  def describe(self) -> dict[str, Any]:
    """Return the description of the reference, for evaluation.json."""
    num = self.about.get("num")
    return {"file": self.path, "num": num, "about": dict(self.about)}

  def replace_in(self, reference: SampleSummary) -> SampleSummary:
    """Replace computed statistics; rows are kept of as many as both have."""
    size = len(reference.moments[self.network].mean)
    found = len(self.drawn.moments[self.network].mean)
    if found != size:
      raise UsageError(
        f"{FIELD}={self.path!r} has {found} numbers a sample, and the network "
        f"{self.network!r} gives {size}: give statistics of this network"
      )
    features = self.drawn.features
    kept = slice(min([reference.num_rows, *map(len, features.values())]))
    return dataclasses.replace(
      reference,
      samples=None if reference.samples is None else reference.samples[kept],
      label=None if reference.label is None else reference.label[kept],
      logits={name: rows[kept] for name, rows in reference.logits.items()},
      features={name: rows[kept] for name, rows in features.items()},
      moments=self.drawn.moments,
    )


def read_reference(plan: Plan, network: Extractor | None) -> Stored | None:
  """Read the statistics of `evaluation.reference`, None without a file."""
  path = plan.evaluation.reference
  if not path:
    return None
  if network is None:
    raise UsageError(
      f"{FIELD}={path!r}: statistics are of what a network sees; give "
      "evaluation.network.name"
    )
  with named(path=FIELD):
    drawn, about = processes.together(
      lambda: read_statistics(pathlib.Path(path), network.name)
    )
  here = {
    "protocol": network.protocol,
    "sha256": network.sha256,
    "data": plan.data.name,
    # Of the fresh real samples none may be in the reference.
    "split": plan.evaluation.split,
  }
  for key, value in here.items():
    if about.get(key, value) != value:
      remedy = "make it again with jaxflow stats, or evaluate as it was made"
      if key == "split":
        remedy = f"set evaluation.split={about[key]}"
      raise UsageError(
        f"{FIELD}={path!r} was made with {key} {about[key]!r}, and here it is "
        f"{value!r}: {remedy}"
      )
  return Stored(path=path, network=network.name, drawn=drawn, about=about)
