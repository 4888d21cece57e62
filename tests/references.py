"""The reference numbers: files of `tests/reference` and the stub network."""

import functools
import json
import pathlib
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

FOLDER = pathlib.Path(__file__).parent / "reference"


class Case(NamedTuple):
  """One file: hyperparameters, inputs, weights by role, expected values."""

  hyper: dict[str, Any]
  given: dict[str, Any]
  weights: dict[str, dict[str, Any]]
  out: dict[str, Any]
  grad: dict[str, dict[str, Any]]
  mid: dict[str, Any]
  f32_error: dict[str, float]

  def network(self, role: str, **changes):
    """The stub with the weights of a role, or None if the case has none."""
    if role not in self.weights:
      return None
    return functools.partial(stub, self.weights[role] | changes)


def load(name: str, dtype=jnp.float64) -> Case:
  """Read a case with its floating-point arrays cast to `dtype`."""
  with np.load(FOLDER / f"{name}.npz") as archive:
    files = {k: archive[k] for k in archive.files}
  meta = json.loads(str(files.pop("meta")))

  def part(prefix):
    return {
      k[len(prefix) :]: jnp.asarray(v, dtype if v.dtype.kind == "f" else None)
      for k, v in files.items()
      if k.startswith(prefix)
    }

  def by_role(prefix):
    roles: dict[str, dict] = {}
    for k, v in part(prefix).items():
      role, weight = k.split("/")
      roles.setdefault(role, {})[weight] = v
    return roles

  return Case(
    meta["hyper"],
    part("in/"),
    by_role("w/"),
    part("out/"),
    by_role("grad/"),
    part("mid/"),
    meta.get("f32_error", {}),
  )


def table(name: str) -> dict[str, np.ndarray]:
  """Read a table of numbers."""
  with np.load(FOLDER / f"{name}.npz") as archive:
    return {k: archive[k] for k in archive.files if k != "meta"}


def hyper(name: str) -> dict[str, Any]:
  """Read the hyperparameters of a file."""
  with np.load(FOLDER / f"{name}.npz") as archive:
    return json.loads(str(archive["meta"]))["hyper"]


def features(u):
  """`[sin u, cos u]`, `[B] -> [B, 2]`."""
  return jnp.stack([jnp.sin(u), jnp.cos(u)], 1)


def stub(w, x, t, s, cond=None):
  """The stub network; a term is present exactly when its weight is stored."""
  pre = x.reshape(len(x), -1) @ w["Wx"] + features(t) @ w["Wt"] + w["b1"][None]
  if "Ws" in w:
    pre += features(s) @ w["Ws"]
  if "E" in w:
    pre += w["E"][cond]
  return (jnp.tanh(pre) @ w["W2"] + w["b2"][None]).reshape(x.shape)
