"""Commands that need no run: compile, methods."""

from absl import flags

from jaxflow.commands.console import say
from jaxflow.commands.flags import read, required


def compile(arguments: list[str]) -> int:
  """Compile a config for devices that need not be there."""
  from jaxflow.compilation.topologies import Topology
  from jaxflow.config.flags import parse

  values = flags.FlagValues()
  flags.DEFINE_string("topology", None, "", flag_values=values)
  flags.DEFINE_float("hbm", None, "", flag_values=values)
  config = parse(arguments, values)
  what = "the devices, v5e:16x16 or host:8 for instance"
  topology = Topology.parse(required(values.topology, "topology", what))
  topology.prepare()

  from jaxflow.commands.compile import compile_config

  return 0 if compile_config(config, topology, hbm=values.hbm, say=say) else 1


def methods(arguments: list[str]) -> int:
  """Print the table of methods."""
  read(arguments, flags.FlagValues())
  from jaxflow.methods import METHODS

  for name, row in METHODS.items():
    needs = ", ".join(sorted(row.needs)) or "nothing"
    say(f"{name}\n  {row.summary}\n  needs: {needs}\n  {row.paper}")
  return 0
