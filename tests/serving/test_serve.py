"""Answers over HTTP: the samples, what is refused, and how the server ends."""

import asyncio
import base64
import concurrent.futures
import io
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import types

import jax
import numpy as np
import pytest
import tiny
from PIL import Image

import jaxflow

pytest.importorskip("starlette", reason="the extra [serve]")
uvicorn = pytest.importorskip("uvicorn", reason="the extra [serve]")
httpx = pytest.importorskip("httpx", reason="the extra [test]")

from starlette.exceptions import HTTPException  # noqa: E402
from starlette.testclient import TestClient  # noqa: E402

from jaxflow.errors import RunError  # noqa: E402
from jaxflow.exports import web  # noqa: E402
from jaxflow.parallel.sharding import make_mesh  # noqa: E402
from jaxflow.serving import app as app_module  # noqa: E402
from jaxflow.serving import server  # noqa: E402
from jaxflow.serving.app import make_app  # noqa: E402
from jaxflow.serving.batching import Batcher, Closed, Full  # noqa: E402
from jaxflow.serving.requests import Reader  # noqa: E402
from jaxflow.serving.sampler import default_guidance, make_draw  # noqa: E402
from jaxflow.serving.server import page_note  # noqa: E402

SIZES = (1, 8)
JSON = {"Content-Type": "application/json"}


def reader_of(trained, **changes):
  given = {"nfes": (1, 2), "max_num": 64, "drawn": True}
  scale = default_guidance(trained.run)
  return Reader(plan=trained.run.plan, guidance=scale, **given | changes)


def app_of(trained, nfes=(1,), **changes):
  """Return the application that serves a run."""
  draws = {
    nfe: make_draw(trained.run, trained.params, trained.mesh, nfe)
    for nfe in nfes
  }
  reader = reader_of(trained, nfes=nfes, **changes)
  note = page_note(trained.run, trained.params, trained.step, reader)
  return make_app(reader, Batcher(draws, SIZES, 1024), note)


@pytest.fixture(scope="module")
def client(trained):
  app = app_of(trained, (1, 2))
  with TestClient(app, raise_server_exceptions=False) as client:
    yield client


def drawn(client, **asked):
  answer = client.post("/sample", json=asked)
  assert answer.status_code == 200, answer.text
  return np.array(answer.json()["samples"], np.float32)


