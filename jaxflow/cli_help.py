"""What `jaxflow COMMAND --help` prints, by command; "" is the overview."""

HELP = {
  "": """\
usage: jaxflow COMMAND [--flag=value ...]

  train     train a config in a workdir, or go on where it stopped
  sample    draw samples from a workdir into a picture or an .npz file
  evaluate  compare samples with held-out data, beside the real-data floor
  pairs     make pairs of noise and data with a trained run's ODE
  rectify   rounds of ReFlow: make pairs, train on them, again
  methods   print the table of methods

jaxflow COMMAND --help tells the flags. All commands take --debug, which shows
the traceback of an error, and --distributed=auto|on|off: whether to join the
other processes of a job (auto: where Slurm, Open MPI, a TPU pod or
JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID say so). Start the
same command in every process.""",
  "train": """\
usage: jaxflow train --config=FILE.py:METHOD --workdir=FOLDER
                     [--config.FIELD=VALUE ...]

  --config    a file with get_config(method), for instance configs/digits.py
  --workdir   where config.json, checkpoints/, metrics.csv, tensorboard/ and
              samples/ go; with a run in it, training goes on from its last
              checkpoint
  --config.FIELD=VALUE
              changes one field, for instance --config.train.steps=500

example:
  jaxflow train --config=configs/digits.py:mean_flow --workdir=runs/digits

Ctrl-C and SIGTERM save and exit 0; the same command goes on.""",
  "sample": """\
usage: jaxflow sample --workdir=FOLDER --out=FILE [--num=64] [--nfe=1]

  --workdir   the folder of a run
  --out       a .png file (grid of images, or scatter of points) or .npz file
              (arrays `samples` and `label`)
  --num       how many samples (default 64)
  --nfe       network calls per sample (default 1; guidance doubles each)
  --label     the class of all samples (default: the classes in turn)
  --seed      seed of the noise (default 0)
  --step      the checkpoint (default: the latest)

example:
  jaxflow sample --workdir=runs/digits --num=64 --label=3 --out=grid.png""",
  "evaluate": """\
usage: jaxflow evaluate --workdir=FOLDER [--nfe=1,2,4]

  --workdir   the folder of a run
  --nfe       network calls per sample, one evaluation each (default: the
              config's evaluation.nfe)

Prints each metric beside its value for real data, and writes
WORKDIR/evaluation.json.

example:
  jaxflow evaluate --workdir=runs/digits --nfe=1,2,4""",
  "pairs": """\
usage: jaxflow pairs --workdir=TEACHER --out=FOLDER [--num=50000]

  --workdir      the folder of a run whose network is a velocity
  --out          where the pairs go, for --config.data.pairs; with these pairs
                 begun in it, the work goes on at the first missing shard
  --num          how many (default 50000); labels are the classes in turn
  --solver       euler, midpoint or heun (default)
  --nfe          network calls a pair (default 40; heun takes two a step)
  --guidance     guidance scale (default 1)
  --grid         time grid (default: the teacher's sample.grid)
  --ema, --step  the teacher's average (default sampling; or online) and
                 checkpoint (default: the latest)
  --seed         seed of the noise (default 0)
  --batch_size   pairs at a time over all devices (default 1024)
  --shard_size   pairs of one file (default 4096)

example:
  jaxflow pairs --workdir=runs/teacher --num=50000 --out=runs/pairs""",
  "rectify": """\
usage: jaxflow rectify --config=FILE.py:METHOD --workdir=FOLDER [--rounds=3]

  --config, --config.FIELD=VALUE
                as of train; every round has this config, but pairs and first
                weights of its own
  --workdir     where round_0, pairs_1, round_1, ... go; the same command goes
                on where it stopped
  --rounds      rounds on pairs (default 3), each from the weights of the last
  --start, --end
                share of pairs in the first and last round (default 0.4, 0.9);
                the other rows are real data with fresh noise
  --teacher     a trained run in place of round 0, which trains without pairs
  --num, --solver, --nfe, --guidance, --grid, --ema, --seed, --batch_size,
  --shard_size  as of pairs

example:
  jaxflow rectify --config=configs/digits.py:reflow --workdir=runs/reflow""",
  "methods": """\
usage: jaxflow methods

Prints every method: what it does, what it needs, where it comes from.

example:
  jaxflow methods""",
}
