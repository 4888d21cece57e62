"""What the command line does, as functions."""

from jaxflow.commands.evaluate import evaluate
from jaxflow.commands.sample import sample, save_samples
from jaxflow.commands.train import train

__all__ = ["evaluate", "sample", "save_samples", "train"]
