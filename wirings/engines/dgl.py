"""Message passing of the Deep Graph Library: a wiring is a bipartite graph, built once."""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor, nn

from wirings.errors import MissingPackageError, WiringError

CPU_INSTALL = "pip install dgl==1.1.3 (Linux x86-64, Python < 3.12)"
CUDA_WHEELS = "https://data.dgl.ai/wheels/repo.html"


class DGLProduct(nn.Module):
    """Each target node sums the maps of its sources, weighted by the edges.

    Raises:
        MissingPackageError: DGL is not installed or cannot be imported.
        WiringError: it was built without CUDA, and weights or maps are on a GPU.
    """

    weight: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        dgl = _import_dgl()
        targets, sources = weight.nonzero(as_tuple=True)
        self.register_buffer("weight", weight[targets, sources].unsqueeze(1))
        self._graph = dgl.heterograph(
            {("source", "edge", "target"): (sources.cpu(), targets.cpu())},
            num_nodes_dict={"source": weight.shape[1], "target": weight.shape[0]},
        )
        self._num_targets = weight.shape[0]
        self._move(weight.device)

    def forward(self, sources: Tensor) -> Tensor:
        if not len(self.weight):  # DGL refuses graphs without edges
            return sources.new_zeros(self._num_targets, sources.shape[1])
        self._move(sources.device)
        result: Tensor = _import_dgl().ops.u_mul_e_sum(self._graph, sources, self.weight)
        return result

    def _move(self, device: torch.device) -> None:
        if self._graph.device == device:
            return
        dgl = _import_dgl()
        try:
            self._graph = self._graph.to(device)
        except dgl.DGLError as error:
            raise WiringError(
                f"this DGL {dgl.__version__} is built for the CPU. Move the network there (runner.py: --gpus "
                "(no number)), or "
                f"install a CUDA build, which DGL offers for torch up to 2.4: {CUDA_WHEELS}"
            ) from error


def _import_dgl() -> Any:
    os.environ.setdefault("DGLBACKEND", "pytorch")  # read by DGL when it is imported
    try:
        import dgl
    except ModuleNotFoundError as error:
        if error.name == "dgl":
            raise MissingPackageError(f"engine dgl needs the Deep Graph Library: {CPU_INSTALL}") from error
        raise MissingPackageError(
            f"DGL is installed, but it needs the package {error.name}; install it"
        ) from error
    except Exception as error:  # a DGL built for another torch fails with various errors
        raise MissingPackageError(
            f"the installed DGL cannot be imported ({error}); versions after 1.1.3 need the torch that they "
            f"were built for. Install a matching one: {CPU_INSTALL}; for a GPU: {CUDA_WHEELS}"
        ) from error
    return dgl
