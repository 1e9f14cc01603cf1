"""Files of other formats: written and run by packages that need not be installed."""

import functools
import importlib.util

import pytest
import torch

needs_onnx = pytest.mark.skipif(
    torch.__version__ < "2.7"
    or any(importlib.util.find_spec(name) is None for name in ("onnx", "onnxscript", "onnxruntime")),
    reason="needs onnx, onnxscript, onnxruntime, and a torch newer than 2.6",
)


@pytest.fixture(scope="session", autouse=True)
def operators_read_once():
    """In each export, torch reads the sources of all its operators: here, in the first of a process."""
    from torch.onnx._internal._lazy_import import onnxscript_apis

    with pytest.MonkeyPatch.context() as patch:
        read = functools.cache(onnxscript_apis.get_torchlib_ops)
        patch.setattr(onnxscript_apis, "get_torchlib_ops", read)
        yield


def run_onnx(path, images):
    """Logits of an ONNX file in onnxruntime."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


def save_safetensors(weights, path):
    """Write weights as .safetensors; the test is skipped where the package is not installed."""
    pytest.importorskip("safetensors.torch").save_file(weights, path)
