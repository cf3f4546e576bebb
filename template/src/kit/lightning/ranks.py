"""`pl.Trainer` and `pl.LightningModule`, the processes that they run in, and their errors as sentences.

Those that a launcher has started are joined before Lightning, which then takes them as they are.
"""

import inspect
import logging
import os
import socket
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.plugins.environments import LightningEnvironment
from pytorch_lightning.plugins.io import TorchCheckpointIO
from pytorch_lightning.profilers import PassThroughProfiler
from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from src.kit.config import UserError, refuse_extra
from src.kit.errors import full_memory, too_large
from src.kit.lightning.recipes import Compiled, Tuned
from src.kit.memory import refuse_strategy
from src.kit.ranks import Place, find_place
from src.kit.storage import replace_file, translate_errors
from src.kit.weights import load_weights

WAIT_S = 300.0
WEIGHTS, STATE = "model.safetensors", "training.safetensors"  # of a checkpoint; the second if it is divided
# arguments of pl.Trainer that are not for users, and what is
OWN = {"callbacks": "use trainer.callbacks", "max_epochs": "use trainer.max_epochs", "logger": "use tracker"}
OWN |= {"enable_checkpointing": "use trainer.checkpoint"}
OWN |= {"accumulate_grad_batches": "use trainer.accumulate_grad_batches"}


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
    refuse_strategy(cfg)
    keys, place = cfg.trainer, find_place()
    strategy: Any = keys.strategy
    if strategy.startswith("fsdp"):
        from src.kit.lightning.sharding import Sharded, refuse_unsharded  # half a second that other runs can spare

        refuse_unsharded(cfg)
        strategy = Sharded(offload=strategy == "fsdp_offload")
    if place is None:
        if keys.num_nodes > 1:
            raise UserError(
                f"The {keys.num_nodes} nodes are started from outside: run `torchrun --nnodes={keys.num_nodes} "
                "--nproc-per-node=GPUS --rdzv-backend=c10d --rdzv-endpoint=HOST:29400 scripts/train.py ...` on each."
            )
        devices = keys.devices if isinstance(keys.devices, (int, str)) else list(keys.devices)
        return {"devices": devices, "strategy": strategy}
    devices = [own_gpu(cfg, place)] if use_gpu(cfg) else 1
    strategy = "ddp" if strategy == "auto" else strategy
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


class CheckpointFile(TorchCheckpointIO):
    """Writes Lightning's checkpoints beside their target; Lightning's own go to $TMPDIR first, where space is short."""

    def __init__(self, module: pl.LightningModule | None) -> None:
        """`module` is given if it is to be whole: after `trainer.strategy=fsdp` its weights are in a file of theirs."""
        self.module = module

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        target = Path(path)
        with (
            replace_file(target, wait=False) as partial,
            translate_errors(target, RuntimeError),
            partial.open("wb") as file,
        ):
            torch.save(checkpoint, file)  # to a path, C++ writes and does not say what went wrong

    def load_checkpoint(self, path: Any, *arguments: Any, **options: Any) -> dict[str, Any]:
        content: dict[str, Any] = super().load_checkpoint(path, *arguments, **options)
        if self.module and not content["state_dict"]:
            arrays = load_weights(Path(path).with_name(WEIGHTS))[0]
            weights = {f"network.{name}": torch.from_numpy(array) for name, array in arrays.items()}
            content |= {"state_dict": {**self.module.state_dict(), **weights}, "optimizer_states": []}
        return content


class LeanModule(pl.LightningModule):
    """A `pl.LightningModule` that costs less of each step: what it does is the same, in whatever version."""

    def __init_subclass__(cls, **keys: Any) -> None:
        super().__init_subclass__(**keys)
        if step := vars(cls).get("training_step"):
            step.__signature__ = inspect.signature(step)  # Lightning asks for it at each step

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "_current_fx_name":  # the hook that Lightning is in, 44 times a step; it is no layer and no weight
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)


class NoProfiler(PassThroughProfiler):
    """Lightning's profiler that measures nothing, without a generator for each of a step's 24 actions."""

    def __init__(self) -> None:
        super().__init__()
        self.nothing = nullcontext()

    def profile(self, action_name: str) -> AbstractContextManager[None]:
        return self.nothing


