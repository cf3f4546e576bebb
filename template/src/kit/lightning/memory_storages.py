"""When the memory behind PyTorch's tensors is born and dies."""

from typing import Any
from weakref import finalize

import torch

from src.kit.lightning.memory_blank import Blank, find
from src.kit.memory import Recorder, convolution

INPUTS = {"aten::convolution": 2, "aten::convolution_backward": 3}  # how many of a convolution's arguments are large
GROUPS = {2: 8, 3: 9}  # and where the number of groups stands


class Storages(Blank):
    """Notes the birth and the death of the memory behind every tensor that an operation returns."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self.recorder = recorder
        self.blocks: dict[int, int] = {}  # id of a living storage -> block

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        results = super().__torch_dispatch__(operation, types, args, kwargs)
        made = list(find((results,)))
        if inputs := INPUTS.get(operation._schema.name):
            groups = args[GROUPS[inputs]]
            self.recorder.brief(convolution([value.nbytes for value in (*args[:inputs], *made)], groups), "workspace")
        for tensor in made:
            self.add(tensor)
        return results

    def add(self, tensor: torch.Tensor | None, kind: str | None = None) -> None:
        """Take note of a tensor's memory, or of what it is for."""
        if tensor is None:
            return
        storage = tensor.untyped_storage()
        if id(storage) not in self.blocks:
            self.blocks[id(storage)] = self.recorder.allocate(storage.nbytes())
            finalize(storage, self.drop, id(storage)).atexit = False
        if kind:
            self.recorder.kinds[self.blocks[id(storage)]] = kind

    def drop(self, key: int) -> None:
        self.recorder.free(self.blocks.pop(key))
