"""The one function of a run that is exported: noise in, samples out.

It is what `jaxflow sample` computes, normalisation undone and latents decoded,
as a function of arrays alone. Weights are an argument, so that a format decides
where they are kept and in which type.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

import jaxflow
from jaxflow import conditions, options, sampling
from jaxflow.data import Scaling
from jaxflow.errors import UsageError
from jaxflow.exports import seeds
from jaxflow.plans import Model, Plan
from jaxflow.runs.decoding import make_decoder
from jaxflow.runs.run import Run
from jaxflow.types import Array, PyTree

Noise = Literal["input", "seed"]
Dtype = Literal["float32", "float16", "int8"]
DTYPES: tuple[Dtype, ...] = get_args(Dtype)
BATCH = "batch"


@dataclasses.dataclass(frozen=True)
class Input:
  """An argument of an exported sampler; its batch has any size.

  Attributes:
    name: Its name.
    shape: Its shape; `BATCH` is the size of the batch.
    dtype: Its type, as NumPy names it.
  """

  name: str
  shape: tuple[int | str, ...]
  dtype: str

  def abstract(self, batch: Any) -> jax.ShapeDtypeStruct:
    """Return the shape and the type for a size of the batch."""
    shape = tuple(batch if n == BATCH else n for n in self.shape)
    return jax.ShapeDtypeStruct(shape, np.dtype(self.dtype))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Exported:
  """A sampler that can be exported.

  Attributes:
    function: `(weights, *inputs) -> samples [batch, ...]`, float32.
    weights: The weights, a nested dict of NumPy arrays.
    inputs: The arguments behind the weights, in order.
    note: What a user of the file must know, as JSON: `sampler.json`.
  """

  function: Callable[..., Array]
  weights: PyTree
  inputs: tuple[Input, ...]
  note: Mapping[str, Any]

  def abstract(self) -> list[jax.ShapeDtypeStruct]:
    """Return shapes and types of the inputs with a batch of unknown size."""
    from jax import export

    (batch,) = export.symbolic_shape(BATCH)
    return [x.abstract(batch) for x in self.inputs]


def exported_sampler(
  run: Run,
  params: PyTree,
  *,
  step: int = 0,
  nfe: int | None = None,
  noise: Noise = "input",
) -> Exported:
  """Return the sampler of a run as a function of arrays.

  Args:
    run: The run.
    params: The parameters that are sampled.
    step: Of the checkpoint, for the note.
    nfe: Network calls a sample; None for the config's `sample.nfe`.
    noise: "input" takes unit noise; "seed" takes a seed and the numbers of the
      samples, and draws the noise that `jaxflow sample` draws.

  Raises:
    UsageError: If an option is wrong, or the sampler draws noise between its
      steps and `noise` is "input".
  """
  plan, model = run.plan, run.model
  nfe = plan.sample.nfe if nfe is None else nfe
  if noise not in ("input", "seed"):
    raise UsageError(f"noise={noise!r}: give input or seed")
  steps = model.num_steps(plan.sample, nfe)
  if noise == "input" and steps > 1 and _draws(plan.sample.sampler):
    raise UsageError(
      f"nfe={nfe}: this sampler draws noise between its steps; export one "
      "step, or take noise='seed'"
    )
  decoder = make_decoder(plan.data)
  weights = {"network": params}
  if decoder is not None:
    weights["decoder"] = decoder[0]
  finish = _finish(plan, None if decoder is None else decoder[1])
  inputs = _inputs(plan, noise)

  def function(weights: PyTree, *values: Array) -> Array:
    given = dict(zip((x.name for x in inputs), values, strict=True))
    return finish(weights, _drawn(run, nfe, weights["network"], given))

  return Exported(
    function=function,
    weights=jax.tree.map(np.asarray, weights),
    inputs=inputs,
    note=_note(plan, inputs, step, nfe, function, weights),
  )


def check_dtype(dtype: str) -> None:
  """Raise UsageError unless weights can be stored in a type."""
  if dtype not in DTYPES:
    raise UsageError(f"dtype={dtype!r}: give one of {', '.join(DTYPES)}")


def _draws(sampler: Any) -> bool:
  """Return whether a sampler may draw noise between its steps."""
  return not isinstance(sampler, sampling.Jumps | sampling.DPMSolver)


def _inputs(plan: Plan, noise: Noise) -> tuple[Input, ...]:
  """Return what the sampler of a run takes."""
  model = plan.model
  if noise == "seed":
    found = [Input("seed", (), "uint32"), Input("index", (BATCH,), "int32")]
  else:
    found = [Input("noise", (BATCH, *model.shape), "float32")]
  for name, x in _null_conditions(plan).items():
    found.append(Input(name, (BATCH, *np.shape(x)), np.asarray(x).dtype.name))
  if _guidance(model):
    found.append(Input("guidance", (), "float32"))
  names = [x.name for x in found]
  twice = [x for x in names if names.count(x) > 1]
  if twice:
    raise UsageError(
      f"cond: its name {twice[0]!r} is that of another input of the sampler; "
      "call it otherwise in the network's null_cond"
    )
  return tuple(found)


def _null_conditions(plan: Plan) -> dict[str, Any]:
  """Return the null condition by the names of inputs."""
  null_cond = plan.model.null_cond
  if null_cond is None or plan.declares_condition:
    return conditions.leaves(null_cond)
  return {"label": null_cond}


def _condition(plan: Plan, given: Mapping[str, Array]) -> PyTree:
  """Return the condition of inputs, in the network's units; None without."""
  arrays = {name: given[name] for name in _null_conditions(plan)}
  if plan.declares_condition:
    return conditions.from_leaves(arrays, plan.model.null_cond)
  label, scales = arrays.get("label"), plan.data.conditions
  if label is None or scales is None:
    return label
  return (label - _last(scales.offset, label)) / _last(scales.scale, label)


