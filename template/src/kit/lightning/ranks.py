"""Processes that a launcher has started, in PyTorch: joined before Lightning, which then takes them as they are."""

import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from omegaconf import DictConfig
from pytorch_lightning.plugins.environments import LightningEnvironment

from src.kit.config import UserError
from src.kit.ranks import Place, find_place

WAIT_S = 300.0


class Environment(LightningEnvironment):
    """A launcher's processes for `pl.Trainer`: to Lightning each is a node of its own with one device.

    Lightning's own environments know some launchers only, and only nodes with equally many devices.
    """

    def __init__(self, place: Place) -> None:
        super().__init__()
        self.place = place

    @property
    def creates_processes_externally(self) -> bool:
        return True

    def world_size(self) -> int:
        return self.place.ranks

    def global_rank(self) -> int:
        return self.place.rank

    def set_world_size(self, size: int) -> None:
        """It is the launcher's."""

    def set_global_rank(self, rank: int) -> None:
        """It is the launcher's."""

    def local_rank(self) -> int:
        return 0

    def node_rank(self) -> int:
        return self.place.rank


@contextmanager
def join(cfg: DictConfig, place: Place) -> Iterator[Callable[[Any], list[Any]]]:
    """Connect the processes; yields a function that returns the objects of all ranks, in their order."""
    variables = {
        "RANK": place.rank,
        "WORLD_SIZE": place.ranks,
        "LOCAL_RANK": place.local_rank,
        "MASTER_PORT": place.port,
    }
    os.environ |= {"MASTER_ADDR": place.address} | {name: str(value) for name, value in variables.items()}
    gpu = use_gpu(cfg)
    if gpu:
        torch.cuda.set_device(own_gpu(cfg, place))
    store = new_store(place) if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True" else None
    own = {"store": store, "rank": place.rank, "world_size": place.ranks} if store else {}
    torch.distributed.init_process_group("cpu:gloo,cuda:nccl" if gpu else "gloo", **own)
    yield partial(gather, world_size=place.ranks)
    torch.distributed.destroy_process_group()  # after a failure it could wait for ranks that are gone


def new_store(place: Place) -> torch.distributed.TCPStore:
    """A store of this start's own, at rank 0, whose port torchrun's store tells the others.

    torchrun's store outlives restarts. The processes of a restart would read what earlier ones have left there: they
    tell starts apart by a count of failures, which is not the same on all nodes.
    """
    shared, waited = torch.distributed.TCPStore(place.address, place.port, is_master=False), time.monotonic()
    if place.rank == 0:
        store = torch.distributed.TCPStore(place.address, 0, is_master=True, wait_for_workers=False)
        shared.set("store of rank 0", str(store.port))
        return store
    while True:
        port = int(shared.get("store of rank 0"))
        try:  # an earlier start's port is closed
            socket.create_connection((place.address, port), timeout=5).close()
        except OSError as error:
            if time.monotonic() - waited > WAIT_S:
                raise UserError(f"Process 0 cannot be reached at {place.address}:{port}: {error}.") from error
            time.sleep(0.2)
        else:
            return torch.distributed.TCPStore(place.address, port, is_master=False)


def placement(cfg: DictConfig) -> dict[str, Any]:
    """`pl.Trainer`'s arguments for where to train.

    Raises:
        UserError: keys that contradict the launcher, or several nodes without one.
    """
    keys, place = cfg.trainer, find_place()
    if place is None:
        if keys.num_nodes > 1:
            raise UserError(
                f"The {keys.num_nodes} nodes are started from outside: run `torchrun --nnodes={keys.num_nodes} "
                "--nproc-per-node=GPUS --rdzv-backend=c10d --rdzv-endpoint=HOST:29400 scripts/train.py ...` on each."
            )
        devices = keys.devices if isinstance(keys.devices, (int, str)) else list(keys.devices)
        return {"devices": devices, "strategy": keys.strategy}
    devices = [own_gpu(cfg, place)] if use_gpu(cfg) else 1
    strategy = "ddp" if keys.strategy == "auto" else keys.strategy
    return {"devices": devices, "num_nodes": place.ranks, "strategy": strategy, "plugins": [Environment(place)]}


def own_gpu(cfg: DictConfig, place: Place) -> int:
    """Index of this process's GPU."""
    if not isinstance(cfg.trainer.devices, (int, str)):
        return int(cfg.trainer.devices[place.local_rank])
    return place.local_rank % torch.cuda.device_count()  # a scheduler may show each process only its own


def use_gpu(cfg: DictConfig) -> bool:
    """Whether `trainer.accelerator` leads to a CUDA GPU on this machine."""
    return cfg.trainer.accelerator in ("auto", "gpu") and torch.cuda.is_available()


def gather(mine: Any, world_size: int) -> list[Any]:
    """The objects of all ranks, in their order."""
    every: list[Any] = [mine] * world_size
    if world_size > 1:
        torch.distributed.all_gather_object(every, mine)
    return every
