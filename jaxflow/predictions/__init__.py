"""What a network predicts, and how one prediction becomes another.

  model_fn        a network, called as `(xt, t, s, cond)` with xt `[B, ...]` and
                  times `[B]`; a raw one is an F that the function scales
  path            the path on which `xt` lies
  source, target  predictions before and after: "data", "noise", "velocity", "v"
                  or "score", of a network also "edm", the raw one of
                  `edm_denoiser`; for `on_path` the two paths
  sigma_data      standard deviation of the data, for "edm"

Functions of a network return a network. ValueError tells that a prediction is
unknown or that a path does not serve.
"""

from jaxflow.predictions.conversions import (
  SourcePath,
  from_data,
  from_path,
  noise_level,
  normalized,
  on_path,
  time_at,
  trigonometric_from_edm,
  trigonometric_from_linear,
)
from jaxflow.predictions.convert import (
  Parameterization,
  Prediction,
  as_prediction,
  convert,
  edm_denoiser,
  edm_inputs,
  row,
)

__all__ = [
  "Parameterization",
  "Prediction",
  "SourcePath",
  "as_prediction",
  "convert",
  "edm_denoiser",
  "edm_inputs",
  "from_data",
  "from_path",
  "noise_level",
  "normalized",
  "on_path",
  "row",
  "time_at",
  "trigonometric_from_edm",
  "trigonometric_from_linear",
]
