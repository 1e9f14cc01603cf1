"""Image files of every mode as 8-bit RGB: a ramp stays a ramp, or the file is refused by name."""

import io
import struct

import numpy as np
import pytest
from PIL import Image

from data.decoding import UnknownRangeError, Unread, read_image, to_rgb

RAMP = np.tile(np.arange(256, dtype=np.uint8), (4, 1))
"""Grey from black to white, left to right, in steps of one."""
WIDE = RAMP.astype(np.uint16) * 257
"""The same in 16 bits."""


def constant(value):
    return Image.new("L", (256, 4), value)


def grey(name):
    """The ramp in a mode, made without Pillow's conversions where they would lose it."""
    ramp = Image.fromarray(RAMP)
    if name in ("I;16", "I;16L", "I;16B", "I;16N"):
        return Image.frombytes(name, (256, 4), WIDE.astype(">u2" if name == "I;16B" else "<u2").tobytes())
    made = {
        "1": lambda: ramp.convert("1", dither=Image.Dither.NONE),
        "LA": lambda: Image.merge("LA", [ramp, constant(7)]),
        "La": lambda: Image.merge("LA", [ramp, constant(255)]).convert("La"),
        "P": lambda: palette(ramp),
        "PA": lambda: palette(ramp).convert("PA"),
        "RGBA": lambda: Image.merge("RGBA", [ramp] * 3 + [constant(7)]),
        "RGBa": lambda: Image.merge("RGBA", [ramp] * 3 + [constant(255)]).convert("RGBa"),
        "RGBX": lambda: Image.merge("RGBX", [ramp] * 3 + [constant(7)]),
        "CMYK": lambda: Image.merge("CMYK", [Image.fromarray(255 - RAMP)] * 3 + [constant(0)]),
        "LAB": lambda: Image.merge("LAB", [ramp, constant(128), constant(128)]),
        "HSV": lambda: Image.merge("HSV", [constant(0), constant(0), ramp]),
        "I": lambda: Image.fromarray((RAMP.astype(np.int64) * (2**31 - 1) // 255).astype(np.int32)),
    }
    return made.get(name, lambda: ramp.convert(name))()


def palette(ramp):
    image = Image.fromarray(255 - np.asarray(ramp), "L")
    image.putpalette([value for index in range(256) for value in [255 - index] * 3])
    return image


@pytest.mark.parametrize(
    "mode",
    [
        "1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV",
        "I", "I;16", "I;16L", "I;16B", "I;16N",
    ],
)  # fmt: skip
def test_a_ramp_of_every_mode(mode):
    image = grey(mode)
    assert image.mode == mode
    result = to_rgb(image)
    assert (result.mode, result.size) == ("RGB", (256, 4))
    pixels = np.asarray(result).astype(int)
    assert np.ptp(pixels, axis=(0, 2)).max() <= 1  # grey, and the rows are equal
    seen = pixels[0, :, 0]
    if mode == "1":
        assert set(seen) == {0, 255}
        assert (np.diff(seen) != 0).sum() == 1
    elif mode == "LAB":  # lightness is not linear
        assert (seen[0], seen[-1]) == (1, 254)
        assert (np.diff(seen) >= 0).all()
        assert len(set(seen)) > 200
    else:
        assert np.array_equal(seen, RAMP[0])


@pytest.mark.parametrize("name", ["a.png", "a.tiff", "a.pgm"])
def test_sixteen_bit_files(tmp_path, name):
    Image.fromarray(WIDE).save(tmp_path / name)
    assert np.array_equal(np.asarray(read_image(str(tmp_path / name)))[..., 1], RAMP)


def test_a_sixteen_bit_file_that_is_big_endian(tmp_path):
    grey("I;16B").save(tmp_path / "a.tiff")
    with Image.open(tmp_path / "a.tiff") as opened:
        assert opened.mode == "I;16B"
    assert np.array_equal(np.asarray(read_image(str(tmp_path / "a.tiff")))[..., 1], RAMP)


def test_png_of_sixteen_bits_as_older_pillows_open_it():
    """With mode I: the format says that there are 16 bits."""
    image = Image.fromarray(WIDE.astype(np.int32))
    image.format = "PNG"
    assert np.array_equal(np.asarray(to_rgb(image))[..., 0], RAMP)


def tiff(pixels, bits, sample_format=1, photometric=1):
    """A little-endian TIFF with one channel. `pixels`: the rows as bytes."""
    height, width = RAMP.shape
    tags = [
        (256, width), (257, height), (258, bits), (259, 1), (262, photometric), (273, 8), (277, 1),
        (278, height), (279, len(pixels)), (339, sample_format),
    ]  # fmt: skip
    entries = b"".join(struct.pack("<HHIHH", tag, 3, 1, value, 0) for tag, value in tags)
    return (
        struct.pack("<2sHI", b"II", 42, 8 + len(pixels))
        + pixels
        + struct.pack("<H", len(tags))
        + entries
        + bytes(4)
    )


def opened(content):
    return Image.open(io.BytesIO(content))


@pytest.mark.parametrize(
    ("bits", "sample_format", "highest"),
    [(16, 1, 2**16 - 1), (16, 2, 2**15 - 1), (32, 1, 2**32 - 1), (32, 2, 2**31 - 1)],
)
def test_integers_of_tiff_are_scaled_by_bits_and_sign(bits, sample_format, highest):
    values = (RAMP.astype(np.float64) / 255 * highest).round().astype(f"<u{bits // 8}")
    result = to_rgb(opened(tiff(values.tobytes(), bits, sample_format)))
    assert np.array_equal(np.asarray(result)[..., 0], RAMP)


def test_twelve_bits_in_tiff():
    """Two values in three bytes, the high bits first."""
    values = (RAMP.astype(np.uint32) * 4095 + 127) // 255
    first, second = values.reshape(-1, 2).T
    packed = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], -1).astype(np.uint8)
    assert np.array_equal(np.asarray(to_rgb(opened(tiff(packed.tobytes(), 12))))[..., 0], RAMP)


