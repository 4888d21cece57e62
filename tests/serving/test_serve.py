"""Answers over HTTP: the samples, what is refused, and how the server ends."""

import concurrent.futures
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time

import jax
import numpy as np
import pytest
import tiny
from PIL import Image

pytest.importorskip("starlette", reason="the extra [serve]")
pytest.importorskip("uvicorn", reason="the extra [serve]")
httpx = pytest.importorskip("httpx", reason="the extra [test]")

from starlette.testclient import TestClient  # noqa: E402

from jaxflow.serving.app import MAX_BODY, make_app  # noqa: E402
from jaxflow.serving.batching import Batcher, Closed, Full  # noqa: E402
from jaxflow.serving.requests import Reader  # noqa: E402
from jaxflow.serving.sampler import default_guidance, make_draw  # noqa: E402

SIZES = (1, 4, 16)
JSON = {"Content-Type": "application/json"}


def reader_of(trained, **changes):
  given = {"nfes": (1, 2), "max_num": 64, "drawn": True}
  scale = default_guidance(trained.run)
  return Reader(plan=trained.run.plan, guidance=scale, **given | changes)


@pytest.fixture(scope="module")
def client(trained):
  draws = {
    nfe: make_draw(trained.run, trained.params, trained.mesh, nfe)
    for nfe in (1, 2)
  }
  app = make_app(reader_of(trained), Batcher(draws, SIZES, 1024))
  with TestClient(app, raise_server_exceptions=False) as client:
    yield client


def drawn(client, **asked):
  answer = client.post("/sample", json=asked)
  assert answer.status_code == 200, answer.text
  return np.array(answer.json()["samples"], np.float32)


@pytest.mark.parametrize("num", [1, 3, 16, 37])
@pytest.mark.parametrize("nfe", [1, 2])
def test_samples_are_those_of_the_run(client, trained, num, nfe):
  labels = [7 * i % 10 for i in range(num)]
  found = drawn(client, num=num, labels=labels, seed=2**32 - 1, nfe=nfe)
  want = trained.sample(num, labels=labels, seed=2**32 - 1, nfe=nfe)
  assert found.shape == want.shape
  np.testing.assert_allclose(found, want, rtol=0, atol=2e-6)


def test_classes_are_taken_in_turn_and_one_stands_for_all(client, trained):
  want = trained.sample(12, seed=3)
  np.testing.assert_allclose(drawn(client, num=12, seed=3), want, atol=2e-6)
  want = trained.sample(5, labels=4)
  found = drawn(client, num=5, labels=4)
  np.testing.assert_allclose(found, want, atol=2e-6)


def test_requests_at_once_do_not_feel_each_other(client, trained):
  asked = [{"num": 1 + i % 5, "seed": i, "labels": i % 10} for i in range(40)]
  with concurrent.futures.ThreadPoolExecutor(16) as pool:
    found = list(pool.map(lambda x: drawn(client, **x), asked))
  for given, samples in zip(asked, found, strict=True):
    want = trained.sample(**given)
    np.testing.assert_allclose(samples, want, rtol=0, atol=2e-6)


def test_guidance_is_the_scale_of_the_network(client, trained):
  scale = default_guidance(trained.run)
  plain = drawn(client, num=4)
  np.testing.assert_array_equal(drawn(client, num=4, guidance=scale), plain)
  # A new network has last layers of zeros; one of noise feels the scale.
  random = np.random.default_rng(0)
  params = jax.tree.map(
    lambda x: 0.1 * random.standard_normal(x.shape, np.float32), trained.params
  )
  draw = make_draw(trained.run, params, trained.mesh, 1)
  given = np.zeros(4, np.uint32), np.arange(4, dtype=np.uint32)
  rows = [draw(*given, np.arange(4, dtype=np.int32), x) for x in (1, 4)]
  assert np.abs(rows[0] - rows[1]).max() > 1e-4


