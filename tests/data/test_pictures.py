"""Pictures of all modes and formats, against Pillow's own conversions."""

import io

import numpy as np
import pytest
from PIL import Image
from sklearn import datasets

from jaxflow.data import pictures

# A part of a photo, 40 x 60.
PHOTO = datasets.load_sample_image("china.jpg")[::10, ::10].copy()
RGB = Image.fromarray(PHOTO[:40, :60])
GREY = RGB.convert("L")
# From clear on the left to opaque on the right.
RAMP = np.linspace(0, 255, 60).astype(np.uint8)
ALPHA = Image.fromarray(np.tile(RAMP, (40, 1)))
BLUE = (10, 20, 200)


def with_alpha(mode):
  picture = RGB.convert(mode)
  picture.putalpha(ALPHA)
  return picture


def clear_key(mode, key):
  picture = RGB.convert(mode)
  picture.info["transparency"] = key
  return picture


MODES = {
  "1": RGB.convert("1"),
  "L": GREY,
  "LA": with_alpha("L"),
  "P": RGB.quantize(64),
  "PA": RGB.quantize(64).convert("PA"),
  "RGB": RGB,
  "RGBA": with_alpha("RGB"),
  "CMYK": RGB.convert("CMYK"),
  "YCbCr": RGB.convert("YCbCr"),
  "P with a clear colour": clear_key("P", 3),
  "L with a clear value": clear_key("L", GREY.getpixel((5, 5))),
  "RGB with a clear colour": clear_key("RGB", RGB.getpixel((5, 5))),
}
# Those of Pillow's formats that hold a mode as it is, or say how they store it.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "TIFF", "BMP")


def encoded(picture, form, **options):
  file = io.BytesIO()
  picture.save(file, form, **options)
  return file.getvalue()


def files():
  for mode, picture in MODES.items():
    for form in ["PNG"] if "clear" in mode else FORMATS:
      try:
        yield pytest.param(encoded(picture, form), id=f"{mode} in {form}")
      except (OSError, ValueError):  # "cannot write mode PA as PNG"
        continue


def composed(picture, background):
  rgba = picture.convert("RGBA")
  behind = Image.new("RGBA", rgba.size, (*background, 255))
  return Image.alpha_composite(behind, rgba).convert("RGB")


@pytest.mark.parametrize("file", list(files()))
def test_modes_and_formats_are_what_pillow_makes_of_them(file):
  picture = Image.open(io.BytesIO(file))
  expected = {
    3: composed(picture, pictures.WHITE),
    4: picture.convert("RGBA"),
  }
  for channels, image in expected.items():
    found = pictures.decode(file, channels)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, np.asarray(image))
  over_blue = pictures.decode(file, 3, background=BLUE)
  np.testing.assert_array_equal(over_blue, np.asarray(composed(picture, BLUE)))
  grey = np.asarray(composed(picture, pictures.WHITE).convert("L"))
  np.testing.assert_array_equal(pictures.decode(file, 1)[..., 0], grey)
  both = pictures.decode(file, 2)
  assert both.shape == (40, 60, 2)
  alpha = np.asarray(picture.convert("RGBA"))[..., 3]
  np.testing.assert_array_equal(both[..., 1], alpha)


def test_every_mode_was_written_by_some_format():
  ids = {parameter.id for parameter in files()}
  for mode in MODES:
    assert any(name.startswith(f"{mode} in ") for name in ids), mode
  for form in FORMATS:
    assert any(name.endswith(f" in {form}") for name in ids), form


def test_palette_colours_are_not_palette_indices():
  picture = Image.new("P", (2, 2), 7)
  picture.putpalette([0, 0, 0] * 7 + [200, 90, 0])
  found = pictures.decode(encoded(picture, "PNG"))
  assert found.tolist() == [[[200, 90, 0]] * 2] * 2


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_sixteen_bits_keep_their_precision(form):
  values = np.array([[0, 1, 257, 300], [32768, 65534, 65535, 771]], np.uint16)
  file = encoded(Image.fromarray(values), form)
  for channels in (1, 3):
    found = pictures.decode(file, channels)
    assert found.dtype == np.float32
    expected = np.repeat(values[..., None] / 257, channels, -1)
    np.testing.assert_allclose(found, expected, rtol=1e-7)
  # Steps between two neighbours of 8 bits stay apart.
  assert found[0, 3, 0] - found[0, 2, 0] == pytest.approx(43 / 257, rel=1e-5)
  with_alpha = pictures.decode(file, 2)
  assert (with_alpha[..., 1] == 255).all()


