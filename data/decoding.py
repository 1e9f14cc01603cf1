"""Decoding of image files of every mode of Pillow into 8-bit RGB images."""

from __future__ import annotations

import errno
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

_SIXTEEN_BITS = ("PNG", "PPM")
"""Formats whose integers have 16 bits at most; some versions of Pillow open them with mode I, of 32 bits."""
_BITS_PER_SAMPLE, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339
"""Tags of TIFF."""
_WHITE_IS_ZERO, _UNSIGNED = 0, 1
"""Values of the last two tags; the second is the default."""


class Unread(NamedTuple):
    """An image that cannot be used.

    Attributes:
        file: its path.
        problem: what is wrong with it.
        remedy: what to do, instead of leaving it out.
    """

    file: str
    problem: str = "cannot be read"
    remedy: str = "replace it"


class UnknownRangeError(ValueError):
    """The pixels of an image have no known range, so that they cannot be scaled to 8 bits."""


def read_image(file: str) -> Image.Image | Unread:
    """The first image of a file as 8-bit RGB: see `to_rgb`.

    The orientation that EXIF data may hold is ignored, as torchvision's ImageFolder does.

    Raises:
        MemoryError: the image does not fit into memory.
        OSError: this process has too many open files.
    """
    try:
        with Image.open(file) as opened:
            return to_rgb(opened)
    except MemoryError:
        raise
    except UnknownRangeError as error:
        return Unread(file, str(error), "convert it to 8 bits")
    except Exception as error:  # PIL's decoders raise errors of any type for damaged files
        if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
            raise
        return Unread(file)


def to_rgb(image: Image.Image) -> Image.Image:
    """An image of any mode as 8-bit RGB. Transparency is dropped.

    Integers of more than 8 bits are scaled so that 0 stays 0 and the largest value of the file's integer type
    becomes 255:

    - modes I;16, I;16L, I;16B, I;16N: 65535; TIFF with fewer bits in a sample: the largest of these (4095 of
      12 bits). White is 0 where a TIFF says so.
    - mode I of PNG and PNM files: 65535.
    - mode I of TIFF: by bits and sign, 2^32 − 1, 2^31 − 1 or, of signed 16 bits, 2^15 − 1.
    - mode I otherwise: 2^31 − 1.

    Raises:
        UnknownRangeError: pixels are floats (mode F), or negative, or 32-bit integers so small that all of
            them would become 0.
    """
    if image.mode == "F":
        raise UnknownRangeError("its pixels are floats (mode F), whose range is not known")
    if image.mode == "I" or image.mode.startswith("I;16"):
        return _scaled(image).convert("RGB")
    if image.mode == "La":  # grey, multiplied by its opacity; Pillow has no direct way
        image = image.convert("LA")
    return image.convert("RGB")


def _scaled(image: Image.Image) -> Image.Image:
    """Integers of more than 8 bits, scaled to 8-bit grey."""
    mode, full, tags = image.mode, 2**31 - 1 if image.mode == "I" else 65535, _tags(image)
    if image.format in _SIXTEEN_BITS:
        full = 65535
    elif tags is not None:
        bits = tags.get(_BITS_PER_SAMPLE, (16,))[0]
        signed = mode == "I" and tags.get(_SAMPLE_FORMAT, (_UNSIGNED,))[0] != _UNSIGNED
        full = 2 ** (bits - signed) - 1
    values = np.asarray(image.convert("I"))
    if full == 2**32 - 1:
        values = values.view(np.uint32)
    values = values.astype(np.int64)
    lowest, highest = int(values.min()), int(values.max())
    if lowest < 0:
        raise UnknownRangeError(
            f"its pixels are signed integers (mode {mode}), from {lowest}, whose range is not known"
        )
    if full > 65535 and highest > 0 and 255 * highest < full // 2:
        raise UnknownRangeError(
            f"its pixels are 32-bit integers (mode {mode}) of at most {highest}, whose range is not known"
        )
    values = (values * 255 + full // 2) // full
    if tags is not None and tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        values = 255 - values
    return Image.fromarray(values.astype(np.uint8))


def _tags(image: Image.Image) -> Any:
    """Tags of a TIFF file; None for other formats."""
    return getattr(image, "tag_v2", None) if image.format == "TIFF" else None
