"""Events of two training steps in PyTorch, from tensors whose memory is never touched: no GPU is needed.

Nothing is computed but what decides how much memory is taken, such as which cells of a detector learn an object. The
tensors are on the CPU, since a CPU build of PyTorch has no others; `lightning_autocast.py` puts right what CUDA would
do otherwise. What is inside a kernel is invisible here: `workspace.py` adds it.
"""

import gc
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf

from src.kit.lightning.memory_autocast import CudaKernels
from src.kit.lightning.memory_blank import Blank, Looking, find, reveal
from src.kit.lightning.memory_storages import Storages
from src.kit.memory import Recorder, Shape, Trace, make_targets
from src.kit.training import batches_per_step, build_loss, build_model

KINDS = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
STEPS = 2  # from the second on, the optimizer's state and the last gradients are there


def traces(cfg: DictConfig, shape: Shape, batches: Sequence[int]) -> list[Trace]:
    """The events of two optimizer steps of the configured training, for each batch size."""
    from src.kit.lightning.optimizer import build_optimizer

    cfg = OmegaConf.merge(cfg, {"model": {"pretrained": False, "weights": None}})
    found = []
    with Blank():
        for batch in batches:  # each with a network of its own: some keep tensors from their first batch
            network = build_model(cfg, shape.classes, shape.channels, shape.image_size, **shape.arguments).train()
            loss: Any = build_loss(cfg, shape.counts())
            build = partial(build_optimizer, cfg, network)
            targets = make_targets(cfg.task, shape, batch)
            found.append(record(network, loss, build, shape, targets, cfg.trainer))
    return found


def record(
    network: torch.nn.Module,
    loss: Callable[..., torch.Tensor],
    build_optimizer: Callable[[], torch.optim.Optimizer],
    shape: Shape,
    targets: Sequence[np.ndarray],
    keys: Any,
) -> Trace:
    """Train in Lightning's order: the gradients of one step live until the next one's forward pass is over.

    `targets` have a row for each image, and `keys` are the trainer's.
    """
    recorder, batch = Recorder(), len(targets[0])
    sees_targets = getattr(network, "takes_targets", False)
    half = KINDS.get(keys.precision)
    gc.disable()  # it would free what cycles hold at a moment that has nothing to do with the network
    with Storages(recorder) as storages, CudaKernels():
        for tensor in (*network.parameters(), *network.buffers()):
            storages.add(tensor, "parameters")
        optimizer = build_optimizer()
        for group in optimizer.param_groups:
            group["foreach"] = not group.get("fused")  # a GPU's default
        parts = min(batches_per_step(keys, keys.max_epochs - 1), 2)  # more do not need more
        for step in range(STEPS * parts):
            images = torch.empty(batch, shape.channels, shape.image_size, shape.image_size)
            arrays = [torch.from_numpy(array.copy()) for array in targets]
            for tensor in (images, *arrays):
                storages.add(tensor, "data")
            with torch.autocast("cpu", half) if half else nullcontext():
                with Looking(batch) if shape.objects else nullcontext():
                    outputs = network(images, *arrays) if sees_targets else network(images)
                if shape.objects:  # which cells learn an object depends on what the network says of them
                    for tensor in find((outputs,)):
                        reveal(tensor, batch)
                value = loss(outputs, *arrays)
                del outputs
            if step % parts == 0:
                optimizer.zero_grad()
            value.backward()
            for parameter in network.parameters():
                storages.add(parameter.grad, "gradients")
            if step % parts == parts - 1:
                if keys.gradient_clip_val:
                    torch.nn.utils.clip_grad_norm_(network.parameters(), keys.gradient_clip_val, foreach=True)
                optimizer.step()
                keep_state(storages, optimizer)
            del value, images, arrays, tensor
        kept = recorder.trace()
    gc.enable()
    return kept


def keep_state(storages: Storages, optimizer: torch.optim.Optimizer) -> None:
    """Mark the optimizer's state; without fusing, its step counters stay in RAM."""
    fused = optimizer.defaults.get("fused")
    for state in optimizer.state.values():
        for name, tensor in state.items():
            if isinstance(tensor, torch.Tensor):
                storages.add(tensor, "optimizer" if fused or name != "step" else "host")
