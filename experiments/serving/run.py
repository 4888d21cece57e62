"""What a server loses, and how long its answers take, under load.

`jaxflow serve` runs in a process of its own. Clients on loopback ask for one
sample at a time; one that is refused with 429 waits as long as it is told, and
asks again. Each sample is compared with that of the bare sampler. At the end a
signal comes while requests are in the air.

  python -m experiments.serving.run --workdir=runs/demo/mean_flow  # writes
  python -m experiments.serving.run --quick   # under 60 s, prints only
"""

import argparse
import asyncio
import collections
import concurrent.futures
import contextlib
import http.client
import json
import pathlib
import signal
import subprocess
import sys
import threading
import time
import urllib.parse
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import jax
import numpy as np

import jaxflow
from experiments.export.run import small_run
from experiments.runner import pages
from jaxflow.errors import RunError
from jaxflow.exports.sampler import exported_sampler

HERE = pathlib.Path(__file__).parent
RESULTS = HERE / "results" / "serving.json"
GUIDE = HERE.parents[1] / "docs" / "serving.md"
CLIENTS, REQUESTS = 32, 2000
# Samples that may wait: more than clients ask for, and fewer.
WIDE, NARROW = 1024, 16
# Samples of each request that is in the air when the signal comes.
LAST = 128


@contextlib.contextmanager
def serving(
  workdir: pathlib.Path, *flags: str
) -> Iterator[tuple[subprocess.Popen[str], str]]:
  """Yield a server's process and its address."""
  command = [sys.executable, "-m", "jaxflow", "serve", "--port=0", *flags]
  with subprocess.Popen(
    [*command, f"--workdir={workdir}"], stdout=subprocess.PIPE, text=True
  ) as process:
    assert process.stdout is not None
    try:
      address = process.stdout.readline().split()
      if not address:
        raise RunError("the server did not start")
      yield process, address[0]
    finally:
      process.terminate()


@contextlib.asynccontextmanager
async def client_of(address: str) -> AsyncIterator[Any]:
  """Yield a client that waits for an answer as long as it takes."""
  try:
    import httpx
  except ImportError as error:
    raise RunError("serving needs httpx: pip install httpx") from error
  # Each client keeps its connection; by default 20 of a pool are kept.
  limits = httpx.Limits(max_keepalive_connections=None)
  async with httpx.AsyncClient(
    base_url=address, timeout=300, limits=limits
  ) as client:
    yield client


def percentiles(seconds: list[float]) -> dict[str, float]:
  """Return the median and the 99th percentile, in milliseconds."""
  found = np.percentile(1e3 * np.asarray(seconds), (50, 99))
  return dict(zip(("p50", "p99"), found.round(2).tolist(), strict=True))


def bare(run: jaxflow.api.TrainedRun, num: int) -> tuple[np.ndarray, list[Any]]:
  """Return sample 0 of each seed, and latencies of the sampler by itself."""
  sampler = exported_sampler(run.run, run.params, nfe=1)
  weights, draw = jax.device_put(sampler.weights), jax.jit(sampler.function)
  kinds, guidance = sampler.note["num_classes"], sampler.note["guidance"]
  scale = [np.float32(guidance["default"])] * guidance["is_input"]

  @jax.jit
  @jax.vmap
  def noise_of(seed):
    key = jax.random.fold_in(jax.random.key(seed), 0)
    return jax.random.normal(jax.random.split(key)[0], run.run.model.shape)

  noise = np.asarray(noise_of(np.arange(num, dtype=np.uint32)))
  labels = np.arange(num, dtype=np.int32) % kinds
  rows = []
  for batch in (1, CLIENTS):
    spent = []
    for first in range(0, num - batch + 1, batch):
      given = [x[first : first + batch] for x in (noise, labels)]
      began = time.perf_counter()
      np.asarray(draw(weights, *given, *scale))
      spent.append(time.perf_counter() - began)
    name = f"the bare sampler, {batch} a call"
    # The first call compiles.
    told = percentiles(spent[1:])
    rate = round(batch * len(spent[1:]) / sum(spent[1:]))
    rows.append({"what": name, **told, "rate": rate})
  return np.clip(draw(weights, noise, labels, *scale), -1, 1), rows