def test_a_tiff_whose_white_is_zero():
    content = tiff(WIDE.astype("<u2").tobytes(), 16, photometric=0)
    assert np.array_equal(np.asarray(to_rgb(opened(content)))[..., 0], 255 - RAMP)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (tiff(RAMP.astype("<f4").tobytes(), 32, 3), r"floats \(mode F\), whose range is not known"),
        (tiff((RAMP.astype("<i2") - 9).tobytes(), 16, 2), "signed integers .* from -9, whose range"),
        (tiff((RAMP.astype("<i4") - 9).tobytes(), 32, 2), "signed integers .* from -9, whose range"),
        (tiff(WIDE.astype("<i4").tobytes(), 32, 2), "32-bit integers .* at most 65535, whose range"),
        (tiff(RAMP.astype("<u4").tobytes(), 32, 1), "32-bit integers .* at most 255, whose range"),
    ],
)
def test_pixels_without_a_known_range_are_refused(tmp_path, content, message):
    with pytest.raises(UnknownRangeError, match=message):
        to_rgb(opened(content))
    (tmp_path / "a.tiff").write_bytes(content)
    refused = read_image(str(tmp_path / "a.tiff"))
    assert isinstance(refused, Unread)
    assert refused.file == str(tmp_path / "a.tiff")
    assert refused.remedy == "convert it to 8 bits"


def test_black_images_are_black():
    for bits in (16, 32):
        content = tiff((0 * RAMP).astype(f"<u{bits // 8}").tobytes(), bits)
        assert np.asarray(to_rgb(opened(content))).max() == 0


def test_orientation_is_ignored_as_image_folder_does(tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    for name in ("a.jpg", "a.png", "a.webp"):
        Image.fromarray(RAMP).convert("RGB").save(tmp_path / name, exif=exif)
        assert read_image(str(tmp_path / name)).size == (256, 4)


@pytest.mark.parametrize("content", [b"", b"no image", None])
def test_damaged_and_missing_files(tmp_path, content):
    if content is not None:
        (tmp_path / "a.png").write_bytes(content)
    assert read_image(str(tmp_path / "a.png")) == Unread(
        str(tmp_path / "a.png"), "cannot be read", "replace it"
    )