def build_trainer(cfg: DictConfig, callbacks: Sequence[pl.Callback], logger: Any) -> pl.Trainer:
    """A trainer whose logging, checkpoints and progress are left to `callbacks` and `logger`.

    Lightning's own do their work every step: with its defaults a 0.6 ms step takes 2.8 times as long.

    Raises:
        UserError: keys that Lightning or this machine cannot serve.
    """
    silence()
    keys, settings = cfg.trainer, gpu_settings(cfg, use_gpu(cfg))
    if keys.precision == "16-mixed" and not use_gpu(cfg):
        raise UserError("trainer.precision=16-mixed needs a GPU: use bf16-mixed or 32-true on a CPU.")
    if keys.accelerator == "gpu" and not use_gpu(cfg):
        raise UserError(
            "trainer.accelerator=gpu, but PyTorch sees no GPU here: use auto, or run python scripts/doctor.py."
        )
    options = placement(cfg) | {
        "max_epochs": keys.max_epochs,
        "accelerator": keys.accelerator,
        "precision": keys.precision,
        "gradient_clip_val": keys.gradient_clip_val,
        "gradient_clip_algorithm": keys.gradient_clip_algorithm,
        "log_every_n_steps": cfg.log_every_n_steps,
        **repeatability(cfg),
        "callbacks": [
            *([Tuned(settings)] if settings else []),
            *([Compiled(cfg)] if keys.compile else []),
            *callbacks,
        ],
        "logger": logger,
        "profiler": NoProfiler(),
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
    }
    extra: Any = OmegaConf.to_container(keys.extra, resolve=True)
    refuse_extra(extra, pl.Trainer.__init__, "pl.Trainer", OWN)
    try:
        trainer = pl.Trainer(**options | extra)
    except (MisconfigurationException, ValueError, RuntimeError, TypeError, AttributeError) as error:
        raise UserError(f"Lightning refuses these trainer keys: {first_sentence(error)}") from error
    if isinstance(trainer.strategy, DDPStrategy):  # else a copy of all gradients
        trainer.strategy._ddp_kwargs.setdefault("gradient_as_bucket_view", True)
    if trainer.check_val_every_n_epoch != 1 or trainer.limit_val_batches == 0:
        raise UserError("trainer.extra must leave each epoch its validation, whose score chooses the best checkpoint.")
    return trainer


@contextmanager
def readable_errors(cfg: DictConfig) -> Iterator[None]:
    """Turn memory that is full, a batch of one and Lightning's complaints into one sentence each.

    Raises:
        UserError: one of them happened.
    """
    try:
        yield
    except MisconfigurationException as error:
        raise UserError(first_sentence(error)) from error
    except ValueError as error:
        if "Expected more than 1 value per channel" not in str(error):
            raise
        raise UserError(
            f"The network's batch normalisation needs more than one value, and data.batch_size={cfg.data.batch_size} "
            "gives it one: use a larger batch or data.image_size."
        ) from error
    except (MemoryError, RuntimeError) as error:
        if place := full_memory(error):
            raise UserError(too_large(place, cfg.data.batch_size)) from error
        if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            reason = first_sentence(error)[:200]
            raise UserError(f"trainer.compile failed ({reason}): install a C++ compiler, or leave it out.") from error
        raise


def repeatability(cfg: DictConfig) -> dict[str, Any]:
    """Use deterministic operations or the fastest ones; returns `pl.Trainer`'s arguments for the same.

    Lightning calls `torch.use_deterministic_algorithms`, which imports torch.compile to set its switch too.
    """
    if cfg.deterministic and cfg.trainer.compile:
        return {"deterministic": "warn", "benchmark": False}
    torch.set_deterministic_debug_mode("warn" if cfg.deterministic else "default")
    if cfg.deterministic:
        torch.utils.deterministic.fill_uninitialized_memory = False  # a kernel for each tensor that is written anyway
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # as Lightning sets it
    return {"benchmark": not cfg.deterministic}  # cuDNN times its kernels and takes the fastest


def gpu_settings(cfg: DictConfig, gpu: bool) -> dict[str, Any]:
    """What is set for speed on a GPU, and logged; nothing on a CPU.

    Products of float32 matrices are TF32, as cuDNN's convolutions are anyway. Weights of convolutions are channels
    last, which the images follow; FSDP divides contiguous weights only.
    """
    if not gpu:
        return {}
    channels_last = not cfg.trainer.strategy.startswith("fsdp")
    return {
        "float32_matmul_precision": "high",
        "channels_last": channels_last,
        "cudnn_benchmark": not cfg.deterministic,
        "fused_optimizer": fused(cfg),
    }


def fused(cfg: DictConfig) -> bool:
    """Whether an optimizer may take its step as one kernel.

    Not where gradients are scaled (fp16) or clipped in mixed precision: a fused step unscales them itself, so Lightning
    refuses to clip them before it, in bf16 too. Nor SGD's on weights that FSDP divides, for which PyTorch has none.
    """
    keys = {**cfg.trainer, **cfg.trainer.extra}
    if keys["strategy"].startswith("fsdp") and cfg.optimizer.name == "sgd":
        return False
    return bool(keys["precision"] == "32-true" or (keys["precision"] != "16-mixed" and not keys["gradient_clip_val"]))


def first_sentence(error: Exception) -> str:
    """The first sentence of a framework's message, on one line."""
    return " ".join(str(error).split()).split(". ")[0].rstrip(".!") + "."


def silence() -> None:
    """Silence Lightning's banner and its hints that do not apply to arrays batched in memory."""
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    warnings.filterwarnings("ignore", ".*GPU available but not used.*")
    warnings.filterwarnings("ignore", ".*your dataloader is not resumable.*")  # `set_epoch` takes the first batch
    warnings.filterwarnings("ignore", ".*is smaller than the logging interval.*")
    warnings.filterwarnings("ignore", ".*is an instance of `nn.Module` and is already saved.*")
    if "SLURM_JOB_ID" not in os.environ:
        warnings.filterwarnings("ignore", ".*`srun` command is available.*")  # where jobs are only sent from
