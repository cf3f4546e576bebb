"""`trainer.strategy=fsdp`: each process keeps a part of each weight, of its gradient and of its optimizer state.

With `fsdp_offload` it keeps them in RAM, where the optimizer's step is computed too.

FSDP2 (Zhao et al. 2023, arXiv 2304.11277): a block's weights are gathered when it computes and dropped after it.
Checkpoints are those of any run: a whole model.safetensors, beside it training.safetensors for the optimizer. A tensor
is gathered at a time, and each process reads its own parts, however many processes there were.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from omegaconf import DictConfig
from pytorch_lightning.strategies import ModelParallelStrategy, ParallelStrategy
from torch import Tensor, nn
from torch.distributed.fsdp import CPUOffloadPolicy, OffloadPolicy, fully_shard
from torch.distributed.tensor import DTensor

from src.kit.config import UserError
from src.kit.lightning.ranks import STATE, WEIGHTS, gather
from src.kit.weights import open_weights, stream_weights


class Sharded(ModelParallelStrategy):
    """Lightning's strategy for FSDP2, which shards the network itself and keeps checkpoints of no framework."""

    def __init__(self, offload: bool = False) -> None:
        # norms and checkpoints of what lies in RAM are exchanged by gloo
        backend = "cpu:gloo,cuda:nccl" if offload and torch.cuda.is_available() else None
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=False, process_group_backend=backend)
        self.offload = offload

    def setup_environment(self) -> None:
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    def setup(self, trainer: pl.Trainer) -> None:
        assert self.accelerator and self.lightning_module
        self.accelerator.setup(trainer)
        self.model = self.precision_plugin.convert_module(self.lightning_module)
        shard(self.lightning_module.network, self.device_mesh["data_parallel"], self.offload)
        self.model_to_device()
        self.setup_optimizers(trainer)
        self.setup_precision_plugin()

    def model_to_device(self) -> None:
        """Move what is not divided; offloaded weights stay where they are."""
        assert self.lightning_module
        if not self.offload:
            super().model_to_device()
            return
        for module in self.lightning_module.modules():
            for name, buffer in module.named_buffers(recurse=False):
                module._buffers[name] = buffer.to(self.root_device)

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Nothing: weights are a file of their own."""
        return {}

    def optimizer_state(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """Nothing: the optimizer's state is a file of its own."""
        return {}

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None) -> None:
        ParallelStrategy.save_checkpoint(self, checkpoint, filepath, storage_options)

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        content = ParallelStrategy.load_checkpoint(self, checkpoint_path, weights_only)
        assert self.lightning_module
        folder = Path(checkpoint_path).parent
        read_state(self.lightning_module.network, self.optimizers[0], folder, content["optimizer_states"][0])
        return content

    def save_state(self, folder: Path, metadata: dict[str, str] | None) -> None:
        """Write weights and optimizer state, on all ranks together; rank 0, which has `metadata`, writes."""
        assert self.lightning_module
        save_state(self.lightning_module.network, self.optimizers[0], folder, metadata)

    def on_validation_start(self) -> None:
        """Give all ranks rank 0's BatchNorm statistics, which the checkpoint has, as DDP does, and count batches."""
        assert self.lightning_module
        own = int(sum(self.lightning_module.trainer.num_val_batches))
        self.others = max(gather(own, self.world_size)) - own  # batches that another rank has more
        for buffer in self.lightning_module.network.buffers():
            torch.distributed.broadcast(buffer, src=0)

    def on_validation_end(self) -> None:
        """Pass zeros through the network while other ranks validate, whose layers wait for this one's parts."""
        assert self.lightning_module
        height, width, channels = self.lightning_module.hparams["input_shape"]
        for _ in range(self.others):
            self.lightning_module.network(torch.zeros(1, channels, height, width, device=self.root_device))


def refuse_unsharded(cfg: DictConfig) -> None:
    """Refuse what needs whole weights in one place.

    Raises:
        UserError: names the key.
    """
    trainer = cfg.trainer
    for key in ("ema", "swa", "compile"):
        if trainer[key] not in (None, False):
            raise UserError(f"trainer.strategy={trainer.strategy} has no trainer.{key}: leave one of them out.")
    if trainer.precision == "16-mixed":
        raise UserError(
            f"trainer.strategy={trainer.strategy} has no trainer.precision=16-mixed: use bf16-mixed or 32-true."
        )


def shard(network: nn.Module, mesh: Any, offload: bool = False) -> None:
    """Shard a network in place: its blocks, then what is left; with `offload`, the parts are kept in RAM."""
    # pinned memory, which copies overlap with, is CUDA's
    policy = CPUOffloadPolicy(pin_memory=mesh.device_type == "cuda") if offload else OffloadPolicy()
    for block in (*blocks(network), network):
        fully_shard(block, mesh=mesh, offload_policy=policy)


def blocks(network: nn.Module) -> list[nn.Module]:
    """What is gathered as one: each block that a Sequential or a ModuleList holds, the inner ones first.

    Layers without layers of their own belong to their block: gathering each alone would take longer than it computes.
    """
    lists = [each for each in network.modules() if isinstance(each, nn.Sequential | nn.ModuleList)]
    found = [block for each in lists for block in each.children() if list(block.children())]
    held = {id(block) for block in found if isinstance(block, nn.Sequential | nn.ModuleList)}
    return [block for block in reversed(found) if id(block) not in held and any(True for _ in block.parameters())]


