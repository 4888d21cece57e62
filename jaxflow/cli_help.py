"""What `jaxflow COMMAND --help` prints, by command; "" is the overview."""

HELP = {
  "": """\
usage: jaxflow COMMAND [--flag=value ...]

  train     train a config in a workdir, or go on where it stopped
  sample    draw samples from a workdir into a picture or an .npz file
  evaluate  compare samples with held-out data, beside the real-data floor
  stats     write the statistics of a data set that samples are compared with
  bench     measure latency, memory and FLOPs of samplers, and their overhead
  report    write one page: config, curves, evaluation, costs, pictures
  pairs     make pairs of noise and data with a trained run's ODE
  rectify   rounds of ReFlow: make pairs, train on them, again
  encode    write the latents of an image set, by published weights
  compile   compile a config for a TPU pod, without one: memory, FLOPs, traffic
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
  --step      the checkpoint (default: the latest), or best
  --config.sample.FIELD=VALUE
              changes a field for these samples, --config.sample.guidance=2
  --latents   of a run on latents, keep them in the .npz file, in the units of
              the autoencoder, and decode none

example:
  jaxflow sample --workdir=runs/digits --num=64 --label=3 --out=grid.png""",
  "evaluate": """\
usage: jaxflow evaluate --workdir=FOLDER [--nfe=1,2,4] [--step=STEP]
                        [--config.evaluation.FIELD=VALUE ...]

  --workdir   the folder of a run
  --nfe       network calls per sample, one evaluation each (default: the
              config's evaluation.nfe)
  --step      the checkpoint (default: the latest), or best
  --config.evaluation.FIELD=VALUE
              changes a field for this evaluation: num (samples), metrics
              (names with commas), network.name (none, classifier,
              efficientnet_lite0, inception), reference (a file of jaxflow
              stats, or a published one); --config.sample.guidance=2 and the
              like change how samples are drawn

Prints each metric beside its value for real data, and writes
WORKDIR/evaluation.json. Killed, it goes on where it was.

example:
  jaxflow evaluate --workdir=runs/digits --nfe=1,2,4 \\
    --config.evaluation.network.name=classifier""",
  "stats": """\
usage: jaxflow stats --config=FILE.py:METHOD --out=FILE.npz [--split=train]
                     [--config.FIELD=VALUE ...]

  --config    its data and evaluation.network count
  --out       an .npz file, for --config.evaluation.reference
  --split     train (default) or test
  --num       how many samples, a random choice (default: all)

Writes mean and covariance of what a network sees of real data, with its name,
protocol and hash, and the features of the first evaluation.kept samples.

example:
  jaxflow stats --config=configs/digits.py:mean_flow --out=digits.npz \\
    --config.evaluation.network.name=classifier""",
  "bench": """\
usage: jaxflow bench --workdir=FOLDER [--nfe=1,2,4,8] [--batch=1,8,64]
                     [--teacher=FOLDER] [--teacher_nfe=1,2,4,8]

  --workdir      the folder of a run
  --nfe          network calls per sample (default: of 1,2,4,8 those that its
                 sampler can make)
  --batch        samples at a time
  --teacher      another run to measure beside it (default: the teacher in the
                 run's own checkpoint); of the solvers that it knows, it takes
                 the one whose samples come nearest to held-out data
  --teacher_nfe  its network calls per sample (default: as --nfe)

Prints, a line a sampler, time to compile, latency, samples/s, memory, FLOPs,
and what it takes beyond its network calls; writes WORKDIR/bench.json, and
WORKDIR/bench.png, quality against latency.

example:
  jaxflow bench --workdir=runs/digits --nfe=1,4 --batch=64""",
  "report": """\
usage: jaxflow report --workdir=FOLDER [--nfe=N] [--num=N]

  --workdir   the folder of a run
  --nfe       network calls per sample of the pictures (default: the config's
              sample.nfe)
  --num       how many samples are compared with the data (default: 300 images,
              5000 points)

Writes WORKDIR/report.html, which needs no other file: config, curves of the
training, what evaluate and bench have written, interpolations in noise, samples
beside their nearest training samples and beside the teacher's; of points in the
plane densities, trajectories and the map from noise.

example:
  jaxflow report --workdir=runs/digits""",
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
  "encode": """\
usage: jaxflow encode --data=NAME --autoencoder=PATH --out=FOLDER [--size=256]

  --data          the image set: a data.name of a config, or of TFDS
  --raw_dir, --data_dir
                  as of that data set
  --autoencoder   diffusion_pytorch_model.safetensors or .bin of sd-vae-ft-mse,
                  sd-vae-ft-ema, or the folder that holds it
  --out           where the latents go, for --config.data.name=latents
                  --config.data.data_dir=FOLDER; with these latents begun in
                  it, the work goes on at the first missing shard
  --size          height and width of the images, a multiple of 8 (default
                  256); others are scaled and cut in the middle
  --flip          add the latents of mirrored training images
  --scale         deviation of the normalised latents (default 1)
  --dtype         float16 (default) or float32, as stored
  --batch_size    images at a time over all devices (default 64)
  --shard_size    latents of one file (default 4096)

example:
  jaxflow encode --data=fashion_mnist --size=32 --out=runs/latents \\
    --autoencoder=sd-vae-ft-mse""",
  "compile": """\
usage: jaxflow compile --config=FILE.py:METHOD --topology=NAME
                       [--config.FIELD=VALUE ...]

  --config, --config.FIELD=VALUE
              as of train; --config.mesh.* arranges the devices. Nothing is
              read where the config holds data.shape and data.num_classes; a
              teacher that is not there is taken to be like the student
  --topology  v4:AxBxC, v5p:AxBxC, v5e:AxB or v6e:AxB chips (needs the extra
              [tpu], no TPU), or host:N devices of this machine's CPU
  --hbm       memory of a device in GiB (default: the chip's; none of host)

Prints for training step, sampler (sample.batch_size samples) and evaluation
step (evaluation.batch_size) what each takes of a chip: memory, FLOPs,
collectives with their bytes, the time to compile, and the compiler's estimate
of the kernels' time. Exit code 1 if one does not fit.

example:
  jaxflow compile --config=configs/digits.py:mean_flow --topology=host:8""",
  "methods": """\
usage: jaxflow methods

Prints every method: what it does, what it needs, where it comes from.

example:
  jaxflow methods""",
}