def _guidance(model: Model) -> str:
  """Return the flow map's option that is the guidance scale, "" without."""
  maker = model.method.flow_map
  return next(iter(options.marked(maker, options.GuidanceInput)), "")


def _drawn(
  run: Run, nfe: int, params: PyTree, given: Mapping[str, Array]
) -> Array:
  """Return samples of the network, in its own units."""
  model, plan = run.model, run.plan
  if "guidance" in given:
    scale = {_guidance(model): given["guidance"]}
    flow_map = functools.partial(model.flow_map, **scale)
    model = dataclasses.replace(model, flow_map=flow_map)
  key: Any = jax.random.key(0)
  if "seed" in given:
    noise, key = seeds.noise_and_keys(
      given["seed"], given["index"], model.shape
    )
  else:
    noise = given["noise"]
  # The grid is checked, so its times must be numbers while this is traced.
  with jax.ensure_compile_time_eval():
    sampler = model.make_sampler(plan.sample, nfe)
  return sampler(params, noise, key, _condition(plan, given))


def _finish(
  plan: Plan, decode: Callable[[PyTree, Array], Array] | None
) -> Callable[[PyTree, Array], Array]:
  """Return `(weights, samples) -> data`, as `jaxflow sample` writes them."""
  scaling = plan.data.scaling
  if scaling is not None:
    return lambda weights, samples: _restored(scaling, samples)
  if decode is not None:
    return lambda weights, samples: decode(weights["decoder"], samples)
  return lambda weights, samples: samples


def _restored(scaling: Scaling, samples: Array) -> Array:
  """Undo a scaling as `Scaling.restore` does, in float32."""
  scale, offset = (_last(x, samples) for x in (scaling.scale, scaling.offset))
  values = samples * scale + offset
  dtype = np.dtype(scaling.dtype)
  if dtype.kind == "f":
    return values
  info = np.iinfo(np.uint8 if dtype.kind == "b" else dtype)
  low, high = (0, 1) if dtype.kind == "b" else (info.min, info.max)
  return jnp.clip(jnp.rint(values), float(low), float(high))


def _last(values: tuple[float, ...], like: Array) -> np.ndarray:
  """Return numbers of the last axis, with as many axes as another array."""
  shape = (1,) * (like.ndim - 1) + (-1,)
  return np.array(values, np.float32).reshape(shape)


def _note(
  plan: Plan,
  inputs: tuple[Input, ...],
  step: int,
  nfe: int,
  function: Callable[..., Array],
  weights: PyTree,
) -> dict[str, Any]:
  """Return what a user of the file must know."""
  model, scaling = plan.model, plan.data.scaling
  guidance = _guidance(model)
  bound = getattr(model.flow_map, "keywords", {})
  made = jax.eval_shape(function, weights, *(x.abstract(1) for x in inputs))
  names = plan.data.class_names
  return {
    "schema": 1,
    "method": model.name,
    "step": step,
    "nfe": nfe,
    "sampler": plan.sample.solver,
    "inputs": [dataclasses.asdict(x) for x in inputs],
    "output": {"name": "samples", "shape": [BATCH, *made.shape[1:]]},
    "noise_shape": list(model.shape),
    "num_classes": model.num_classes,
    "no_label": model.num_classes if model.drops_labels else None,
    "class_names": None if names is None else list(names),
    "range": [-1.0, 1.0] if scaling is None else list(scaling.range),
    "guidance": {
      "is_input": bool(guidance),
      "default": bound.get(guidance, plan.sample.guidance),
    },
    "data": plan.data.name,
    "versions": {
      "jaxflow": jaxflow.__version__,
      "jax": jax.__version__,
    },
  }
