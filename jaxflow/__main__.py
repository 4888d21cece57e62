"""`python -m jaxflow` is the command `jaxflow`."""

from jaxflow.cli import main

main()
