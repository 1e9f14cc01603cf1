"""A reader of exported wirings that needs NumPy alone; docs/export.md describes the file."""

import json
import struct
from itertools import pairwise

import numpy as np


def read(path):
    """({name: array}, metadata of the file)."""
    content = path.read_bytes()
    (size,) = struct.unpack("<Q", content[:8])
    entries = json.loads(content[8 : 8 + size])
    about = entries.pop("__metadata__")
    arrays = {}
    for name, entry in entries.items():
        start, end = entry["data_offsets"]
        kind = {"F32": np.float32, "I32": np.int32}[entry["dtype"]]
        data = np.frombuffer(content[8 + size + start : 8 + size + end], kind)
        arrays[name] = data.reshape(entry["shape"])
    return arrays, about


def windows(maps, stride):
    """(nodes, images, S, S) to what lies under a filter, (3, 3, nodes, images, S / stride, S / stride)."""
    padded = np.pad(maps, ((0, 0), (0, 0), (1, 1), (1, 1)))
    height, width = maps.shape[2:]
    return np.array(
        [[padded[..., y : y + height : stride, x : x + width : stride] for x in range(3)] for y in range(3)]
    )


def logits(path, images):
    """(images, channels, height, width) to logits (images, classes)."""
    arrays, about = read(path)
    assert about["format"] == "wirings 1"
    stem_stride, *strides = json.loads(about["strides"])
    under = windows(images.transpose(1, 0, 2, 3), stem_stride)
    maps = np.einsum("ncyx,yxcihw->nihw", arrays["stem.weight"], under)
    maps += arrays["stem.bias"][:, None, None, None]
    for stage, stride in enumerate(strides):
        sources, step = [], 0
        while f"stages.{stage}.{step}.filters" in arrays:
            name = f"stages.{stage}.{step}"
            under = windows(np.maximum(maps, 0), stride if step == 0 else 1)
            sources.extend(np.einsum("nyx,yxnihw->nihw", arrays[f"{name}.filters"], under))
            bias, starts = arrays[f"{name}.bias"], arrays[f"{name}.starts"]
            maps = np.zeros((len(starts) - 1, *under.shape[3:]), np.float32) + bias[:, None]
            for target, (first, end) in enumerate(pairwise(starts)):
                for edge in range(first, end):
                    source, weight = arrays[f"{name}.sources"][edge], arrays[f"{name}.weights"][edge]
                    maps[target] += weight * sources[source]
            step += 1
    features = np.maximum(maps, 0).mean((2, 3))
    return (arrays["head.weight"] @ features).T + arrays["head.bias"]
