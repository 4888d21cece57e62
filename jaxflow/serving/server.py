"""Runs the server until a signal, and ends it without losing an answer."""

import dataclasses
import ipaddress
import socket
import types
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import uvicorn

from jaxflow import conditions
from jaxflow.errors import RunError, UsageError
from jaxflow.exports import web
from jaxflow.exports.sampler import exported_sampler
from jaxflow.figures import drawable
from jaxflow.runs.decoding import is_drawn
from jaxflow.runs.run import Run
from jaxflow.serving.app import make_app
from jaxflow.serving.batching import Batcher
from jaxflow.serving.requests import Reader
from jaxflow.serving.sampler import default_guidance, make_draw
from jaxflow.types import PyTree

# Seconds in which connections may end after the last sample was drawn.
_GRACE = 30
# Connections at a time; those beyond get 503.
_CONNECTIONS = 1000


@dataclasses.dataclass(frozen=True, kw_only=True)
class ServeOptions:
  """How a run is served.

  Attributes:
    host: Address; others than loopback let other machines ask.
    port: 0 takes a free one.
    nfe: Numbers of calls that requests may ask for; None: `sample.nfe`.
    sizes: Sizes of batches, compiled before the first request.
    max_num: The most samples of a request.
    queue: The most samples that may wait.
  """

  host: str = "127.0.0.1"
  port: int = 8000
  nfe: tuple[int, ...] | None = None
  sizes: tuple[int, ...] = (1, 8, 64)
  max_num: int = 256
  queue: int = 1024

  def __post_init__(self) -> None:
    """Raise UsageError if a value is out of range."""
    if not 0 <= self.port <= 65535:
      raise UsageError(f"port={self.port}: give 0 to 65535")
    for name in ("max_num", "queue"):
      value = getattr(self, name)
      if value < 1:
        raise UsageError(f"{name}={value}: give 1 or more")
    if not self.sizes or min(self.sizes) < 1:
      raise UsageError(f"sizes={self.sizes}: give whole numbers of 1 or more")


class _Server(uvicorn.Server):
  """Stops when all that was begun is drawn; until then new calls get 503."""

  def __init__(
    self, config: uvicorn.Config, batcher: Batcher, log: Callable[[str], None]
  ):
    super().__init__(config)
    self._batcher, self._log, self._told = batcher, log, False

  def handle_exit(self, sig: int, frame: types.FrameType | None) -> None:
    # Not recorded: uvicorn would raise the signal again, and not end with 0.
    if self._batcher.closed:
      self.should_exit = self.force_exit = True
    self._batcher.close()

  async def on_tick(self, counter: int) -> bool:
    left = self._batcher.rows
    if self._batcher.closed and not left:
      self.should_exit = True
    elif self._batcher.closed and not self._told:
      self._told = True
      self._log(f"stopping: {left:,} sample(s) are left; Ctrl-C ends at once")
    return await super().on_tick(counter)


def serve(
  run: Run,
  params: PyTree,
  mesh: jax.sharding.Mesh,
  options: ServeOptions,
  step: int,
  log: Callable[[str], None],
) -> None:
  """Answer requests until SIGTERM or SIGINT.

  Args:
    run: The run.
    params: The parameters that are sampled.
    mesh: The devices.
    options: How it is served.
    step: Of the checkpoint.
    log: Takes a line at a time.

  Raises:
    UsageError: If an option is wrong.
    RunError: If the address cannot be taken.
  """
  plan = run.plan
  nfes = tuple(dict.fromkeys(options.nfe or (plan.sample.nfe,)))
  sizes = sorted(set(options.sizes))
  scale = default_guidance(run)
  draws = {nfe: make_draw(run, params, mesh, nfe) for nfe in nfes}
  # Before what may take minutes.
  listening = _listen(options)
  shape = _warm(run, draws, sizes, scale)
  reader = Reader(
    plan=plan,
    nfes=nfes,
    guidance=scale,
    max_num=options.max_num,
    drawn=is_drawn(plan.data) and len(shape) == 3 and drawable(shape),
  )
  batcher = Batcher(draws, sizes, options.queue)
  host, port = listening.getsockname()[:2]
  if not ipaddress.ip_address(host).is_loopback:
    log(f"--host={options.host}: other machines can ask for samples as well")
  address = f"[{host}]" if ":" in host else host
  config = uvicorn.Config(
    make_app(reader, batcher, page_note(run, params, step, reader)),
    log_level="error",
    access_log=False,
    lifespan="off",
    limit_concurrency=_CONNECTIONS,
    timeout_graceful_shutdown=_GRACE,
  )
  # Who reads the line may connect at once.
  listening.listen()
  log(f"http://{address}:{port} (Ctrl-C stops)")
  with listening:
    _Server(config, batcher, log).run(sockets=[listening])
  log("stopped")


def page_note(
  run: Run, params: PyTree, step: int, reader: Reader
) -> dict[str, Any] | str:
  """Return what the page must know, or why it cannot draw this run."""
  if run.plan.declares_condition:
    return "its network declares a condition of its own"
  try:
    sampler = exported_sampler(run, params, step=step, nfe=reader.nfes[0])
    note = dict(sampler.note)
    web.check_drawn(note)
  except UsageError as error:
    return str(error)
  if any(x["name"] == "step_noise" for x in note["inputs"]):
    return "its sampler draws noise between calls"
  device = jax.devices()[0].device_kind
  return note | {"max_num": reader.max_num, "device": device}


def _warm(run: Run, draws, sizes, scale) -> tuple[int, ...]:
  """Compile every program; return the shape of a sample."""
  shape: tuple[int, ...] = ()
  for size in sizes:
    zeros = np.zeros(size, np.uint32)
    noise = np.zeros((size, *run.model.shape), np.float32)
    null = conditions.repeated(run.model.null_cond, size)
    for draw in draws.values():
      shape = draw(zeros, zeros, noise, null, scale).shape[1:]
  return shape


def _listen(options: ServeOptions) -> socket.socket:
  """Take the address."""
  listening = None
  try:
    found = socket.getaddrinfo(
      options.host, options.port, type=socket.SOCK_STREAM
    )
    family, kind, number, _, address = found[0]
    listening = socket.socket(family, kind, number)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind(address)
  except OSError as error:
    if listening is not None:
      listening.close()
    raise RunError(
      f"--host={options.host} --port={options.port} cannot be taken "
      f"({error.strerror}): give another port, or 0"
    ) from error
  return listening
