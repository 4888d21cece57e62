"""Fashion-MNIST: 70,000 real 28x28 images of 10 classes of clothes.

  jaxflow train --config=configs/fashion_mnist.py:METHOD --workdir=runs/METHOD

The four IDX files come from `config.data.raw_dir`, by default the folder of the
Debian package dataset-fashion-mnist; MNIST's own files work as well.

Small networks on few wide tokens, trained with many small batches.
`frechet_distance_loss` continues a run of `pixel_mean_flow`, by default that in
runs/pixel_mean_flow. With compiling, `pixel_mean_flow` took 6:52 minutes of 2
idle cores, `frechet_distance_loss` 2:41. Its samples are clipped, and drawn at
a larger scale than it was trained with, --config.flow_map.omega=3; those of the
other rows are neither.

One call of each, 10,000 samples; CPU seconds of training with compiling, what
it starts from included, of which 2 cores have 1,200 in ten minutes (jax 0.10.2,
one seed):

                           CPU s  recognised  sliced W  Frechet distance
  frechet_distance_loss    1,036      80.6 %    0.0239       3.5
  pixel_mean_flow            732      82.9 %    0.0408       7.9
  alpha_flow                 386      72.6 %    0.0501       7.3
  mean_flow                  374      72.6 %    0.0366      10.3
  real pictures                       81.5 %    0.0136       0.3

Recognised: share of samples that a 3-nearest-neighbour classifier of real
pictures takes for their class. Sliced W: sliced Wasserstein distance to
held-out pictures, in pixels, on which `frechet_distance_loss` was trained.
Frechet distance: in the features of a classifier, on which no row was trained.

What was tried, in one call (* of 4,000 samples; as many real ones have 79.4 %,
0.0179 and 0.4). Rows with ' had one core to themselves, which takes fewer CPU
seconds than two that wait for each other:

  mean_flow, patches of 4, width 96,
    2,000 steps of 128       780      67.7 %     0.038      17.4
  mean_flow, patches of 7, width 128,
    1,600 steps of 128       303      67.6 %     0.038      18.9
    6,400 steps of 32        374      72.6 %     0.037      10.3
    predicting the image     363      71.6 %     0.043      11.0
  alpha_flow                 386      72.6 %     0.050       7.3
    patches of 14, width 256 571      72.6 %     0.048       6.4
  pixel_mean_flow, 4,200 steps of 32,
    omega up to 3            343      79.5 %     0.052      10.5 *
    sampled at omega 1.3     343      81.9 %     0.066      11.5
    omega up to 2 and
      norm_power=0           329      76.5 %     0.070      11.7 *
      norm_power=1           332      78.9 %     0.061      12.8 *
      logit-normal times     338      77.6 %     0.057       8.7 *
  pixel_mean_flow, omega up to 2,
    12,000 steps of 32     1,031      83.3 %     0.037       7.9
      in four calls                   81.4 %     0.041       4.8
    14,000 steps of 32     1,084'     82.9 %     0.035       7.2
  drifting, patches of 4, groups of 64,
    1,200 steps of 256       981      73.6 %     0.097      25.9
  flow_matching, 20 calls,
    1,600 steps of 128       286      64.3 %     0.055      21.3
  frechet_distance_loss of pixels that are not clipped,
    after 12,000 steps above,
      200 steps of 256, rate 1e-4, decay 0.9,
        at omega 1         1,137'     77.7 %     0.037       4.1 *
      360 steps, decay 0.98 1,213'    78.3 %     0.060       5.0 *
      300 steps, rate 3e-5, decay 0.95,
        at omega 1         1,186'     78.3 %     0.023       3.2
        at omega 2         1,183'     79.9 %     0.025       3.3
    after 9,000 steps, omega up to 3,
      300 steps, at omega 2.5 885'    80.3 %     0.027       4.4
      480 steps, decay 0.96  968'     79.9 %     0.023       4.2
        sampled at omega 3   968'     81.0 %     0.025       4.0
        and clipped          968'     80.1 %     0.036       4.0

Small batches help most, then a network that predicts the image and has guidance
as an input. Its samples have a fourth to a half less variance than pictures
beyond the first ten principal components, in one call and in four; further
training on means and covariances gives most of it back. A memory of few steps
is noisy and takes variance from the first components; one of many lags behind
a high rate.

The student of consistency_distillation needs --config.teacher.workdir, by
default runs/flow_matching.
"""

from jaxflow.config import Config, default_config, update

_PAIRS = {"name": "sorted_pair", "law": {"name": "uniform"}}
_AVERAGE = {"times": _PAIRS, "loss": {"block": (2, 1), "norm_power": 0.5}}

METHOD_FIELDS = {
  "flow_matching": {"loss": {"label_dropout": 0.1}},
  "mean_flow": _AVERAGE,
  "alpha_flow": _AVERAGE,
  "pixel_mean_flow": {
    "train": {"steps": 9000},
    "times": _PAIRS,
    "loss": {"norm_power": 0.5, "omega_max": 3.0},
  },
  # Continues a run of pixel_mean_flow, on the pixels themselves.
  "frechet_distance_loss": {
    "init": {"workdir": "runs/pixel_mean_flow"},
    "features": {"network": {"name": "pixels"}},
    "model": {"heads": 2, "guidance_inputs": True},
    "parameterization": {"name": "from_data"},
    "flow_map": {"name": "guided_velocity", "omega": 2.5},
    "loss": {"decay": 0.96, "fill": 10_240},
    "optimizer": {"learning_rate": 3e-5, "warmup_steps": 0},
    "train": {
      **{"steps": 440, "batch_size": 256},
      **{"log_every": 60, "sample_every": 0},
    },
    "sample": {"sampler": {"name": "consistency", "clip": 1.0}},
  },
  "consistency_distillation": {
    "train": {"steps": 4000},
    "optimizer": {"learning_rate": 1e-3},
    "teacher": {"workdir": "runs/flow_matching", "guidance": 1.3},
  },
}


def get_config(method: str) -> Config:
  """Return the config of a method on Fashion-MNIST."""
  config = default_config(method, data="fashion_mnist", model="dit")
  # Four blocks are few for a loop: it takes a twentieth more time.
  config.model.update(
    depth=4, width=128, num_heads=2, patch_size=7, scan_layers=False
  )
  config.optimizer.update(
    learning_rate=2e-3, b2=0.99, schedule="cosine", warmup_steps=100
  )
  config.train.update(
    steps=6400, batch_size=32, log_every=400, sample_every=1600
  )
  config.checkpoint.every = 1600
  config.evaluation.num = 10_000
  config.evaluation.network = {"name": "classifier"}
  config.evaluation.flow.update(num=64, levels=256)
  update(config, METHOD_FIELDS.get(method, {}))
  return config
