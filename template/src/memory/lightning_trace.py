"""Events of two training steps in PyTorch, from tensors without memory: nothing is computed and no GPU is needed.

The tensors pretend to be on the CPU, since a CPU build of PyTorch cannot pretend to have CUDA; `lightning_autocast.py`
puts right what CUDA would do otherwise. What is inside a kernel is invisible here: `workspace.py` adds it.
"""

import gc
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from inspect import unwrap
from typing import Any
from unittest.mock import patch

import torch
from omegaconf import DictConfig, OmegaConf
from torch.optim import Optimizer

from src import tasks
from src.memory.lightning_autocast import CudaKernels
from src.memory.lightning_blank import Blank
from src.memory.lightning_storages import Storages
from src.memory.shape import Shape
from src.memory.trace import Recorder, Trace
from src.models import build_model

KINDS = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
STEPS = 2  # from the second on, the optimizer's state and the last gradients are there


def traces(cfg: DictConfig, shape: Shape, batches: tuple[int, int]) -> list[Trace]:
    """The events of two optimizer steps of the configured training, for each batch size."""
    from src.trainers.lightning_optimizer import build_optimizer

    cfg = OmegaConf.merge(cfg, {"model": {"pretrained": False, "weights": None}})
    found = []
    with Blank(), patch.object(Optimizer, "add_param_group", unwrap(Optimizer.add_param_group)):
        for batch in batches:  # each with a network of its own: some keep tensors from their first batch
            network = build_model(cfg, shape.classes, shape.channels, shape.image_size).train()
            loss: Any = tasks.load_loss(cfg, shape.counts())
            build = partial(build_optimizer, cfg, network)
            found.append(record(network, loss, build, shape, batch, cfg.trainer))
    return found


def record(
    network: torch.nn.Module,
    loss: Callable[..., torch.Tensor],
    build_optimizer: Callable[[], Optimizer],
    shape: Shape,
    batch: int,
    keys: Any,
) -> Trace:
    """Train in Lightning's order: the gradients of one step live until the next one's forward pass is over.

    `keys` has the trainer's `precision`, `accumulate_grad_batches` and `gradient_clip_val`.
    """
    recorder = Recorder()
    half = KINDS.get(keys.precision)
    gc.disable()  # it would free what cycles hold at a moment that has nothing to do with the network
    with Storages(recorder) as storages, CudaKernels():
        for tensor in (*network.parameters(), *network.buffers()):
            storages.add(tensor, "parameters")
        optimizer = build_optimizer()
        for group in optimizer.param_groups:
            group["foreach"] = not group.get("fused")  # a GPU's default
        parts = min(keys.accumulate_grad_batches, 2)
        for step in range(STEPS * parts):
            data = torch.empty(batch, shape.channels, shape.image_size, shape.image_size), torch.zeros(batch).long()
            for tensor in data:
                storages.add(tensor, "data")
            with torch.autocast("cpu", half) if half else nullcontext():
                value = loss(network(data[0]), data[1])
            if step % parts == 0:
                unwrap(Optimizer.zero_grad)(optimizer)
            value.backward()
            for parameter in network.parameters():
                storages.add(parameter.grad, "gradients")
            if step % parts == parts - 1:
                if keys.gradient_clip_val:
                    torch.nn.utils.clip_grad_norm_(network.parameters(), keys.gradient_clip_val, foreach=True)
                with torch.no_grad():
                    unwrap(type(optimizer).step)(optimizer)
                keep_state(storages, optimizer)
            del value, data, tensor
        kept = recorder.trace()
    gc.enable()
    return kept


def keep_state(storages: Storages, optimizer: Optimizer) -> None:
    """Mark the optimizer's state; without fusing, its step counters stay in RAM."""
    fused = optimizer.defaults.get("fused")
    for state in optimizer.state.values():
        for name, tensor in state.items():
            if isinstance(tensor, torch.Tensor):
                storages.add(tensor, "optimizer" if fused or name != "step" else "host")
