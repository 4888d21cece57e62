"""What a config compiles to on machines that need not be there."""

from jaxflow.compilation.calls import inputs_of, network_call, sampler_call
from jaxflow.compilation.chips import CHIPS, Chip
from jaxflow.compilation.collectives import Collective, collectives
from jaxflow.compilation.flops import matmul_flops
from jaxflow.compilation.program import Program
from jaxflow.compilation.programs import Decoder, programs
from jaxflow.compilation.report import Report, compile_program
from jaxflow.compilation.tables import header, rows, table
from jaxflow.compilation.topologies import Topology

__all__ = [
  "CHIPS",
  "Chip",
  "Collective",
  "Decoder",
  "Program",
  "Report",
  "Topology",
  "collectives",
  "compile_program",
  "header",
  "inputs_of",
  "matmul_flops",
  "network_call",
  "programs",
  "rows",
  "sampler_call",
  "table",
]
