"""The checkpoint of a run that is best by a metric."""

import contextlib
import json
import math
import pathlib
from typing import Any

from jaxflow import metrics
from jaxflow.files import write_text
from jaxflow.options import Finite, Natural
from jaxflow.parallel import processes
from jaxflow.reading import read_json, reading
from jaxflow.training.checkpoints import Checkpoints, saved_steps
from jaxflow.training.state import TrainState

# A checkpoint in `best/`, and its score.
_ENTRY = {"number": Natural, "metric": str, "value": Finite, "step": Natural}


class Best:
  """Keep the best state in `best/` and its score in `best.json`.

  Checkpoints there are counted, not named by their steps: a run that was killed
  and evaluates at other steps than before may find a better one at an earlier
  step. `best.json` is written before and after a checkpoint, with the old and
  the new one in between, so it always tells the value of the one that is there.
  No `metric`, "", keeps none.
  """

  def __init__(self, workdir: pathlib.Path, metric: str):
    self._workdir, self._metric = workdir, metric
    self._sign = -1 if metric and metrics.direction(metric) == "higher" else 1
    self._number, self._found = 0, {}
    saved = saved_steps(workdir / "best")
    path = workdir / "best.json"
    if not metric or not saved or not path.exists():
      self._number = max(saved, default=0)
      return
    self._number = saved[-1]
    with reading(path, "delete it; the next evaluation writes it again"):
      entries = read_json(path, {"checkpoints": [_ENTRY]})["checkpoints"]
    for entry in entries:
      if (entry["number"], entry["metric"]) == (self._number, metric):
        self._found = {**entry}

  def offer(
    self, value: float | None, step: int, state: TrainState, position: Any
  ) -> None:
    """Save a state, with its position in the data, if none was as good.

    `value` is its metric, None where it has none.
    """
    before = self._found.get("value", self._sign * math.inf)
    better = value is not None and self._sign * value < self._sign * before
    if not processes.of_main(better) or value is None:
      return
    found = {"metric": self._metric, "value": value, "step": step}
    found["number"] = self._number + 1
    self._write([found, self._found] if self._found else [found])
    folder = self._workdir / "best"
    with contextlib.closing(Checkpoints(folder, keep=1)) as best:
      best.save(found["number"], state, position)
      best.wait()
    self._number, self._found = found["number"], found
    self._write([found])

  def _write(self, entries: list[dict[str, Any]]) -> None:
    text = json.dumps({"checkpoints": entries}, indent=2) + "\n"
    processes.once(lambda: write_text(self._workdir / "best.json", text))
