"""`jaxflow compile`: compile a config for devices that need not be there."""

from typing import Any

from jaxflow.commands.command import Command, Flag, Values
from jaxflow.commands.console import log
from jaxflow.errors import RunError


def _run(values: Values, config: Any) -> int:
  from jaxflow.compilation.topologies import Topology

  topology = Topology.parse(values.topology)
  topology.prepare()

  from jaxflow.compilation.of_config import compile_config

  if not compile_config(config, topology, hbm=values.hbm, log=log):
    limit = "" if values.hbm is None else f", --hbm={values.hbm:g} GiB"
    raise RunError(
      f"a program does not fit the memory of {values.topology}{limit}: "
      "see above; take a smaller model or batch, or a larger mesh.fsdp"
    )
  return 0


COMMAND = Command(
  summary="compile a config for a TPU pod, without one: memory, FLOPs, traffic",
  takes_config=True,
  flags=(
    Flag(
      "topology",
      "the devices: v4:AxBxC, v5p:AxBxC, v5e:AxB or v6e:AxB chips (needs the "
      "extra [tpu], no TPU), or host:N devices of this machine's CPU",
    ),
    Flag(
      "hbm",
      "memory of a device in GiB (default: the chip's; none of host)",
      kind=float,
    ),
  ),
  required={"topology": "NAME"},
  run=_run,
  notes="""\
--config.mesh.* arranges the devices. Nothing is read where the config holds
data.shape and data.num_classes; a teacher that is not there is taken to be like
the student.

Prints for training step, sampler (sample.batch_size samples) and evaluation
step (evaluation.batch_size) the use of a chip: memory, FLOPs,
collectives with their bytes, the time to compile, and the compiler's estimate
of the kernels' time. Exit code 1 if one does not fit.""",
  example="jaxflow compile --config=digits:mean_flow --topology=host:8",
  alone=True,
)
