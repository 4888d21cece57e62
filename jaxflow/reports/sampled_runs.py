"""A run and its teacher, each with the parameters that it samples with."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Collection
from typing import Literal, Self

import jax

from jaxflow import conditions, sampling, solvers
from jaxflow.config import load_plan
from jaxflow.errors import UsageError
from jaxflow.parallel import sharding
from jaxflow.plans import Model, Plan
from jaxflow.runs.restoring import restore
from jaxflow.runs.run import Run
from jaxflow.training.state import TrainState
from jaxflow.types import FlowMap, PyTree

_SOLVERS = {
  "euler": solvers.euler,
  "midpoint": solvers.midpoint,
  "heun": solvers.heun,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class SampledRun:
  """A run with the state that is sampled.

  The run's plan says how it is sampled; the state has at least the average that
  the plan names.
  """

  role: Literal["run", "teacher"]
  run: Run
  state: TrainState
  mesh: jax.sharding.Mesh

  @property
  def plan(self) -> Plan:
    """The plan of the run."""
    return self.run.plan

  @property
  def params(self) -> PyTree:
    """The parameters that are sampled."""
    return self.run.select(self.state, self.plan.sample.ema)

  def by_solver(self) -> dict[str, Self]:
    """Return the run with every solver that its network allows, by name.

    Its own solver comes first. A solver may still not fit a number of calls.
    """
    plan, model = self.plan, self.plan.model
    found = {plan.sample.solver: self}
    if not model.solver:
      return found
    flow_map: Callable[..., FlowMap] = model.flow_map
    for name, solver in _SOLVERS.items():
      changed = dataclasses.replace(
        model,
        flow_map=functools.partial(flow_map, solver=solver),
        solver=name,
        calls=solvers.EVALUATIONS[name],
      )
      found.setdefault(name, self._sampled_by(model.method.sampler, changed))
    name = "dpm_solver"
    found.setdefault(name, self._sampled_by(sampling.DPMSolver(), model, name))
    return found

  def _sampled_by(
    self, sampler: sampling.Sampler, model: Model, name: str = ""
  ) -> Self:
    """Return the run with another sampler and flow map."""
    sample = dataclasses.replace(
      self.plan.sample, sampler=sampler, solver=name or model.solver
    )
    plan = dataclasses.replace(self.plan, model=model, sample=sample)
    return dataclasses.replace(self, run=Run(plan))

  def allows(self, nfe: int) -> bool:
    """Return whether the sampler can make `nfe` network calls."""
    return self.plan.model.allows(self.plan.sample, nfe)


def open_run(
  workdir: pathlib.Path,
  *,
  role: Literal["run", "teacher"] = "run",
  mesh: jax.sharding.Mesh | None = None,
  frozen: Collection[str] = (),
) -> SampledRun:
  """Restore the average of a run that its config samples.

  The devices are all that fit, if no mesh is given. Networks that the run keeps
  `frozen`, "teacher" for one, are read beside the average.
  """
  run = Run(load_plan(workdir))
  mesh = mesh or sharding.fitting_mesh(run.plan.mesh)
  sample = run.plan.sample
  ema, guidance = sample.ema, sample.guidance
  state = restore(
    run, workdir, mesh=mesh, ema=ema, roles=frozen, guidance=guidance
  )
  return SampledRun(role=role, run=run, state=state, mesh=mesh)


def teacher_of(student: SampledRun) -> SampledRun | None:
  """Return the teacher in a student's checkpoint, or None without one.

  The teacher is guided as it was when it taught.
  """
  plan = student.plan.teacher_plan
  if plan is None or "teacher" not in student.state.frozen:
    return None
  sample = dataclasses.replace(
    plan.sample, ema="online", guidance=student.plan.roles.teacher_guidance
  )
  state = dataclasses.replace(
    student.state, params=student.state.frozen["teacher"], ema={}, frozen={}
  )
  run = Run(dataclasses.replace(plan, sample=sample))
  return dataclasses.replace(student, role="teacher", run=run, state=state)


def other_run(workdir: pathlib.Path, beside: SampledRun) -> SampledRun:
  """Open another run as the teacher of a run, sampled as its own plan says."""
  found = open_run(workdir, role="teacher", mesh=beside.mesh)
  for name in ("shape", "num_classes"):
    mine, its = (getattr(x.plan.model, name) for x in (beside, found))
    if mine != its:
      raise UsageError(
        f"workdir={str(workdir)!r}: its data.{name} is {its}, this run's is "
        f"{mine}; they must agree"
      )
  its = found.plan.model.null_cond
  if text := conditions.difference(its, beside.plan.model.null_cond):
    raise UsageError(
      f"workdir={str(workdir)!r}: its condition is another than this run's: "
      f"{text}; they must agree"
    )
  return found
