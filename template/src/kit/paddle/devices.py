"""Paddle's devices: which ones train, what they cannot do, and one process for each."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

import paddle
from src.kit.config import UserError
from src.kit.hardware import SystemProbe, cpu_model, instructions
from src.kit.run import Run


def use_avx2(probe: SystemProbe) -> None:
    """Set MKL_DEBUG_CPU_TYPE, unless it is set; call this before the first matrix product of the process.

    Paddle's builds for x86 bundle Intel's MKL of 2019, which takes its slowest path on all other processors: with AVX2
    a training step of ResNet-18 is 2.6 times as fast (AMD EPYC, one core). Intel's own processors are left alone, since
    the variable would switch off their AVX-512.
    """
    vendor = probe.read("/proc/cpuinfo") or cpu_model(probe)  # Windows names the vendor with the model
    if "AVX2" in instructions(probe) and ("AuthenticAMD" in vendor or "HygonGenuine" in vendor):
        os.environ.setdefault("MKL_DEBUG_CPU_TYPE", "5")


FAILURE = "failure.txt"  # in the run folder: a rank's mistake, for the process that started it


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


def run_on_devices(rank: Callable[..., None], cfg: DictConfig, folder: Path, checkpoint: Path | None) -> bool:
    """Run `rank(plain configuration, folder, checkpoint)` in a process for each device, if there are several to start.

    Returns:
        False if this process is to train itself: there is one device, or a launcher has started the ranks already.

    Raises:
        UserError: the sentence of a rank's `UserError`.
    """
    devices = count_devices(cfg)
    if len(devices) < 2 or paddle.distributed.get_world_size() > 1:
        return False
    os.environ.setdefault("PYTHONWARNINGS", "ignore:No ccache found")  # each process imports Paddle before our filters
    os.environ.setdefault("GLOG_minloglevel", "2")
    options: dict[str, Any] = {"backend": "gloo"}
    if use_gpu(cfg):
        options = {"backend": "nccl", "gpus": ",".join(map(str, devices))}
    arguments = (rank, OmegaConf.to_container(cfg, resolve=True), folder, checkpoint)
    ranks = paddle.distributed.spawn(start_rank, arguments, nprocs=len(devices), join=False, **options)
    while any(process.is_alive() for process in ranks.processes):
        if any(process.exitcode for process in ranks.processes):  # the others would wait for it forever
            for process in ranks.processes:
                process.terminate()
        ranks.processes[0].join(0.2)
    failure = folder / FAILURE
    if failure.exists():
        raise UserError(failure.read_text("utf-8"))
    if any(process.exitcode for process in ranks.processes):
        raise RuntimeError("A rank failed: its traceback is above.")
    return True


def start_rank(rank: Callable[..., None], plain: dict[str, Any], folder: Path, checkpoint: Path | None) -> None:
    """Join the other ranks and run `rank`; a user's mistake is left as a sentence for the process that started it."""
    paddle.distributed.init_parallel_env()
    try:
        rank(plain, folder, checkpoint)
    except UserError as error:
        (folder / FAILURE).write_text(str(error), "utf-8")
        sys.exit(2)


@contextmanager
def open_process(cfg: DictConfig, run: Run) -> Iterator[None]:
    """Choose this process's device, and let ranks that a launcher started agree on rank 0's run folder."""
    ranks = paddle.distributed.get_world_size()
    if ranks > 1:
        paddle.distributed.init_parallel_env()  # does nothing where `start_rank` has done it
        folder = [str(run.path)]
        paddle.distributed.broadcast_object_list(folder, src=0)
        run.path = Path(folder[0])
    paddle.set_device(paddle.get_device() if ranks > 1 else "gpu" if use_gpu(cfg) else "cpu")
    if use_gpu(cfg):
        paddle.set_flags({"FLAGS_cudnn_deterministic": bool(cfg.deterministic)})
    yield


@contextmanager
def readable_errors(cfg: DictConfig) -> Iterator[None]:
    """Turn a GPU out of memory into one sentence.

    Raises:
        UserError: it happened.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if "out of memory" not in str(error).lower():
            raise
        raise UserError(
            f"The GPU ran out of memory with data.batch_size={cfg.data.batch_size}: halve it and double "
            "trainer.accumulate_grad_batches, or use trainer.precision=bf16-mixed."
        ) from error


def gather(mine: Any) -> list[Any]:
    """The objects of all ranks, in their order."""
    if paddle.distributed.get_world_size() == 1:
        return [mine]
    every: list[Any] = []
    paddle.distributed.all_gather_object(every, mine)
    return every


def refuse_unsupported(cfg: DictConfig) -> None:
    """Refuse what Paddle would silently ignore here.

    Raises:
        UserError: mixed precision on a CPU, a sharded strategy, an accelerator that is missing.
    """
    keys = cfg.trainer
    if keys.precision != "32-true" and not use_gpu(cfg):
        raise UserError(f"Paddle has no trainer.precision={keys.precision} on a CPU: use 32-true.")
    if keys.strategy not in ("auto", "ddp"):
        raise UserError(f"Paddle has no trainer.strategy={keys.strategy}: use auto or ddp.")
    if keys.num_nodes > 1 and paddle.distributed.get_world_size() == 1:
        raise UserError(
            f"Paddle starts its {keys.num_nodes} nodes from outside: run `python -m paddle.distributed.launch "
            f"--nnodes={keys.num_nodes} --master=HOST:PORT scripts/train.py ...` on each."
        )
    if keys.accelerator == "mps":
        raise UserError("Paddle has no trainer.accelerator=mps: use auto or cpu.")
    if keys.accelerator == "gpu" and not use_gpu(cfg):
        raise UserError(
            "trainer.accelerator=gpu, but Paddle sees no GPU here: use auto, or run python scripts/doctor.py."
        )