def gathered_bytes(network: nn.Module) -> int:
    """Bytes of what a rank has whole for a while, at most.

    Weights and gradients of what is in no block, all the time; those of the largest block; and a buffer for each, from
    which the next is copied or in which it is reduced.
    """
    seen: set[int] = set()
    sizes = []
    for block in (*blocks(network), network):
        sizes.append(sum(weight.nbytes for weight in block.parameters() if id(weight) not in seen))
        seen |= {id(weight) for weight in block.parameters()}
    return 2 * sizes[-1] + 4 * max(sizes[:-1], default=sizes[-1] // 2)


def named_states(network: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, Tensor]]:
    """The optimizer's tensors as `weight's name/kind`, in an order that all ranks have."""
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            for kind, value in sorted(optimizer.state.get(parameter, {}).items()):
                yield f"{names[id(parameter)]}/{kind}", torch.as_tensor(value)


def save_state(
    network: nn.Module, optimizer: torch.optim.Optimizer, folder: Path, metadata: dict[str, str] | None
) -> None:
    """Gather a tensor at a time, on all ranks; see `Sharded.save_state`."""
    state = network.state_dict().items()
    weights = {name: tensor for name, tensor in state if not name.endswith("num_batches_tracked")}
    for name, tensors in ((WEIGHTS, weights), (STATE, dict(named_states(network, optimizer)))):
        shapes = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
        arrays = (whole(tensor) for tensor in tensors.values())
        if metadata is not None:
            stream_weights(folder / name, shapes, arrays, metadata if name == WEIGHTS else {})
        else:
            for _ in arrays:
                pass


def whole(tensor: Tensor) -> np.ndarray:
    """A tensor of which each rank has a part, as float32."""
    full = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    array: np.ndarray = full.detach().float().cpu().numpy()
    return array


def read_state(network: nn.Module, optimizer: torch.optim.Optimizer, folder: Path, whole: dict[str, Any]) -> None:
    """Read this rank's parts of the weights and of the optimizer's state, which is in `whole` if it was not divided."""
    with open_weights(folder / WEIGHTS) as file:
        for name, tensor in network.state_dict().items():
            if not name.endswith("num_batches_tracked"):
                read_part(file, name, tensor)
    if not whole:
        read_optimizer(network, optimizer, folder / STATE)
        return
    parameters = dict(enumerate(parameter for group in optimizer.param_groups for parameter in group["params"]))
    states = {
        number: {kind: part_of(value, parameters[number]) for kind, value in state.items()}
        for number, state in whole["state"].items()
    }
    optimizer.load_state_dict({"state": states, "param_groups": optimizer.state_dict()["param_groups"]})


def read_optimizer(network: nn.Module, optimizer: torch.optim.Optimizer, path: Path) -> None:
    """Read the optimizer's state, or this rank's parts of it, from a file that processes wrote who had divided it."""
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    states: dict[int, Any] = {}
    with open_weights(path) as file:
        kinds: dict[str, list[str]] = {}
        for key in file.keys():  # noqa: SIM118 (not a dict)
            kinds.setdefault(key.rpartition("/")[0], []).append(key.rpartition("/")[2])
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        for number, parameter in enumerate(parameters):
            name = names[id(parameter)]
            states[number] = {kind: read_tensor(file, f"{name}/{kind}", parameter) for kind in kinds.get(name, ())}
    optimizer.load_state_dict({"state": states, "param_groups": optimizer.state_dict()["param_groups"]})


def read_tensor(file: Any, name: str, like: Tensor) -> Tensor:
    """A tensor of a file: divided as `like` is if it has that shape, else whole."""
    shape = tuple(file.get_slice(name).get_shape())
    if shape != tuple(like.shape):
        return torch.from_numpy(np.array(file.get_tensor(name)))
    part = torch.zeros_like(like, requires_grad=False)
    read_part(file, name, part)
    return part


def read_part(file: Any, name: str, tensor: Tensor) -> None:
    """Copy into a tensor what a file has of it, or into this rank's part of it: FSDP2 divides the first axis."""
    own = tensor.to_local() if isinstance(tensor, DTensor) else tensor
    stored = file.get_slice(name)
    with torch.no_grad():
        if not isinstance(tensor, DTensor) or tensor.ndim == 0:
            own.copy_(torch.from_numpy(np.array(file.get_tensor(name))))
            return
        start = first_row(tensor)
        if len(own):
            own.copy_(torch.from_numpy(stored[start : start + len(own)]))


def part_of(value: Any, like: Tensor) -> Any:
    """A state's tensor divided as `like` is if it has that shape, else as it is."""
    if not isinstance(like, DTensor) or like.ndim == 0 or getattr(value, "shape", None) != like.shape:
        return value
    part = torch.zeros_like(like, requires_grad=False)
    own, start = part.to_local(), first_row(like)
    own.copy_(value[start : start + len(own)])
    return part


def first_row(tensor: DTensor) -> int:
    """Where this rank's part of the first axis begins."""
    share = -(-tensor.shape[0] // tensor.device_mesh.size())
    return int(min(share * tensor.device_mesh.get_local_rank(), tensor.shape[0]))
