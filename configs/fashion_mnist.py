"""Fashion-MNIST: 70,000 real 28x28 images of 10 classes of clothes.

  jaxflow train --config=configs/fashion_mnist.py:METHOD --workdir=runs/METHOD

The four IDX files come from `config.data.raw_dir`, by default the folder of the
Debian package dataset-fashion-mnist; MNIST's own files work as well.

Small networks on few wide tokens, trained with many small batches. One call of
each, 10,000 samples; CPU seconds of training with compiling, of which 2 cores
have 1,200 in ten minutes (jax 0.10.2, one seed; the first took 9:35 minutes):

                           CPU s  recognised  sliced W  Frechet distance
  pixel_mean_flow          1,031      83.3 %    0.0374       7.9
  alpha_flow                 386      72.6 %    0.0501       7.3
  mean_flow                  374      72.6 %    0.0366      10.3
  real pictures                       81.5 %    0.0136       0.3

Recognised: share of samples that a 3-nearest-neighbour classifier of real
pictures takes for their class. Sliced W: sliced Wasserstein distance to
held-out pictures. Frechet distance: in the features of a classifier.

What was tried, in one call (* of 4,000 samples; as many real ones have 79.4 %,
0.0179 and 0.4):

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
  drifting, patches of 4, groups of 64,
    1,200 steps of 256       981      73.6 %     0.097      25.9
  flow_matching, 20 calls,
    1,600 steps of 128       286      64.3 %     0.055      21.3

Small batches help most, then a network that predicts the image and has guidance
as an input. In four calls pixel_mean_flow has 81.4 %, 0.041 and 4.8; after
14,000 steps, 1,084 CPU seconds, 82.9 %, 0.035 and 7.2 in one. A Frechet
loss of pixels lowered nothing in two minutes of further training.

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
    "train": {"steps": 12_000},
    "times": _PAIRS,
    "loss": {"norm_power": 0.5, "omega_max": 2.0},
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
