"""What a network predicts, and how one prediction becomes another."""

from jaxflow.predictions.conversions import noise_level, on_path, time_at
from jaxflow.predictions.convert import (
  Parameterization,
  Prediction,
  as_prediction,
  convert,
  edm_denoiser,
  edm_inputs,
  row,
)
from jaxflow.predictions.parameterizations import (
  normalized,
  trigonometric_from_edm,
  trigonometric_from_linear,
)

__all__ = [
  "Parameterization",
  "Prediction",
  "as_prediction",
  "convert",
  "edm_denoiser",
  "edm_inputs",
  "noise_level",
  "normalized",
  "on_path",
  "row",
  "time_at",
  "trigonometric_from_edm",
  "trigonometric_from_linear",
]
