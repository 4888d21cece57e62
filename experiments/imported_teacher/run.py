"""From a teacher of another library to one-call students.

Trains a small `DiTTransformer2DModel` of diffusers in PyTorch on scikit-learn's
digits (v prediction, squared-cosine schedule), saves it as a pipeline's folder,
imports it, and distils it by consistency distillation and by MeanFlow, which
starts from it. Students and teacher are then sampled and counted by the digit
classifier that all evaluations use.

  python -m experiments.imported_teacher.run          # minutes, writes results
  python -m experiments.imported_teacher.run --quick  # a few steps, prints only

It needs torch and diffusers.
"""

import argparse
import importlib.util
import json
import pathlib
import sys
import tempfile
import time
from typing import Any

import numpy as np
from absl import logging

import jaxflow
from jaxflow.config import Config, update
from jaxflow.errors import RunError, UsageError
from jaxflow.files import replace_file
from jaxflow.methods import METHODS

CONFIG = pathlib.Path(__file__).parents[2] / "configs" / "digits.py"
RESULTS = pathlib.Path(__file__).parent / "results"
# Steps of the teacher, and what students change in the config.
FULL = {
  "teacher": 1000,
  "consistency_distillation": {"train": {"steps": 500}},
  "mean_flow": {
    "train": {"steps": 1600},
    "optimizer": {"learning_rate": 4e-3},
  },
}
QUICK = {
  "teacher": 3,
  **{
    name: {"train": {"steps": 2}, "optimizer": {"warmup_steps": 0}}
    for name in ("consistency_distillation", "mean_flow")
  },
}
TEACHER_CALLS = 50
_NEEDS = ("torch", "diffusers")
# A student must be recognised as often as so much of its teacher.
GOAL = 0.9
_EVALUATION = {
  "metrics": "recognised,sliced_wasserstein",
  "network": {"name": "none"},
  "flow": {"num": 0},
}


def train_teacher(folder: pathlib.Path, steps: int) -> None:
  """Train a transformer in PyTorch and save it with its scheduler."""
  try:
    import diffusers
    import torch
  except ImportError as error:
    raise RunError(
      "imported_teacher needs torch and diffusers: pip install torch diffusers"
    ) from error
  from jaxflow import data

  torch.manual_seed(0)
  digits = data.load("digits", "train").take(np.arange(1437))
  images = torch.tensor(digits["data"].transpose(0, 3, 1, 2).copy())
  labels = torch.tensor(digits["cond"], dtype=torch.long)
  scheduler = diffusers.DDIMScheduler(
    beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction"
  )
  network = diffusers.DiTTransformer2DModel(
    num_attention_heads=4,
    attention_head_dim=16,
    in_channels=1,
    num_layers=3,
    sample_size=8,
    num_embeds_ada_norm=10,
  )
  for block in network.transformer_blocks:
    # DiT's own start; the library leaves it out.
    torch.nn.init.zeros_(block.norm1.linear.weight)
    torch.nn.init.zeros_(block.norm1.linear.bias)
  optimizer = torch.optim.AdamW(
    network.parameters(), lr=2e-3, betas=(0.9, 0.99)
  )
  rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
  network.train()
  for _ in range(steps):
    rows = torch.randint(len(images), (128,))
    t = torch.randint(1000, (128,))
    noise = torch.randn(128, 1, 8, 8)
    x = scheduler.add_noise(images[rows], noise, t)
    target = scheduler.get_velocity(images[rows], noise, t)
    made = network(x, t, class_labels=labels[rows]).sample
    loss = ((made - target) ** 2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    rate.step()
  network.eval().save_pretrained(folder / "transformer")
  scheduler.save_pretrained(folder / "scheduler")


def student_config(
  method: str, teacher: Config, folder: pathlib.Path, changes: dict[str, Any]
) -> Config:
  """Return the config of a student that begins with its teacher's weights.

  A distilled one starts as the teacher's function. MeanFlow takes derivatives
  by time, and those by the teacher's steps are a thousand times as large: it
  learns the velocity on its own path, with t from 0 to 1.
  """
  config = jaxflow.preset(f"{CONFIG}:{method}")
  network = {**teacher.model.to_dict()}
  network["second_time"] = config.model.second_time
  update(config, {"model": network, "evaluation": _EVALUATION, **changes})
  if "teacher" in METHODS[method].needs:
    as_teacher = {
      "name": "from_path",
      "source": teacher.path.to_dict(),
      "prediction": teacher.loss.prediction,
    }
    update(config, {"parameterization": as_teacher})
    update(config, {"teacher": {"workdir": str(folder), "guidance": 1.0}})
  else:
    update(config, {"init": {"workdir": str(folder)}})
  return config


def measured(run: jaxflow.TrainedRun, calls: int) -> dict[str, float]:
  """Return what the classifier and the pixels say of samples."""
  (row,) = run.evaluate(nfe=(calls,))
  return {name: score.value for name, score in row["scores"].items()}


def study(workdir: pathlib.Path, settings: dict[str, Any]) -> dict[str, Any]:
  """Train, import, distil, measure."""
  began = time.perf_counter()
  source, folder = workdir / "diffusers", workdir / "teacher"
  if not source.exists():
    train_teacher(source, settings["teacher"])
  if not folder.exists():
    jaxflow.import_run("diffusers", source, folder, data="digits")
  saved = jaxflow.load(folder).config
  config = saved.copy_and_resolve_references()
  with config.unlocked():
    update(config, {"evaluation": _EVALUATION})
  teacher = jaxflow.load(folder, config=config)
  rows = {f"teacher, {TEACHER_CALLS} calls": measured(teacher, TEACHER_CALLS)}
  rows["teacher, 1 call"] = measured(teacher, 1)
  for method in ("consistency_distillation", "mean_flow"):
    config = student_config(method, saved, folder, settings[method])
    student = jaxflow.train(config, workdir / method)
    rows[f"{method}, 1 call"] = measured(student, 1)
  return {"rows": rows, "seconds": round(time.perf_counter() - began)}


def main() -> None:
  """Run the study."""
  parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
  parser.add_argument(
    "--workdir",
    type=pathlib.Path,
    default=pathlib.Path("runs/experiments/imported_teacher"),
  )
  parser.add_argument("--quick", action="store_true")
  arguments = parser.parse_args()
  logging.set_verbosity(logging.ERROR)
  if arguments.quick and not all(map(importlib.util.find_spec, _NEEDS)):
    print(f"imported_teacher: left out, it needs {' and '.join(_NEEDS)}")
    return
  try:
    if arguments.quick:
      with tempfile.TemporaryDirectory() as folder:
        found = study(pathlib.Path(folder), QUICK)
    else:
      found = study(arguments.workdir, FULL)
  except (RunError, UsageError) as error:
    sys.exit(f"imported_teacher: {error}")
  best = found["rows"][f"teacher, {TEACHER_CALLS} calls"]["recognised"]
  for name, scores in found["rows"].items():
    share = scores["recognised"] / max(best, 1e-9)
    scores["of the teacher's"] = share
    print(f"{name:36}", *(f"{k} {v:.4f}" for k, v in scores.items()))
  if not arguments.quick:
    text = json.dumps({**found, "settings": FULL, "goal": GOAL}, indent=2)
    out = RESULTS / "imported_teacher.json"
    replace_file(out, lambda draft: draft.write_text(f"{text}\n"))


if __name__ == "__main__":
  main()
