"""The reference numbers: files of `tests/reference` and the stub network."""

import functools
import json
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxflow import paths

FOLDER = pathlib.Path(__file__).parent / "reference"
PATHS = {
  "linear": "Linear",
  "trigonometric": "Trigonometric",
  "variance_preserving": "VariancePreserving",
  "variance_exploding": "VarianceExploding",
}


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
    """Return the stub with the weights of a role, or None without any."""
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
  """Return the stub network; a term exists if its weight is stored.

  `cond` is labels, or a dict with `label`, `omega`, `t_start`, `t_end`. With a
  second head (`W3`) it returns a pair.
  """
  conditions = dict(cond) if isinstance(cond, dict) else {"label": cond}
  pre = x.reshape(len(x), -1) @ w["Wx"] + features(t) @ w["Wt"] + w["b1"][None]
  if "Ws" in w:
    pre += features(s) @ w["Ws"]
  if "E" in w:
    pre += w["E"][conditions.pop("label")]
  for name, value in conditions.items():
    if f"W_{name}" in w:
      pre += features(value) @ w[f"W_{name}"]
  hidden = jnp.tanh(pre)
  out = (hidden @ w["W2"] + w["b2"][None]).reshape(x.shape)
  if "W3" not in w:
    return out
  return out, (hidden @ w["W3"] + w["b3"][None]).reshape(x.shape)


def discriminator(w, x, label=None, s=None):
  """Return the stub discriminator: logits `[B]`."""
  pre = x.reshape(len(x), -1) @ w["D1"] + w["d1"][None]
  if "DE" in w:
    pre += w["DE"][label]
  if "DT" in w:
    pre += features(s) @ w["DT"]
  return jnp.tanh(pre) @ w["D2"] + w["d2"][None]


def feature_network(w, x):
  """Return the stub of a perceptual distance: features `[B, n]`."""
  return jnp.tanh(x.reshape(len(x), -1) @ w["P"])


def log_weight(w, t, s=None):
  """Return the stub of a learned log-weight: `[B] -> [B]`."""
  of_s = 0 if s is None else features(s) @ w["wm"]
  return features(t) @ w["wl"] + of_s


STUBS = {
  "disc": discriminator,
  "feat": feature_network,
  "feat2": feature_network,
  "weight": log_weight,
}

# (case, networks by role) -> (loss [B], metrics).
Adapter = Callable[[Case, dict[str, Callable]], tuple[Any, dict[str, Any]]]


def evaluate(case: Case, adapter: Adapter):
  """Compute loss, metrics and the gradients that the case holds."""

  def mean_loss(trained):
    weights = case.weights | trained
    networks = {
      role: functools.partial(STUBS.get(role, stub), w)
      for role, w in weights.items()
    }
    loss, metrics = adapter(case, networks)
    return loss.mean(), (loss, metrics)

  compute = jax.jit(jax.value_and_grad(mean_loss, has_aux=True))
  trained = {role: case.weights[role] for role in case.grad}
  (_, (loss, metrics)), gradient = compute(trained)
  return loss, metrics, gradient


def check(
  case: Case, adapter: Adapter, dtype, value_tolerance, gradient_tolerance
) -> dict[str, Any]:
  """Compare loss and gradient with a case; return the metrics."""
  loss, metrics, gradient = evaluate(case, adapter)
  expected = case.out["per_sample"]
  assert loss.dtype == dtype and loss.shape == expected.shape
  scale = np.abs(expected).max()
  assert np.abs(loss - expected).max() <= value_tolerance * scale
  for role, values in case.grad.items():
    for key, value in values.items():
      error = np.linalg.norm(gradient[role][key] - value)
      assert error <= gradient_tolerance * np.linalg.norm(value), (role, key)
  return metrics


def check_float64(name: str, adapter: Adapter) -> None:
  """Compare a case in float64; the caller enables it."""
  case = load(name)
  metrics = check(case, adapter, jnp.float64, 1e-9, 1e-9)
  if "raw" in case.mid:
    np.testing.assert_allclose(metrics["raw"], case.mid["raw"].mean())


def check_float32(name: str, adapter: Adapter) -> None:
  """Compare a case in float32.

  `f32_error` is what a plain float32 evaluation of the formula reaches.
  """
  case = load(name, jnp.float32)
  limits = [
    max(1e-5, 20 * case.f32_error[part]) for part in ("per_sample", "grad")
  ]
  check(case, adapter, jnp.float32, *limits)


def path_of(hyper: dict[str, Any]) -> paths.Path:
  """Make the path of a case."""
  options = dict(hyper["path"])
  return getattr(paths, PATHS[options.pop("name")])(**options)


def derivative_of(hyper: dict[str, Any]) -> dict[str, Any]:
  """Return how a case differentiates along the flow, if not by a JVP."""
  names = "derivative", "difference_step"
  return {name: hyper[name] for name in names if name in hyper}


def batch_of(case: Case) -> dict[str, Any]:
  """Collect data, noise and labels, dropped where the case says so."""
  label = case.given.get("label")
  if "drop" in case.given:
    label = jnp.where(case.given["drop"], case.hyper["num_classes"], label)
  batch = {"data": case.given["data"], "noise": case.given["noise"]}
  return batch if label is None else batch | {"cond": label}


def cases(*prefixes: str) -> list[str]:
  """List the names of the cases that begin with one of the prefixes."""
  names = sorted(path.stem for path in FOLDER.glob("*.npz"))
  return [name for name in names if name.startswith(prefixes)]
