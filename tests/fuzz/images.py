"""Image files: changed bytes of every format and mode, headers of gigantic images, other files."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from PIL import Image

from data.imagenet import ImageNet
from tests.fuzz.mutations import byte_edits, edited

_MODES = {
    "png": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16", "I"),
    "jpg": ("L", "RGB", "CMYK"),
    "gif": ("L", "P", "RGB"),
    "bmp": ("1", "L", "P", "RGB", "RGBA"),
    "webp": ("RGB", "RGBA"),
    "tif": ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "I;16", "I", "F"),
    "ppm": ("1", "L", "RGB", "I"),
}
_ENDINGS = ("png", "jpg", "jpeg", "bmp", "ppm", "pgm", "tif", "tiff", "webp", "PNG")
_SMALL = ((9, 7), (1, 1), (1, 40))
_SIZES = (0, 1, 2, 3, 5, 65_500, 2**16, 2**20, 2**31 - 1, 2**31, 2**32 - 1)


def _made(mode: str, ending: str, size: tuple[int, int], frames: int) -> bytes:
    """The bytes of an image; none where this version of Pillow does not write the mode so."""
    width, height = size
    ramp = np.linspace(0, 1, width * height).reshape(height, width)
    if mode == "I;16":
        image = Image.fromarray((ramp * 65_535).astype(np.uint16))
    elif mode == "I":
        image = Image.fromarray((ramp * 65_535).astype(np.int32))
    elif mode == "F":
        image = Image.fromarray(ramp.astype(np.float32))
    else:
        image = Image.fromarray((ramp * 255).astype(np.uint8)).convert("RGB")
        image = (
            image
            if mode == "RGB"
            else image.convert("L").convert(mode)
            if mode in "1LAP"
            else _from_rgb(image, mode)
        )
    buffer = io.BytesIO()
    more: dict[str, Any] = {"save_all": True, "append_images": [image] * (frames - 1)} if frames > 1 else {}
    kind = {"jpg": "jpeg", "tif": "tiff"}.get(ending, ending)
    try:
        image.save(buffer, kind, **more)
    except OSError:
        return b""
    return buffer.getvalue()


def _from_rgb(image: Image.Image, mode: str) -> Image.Image:
    if mode == "LAB":
        from PIL import ImageCms

        transform = ImageCms.buildTransform(
            ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB"
        )
        return ImageCms.applyTransform(image, transform)
    return image.convert(mode)


def _png(width: int, height: int, depth: int, colours: int, data: bytes) -> bytes:
    """A PNG of this header, whether its data fit or not."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )

    header = struct.pack(">IIBBBBB", width, height, depth, colours, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(data))
        + chunk(b"IEND", b"")
    )


class Images:
    """The data set of image folders, loaded by this process."""

    in_child = False

    def __init__(self, folder: Path) -> None:
        torch.set_num_threads(1)
        Image.init()
        pairs = [(mode, ending) for ending, modes in _MODES.items() for mode in modes]
        made = [[_made(*pair, size, 1) for size in _SMALL] for pair in pairs]
        self.valid = [file for files in made for file in files if file]
        self.good = _made("RGB", "png", (9, 7), 1)

    def cases(self) -> st.SearchStrategy[Any]:
        ending = st.sampled_from(_ENDINGS)
        place = st.integers(0, len(self.valid) - 1)
        changed = st.tuples(
            st.just("bytes"), ending, place, st.one_of(st.just([]), byte_edits(), byte_edits())
        )
        return st.one_of(
            changed, changed, changed, changed,
            st.tuples(
                st.just("png"), ending, st.sampled_from(_SIZES), st.sampled_from(_SIZES),
                st.sampled_from([1, 2, 4, 8, 16, 3]), st.sampled_from([0, 2, 3, 4, 6, 7]),
                st.binary(max_size=32),
            ),
            st.tuples(st.just("other"), ending, st.binary(max_size=64)),
            st.tuples(st.just("frames"), ending, st.sampled_from(["gif", "tif", "webp", "png"]),
            st.integers(2, 300)),
            st.tuples(st.just("folder"), ending),
        )  # fmt: skip

    def run(self, case: Any, folder: Path) -> None:
        warnings.simplefilter("ignore")
        kind, ending, *given = case
        for part in ("train", "val"):
            images = folder / "imagenet" / part / "a"
            images.mkdir(parents=True)
            (images / "good.png").write_bytes(self.good)
            path = images / f"odd.{ending}"
            if kind == "folder":
                path.mkdir()
            else:
                path.write_bytes(getattr(self, f"_{kind}")(*given))
        data = ImageNet(folder, batch_size=2, image_size=8, output_size=1, workers=0)
        for part in (data.train, data.val):
            assert part is not None
            for images, labels in part.batches(0):
                assert images.shape[1:] == (3, 8, 8) and images.dtype == torch.float32
                assert len(images) == len(labels) and torch.isfinite(images).all()

    def _bytes(self, place: int, edits: Any) -> bytes:
        return edited(self.valid[place], edits)

    def _png(self, *given: Any) -> bytes:
        return _png(*given)

    def _other(self, content: bytes) -> bytes:
        return content

    def _frames(self, ending: str, count: int) -> bytes:
        return _made("RGB", ending, (9, 7), count)