def test_files_hold_the_samples(client, trained):
  answer = client.post("/sample", json={"num": 3, "format": "npz"})
  with np.load(io.BytesIO(answer.content), allow_pickle=False) as arrays:
    np.testing.assert_array_equal(arrays["samples"], drawn(client, num=3))
    assert arrays["labels"].tolist() == [0, 1, 2]
  answer = client.post("/sample", json={"num": 1, "format": "png"})
  assert answer.headers["content-type"] == "image/png"
  pixels = np.asarray(Image.open(io.BytesIO(answer.content)).convert("L"))
  image = trained.sample(1)[0, ..., 0]
  # 8 x 8 pixels are enlarged fourfold, behind a white gap.
  gap = (len(pixels) - 32) // 2
  inner = pixels[gap : gap + 32 : 4, gap : gap + 32 : 4]
  assert np.abs(inner - 127.5 * (image + 1)).max() <= 1


def test_page_and_health(client):
  assert "<form>" in client.get("/").text
  health = client.get("/health").json()
  assert health["status"] == "ok"
  assert health["shape"] == [8, 8, 1]


def body(**fields):
  return {"content": json.dumps(fields), "headers": JSON}


def raw(content, **headers):
  return {"content": content, "headers": JSON | headers}


BAD = {
  "empty": raw(b""),
  "word": raw(b"samples"),
  "half an object": raw(b'{"num": 1'),
  "two objects": raw(b"{}{}"),
  "no utf-8": raw(b'{"num": "\xff"}'),
  "utf-16": raw('{"num": 1}'.encode("utf-16")),
  "nul": raw(b"\0" * 10),
  "form": raw(b"num=1"),
  "deep": raw(b"[" * 30_000),
  "deep in a field": raw(b'{"labels": ' + b"[" * 30_000),
  "list": raw(b"[]"),
  "number": raw(b"3"),
  "null": raw(b"null"),
  "NaN": raw(b'{"guidance": NaN}'),
  "Infinity": raw(b'{"guidance": Infinity}'),
  "overflow": raw(b'{"guidance": 1e999}'),
  "digits": raw(b'{"num": ' + b"9" * 5000 + b"}"),
  "twice": raw(b'{"num": 1, "num": 2}'),
  "surrogate": raw(b'{"\\ud800": 1}'),
  "unknown field": body(number=3),
  "path": body(out="/tmp/x.npz"),
  "num 0": body(num=0),
  "num -1": body(num=-1),
  "num 65": body(num=65),
  "num 2**70": body(num=2**70),
  "num text": body(num="3"),
  "num float": body(num=1.0),
  "num true": body(num=True),
  "num list": body(num=[1]),
  "seed -1": body(seed=-1),
  "seed 2**32": body(seed=2**32),
  "seed text": body(seed="0"),
  "seed float": body(seed=0.5),
  "nfe 0": body(nfe=0),
  "nfe 3": body(nfe=3),
  "nfe list": body(nfe=[1]),
  "guidance text": body(guidance="2"),
  "guidance -1": body(guidance=-1),
  "guidance 1e300": body(guidance=1e300),
  "guidance digits": body(guidance=10**400),
  "guidance true": body(guidance=True),
  "format": body(format="pickle"),
  "format list": body(format=["json"]),
  "format object": body(format={"a": 1}),
  "unknown class": body(labels="eleven"),
  "surrogate class": raw(b'{"labels": "\\ud800"}'),
  "class 10": body(labels=10),
  "class -1": body(labels=-1),
  "class 2**70": body(labels=2**70),
  "class float": body(labels=1.5),
  "class object": body(labels={"0": 1}),
  "classes of two kinds": body(labels=[0, "1"]),
  "nested classes": body(labels=[[0], [1, 2]]),
  "no classes": body(labels=[]),
  "too few classes": body(num=3, labels=[0, 1]),
  "true class": body(labels=[True]),
  "long class": body(labels="x" * 10_000),
}
KINDS = {
  "no type": {"content": b"{}"},
  "text": raw(b"{}", **{"Content-Type": "text/plain"}),
  "a form": {"data": {"num": "1"}},
}


def refused(client, status, method="POST", path="/sample", **given):
  answer = client.request(method, path, **given)
  assert answer.status_code == status, answer.text
  assert 0 < len(answer.json()["error"]) <= 500


@pytest.mark.parametrize("name", BAD)
def test_bodies_that_are_wrong(client, name):
  refused(client, 422, **BAD[name])