def own(trained, num, *, labels=None, **given):
  """Return samples of a run, drawn by the program of 8 at a time."""
  more = -(-num // 8) * 8
  labels = np.arange(more) % 10 if labels is None else labels
  labels = np.resize(np.asarray(labels), more)
  return trained.sample(more, labels=labels, **given)[:num]


@pytest.mark.parametrize("nfe", [1, 2])
def test_samples_are_those_of_the_run(client, trained, nfe):
  labels = [7 * i % 10 for i in range(37)]
  given = {"seed": 2**32 - 1, "nfe": nfe}
  want = own(trained, 37, labels=labels, **given)
  assert want.std() > 0.2  # They are not all at the ends of the range.
  for num in (1, 3, 8, 37):
    found = drawn(client, num=num, labels=labels[:num], **given)
    assert found.shape == (num, 8, 8, 1)
    np.testing.assert_allclose(found, want[:num], rtol=0, atol=5e-6)


def test_classes_are_taken_in_turn_and_one_stands_for_all(client, trained):
  found = drawn(client, num=12, seed=3)
  np.testing.assert_allclose(found, own(trained, 12, seed=3), atol=5e-6)
  found = drawn(client, num=5, labels=4)
  np.testing.assert_allclose(found, own(trained, 5, labels=4), atol=5e-6)


def test_requests_at_once_do_not_feel_each_other(client, trained):
  asked = [{"num": 1 + i % 5, "seed": i, "labels": i % 10} for i in range(40)]
  with concurrent.futures.ThreadPoolExecutor(16) as pool:
    found = list(pool.map(lambda x: drawn(client, **x), asked))
  for given, samples in zip(asked, found, strict=True):
    np.testing.assert_allclose(samples, own(trained, **given), atol=5e-6)


def test_guidance_is_that_of_the_run(client, trained, workdir):
  """Pictures move with the scale, as those of a run with this scale do."""
  plain = drawn(client, num=8, seed=5)
  scale = default_guidance(trained.run)
  same = drawn(client, num=8, seed=5, guidance=scale)
  np.testing.assert_array_equal(same, plain)
  config = trained.config.copy_and_resolve_references()
  config.flow_map.omega = 3.5
  guided = own(jaxflow.load(workdir, config=config), 8, seed=5)
  found = drawn(client, num=8, seed=5, guidance=3.5)
  np.testing.assert_allclose(found, guided, rtol=0, atol=5e-6)
  assert np.abs(guided - plain).max() > 0.02


def test_scales_at_once_are_kept_apart(client):
  asked = [{"num": 2, "guidance": 1 + i % 3} for i in range(12)]
  alone = [drawn(client, **x) for x in asked[:3]]
  with concurrent.futures.ThreadPoolExecutor(12) as pool:
    found = list(pool.map(lambda x: drawn(client, **x), asked))
  for i, samples in enumerate(found):
    np.testing.assert_allclose(samples, alone[i % 3], atol=5e-6)
  assert np.abs(alone[0] - alone[2]).max() > 0.02


def coded(noise):
  return base64.b64encode(np.asarray(noise, "<f4").tobytes()).decode()


def test_noise_may_be_given(client, trained):
  """That of a seed, given, makes the samples of the seed."""
  keys = [jax.random.fold_in(jax.random.key(6), i) for i in range(8)]
  firsts = [jax.random.split(key)[0] for key in keys]
  noise = np.stack([jax.random.normal(key, (8, 8, 1)) for key in firsts])
  want = own(trained, 8, seed=6)
  found = drawn(client, num=8, noise=coded(noise), seed=1)
  np.testing.assert_allclose(found, want, rtol=0, atol=5e-6)
  # A row with noise of its own and one of a seed in one batch.
  assert np.abs(drawn(client, num=8, seed=1) - want).max() > 0.1


def test_files_hold_the_samples(client, trained):
  answer = client.post("/sample", json={"num": 3, "format": "npz"})
  with np.load(io.BytesIO(answer.content), allow_pickle=False) as arrays:
    np.testing.assert_array_equal(arrays["samples"], drawn(client, num=3))
    assert arrays["labels"].tolist() == [0, 1, 2]
  answer = client.post("/sample", json={"num": 1, "format": "png"})
  assert answer.headers["content-type"] == "image/png"
  pixels = np.asarray(Image.open(io.BytesIO(answer.content)).convert("L"))
  image = own(trained, 1)[0, ..., 0]
  # 8 x 8 pixels are enlarged fourfold, behind a white gap.
  gap = (len(pixels) - 32) // 2
  inner = pixels[gap : gap + 32 : 4, gap : gap + 32 : 4]
  assert np.abs(inner - 127.5 * (image + 1)).max() <= 1


def test_raw_numbers_are_those_of_json(client):
  answer = client.post("/sample", json={"num": 3, "format": "raw"})
  found = np.frombuffer(answer.content, "<f4").reshape(3, 8, 8, 1)
  np.testing.assert_array_equal(found, drawn(client, num=3))


def test_page_and_health(client):
  page = client.get("/")
  assert page.headers["content-type"].startswith("text/html")
  assert page.text == (web.PAGE / "index.html").read_text()
  # The page has everything that it asks for, and this server's backend.
  for name in ("page.js", "page.css", "noise.js", "picture.js"):
    assert client.get(f"/{name}").text == (web.PAGE / name).read_text()
  assert "POST" in client.get("/backend.js").text
  note = client.get("/sampler.json").json()
  assert note["max_num"] == 64
  assert note["output"]["shape"] == ["batch", 8, 8, 1]
  assert note["guidance"]["is_input"]
  assert "label" in [x["name"] for x in note["inputs"]]
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
  "cond": body(cond={"text": [1]}),
  "noise list": body(noise=[0.0] * 64),
  "noise of another size": body(noise=coded(np.zeros(63))),
  "noise for one of two": body(num=2, noise=coded(np.zeros(64))),
  "noise of NaN": body(noise=coded(np.full(64, np.nan))),
  "noise of infinity": body(noise=coded(np.full(64, np.inf))),
  "noise of no base 64": body(noise="?" * 344),
  "noise of three bytes": body(noise="AAAA"),
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


def test_wrong_methods_and_places_and_long_bodies(client, trained):
  for method in ("GET", "PUT", "DELETE", "PATCH"):
    refused(client, 405, method)
  refused(client, 404, path="/samples")
  refused(client, 404, "GET", "/../../etc/passwd")
  refused(client, 413, **raw(b" " * (reader_of(trained).max_body + 1)))
  # It serves as before.
  assert drawn(client, num=1).shape == (1, 8, 8, 1)


def slow(trained, most):
  """A batcher whose first batch waits for an event."""
  go = threading.Event()

  def draw(seeds, numbers, noise, labels, scale):
    assert go.wait(60)
    return np.zeros((len(seeds), 8, 8, 1), np.float32)

  return go, Batcher({1: draw, 2: draw}, (1, 4), most)


def test_queue_is_bounded(trained):
  go, batcher = slow(trained, 6)
  reader = reader_of(trained)
  begun = [batcher.submit(reader.read(b'{"num": 3}')) for _ in range(2)]
  with pytest.raises(Full):
    batcher.submit(reader.read(b"{}"))
  with TestClient(make_app(reader, batcher, "")) as client:
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
  with TestClient(make_app(reader, batcher, "")) as client:
    assert client.post("/sample", json={}).status_code == 503
  go.set()
  assert [len(x.result(60)) for x in begun] == [9, 9, 9]


def test_a_batch_that_fails_fails_alone(trained):
  calls = []

  def draw(seeds, numbers, noise, labels, scale):
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


def test_requests_at_once_share_a_batch(trained):
  """The first is drawn alone; those that came meanwhile are one batch."""
  sizes, go = [], threading.Event()

  def draw(seeds, numbers, noise, labels, scale):
    sizes.append(len(seeds))
    assert go.wait(60)
    return np.zeros((len(seeds), 1))

  batcher, reader = Batcher({1: draw}, (1, 4), 100), reader_of(trained)
  first = batcher.submit(reader.read(b"{}"))
  while not sizes:
    time.sleep(0.001)
  others = [batcher.submit(reader.read(b"{}")) for _ in range(3)]
  go.set()
  assert [len(x.result(60)) for x in (first, *others)] == [1] * 4
  assert sizes == [1, 4]


def test_a_request_that_is_given_up_is_not_drawn(trained):
  go, batcher = slow(trained, 100)
  reader = reader_of(trained)
  begun = batcher.submit(reader.read(b"{}"))
  while not begun.running():
    time.sleep(0.001)
  given_up = batcher.submit(reader.read(b'{"num": 9}'))
  assert given_up.cancel()
  last = batcher.submit(reader.read(b'{"num": 2}'))
  go.set()
  assert (len(begun.result(60)), len(last.result(60))) == (1, 2)
  assert batcher.rows == 0


def test_answers_that_fail(trained):
  """A sampler that fails is a 500; samples that are not finite are a 422."""

  def failing(*given):
    raise RuntimeError("no memory")

  def infinite(seeds, *given):
    return np.full((len(seeds), 8, 8, 1), np.inf)

  for draw, status, word in ((failing, 500, "failed"), (infinite, 422, "fin")):
    app = make_app(reader_of(trained), Batcher({1: draw}, (1,), 9), "")
    with TestClient(app, raise_server_exceptions=False) as client:
      answer = client.post("/sample", json={})
      assert answer.status_code == status
      assert word in answer.json()["error"]


def test_a_slow_body(trained, monkeypatch):
  async def stalled():
    yield b"{"
    await asyncio.sleep(60)

  monkeypatch.setattr(app_module, "_SECONDS", 0.1)
  call = types.SimpleNamespace(stream=stalled)
  with pytest.raises(HTTPException) as error:
    asyncio.run(app_module._body(call, 100))
  assert error.value.status_code == 408


def test_a_port_in_use_is_found_before_anything_compiles(trained, monkeypatch):
  monkeypatch.setattr(server, "_warm", lambda *given: pytest.fail("compiled"))
  with socket.socket() as taken:
    taken.bind(("127.0.0.1", 0))
    taken.listen()
    port = taken.getsockname()[1]
    options = server.ServeOptions(port=port)
    with pytest.raises(RunError, match=rf"--port={port} cannot be taken"):
      server.serve(
        trained.run, trained.params, make_mesh(), options, 0, lambda line: None
      )


def test_a_second_signal_ends_at_once(trained):
  _, batcher = slow(trained, 100)
  config = uvicorn.Config(make_app(reader_of(trained), batcher, ""))
  ending = server._Server(config, batcher, lambda line: None)
  ending.handle_exit(signal.SIGINT, None)
  assert batcher.closed and not ending.force_exit
  ending.handle_exit(signal.SIGINT, None)
  assert ending.force_exit and ending.should_exit


def test_signal_ends_it_without_losing_an_answer(workdir):
  num = 1000
  options = ["--port=0", "--sizes=1,4", f"--max_num={num}", "--queue=4000"]
  command = ["serve", f"--workdir={workdir}", *options]
  with subprocess.Popen(
    [sys.executable, "-m", "jaxflow", *command],
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  ) as process:
    address = process.stdout.readline().split()[0]
    asked = {"num": num, "nfe": 1}
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
      post = lambda i: httpx.post(  # noqa: E731
        f"{address}/sample", json=asked | {"seed": i}, timeout=60
      )
      begun = [pool.submit(post, i) for i in range(4)]
      # All four are accepted. The answered are counted first: a request that
      # is answered in between counts once at most.
      accepted = 0
      while accepted < 4 * num:
        answered = num * sum(x.done() for x in begun)
        queued = httpx.get(f"{address}/health").json()["queued"]
        accepted = answered + queued
      process.send_signal(signal.SIGTERM)
      answers = [x.result() for x in begun]
    assert [x.status_code for x in answers] == [200] * 4
    assert [len(x.json()["samples"]) for x in answers] == [num] * 4
    out, err = process.communicate(timeout=60)
    left, said = out.splitlines()
    assert re.fullmatch(r"stopping: [\d,]+ sample\(s\) are left; .*", left)
    assert (process.returncode, said, err) == (0, "stopped", "")


def test_other_hosts_are_warned_of(workdir, trained, monkeypatch):
  monkeypatch.setattr(server._Server, "run", lambda self, sockets: None)
  lines = []
  for host in ("127.0.0.1", "localhost", "0.0.0.0"):
    options = server.ServeOptions(host=host, port=0, sizes=(1,))
    run = trained.run, trained.params, trained.mesh
    server.serve(*run, options, 0, lines.append)
  warned = [x for x in lines if "other machines can ask" in x]
  assert warned == [
    "--host=0.0.0.0: other machines can ask for samples as well"
  ]


def test_packages_that_are_absent_are_named(workdir, monkeypatch):
  for name in ("starlette.applications", "uvicorn"):
    with monkeypatch.context() as patch:
      for module in [x for x in sys.modules if x.startswith("jaxflow.serving")]:
        patch.delitem(sys.modules, module)
      patch.delattr(jaxflow, "serving")
      patch.setitem(sys.modules, name, None)
      result = tiny.run("serve", f"--workdir={workdir}")
    assert result.code == 2
    (line,) = result.err.splitlines()
    assert "pip install 'jaxflow-generative[serve]'" in line


def test_wrong_options_are_one_line(workdir):
  for flag in ("--port=70000", "--queue=0", "--sizes=0", "--max_num=0"):
    result = tiny.run("serve", f"--workdir={workdir}", flag)
    assert result.code == 2
    assert flag.split("=")[0] in result.err
    assert len(result.err.splitlines()) == 1
