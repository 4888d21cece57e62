"""The application: a page, its health, and samples."""

import asyncio
import http
import io
import json
import pathlib
from collections.abc import AsyncIterator, Mapping
from typing import Any

import numpy as np
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.requests import Request as Call
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from jaxflow.errors import UsageError
from jaxflow.exports import web
from jaxflow.figures import grid_of
from jaxflow.plans import Plan
from jaxflow.runs.decoding import picture_of
from jaxflow.serving.batching import Batcher, Closed, Full
from jaxflow.serving.requests import Reader, Request

_BACKEND = pathlib.Path(__file__).with_name("backend.js")
# Seconds in which a body must have come.
_SECONDS = 10.0
# Characters of a message.
_LONGEST = 500


def make_app(
  reader: Reader, batcher: Batcher, note: Mapping[str, Any] | str
) -> Starlette:
  """Return the application that answers requests to one run.

  Args:
    reader: Reads requests.
    batcher: Draws samples.
    note: What the page must know, or why there is no page.
  """
  about = _about(reader)

  async def health(call: Call) -> Response:
    state = "stopping" if batcher.closed else "ok"
    return _json({"status": state, "queued": batcher.rows, **about})

  async def sample(call: Call) -> Response:
    if batcher.closed:
      raise HTTPException(503, "the server stops: it takes nothing new")
    kind = call.headers.get("content-type", "").partition(";")[0].strip()
    if kind.lower() != "application/json":
      raise HTTPException(415, "give Content-Type: application/json")
    body = await _body(call, reader.max_body)
    try:
      request = await asyncio.to_thread(reader.read, body)
      future = batcher.submit(request)
    except UsageError as error:
      raise HTTPException(422, str(error)) from error
    except Full as error:
      wait = {"Retry-After": str(error.args[0])}
      raise HTTPException(429, "the queue is full", headers=wait) from error
    except Closed as error:
      raise HTTPException(503, "the server stops") from error
    samples = await asyncio.wrap_future(future)
    if not np.isfinite(samples).all():
      raise HTTPException(
        422, "samples are not finite: change guidance or noise"
      )
    return await asyncio.to_thread(_answer, reader.plan, request, samples)

  async def refused(call: Call, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    told = error.detail
    # The router's own words say only what the number says.
    if told == http.HTTPStatus(error.status_code).phrase:
      told = f"{told}: ask POST /sample or GET /health"
    return _json({"error": told[:_LONGEST]}, error)

  async def failed(call: Call, error: Exception) -> Response:
    return _json({"error": "the server failed"}, HTTPException(500))

  return Starlette(
    routes=[
      *_page(note),
      Route("/health", health),
      Route("/sample", sample, methods=["POST"]),
    ],
    exception_handlers={HTTPException: refused, Exception: failed},
  )


def _about(reader: Reader) -> dict[str, Any]:
  plan = reader.plan
  names = plan.data.class_names
  return {
    "method": plan.model.name,
    "shape": list(plan.model.shape),
    "num_classes": plan.model.num_classes,
    "class_names": None if names is None else list(names),
    "nfe": list(reader.nfes),
    "guidance": reader.guidance,
    "max_num": reader.max_num,
    "images": reader.drawn,
  }


def _json(value: Any, error: HTTPException | None = None) -> Response:
  """Return ASCII: a client's half of a pair of surrogates is escaped."""
  return Response(
    json.dumps(value),
    status_code=200 if error is None else error.status_code,
    headers=None if error is None else error.headers,
    media_type="application/json",
  )


def _page(note: Mapping[str, Any] | str) -> list[Route]:
  """Return the exported page, with this server as what draws."""

  async def absent(call: Call) -> Response:
    raise HTTPException(404, f"no page: {note}; POST /sample has the samples")

  async def said(call: Call) -> Response:
    return _json(note)

  def sent(file: pathlib.Path) -> Any:
    async def send(call: Call) -> Response:
      return FileResponse(file, headers={"Cache-Control": "no-cache"})

    return send

  if isinstance(note, str):
    return [Route("/", absent)]
  files = {x.name: x for x in web.PAGE.iterdir() if x.is_file()}
  files |= {"": files["index.html"], _BACKEND.name: _BACKEND}
  routes = [Route(f"/{name}", sent(file)) for name, file in files.items()]
  return [*routes, Route("/sampler.json", said)]


async def _body(call: Call, most: int) -> bytes:
  """Return a body; refuse one that is too long or too slow."""
  found = bytearray()
  chunks: AsyncIterator[bytes] = call.stream()
  try:
    async with asyncio.timeout(_SECONDS):
      async for chunk in chunks:
        found += chunk
        if len(found) > most:
          raise HTTPException(413, f"the body has over {most} bytes")
  except TimeoutError as error:
    raise HTTPException(408, "the body did not come in time") from error
  except ClientDisconnect as error:
    raise HTTPException(400, "the body is not whole") from error
  return bytes(found)


def _answer(plan: Plan, request: Request, samples: np.ndarray) -> Response:
  """Return samples in the format that was asked for."""
  labels = {} if request.labels is None else {"labels": request.labels}
  if request.format == "png":
    file = io.BytesIO()
    grid_of(picture_of(plan.data, samples)).save(file, format="PNG")
    return Response(file.getvalue(), media_type="image/png")
  if request.format == "npz":
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, samples=samples, **labels)
    return Response(file.getvalue(), media_type="application/octet-stream")
  if request.format == "raw":
    found = samples.astype("<f4").tobytes()
    return Response(found, media_type="application/octet-stream")
  said = {"seed": request.seed, "nfe": request.nfe}
  for name, x in labels.items():
    # A vector of NaN, none, has no number in JSON.
    told = x.astype(object)
    told[np.isnan(x)] = None
    said[name] = told.tolist()
  return _json({"samples": samples.tolist(), **said})