def load(
  address: str, num: int, clients: int, wanted: np.ndarray
) -> dict[str, Any]:
  """Send requests from clients, a thread each; return what came of them."""
  left, seen = collections.deque(range(num)), collections.Counter()
  spent, apart, queued = [], [0.0], [0]
  done = threading.Event()

  def ask(connection: http.client.HTTPConnection, seed: int) -> None:
    body = json.dumps({"seed": seed, "labels": seed % 10})
    kind = {"Content-Type": "application/json"}
    while True:
      began = time.perf_counter()
      connection.request("POST", "/sample", body, kind)
      answer = connection.getresponse()
      text = answer.read()
      seen[answer.status] += 1
      if answer.status != 429:
        break
      time.sleep(int(answer.headers["Retry-After"]))
    spent.append(time.perf_counter() - began)
    if answer.status == 200:
      (sample,) = np.asarray(json.loads(text)["samples"])
      apart.append(float(np.abs(sample - wanted[seed]).max()))

  def work() -> None:
    with contextlib.closing(connection_to(address)) as connection:
      while True:
        try:
          seed = left.popleft()
        except IndexError:
          return
        ask(connection, seed)

  def watch() -> None:
    with contextlib.closing(connection_to(address)) as connection:
      while not done.wait(0.05):
        connection.request("GET", "/health")
        queued.append(json.loads(connection.getresponse().read())["queued"])

  began = time.perf_counter()
  with concurrent.futures.ThreadPoolExecutor(clients + 1) as pool:
    watching = pool.submit(watch)
    working = [pool.submit(work) for _ in range(clients)]
    for each in working:
      each.result()
    whole = time.perf_counter() - began
    done.set()
    watching.result()
  return {
    "requests": num,
    "clients": clients,
    "answered": seen[200],
    "refused": seen[429],
    "lost": num - seen[200],
    **percentiles(spent),
    "rate": round(num / whole),
    "queued": max(queued),
    "apart": max(apart),
  }


def connection_to(address: str) -> http.client.HTTPConnection:
  """Return a connection that waits for an answer as long as it takes."""
  place = urllib.parse.urlsplit(address).netloc
  return http.client.HTTPConnection(place, timeout=300)


async def stopped(
  process: subprocess.Popen[str], address: str, clients: int, num: int
) -> dict[str, Any]:
  """Send a signal while requests are in the air; return what came of them."""
  asked = {"num": num, "labels": 0}
  async with client_of(address) as client, client_of(address) as other:

    async def health() -> dict[str, Any]:
      return (await other.get("/health")).json()

    posts = [
      asyncio.create_task(client.post("/sample", json=asked))
      for _ in range(clients)
    ]
    begun = 0
    # All is in the queue, or drawn, when the last but some have come.
    while not begun and not all(post.done() for post in posts):
      waiting = (await health())["queued"]
      begun = waiting if waiting > num * clients // 2 else 0
    process.send_signal(signal.SIGTERM)
    while begun and (await health())["status"] != "stopping":
      await asyncio.sleep(0.001)
    late = await other.post("/sample", json=asked)
    answers = await asyncio.gather(*posts)
  whole = [
    answer
    for answer in answers
    if answer.status_code == 200 and len(answer.json()["samples"]) == num
  ]
  return {
    "in_the_air": clients,
    "samples_waiting": begun,
    "answered": len(whole),
    "refused": sum(x.status_code == 503 for x in answers),
    "after_the_signal": late.status_code,
    "exit": await asyncio.to_thread(process.wait, 60),
  }


