"""Which devices Paddle trains on, what it refuses there, and one process for each of several."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

import paddle
from src.kit.config import UserError

FAILURE = "failure.txt"


def use_gpu(cfg: DictConfig) -> bool:
    """Whether `trainer.accelerator` leads to a CUDA GPU on this machine."""
    found = paddle.device.is_compiled_with_cuda() and paddle.device.cuda.device_count() > 0
    return bool(cfg.trainer.accelerator in ("auto", "gpu") and found)


def count_devices(cfg: DictConfig) -> list[int]:
    """Indices of the devices that `trainer.devices` asks for; on a CPU a device is a process."""
    asked = cfg.trainer.devices
    if asked == "auto":
        asked = paddle.device.cuda.device_count() if use_gpu(cfg) else 1
    return list(range(asked)) if isinstance(asked, int) else list(asked)


def start_ranks(
    rank: Callable[..., None], cfg: DictConfig, devices: list[int], folder: Path, resume: Path | None
) -> None:
    """Run `rank(plain configuration, folder, resume)` in one process for each device.

    Raises:
        UserError: what a rank wrote into `failure_file(folder)`.
    """
    os.environ.setdefault("PYTHONWARNINGS", "ignore:No ccache found")  # each process imports Paddle before our filters
    os.environ.setdefault("GLOG_minloglevel", "2")
    options: dict[str, Any] = {"backend": "gloo"}
    if use_gpu(cfg):
        options = {"backend": "nccl", "gpus": ",".join(map(str, devices))}
    arguments = (OmegaConf.to_container(cfg, resolve=True), folder, resume)
    ranks = paddle.distributed.spawn(rank, arguments, nprocs=len(devices), join=False, **options)
    while any(process.is_alive() for process in ranks.processes):
        if any(process.exitcode for process in ranks.processes):  # the others would wait for it forever
            for process in ranks.processes:
                process.terminate()
        ranks.processes[0].join(0.2)
    if failure_file(folder).exists():
        raise UserError(failure_file(folder).read_text("utf-8"))
    if any(process.exitcode for process in ranks.processes):
        raise RuntimeError("A rank failed: its traceback stands above.")


def failure_file(folder: Path) -> Path:
    """Where a rank leaves the sentence of a user's mistake for the process that started it."""
    return folder / FAILURE


def gather(mine: Any) -> list[Any]:
    """The objects of all ranks, in their order."""
    if paddle.distributed.get_world_size() == 1:
        return [mine]
    every: list[Any] = []
    paddle.distributed.all_gather_object(every, mine)
    return every


def refuse_unsupported(cfg: DictConfig) -> None:
    """Refuse what Paddle cannot do here, rather than ignore it as Paddle would.

    Raises:
        UserError: mixed precision on a CPU, a sharded strategy, an accelerator that is missing.
    """
    keys = cfg.trainer
    if keys.precision != "32-true" and not use_gpu(cfg):
        raise UserError(
            f"Paddle has no trainer.precision={keys.precision} on a CPU: use 32-true or framework=lightning."
        )
    if keys.strategy not in ("auto", "ddp"):
        raise UserError(f"Paddle has no trainer.strategy={keys.strategy}: use auto or ddp, or framework=lightning.")
    if keys.num_nodes > 1 and paddle.distributed.get_world_size() == 1:
        raise UserError(
            f"Paddle starts its {keys.num_nodes} nodes from outside: run `python -m paddle.distributed.launch "
            f"--nnodes={keys.num_nodes} --master=HOST:PORT scripts/train.py ...` on each."
        )
    if keys.accelerator == "mps":
        raise UserError("Paddle has no trainer.accelerator=mps: use auto or cpu, or framework=lightning.")
    if keys.accelerator == "gpu" and not use_gpu(cfg):
        raise UserError(
            "trainer.accelerator=gpu, but Paddle sees no GPU here: use auto, or run python scripts/doctor.py."
        )
