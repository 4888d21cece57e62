"""Configs: their schema, their components, their files, their flags."""

from jaxflow.config.components import Config
from jaxflow.config.schema import default_config, resolve, update

__all__ = ["Config", "default_config", "resolve", "update"]
