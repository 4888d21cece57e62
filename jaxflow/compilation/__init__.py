"""Compile a config for devices that need not be present, and read the result.

The result says how much memory, arithmetic and communication a device needs.
"""

from jaxflow.compilation.chips import CHIPS, Chip
from jaxflow.compilation.collectives import Collective, collectives
from jaxflow.compilation.loops import matmul_flops
from jaxflow.compilation.programs import (
  Decoder,
  example_inputs,
  network_program,
  programs,
  sampler_program,
)
from jaxflow.compilation.report import Program, Report, compile_program
from jaxflow.compilation.tables import (
  report_header,
  report_record,
  report_table,
)
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
  "example_inputs",
  "matmul_flops",
  "network_program",
  "programs",
  "report_header",
  "report_record",
  "report_table",
  "sampler_program",
]