def test_a_clear_value_of_sixteen_bits():
  values = np.array([[1000, 2000]], np.uint16)
  file = encoded(Image.fromarray(values), "PNG", transparency=2000)
  grey = pictures.decode(file, 1, background=(51, 51, 51))[0, :, 0]
  np.testing.assert_allclose(grey, [1000 / 257, 51], rtol=1e-6)
  alpha = pictures.decode(file, 4)[0, :, 3]
  assert alpha.tolist() == [255, 0]


def test_floats_are_of_0_to_255():
  values = np.array([[0, 0.5], [254.75, 255]], np.float32)
  file = encoded(Image.fromarray(values), "TIFF")
  np.testing.assert_array_equal(pictures.decode(file, 1)[..., 0], values)
  for wrong in (-0.5, 256, np.nan):
    values[0, 0] = wrong
    file = encoded(Image.fromarray(values), "TIFF")
    with pytest.raises(pictures.PictureError, match="not in 0 to 255"):
      pictures.decode(file, 1)


def test_integers_of_32_bits():
  file = encoded(Image.fromarray(np.array([[65535, 257]], np.int32)), "TIFF")
  assert pictures.decode(file, 1).ravel().tolist() == [255, 1]
  file = encoded(Image.fromarray(np.array([[65536, 0]], np.int32)), "TIFF")
  with pytest.raises(pictures.PictureError, match=r"mode I .*0 to 65535"):
    pictures.decode(file, 1)


def test_orientation_is_applied():
  exif = Image.Exif()
  exif[0x0112] = 6  # Turned by a quarter: the top is at the right.
  file = encoded(RGB, "PNG", exif=exif)
  np.testing.assert_array_equal(
    pictures.decode(file), np.rot90(np.asarray(RGB), -1)
  )


def test_first_frame_of_several():
  frames = [Image.new("RGB", (4, 4), colour) for colour in (BLUE, (0, 99, 0))]
  for form in ("GIF", "WEBP", "PNG", "TIFF"):
    options = {"lossless": True} if form == "WEBP" else {}
    file = encoded(
      frames[0], form, save_all=True, append_images=frames[1:], **options
    )
    assert Image.open(io.BytesIO(file)).n_frames == 2
    assert pictures.decode(file)[0, 0].tolist() == list(BLUE)


@pytest.mark.parametrize(
  ("file", "words"),
  [
    (b"", "no file of PNG, JPEG"),
    (b"no picture", "no file of PNG, JPEG"),
    (encoded(RGB, "JPEG")[:-400], "truncated"),
    (encoded(RGB, "PNG")[:-400], "truncated"),
    (encoded(RGB, "EPS"), "no file of PNG, JPEG"),
  ],
)
def test_broken_files_have_a_reason_in_one_line(file, words):
  with pytest.raises(pictures.PictureError, match=words) as error:
    pictures.decode(file)
  assert "\n" not in str(error.value)


def test_channels_that_no_picture_has():
  with pytest.raises(ValueError, match="channels=5: give 1, 2, 3 or 4"):
    pictures.decode(encoded(RGB, "PNG"), 5)


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5])
def test_crop_scales_each_channel_for_itself(channels):
  # Pillow multiplies RGBA and LA by their last band before it scales them.
  generator = np.random.default_rng(0)
  pixels = generator.integers(0, 256, (37, 50, channels)).astype(np.uint8)
  alone = [pictures.crop(pixels[..., [c]], 8) for c in range(channels)]
  found = pictures.crop(pixels, 8)
  assert found.dtype == np.uint8
  np.testing.assert_array_equal(found, np.concatenate(alone, -1))
  deep = pictures.crop(pixels.astype(np.float32), 8)
  assert deep.dtype == np.float32
  # Bytes are rounded after each box, and twice by the bicubic filter.
  np.testing.assert_allclose(deep, found, atol=3)


def test_crop_of_sixteen_bits_is_no_coarser():
  ramp = (np.arange(64, dtype=np.float32)[:, None] / 100 + 7).repeat(64, 1)
  found = pictures.crop(ramp[..., None], 16)[..., 0]
  # Both filters keep a ramp: middles of groups of four.
  middles = np.arange(64).reshape(16, 4).mean(1) / 100 + 7
  np.testing.assert_allclose(found[2:-2, 0], middles[2:-2], atol=1e-5)


def test_places_of_a_crop():
  pixels = np.arange(10, dtype=np.uint8).repeat(4).reshape(1, 10, 4)
  pixels = pixels.transpose(2, 1, 0)  # [4, 10, 1], its value is its column.
  columns = [
    int(pictures.crop(pixels, 4, (0.5, u))[0, 0, 0])
    for u in (0, 0.1, 0.2, 0.5, 0.999)
  ]
  # Seven places, each a seventh of [0, 1).
  assert columns == [0, 0, 1, 3, 6]
  assert pictures.crop(pixels, 4)[0, 0, 0] == 3
