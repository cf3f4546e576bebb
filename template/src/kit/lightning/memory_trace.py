"""Trace the allocations of two training steps in PyTorch, on a CPU and without computing.

Only what decides how much memory is taken is computed, such as which cells of a detector learn an object. The tensors
are on the CPU, since a CPU build of PyTorch has no others; `memory_tensors.py` corrects what CUDA would do differently.
Scratch inside a kernel is invisible here: `convolution_workspace` adds it.
"""

import gc
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any
from weakref import finalize

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf

from src.kit.lightning.memory_tensors import CudaKernels, NoiseOnDetach, UnknownValues, fill_with_noise, iterate_tensors
from src.kit.lightning.optimizer import build_optimizer
from src.kit.memory import DataShape, Recorder, Trace, convolution_workspace, example_targets
from src.kit.training import batches_per_step, build_loss, build_model

HALF_PRECISION = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
STEPS = 2  # the second one has the optimizer's state and the last gradients
INPUTS = {"aten::convolution": 2, "aten::convolution_backward": 3}  # leading arguments that are large
GROUPS = {2: 8, 3: 9}  # large arguments -> index of the number of groups


class StorageRecorder(UnknownValues):
    """Records when the memory behind each tensor that an operation returns is allocated and freed."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self.recorder = recorder
        self.blocks: dict[int, int] = {}  # id of a living storage -> block

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        results = super().__torch_dispatch__(operation, types, args, kwargs)
        made = list(iterate_tensors((results,)))
        if inputs := INPUTS.get(operation._schema.name):
            sizes = [value.nbytes for value in (*args[:inputs], *made)]
            self.recorder.allocate_briefly(convolution_workspace(sizes, args[GROUPS[inputs]]), "workspace")
        for tensor in made:
            self.add(tensor)
        return results

    def add(self, tensor: torch.Tensor | None, kind: str | None = None) -> None:
        """Record a tensor's memory if it is new, and its kind if given."""
        if tensor is None:
            return
        storage = tensor.untyped_storage()
        if id(storage) not in self.blocks:
            self.blocks[id(storage)] = self.recorder.allocate(storage.nbytes())
            finalize(storage, self.free, id(storage)).atexit = False
        if kind:
            self.recorder.kinds[self.blocks[id(storage)]] = kind

    def free(self, key: int) -> None:
        self.recorder.free(self.blocks.pop(key))


def trace_steps(cfg: DictConfig, shape: DataShape, batches: Sequence[int]) -> list[Trace]:
    """Trace two optimizer steps of the configured training for each batch size."""
    cfg = OmegaConf.merge(cfg, {"model": {"pretrained": False, "weights": None}})
    traces = []
    with UnknownValues():
        for batch in batches:  # each with its own network: some keep tensors from their first batch
            network = build_model(cfg, shape.classes, shape.channels, shape.image_size, **shape.arguments).train()
            loss: Any = build_loss(cfg, shape.class_counts())
            build = partial(build_optimizer, cfg, network)
            targets = example_targets(cfg.task, shape, batch)
            traces.append(record_steps(network, loss, build, shape, targets, cfg.trainer))
    return traces


def record_steps(
    network: torch.nn.Module,
    loss: Callable[..., torch.Tensor],
    build_optimizer: Callable[[], torch.optim.Optimizer],
    shape: DataShape,
    targets: Sequence[np.ndarray],
    keys: Any,
) -> Trace:
    """Train in Lightning's order: the gradients of one step live until the next one's forward pass is over.

    Args:
        targets: arrays with a row for each image.
        keys: the configuration's `trainer`.
    """
    recorder = Recorder()
    gc.disable()  # it would free reference cycles at moments that have nothing to do with the network
    with StorageRecorder(recorder) as storages, CudaKernels():
        for tensor in (*network.parameters(), *network.buffers()):
            storages.add(tensor, "parameters")
        optimizer = build_optimizer()
        for group in optimizer.param_groups:
            group["foreach"] = not group.get("fused")  # a GPU's default
        parts = min(batches_per_step(keys, keys.max_epochs - 1), 2)  # more take no more memory
        for step in range(STEPS * parts):
            data = make_batch(storages, shape, targets)
            value = forward_pass(network, loss, shape, data, HALF_PRECISION.get(keys.precision))
            if step % parts == 0:
                optimizer.zero_grad()
            value.backward()
            for parameter in network.parameters():
                storages.add(parameter.grad, "gradients")
            if step % parts == parts - 1:
                if keys.gradient_clip_val:
                    torch.nn.utils.clip_grad_norm_(network.parameters(), keys.gradient_clip_val, foreach=True)
                optimizer.step()
                mark_optimizer_state(storages, optimizer)
            del value, data
        trace = recorder.trace()
    gc.enable()
    return trace


def make_batch(storages: StorageRecorder, shape: DataShape, targets: Sequence[np.ndarray]) -> list[torch.Tensor]:
    """Images of unknown values and the targets, recorded as data."""
    images = torch.empty(len(targets[0]), shape.channels, shape.image_size, shape.image_size)
    data = [images, *(torch.from_numpy(array.copy()) for array in targets)]
    for tensor in data:
        storages.add(tensor, "data")
    return data


def forward_pass(
    network: torch.nn.Module,
    loss: Callable[..., torch.Tensor],
    shape: DataShape,
    data: Sequence[torch.Tensor],
    half: torch.dtype | None,
) -> torch.Tensor:
    """The loss of a batch, under autocast to `half` if given."""
    images, *targets = data
    with torch.autocast("cpu", half) if half else nullcontext():
        with NoiseOnDetach(len(images)) if shape.objects else nullcontext():
            takes_targets = getattr(network, "takes_targets", False)
            outputs = network(images, *targets) if takes_targets else network(images)
        if shape.objects:  # which cells learn an object depends on the outputs' values
            for tensor in iterate_tensors((outputs,)):
                fill_with_noise(tensor, len(images))
        return loss(outputs, *targets)


def mark_optimizer_state(storages: StorageRecorder, optimizer: torch.optim.Optimizer) -> None:
    """Record the optimizer's state; unless fused, its step counters stay in RAM."""
    fused = optimizer.defaults.get("fused")
    for state in optimizer.state.values():
        for name, tensor in state.items():
            if isinstance(tensor, torch.Tensor):
                storages.add(tensor, "optimizer" if fused or name != "step" else "host")
