"""`jaxflow serve`: answer requests for samples over HTTP."""

from typing import Any

from jaxflow.commands.command import (
  SAMPLING,
  STEP,
  WORKDIR,
  Command,
  Flag,
  Values,
  numbers,
)
from jaxflow.commands.console import log
from jaxflow.errors import UsageError, named

_OPTIONS = (
  Flag("host", "the address; others than loopback open it", "127.0.0.1"),
  Flag("port", "the port; 0 takes a free one", 8000),
  Flag("nfe", "numbers of calls (default: sample.nfe)", kind=numbers),
  Flag("sizes", "sizes of batches, compiled first", "1,8,64", numbers),
  Flag("max_num", "the most samples of a request", 256),
  Flag("queue", "the most samples that may wait; more get 429", 1024),
)


def _run(values: Values, config: Any) -> None:
  try:
    from jaxflow.serving import server
  except ImportError as error:
    raise UsageError(
      "serve needs the packages starlette and uvicorn: "
      "pip install 'jaxflow-generative[serve]'"
    ) from error

  from jaxflow import api

  given: dict[str, Any] = {
    flag.name: values[flag.name].value for flag in _OPTIONS
  }
  with named(**{flag.name: f"--{flag.name}" for flag in _OPTIONS}):
    options = server.ServeOptions(**given)
    run = api.load(values.workdir, step=values.step, config=config)
    server.serve(run.run, run.params, run.mesh, options, run.step, log)


COMMAND = Command(
  summary="answer requests for samples over HTTP",
  changes=SAMPLING,
  flags=(WORKDIR, STEP, *_OPTIONS),
  required={"workdir": "FOLDER"},
  run=_run,
  example="jaxflow serve --workdir=runs/digits --port=8000",
)