@pytest.mark.parametrize("name", KINDS)
def test_content_that_is_no_json(client, name):
  refused(client, 415, **KINDS[name])


def test_wrong_methods_and_places_and_long_bodies(client):
  for method in ("GET", "PUT", "DELETE", "PATCH"):
    refused(client, 405, method)
  refused(client, 404, path="/samples")
  refused(client, 404, "GET", "/../../etc/passwd")
  refused(client, 413, **raw(b" " * (MAX_BODY + 1)))
  # It serves as before.
  assert drawn(client, num=1).shape == (1, 8, 8, 1)


def slow(trained, most):
  """A batcher whose first batch waits for an event."""
  go = threading.Event()

  def draw(seeds, numbers, labels, scale):
    assert go.wait(60)
    return np.zeros((len(seeds), 8, 8, 1), np.float32)

  return go, Batcher({1: draw, 2: draw}, (1, 4), most)


def test_queue_is_bounded(trained):
  go, batcher = slow(trained, 6)
  reader = reader_of(trained)
  begun = [batcher.submit(reader.read(b'{"num": 3}')) for _ in range(2)]
  with pytest.raises(Full):
    batcher.submit(reader.read(b"{}"))
  with TestClient(make_app(reader, batcher)) as client:
    answer = client.post("/sample", json={})
    assert answer.status_code == 429
    assert int(answer.headers["Retry-After"]) >= 1
    go.set()
    assert [len(x.result(60)) for x in begun] == [3, 3]
    assert batcher.rows == 0
    assert client.post("/sample", json={}).status_code == 200


def test_closed_queue_finishes_what_is_begun(trained):
  go, batcher = slow(trained, 100)
  reader = reader_of(trained)
  begun = [batcher.submit(reader.read(b'{"num": 9}')) for _ in range(3)]
  batcher.close()
  with pytest.raises(Closed):
    batcher.submit(reader.read(b"{}"))
  with TestClient(make_app(reader, batcher)) as client:
    assert client.post("/sample", json={}).status_code == 503
  go.set()
  assert [len(x.result(60)) for x in begun] == [9, 9, 9]


def test_a_batch_that_fails_fails_alone(trained):
  calls = []

  def draw(seeds, numbers, labels, scale):
    calls.append(len(seeds))
    if len(calls) == 1:
      raise RuntimeError("no memory")
    return np.zeros((len(seeds), 1))

  batcher = Batcher({1: draw}, (4,), 100)
  request = reader_of(trained).read(b'{"num": 6}')
  with pytest.raises(RuntimeError, match="no memory"):
    batcher.submit(request).result(60)
  assert len(batcher.submit(request).result(60)) == 6
  assert calls == [4, 4, 4]
  assert batcher.rows == 0


def test_signal_ends_it_without_losing_an_answer(workdir):
  command = ["serve", f"--workdir={workdir}", "--port=0", "--sizes=1,4"]
  environment = os.environ | {
    "JAX_COMPILATION_CACHE_DIR": str(jax.config.jax_compilation_cache_dir)
  }
  with subprocess.Popen(
    [sys.executable, "-m", "jaxflow", *command],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    env=environment,
  ) as server:
    address = server.stdout.readline().split()[0]
    asked = {"num": 200, "nfe": 1}
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
      post = lambda i: httpx.post(  # noqa: E731
        f"{address}/sample", json=asked | {"seed": i}, timeout=60
      )
      begun = [pool.submit(post, i) for i in range(4)]
      while httpx.get(f"{address}/health").json()["queued"] < 600:
        time.sleep(0.001)
      server.send_signal(signal.SIGTERM)
      answers = [x.result() for x in begun]
    assert [x.status_code for x in answers] == [200] * 4
    assert [len(x.json()["samples"]) for x in answers] == [200] * 4
    out, err = server.communicate(timeout=60)
    assert (server.returncode, out, err) == (0, "stopped\n", "")


def test_wrong_options_are_one_line(workdir):
  for flag in ("--port=70000", "--queue=0", "--sizes=0", "--max_num=0"):
    result = tiny.run("serve", f"--workdir={workdir}", flag)
    assert result.code == 2
    assert flag.split("=")[0] in result.err
    assert len(result.err.splitlines()) == 1
