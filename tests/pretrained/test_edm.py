"""Pickles of EDM and EDM2 against their networks in plain NumPy."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import published_edm
import pytest
import tiny
from safetensors import numpy as safetensors
from test_formats import network_of

import jaxflow
from jaxflow import models, paths, predictions
from jaxflow.errors import UsageError
from jaxflow.pretrained import formats

SMALL = {"channels": 16, "mult": (1, 2), "blocks": 1, "attn": (4,)}
NCSN = {
  "embedding_type": "fourier",
  "channel_mult_noise": 2,
  "encoder_type": "residual",
  "decoder_type": "standard",
  "resample_filter": [1, 3, 3, 1],
}
CLASSES = 5
PATHS = {
  "variance_exploding": paths.VarianceExploding,
  "variance_preserving": paths.VariancePreserving,
}


def arguments(size, side, labels, **rest):
  return {
    "img_resolution": side,
    "label_dim": labels,
    "model_channels": size["channels"],
    "channel_mult": list(size["mult"]),
    "num_blocks": size["blocks"],
    "attn_resolutions": list(size["attn"]),
    **rest,
  }


def inputs(colours, labels):
  rng = np.random.default_rng(3)
  x = rng.standard_normal((3, colours, 8, 8))
  sigma = np.array([0.3, 2.0, 9.0])
  label = np.array([0, CLASSES - 1, CLASSES])
  # The null label is a label of zeros.
  onehot = np.eye(CLASSES + 1)[label][:, :CLASSES] if labels else None
  return x * (1 + sigma[:, None, None, None]), sigma, label, onehot


def file_of(tmp_path, monkeypatch, outer, inner, tensors, options):
  name, precond, within = outer
  net = published_edm.module(
    *(name, {}, precond),
    inner={within: published_edm.module(inner, tensors, options)},
  )
  path = tmp_path / "net.pkl"
  published_edm.dump(path, {"ema": net, "loss_fn": None}, monkeypatch)
  return path


def denoised(imported, x, sigma, label):
  """What the imported network makes of x = data + sigma noise."""
  section = dict(imported.sections["path"])
  path = PATHS[section.pop("name")](**section)
  x = jnp.asarray(x.transpose(0, 2, 3, 1), jnp.float32)
  t = predictions.time_at(path, jnp.asarray(sigma, jnp.float32))
  loss = imported.sections["loss"]
  options = {k: v for k, v in loss.items() if k == "sigma_data"}
  made = predictions.as_prediction(
    network_of(imported),
    path,
    source=loss["prediction"],
    target="data",
    **options,
  )(paths.expand(path.alpha(t), x) * x, t, t, label)
  return np.asarray(made).transpose(0, 3, 1, 2)


def edm_denoiser(raw, x, sigma, data=0.5):
  level = sigma[:, None, None, None]
  total = level**2 + data**2
  made = raw(x / np.sqrt(total), np.log(sigma) / 4)
  return data**2 / total * x + level * data / np.sqrt(total) * made


def vp_denoiser(raw, x, sigma):
  level = sigma[:, None, None, None]
  # The time of a noise level, by bisection of its own formula.
  low, high = np.zeros(3), np.ones(3)
  for _ in range(60):
    t = (low + high) / 2
    above = np.sqrt(np.exp(19.9 / 2 * t**2 + 0.1 * t) - 1) > sigma
    low, high = np.where(above, low, t), np.where(above, t, high)
  return x - level * raw(x / np.sqrt(1 + level**2), 999 * t)


def ve_denoiser(raw, x, sigma):
  return x + sigma[:, None, None, None] * raw(x, np.log(sigma / 2))


CASES = {
  "ddpm++": ("EDMPrecond", "ddpm++", CLASSES, 9, edm_denoiser),
  "ddpm++ vp": ("VPPrecond", "ddpm++", 0, 0, vp_denoiser),
  "ncsn++ ve": ("VEPrecond", "ncsn++", CLASSES, 0, ve_denoiser),
  "adm": ("EDMPrecond", "adm", CLASSES, 9, edm_denoiser),
}


def edm_file(tmp_path, monkeypatch, case):
  """A pickle, its tensors, denoiser and inputs."""
  precond, kind, labels, augments, denoiser = CASES[case]
  size = {**SMALL, "channels": 64} if kind == "adm" else SMALL
  x, sigma, label, onehot = inputs(3, labels)
  tensors = published_edm.Tensors()
  augment = np.random.default_rng(4).standard_normal((3, 9))

  def denoised(augment=augment if augments else None):
    return denoiser(
      lambda x, noise: published_edm.edm(
        tensors, x, noise, onehot, augment, kind=kind, **size
      ),
      *(x, sigma),
    )

  denoised()
  options = arguments(size, 8, labels, in_channels=3, out_channels=3)
  options |= {"augment_dim": augments} if augments else {}
  options |= NCSN if kind == "ncsn++" else {}
  path = file_of(
    *(tmp_path, monkeypatch),
    (precond, {}, "model"),
    "DhariwalUNet" if kind == "adm" else "SongUNet",
    *(tensors, options),
  )
  return path, tensors, denoised, (x, sigma, label, augment)


@pytest.mark.parametrize("case", CASES)
def test_edm_is_the_published_network(tmp_path, monkeypatch, case):
  _, _, labels, augments, _ = CASES[case]
  path, _, published, given = edm_file(tmp_path, monkeypatch, case)
  x, sigma, label, augment = given
  expected, none = published(), published(None)
  imported = formats.format_of("edm").read(path)
  with jax.default_matmul_precision("highest"):
    cond = jnp.asarray(label) if labels else None
    found = denoised(imported, x, sigma, cond)
    assert np.abs(found - none).max() < 1e-5 * np.abs(none).max()
    if augments:
      cond = {"label": cond, "augment": jnp.asarray(augment, jnp.float32)}
      found = denoised(imported, x, sigma, cond)
      assert np.abs(none - expected).max() > 1e-2 * np.abs(none).max()
  assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()


def edm2_file(tmp_path, monkeypatch):
  size = {**SMALL, "channels": 64}
  x, sigma, label, onehot = inputs(4, CLASSES)
  tensors = published_edm.Tensors()

  def raw(x, noise):
    return published_edm.edm2(tensors, x, noise, onehot, **size)

  expected = edm_denoiser(raw, x, sigma)
  options = arguments(size, 8, CLASSES, img_channels=4)
  path = file_of(
    *(tmp_path, monkeypatch),
    *(("Precond", {}, "unet"), "UNet", tensors, options),
  )
  return path, x, sigma, label, expected, tensors


def test_edm2_is_the_published_network(tmp_path, monkeypatch):
  path, x, sigma, label, expected, _ = edm2_file(tmp_path, monkeypatch)
  imported = formats.format_of("edm2").read(path)
  with jax.default_matmul_precision("highest"):
    found = denoised(imported, x, sigma, jnp.asarray(label))
  assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()


# The others are written without a run, which is faster.
BY_COMMAND = ("ncsn++ ve", "edm2")


@pytest.mark.parametrize("case", [*CASES, "edm2"])
def test_what_is_exported_is_what_was_imported(tmp_path, monkeypatch, case):
  """Names and numbers are those of the file that was read."""
  name = "edm2" if case == "edm2" else "edm"
  if case == "edm2":
    path, *_, tensors = edm2_file(tmp_path, monkeypatch)
  else:
    path, tensors, *_ = edm_file(tmp_path, monkeypatch, case)
  monkeypatch.undo()
  form = formats.format_of(name)
  first, out = form.read(path), tmp_path / "net.safetensors"
  if case in BY_COMMAND:
    jaxflow.import_run(name, path, tmp_path / "a", log=lambda line: None)
    told = tiny.run(
      *("export", f"--workdir={tmp_path / 'a'}", f"--format={name}"),
      f"--out={out}",
    )
    assert told.code == 0, told.err
  else:
    model = described(first)
    safetensors.save_file(
      form.write(model, first.params), out, form.describe(model)
    )
  written = safetensors.load_file(out)
  assert written.keys() == tensors.keys()
  for key, tensor in tensors.items():
    assert written[key].shape == tensor.shape
    # Labels are multiplied by a root where they are read.
    close = 1e-6 * (key in ("map_label.weight", "map_label.bias"))
    assert np.abs(written[key] - tensor).max() <= close, key
  again = form.read(out)
  assert jax.tree.all(jax.tree.map(np.array_equal, first.params, again.params))
  assert first.sections == again.sections and first.loss is again.loss
  assert (first.shape, first.num_classes) == (again.shape, again.num_classes)


def test_a_learned_null_label_is_written_as_zeros(tmp_path, monkeypatch):
  path, *_, given = edm_file(tmp_path, monkeypatch, "adm")
  form = formats.format_of("edm")
  imported = form.read(path)
  x, sigma, label, _ = given
  table = imported.params["label"]["table"]
  table[-1] = np.linspace(-1, 1, table.shape[1])
  expected = denoised(imported, x, sigma, jnp.asarray(label))
  model = described(imported)
  out = tmp_path / "net.safetensors"
  tensors = form.write(model, imported.params)
  safetensors.save_file(tensors, out, form.describe(model))
  again = form.read(out)
  assert not again.params["label"]["table"][-1].any()
  found = denoised(again, x, sigma, jnp.asarray(label))
  assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()


def described(imported):
  """What an export knows of a network."""
  signature = inspect.signature(models.unet)
  section = dict(imported.sections["path"])
  return {
    **{name: p.default for name, p in signature.parameters.items()},
    **imported.sections["model"],
    "data_shape": imported.shape,
    "num_classes": imported.num_classes,
    "path": PATHS[section.pop("name")](**section),
    "prediction": imported.sections["loss"]["prediction"],
    "sigma_data": 0.5,
    "label_dropout": 0.0,
  }


def test_what_has_no_published_place_is_refused(tmp_path, monkeypatch):
  path, *_ = edm_file(tmp_path, monkeypatch, "ddpm++")
  form = formats.format_of("edm")
  imported = form.read(path)
  model, params = described(imported), imported.params
  for change, told in (
    ({"name": "mp_unet"}, r"^network: it is 'mp_unet' with 1 head"),
    ({"heads": 2}, r"^network: it is 'unet' with 2 head"),
  ):
    with pytest.raises(UsageError, match=told):
      form.write({**model, **change}, params)
  with pytest.raises(UsageError, match=r"^network: .* no name for .*interval"):
    form.write(model, {**params, "interval": params["time"]})
  for change in ({"prediction": "velocity"}, {"path": paths.Linear()}):
    with pytest.raises(UsageError, match=r"^network: it predicts"):
      form.describe({**model, **change})
  out = tmp_path / "net.safetensors"
  for header in ({}, {"networks": "[1, 2]"}, {"networks": "{"}):
    safetensors.save_file(form.write(model, params), out, header)
    assert "its header does not say which network" in refused("edm", out)


# Millions of parameters, as published.
EDM2 = {
  128: 124.7,
  192: 280.2,
  256: 497.8,
  320: 777.5,
  384: 1119.3,
  448: 1523.2,
}
NEVER_TRAINED = ("frequencies", "phases")


def millions(network):
  shapes = jax.eval_shape(network.init, jax.random.key(0))
  leaves = jax.tree_util.tree_leaves_with_path(shapes)
  count = sum(x.size for p, x in leaves if p[-1].key not in NEVER_TRAINED)
  return round(count / 1e6, 1)


@pytest.mark.parametrize("channels", EDM2)
def test_edm2_has_the_published_size(channels):
  network = models.mp_unet(
    data_shape=(64, 64, 4),
    channels=channels,
    num_classes=1000,
    second_time=False,
  )
  assert millions(network) == EDM2[channels]


def test_edm_has_the_published_size():
  cifar = models.unet(data_shape=(32, 32, 3), second_time=False)
  assert millions(cifar) == 55.7
  imagenet = models.unet(
    data_shape=(64, 64, 3),
    architecture="adm",
    channels=192,
    multipliers=(1, 2, 3, 4),
    num_blocks=3,
    attention_resolutions=(32, 16, 8),
    num_classes=1000,
    second_time=False,
  )
  assert millions(imagenet) == 295.9


def refused(name, path):
  with pytest.raises(UsageError) as error:
    formats.format_of(name).read(path)
  message = str(error.value)
  assert "\n" not in message and message.startswith(f"path={path}")
  return message


def test_foreign_classes_are_refused(tmp_path):
  path = tmp_path / "net.pkl"
  path.write_bytes(b"\x80\x02cos\nsystem\n(S'true'\ntR.")
  for name in ("edm", "edm2"):
    assert "asks for os.system" in refused(name, path)


def test_other_networks_are_refused(tmp_path, monkeypatch):
  path, *_ = edm2_file(tmp_path, monkeypatch)
  assert "its network is a Precond" in refused("edm", path)
  size = {**SMALL, "channels": 64}
  options = arguments(size, 8, 0, img_channels=4, res_balance=0.5)
  made = (tmp_path, monkeypatch, ("Precond", {}, "unet"), "UNet", {})
  other = refused("edm2", file_of(*made, options))
  assert "res_balance=0.5; known is 0.3" in other
  options["res_balance"] = 0.3
  assert "it lacks" in refused("edm2", file_of(*made, options))
  path.write_bytes(path.read_bytes()[:-20])
  refused("edm2", path)
