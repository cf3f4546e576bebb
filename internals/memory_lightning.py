"""Measure what a training step really takes from PyTorch's CPU allocator, to compare with a trace.

This file is also the program of each of two processes: `memory_lightning.py KEYS...` with torchrun's variables.
"""

import gc
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch.nn.parallel import DistributedDataParallel
from torch.overrides import TorchFunctionMode
from torch.profiler import ProfilerActivity, profile

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "template"))

from src.kit.config import load_config
from src.kit.hardware.hardware import Gpu, Hardware
from src.kit.lightning import build_optimizer, build_trainer
from src.kit.lightning.memory_trace import CudaKernels, fill_with_noise, iterate_tensors
from src.kit.memory.estimate import DataShape, example_targets
from src.kit.training import build_loss
from src.kit.training.networks import build_model


class SameNoise(TorchFunctionMode):
    """Fills what a real network detaches with the noise that the trace has there; takes no memory."""

    def __init__(self, batch: int) -> None:
        super().__init__()
        self.batch = batch

    def __torch_function__(self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(function, "__name__", "") == "detach":
            fill_with_noise(args[0], self.batch)
        return function(*args, **(kwargs or {}))


@contextmanager
def measured(found: list[int]) -> Iterator[None]:
    """Append the bytes that torch's CPU allocator gave out in the block and did not get back."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        yield
    events = profiler.profiler.kineto_results.events()
    found.append(sum(event.nbytes() for event in events if event.name() == "[memory]"))


def real_step(cfg: DictConfig, shape: DataShape, batch: int) -> list[int]:
    """Bytes in use after building the network, after the forward pass and after the optimizer's first step."""
    found: list[int] = []
    gc.collect()
    gc.disable()
    with measured(found):
        network = build_model(cfg, shape.classes, shape.channels, shape.image_size, **shape.arguments).train()
    loss: Any = build_loss(cfg, shape.class_counts())
    sees_targets = getattr(network, "takes_targets", False)
    with measured(found):
        optimizer = build_optimizer(cfg, network)
        images = torch.empty(batch, shape.channels, shape.image_size, shape.image_size).zero_()
        arrays = [torch.from_numpy(array).clone() for array in example_targets(cfg.task, shape, batch)]
        half = torch.bfloat16 if cfg.trainer.precision == "bf16-mixed" else None
        with CudaKernels(), torch.autocast("cpu", half or torch.bfloat16, enabled=half is not None):
            with SameNoise(batch) if shape.objects else nullcontext():
                outputs = network(images, *arrays) if sees_targets else network(images)
            for tensor in iterate_tensors((outputs,)) if shape.objects else ():
                fill_with_noise(tensor, batch)
                del tensor  # as in training, only autograd may keep the outputs
            value = loss(outputs, *arrays)
            del outputs
    with measured(found):
        value.backward()
        optimizer.step()
        del value, images, arrays
    gc.enable()
    return [found[0], sum(found[:2]), sum(found)]


def real_steps_of_rank(cfg: DictConfig, shape: DataShape, batch: int) -> list[int]:
    """`real_step` for one of several processes as Lightning connects them, with two more numbers for a second step."""
    options = build_trainer(cfg, [], None).strategy._ddp_kwargs
    torch.distributed.init_process_group("gloo")
    parts, found = cfg.trainer.accumulate_grad_batches, []
    gc.disable()
    with measured(found):
        network = build_model(cfg, shape.classes, shape.channels, shape.image_size, **shape.arguments).train()
        together = DistributedDataParallel(network, init_sync=False, **options)  # whose copies other threads free
        optimizer, loss = build_optimizer(cfg, network), build_loss(cfg, shape.class_counts())
    for step in range(2 * parts):
        last = step % parts == parts - 1
        with nullcontext() if last else together.no_sync():
            with measured(found):
                images = torch.zeros(batch, shape.channels, shape.image_size, shape.image_size)
                arrays = [torch.from_numpy(array).clone() for array in example_targets(cfg.task, shape, batch)]
                value = loss(together(images), *arrays)
            with measured(found):
                if step % parts == 0:
                    optimizer.zero_grad()
                value.backward()
                if last:
                    optimizer.step()
                del value, images, arrays
    return list(accumulate(found))


def hardware(mib: int) -> Hardware:
    """A machine with one GPU of `mib` MiB, or without a GPU for 0."""
    gpus = (Gpu("nvidia", "test", mib, "8.0"),) if mib else ()
    return Hardware(gpus, None, None, (), "Linux", "", 4, (), 16000, 1000)


if __name__ == "__main__":
    json.dump(real_steps_of_rank(load_config(sys.argv[1:]), DataShape(10, 3, 32, 5000), 2), sys.stdout)
