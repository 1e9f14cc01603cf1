"""Exported files, run by the programs that they are for."""

import pytest
import torch


def run_onnx(path, images):
    """Logits of an ONNX file in onnxruntime; the test is skipped where that is not installed."""
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {"images": images.numpy()})[0])