def measured(
  run: jaxflow.api.TrainedRun,
  workdir: pathlib.Path,
  *,
  requests: int = REQUESTS,
  clients: int = CLIENTS,
  log: Callable[[str], None] = print,
) -> dict[str, Any]:
  """Return the rows of the table, and what came of the signal."""
  wanted, rows = bare(run, requests)
  end: dict[str, Any] = {}
  for queue, count in ((NARROW, clients), (WIDE, 1), (WIDE, clients)):
    log(f"{count} client(s), {queue} samples may wait")
    size = max(queue, LAST * clients) if queue == WIDE else queue
    with serving(workdir, f"--queue={size}") as (process, address):
      row = load(address, requests, count, wanted)
      name = f"jaxflow serve, {count} client{'s' * (count > 1)}"
      rows.append({"what": f"{name}, --queue={size}", **row})
      if (queue, count) == (WIDE, clients):
        end = asyncio.run(stopped(process, address, clients, LAST))
  return {"rows": rows, "signal": end}


def quick(run: jaxflow.api.TrainedRun, workdir: pathlib.Path) -> dict[str, Any]:
  """Do it for a moment, with one server."""
  wanted, rows = bare(run, 64)
  with serving(workdir, "--sizes=1,8", "--queue=4") as (process, address):
    row = load(address, 64, 8, wanted)
    rows.append({"what": "jaxflow serve, 8 clients, --queue=4", **row})
    # One request may be longer than the queue.
    end = asyncio.run(stopped(process, address, 1, 200))
  return {"rows": rows, "signal": end}


def markdown(found: dict[str, Any]) -> str:
  """Return the table."""
  lines = [
    "| sampler | requests | answered | refused, asked again | lost | p50, ms |"
    " p99, ms | samples a second | most seen in the queue |",
    "|---|--:|--:|--:|--:|--:|--:|--:|--:|",
  ]
  names = ("requests", "answered", "refused", "lost")
  for row in found["rows"]:
    counts = [f"{row[name]:,}" if name in row else "" for name in names]
    cells = [row["what"], *counts, f"{row['p50']:.2f}", f"{row['p99']:.2f}"]
    cells += [f"{row['rate']:,}", str(row.get("queued", ""))]
    lines.append(f"| {' | '.join(cells)} |")
  return "\n".join(lines)


def ending(found: dict[str, Any]) -> str:
  """Return in words what came of the signal."""
  end = found["signal"]
  apart = max(row["apart"] for row in found["rows"] if "apart" in row)
  return (
    f"The signal came with {end['in_the_air']} requests in the air and "
    f"{end['samples_waiting']:,} samples in the queue. {end['answered']} "
    f"requests were answered whole, {end['refused']} refused. One that came "
    f"after the signal got {end['after_the_signal']}, and the server ended "
    f"with {end['exit']}. No number of a sample differs from the bare "
    f"sampler's by more than {apart:.1e}."
  )


def main() -> int:
  """Run the study."""
  parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
  parser.add_argument("--workdir", default="runs/demo/mean_flow")
  parser.add_argument("--quick", action="store_true", help="write nothing")
  given = parser.parse_args()
  if given.quick:
    with small_run() as run:
      assert run.workdir is not None
      found = quick(run, run.workdir)
    print(markdown(found), ending(found), sep="\n\n")
    return 0
  workdir = pathlib.Path(given.workdir)
  found = measured(jaxflow.load(workdir), workdir)
  RESULTS.write_text(json.dumps(found, indent=2) + "\n")
  fill(found)
  return 0


def fill(found: dict[str, Any]) -> None:
  """Write the tables into the pages."""
  texts = {"table": markdown(found), "signal": ending(found)}
  for page, names in ((HERE / "README.md", texts), (GUIDE, ["table"])):
    some = {name: texts[name] for name in names}
    page.write_text(pages.filled(page.read_text(), some))


if __name__ == "__main__":
  sys.exit(main())
