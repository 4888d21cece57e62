"""Folders of the Hugging Face hub, by name and only when asked."""

import pathlib
import re

from jaxflow.errors import UsageError
from jaxflow.runs.weight_files import WEIGHTS

_PREFIX = "hf://"
_NAME = re.compile(r"hf://([\w.-]+/[\w.-]+)(?:@([\w./-]+))?")


def is_name(text: str) -> bool:
  """Return whether a text is meant as the name of a folder of the hub.

  Example:
    >>> is_name("hf://owner/name"), is_name("runs/x")
    (True, False)
  """
  return text.startswith(_PREFIX)


def download(text: str) -> pathlib.Path:
  """Download config, weights and card of `hf://OWNER/NAME[@REVISION]`.

  Raises:
    UsageError: If the name is none, the package huggingface_hub is absent, or
      the download fails.
  """
  found = _NAME.fullmatch(text)
  if found is None:
    raise UsageError(
      f"workdir={text!r}: give hf://OWNER/NAME or hf://OWNER/NAME@REVISION"
    )
  try:
    import huggingface_hub
  except ImportError as error:
    raise UsageError(
      f"workdir={text!r} needs the package huggingface_hub: "
      "pip install 'jaxflow-generative[hub]'"
    ) from error
  name, revision = found.groups()
  try:
    folder = huggingface_hub.snapshot_download(
      name,
      revision=revision,
      allow_patterns=["config.json", "README.md", WEIGHTS],
    )
  except Exception as error:
    first = str(error).strip().splitlines() or [type(error).__name__]
    raise UsageError(
      f"workdir={text!r} cannot be downloaded ({first[0]}): check name and "
      "connection, or give a folder"
    ) from error
  return pathlib.Path(folder)
