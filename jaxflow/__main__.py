"""`python -m jaxflow` is the command `jaxflow`."""

from jaxflow.commands.main import main

main()
