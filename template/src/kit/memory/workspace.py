"""Memory that no tensor of the network shows: scratch of cuBLAS and cuDNN, and the CUDA context.

None of it has been measured by this project yet: benchmarks/gpu_memory.py prints what a GPU really takes.
"""

from collections.abc import Sequence

from omegaconf import DictConfig

MIB = 1 << 20
# PyTorch, aten/src/ATen/cuda/CublasHandlePool.cpp: ":4096:2:16:8" before Hopper, 32 MiB on Hopper and Blackwell;
# Lightning sets CUBLAS_WORKSPACE_CONFIG=":4096:8" for deterministic training. One handle for the forward pass and one
# for autograd's own thread, and cublasLt's workspace is the same memory.
CUBLAS = {"before Hopper": 2 * 4096 * 1024 + 8 * 16 * 1024, "Hopper": 32 * MIB}
HANDLES = 2
# A CUDA context with the framework's kernels loaded takes 250 to 600 MiB by what users report of CUDA 11 to 13, more on
# GPUs with more multiprocessors. Kernels are loaded when first used, so it depends on the network as well.
CONTEXT_MIB = {"lightning": 500, "paddle": 600}
# cuDNN's tensor-core kernels want channels last: given channels first, they copy input, weights and output to scratch.
# For 47 networks of timm that others measured (benchmarks/gpu_memory_timm.py), half a copy to one fits best.
LAYOUT_COPIES = 1.0


def convolution(sizes: Sequence[int], groups: int) -> int:
    """Scratch in bytes of one convolution whose inputs and outputs take `sizes` bytes; grouped ones do without."""
    return int(LAYOUT_COPIES * sum(sizes)) if groups == 1 else 0


def cublas(cfg: DictConfig, capability: str | None = None) -> int:
    """Bytes of the matrix library's workspaces, for a GPU of this compute capability; unknown counts as the largest."""
    if cfg.framework == "paddle":  # it leaves them to the library, outside its allocator
        return 0
    hopper = capability is None or float(capability) >= 9.0
    return HANDLES * CUBLAS["Hopper" if hopper or cfg.deterministic else "before Hopper"]
