"""Conditions that are no classes, latents, and runs without a page.

One Euler step from noise at t = 1 to 0 subtracts the velocity, which here is
the condition itself: expected samples are sums.
"""

import base64

import jax.numpy as jnp
import numpy as np
import pytest

import jaxflow
from jaxflow.config import default_config, update
from jaxflow.models import Network
from jaxflow.runs import decoding

pytest.importorskip("starlette", reason="the extra [serve]")
pytest.importorskip("uvicorn", reason="the extra [serve]")
pytest.importorskip("httpx", reason="the extra [test]")

from starlette.testclient import TestClient
from test_serve import app_of, refused

NOISE = np.float32([[1, 2], [3, 4], [5, 6]])
TEXT = base64.b64encode(NOISE.tobytes()).decode()
ASKED = {"num": 3, "noise": TEXT}


def run_of(velocity, data, **network):
  """Return a run of a velocity `(cond) -> [B, 2]`."""

  def apply(params, x, t, s, cond, key=None):
    del t, s, key
    return velocity(cond) + params["w"] * jnp.zeros_like(x)

  made = Network(lambda key: {"w": jnp.ones(())}, apply, **network)
  config = default_config("flow_matching", data="given", model="given")
  update(config, {"train": {"steps": 1, "batch_size": 8}})
  update(config, {"sample": {"nfe": 1}})
  data = {"data": np.zeros((8, 2), np.float32), **data}
  return jaxflow.train(config, data=data, network=made, log=lambda line: None)


@pytest.fixture(scope="module")
def vectors():
  """Labels 0 to 14 by twos: mean 7, deviation the square root of 21."""
  labels = np.repeat(np.arange(0, 16, 2, dtype=np.float32)[:, None], 2, axis=1)
  return run_of(
    lambda cond: jnp.where(jnp.isnan(cond), 0, cond), {"labels": labels}
  )


@pytest.fixture(scope="module")
def declared():
  null = {"text": np.zeros(2, np.float32), "sign": np.int32(0)}
  cond = {"text": np.ones((8, 2), np.float32), "sign": np.ones(8, np.int32)}
  return run_of(
    lambda cond: cond["text"] * jnp.float32(cond["sign"])[:, None],
    {"cond": cond},
    null_cond=null,
  )


@pytest.fixture(scope="module")
def vector_client(vectors):
  with TestClient(app_of(vectors, drawn=False)) as client:
    yield client


@pytest.fixture(scope="module")
def declared_client(declared):
  with TestClient(app_of(declared, drawn=False)) as client:
    yield client


def samples(client, **asked):
  answer = client.post("/sample", json=ASKED | asked)
  assert answer.status_code == 200, answer.text
  return answer.json()


def test_vectors_are_in_units_of_the_data(vector_client):
  labels = [[7, 7], [7 + 21**0.5, 7], [None, None]]
  found = samples(vector_client, labels=labels)
  want = NOISE - np.array([[0, 0], [1, 0], [0, 0]])
  np.testing.assert_allclose(found["samples"], want, rtol=0, atol=1e-5)
  assert found["labels"][2] == [None, None]
  found = samples(vector_client, labels=[7, 7 + 21**0.5])
  np.testing.assert_allclose(found["samples"], NOISE - [0, 1], atol=1e-5)


@pytest.mark.parametrize(
  "labels",
  [
    *(None, [], [1], [[1, 2]] * 2, [[1, 2], [1], [1, 2]], "1,2", [["1", 2]]),
    *([True, 1], {"0": 1}, [[[1, 2]]], [10**400, 1]),
  ],
)
def test_vectors_that_are_wrong(vector_client, labels):
  refused(vector_client, 422, json=ASKED | {"labels": labels})


def test_a_declared_condition_is_given_by_name(declared_client):
  text, sign = [[1, 1], [2, 2], [3, 3]], [1, -1, 2]
  found = samples(declared_client, cond={"text": text, "sign": sign})
  want = NOISE - np.array(text) * np.array(sign)[:, None]
  np.testing.assert_allclose(found["samples"], want, rtol=1e-6)
  found = samples(declared_client, cond={"text": [0.5, 1.5], "sign": 1})
  np.testing.assert_allclose(found["samples"], NOISE - [0.5, 1.5], rtol=1e-6)


@pytest.mark.parametrize(
  "cond",
  [
    *(None, 1, [], {}, "text", {"text": [1, 1]}, {"text": [1], "sign": 1}),
    *({"text": [1, 1], "sign": 1.5}, {"text": [1, 1], "sign": 2**40}),
    *({"text": "a", "sign": 1}, {"text": [1, None], "sign": 1}),
    *({"text": [[1, 1], [1]], "sign": 1}, {"text": [1, 1e300], "sign": 1}),
    {"text": [1, 1], "sign": 1, "more": 1},
  ],
)
def test_conditions_that_are_wrong(declared_client, cond):
  refused(declared_client, 422, json=ASKED | {"cond": cond})


def test_labels_where_a_condition_is_declared(declared_client):
  refused(declared_client, 422, json=ASKED | {"labels": [1, 1]})


def test_runs_that_the_page_cannot_draw(vector_client, declared_client):
  for client in (vector_client, declared_client):
    refused(client, 404, "GET", "/")
    refused(client, 404, "GET", "/sampler.json")
    assert client.get("/health").json()["status"] == "ok"


def test_pictures_of_points_are_refused(declared_client):
  asked = {"cond": {"text": [1, 1], "sign": 1}, "format": "png"}
  refused(declared_client, 422, json=ASKED | asked)


def test_latents_are_decoded(trained, monkeypatch):
  """A decoder of twofold enlargement, whose colours are ends of the range."""

  def decode(latents):
    return 2 * latents.repeat(2, axis=1).repeat(2, axis=2).repeat(3, axis=3)

  with TestClient(app_of(trained)) as client:
    plain = samples(client, num=2, noise=None)["samples"]
  monkeypatch.setattr(decoding, "make_data", lambda plan: decode)
  with TestClient(app_of(trained)) as client:
    found = np.array(samples(client, num=2, noise=None)["samples"])
  assert found.shape == (2, 16, 16, 3)
  # Latents are not clipped, their images are.
  inside = np.abs(plain) < 0.5
  assert inside.any()
  want = 2 * np.array(plain)[inside][:, None]
  corners = found[:, ::2, ::2][inside[..., 0]]
  np.testing.assert_allclose(corners, want.repeat(3, axis=1), atol=1e-5)
  assert np.abs(found).max() <= 1
