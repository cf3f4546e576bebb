"""Paddle's devices: which ones train, what they cannot do, one process for each, and batches on them."""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

import paddle
from src.kit.config import UserError, refuse_extra
from src.kit.errors import full_memory, give_stops, say_unreached, take_stops, too_large
from src.kit.hardware import SystemProbe, cpu_model, free_ram, instructions
from src.kit.loading import (
    BatchLoader,
    Loader,
    Split,
    choose_cache,
    in_background,
    margin,
    normalisation,
    plan_epoch,
    read_all,
)
from src.kit.memory import refuse_strategy
from src.kit.paddle.sharding import refuse_undivided
from src.kit.ranks import Place, find_place, quick_exit
from src.kit.run import Run

FITTED = ("train_data", "eval_data", "batch_size", "drop_last", "shuffle", "num_workers")
OWN = dict.fromkeys(FITTED, "use the keys of data")  # arguments of paddle.Model.fit that are not for users
OWN |= {"callbacks": "use trainer.callbacks", "epochs": "use trainer.max_epochs", "log_freq": "use log_every_n_steps"}
OWN |= {"accumulate_grad_batches": "use trainer.accumulate_grad_batches"}
OWN |= {"eval_freq": "every epoch is validated", "verbose": "training shows its own progress"}
HALF_PRECISION = {"bf16-mixed": "bfloat16", "16-mixed": "float16"}
FAILURE = "failure.txt"  # in the run folder: a rank's mistake, for the process that started it


def use_avx2(probe: SystemProbe) -> None:
    """Set MKL_DEBUG_CPU_TYPE, unless it is set; call this before the first matrix product of the process.

    Paddle's builds for x86 bundle Intel's MKL of 2019, which takes its slowest path on all other processors: with AVX2
    a training step of ResNet-18 is 2.6 times as fast (AMD EPYC, one core). Intel's own processors are left alone, since
    the variable would switch off their AVX-512.
    """
    vendor = probe.read("/proc/cpuinfo") or cpu_model(probe)  # Windows names the vendor with the model
    if "AVX2" in instructions(probe) and ("AuthenticAMD" in vendor or "HygonGenuine" in vendor):
        os.environ.setdefault("MKL_DEBUG_CPU_TYPE", "5")


def keep_signal_handlers() -> None:
    """Put Python's handlers back: importing Paddle replaces that of SIGTERM by one that ends the process at once."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM) or signal.SIG_DFL)


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
    failure = folder / FAILURE
    failure.unlink(missing_ok=True)  # an earlier start's
    arguments = (rank, OmegaConf.to_container(cfg), folder, checkpoint, *give_stops())
    ranks = paddle.distributed.spawn(start_rank, arguments, nprocs=len(devices), join=False, **options)
    try:
        while any(process.is_alive() for process in ranks.processes):
            if any(process.exitcode for process in ranks.processes):
                break  # the others would wait for it forever
            ranks.processes[0].join(0.2)
    finally:  # after a signal too: no rank outlives this process, and none has time to complain about another's end
        for process in ranks.processes:
            process.kill()
        for process in ranks.processes:
            process.join()
    if failure.exists():
        raise UserError(failure.read_text("utf-8"))
    if any(process.exitcode for process in ranks.processes):
        raise RuntimeError("A rank failed: its traceback is above.")
    return True


def connect() -> None:
    """Connect this process with the other ranks, whom its environment names, unless that has been done."""
    if not paddle.distributed.is_initialized():
        quick_exit()
        paddle.distributed.init_parallel_env()


@contextmanager
def join(cfg: DictConfig, place: Place) -> Iterator[Callable[[Any], list[Any]]]:
    """Connect the processes that a launcher has started; yields a function that returns the objects of all ranks."""
    port = place.port + int("TORCHELASTIC_RUN_ID" in os.environ)  # where torchrun itself listens
    endpoints = os.environ.get("PADDLE_TRAINER_ENDPOINTS", "").split(",")
    if len(endpoints) != place.ranks:
        endpoints = [f"{place.address}:{port + 1 + rank}" for rank in range(place.ranks)]
    os.environ |= {
        "PADDLE_TRAINER_ID": str(place.rank),
        "PADDLE_TRAINERS_NUM": str(place.ranks),
        "PADDLE_TRAINER_ENDPOINTS": ",".join(endpoints),
        "PADDLE_CURRENT_ENDPOINT": endpoints[place.rank],
        "MASTER_ADDR": place.address,
        "MASTER_PORT": str(port),
        "PADDLE_DISTRI_BACKEND": "nccl" if use_gpu(cfg) else "gloo",
    }
    gpus = "FLAGS_selected_gpus"
    if use_gpu(cfg) and gpus not in os.environ:
        own = cfg.trainer.devices if not isinstance(cfg.trainer.devices, (int, str)) else range(place.local_ranks)
        index = own[place.local_rank] % paddle.device.cuda.device_count()  # each process may see only its own
        os.environ[gpus] = str(index)
    connect()
    yield gather


def start_rank(
    rank: Callable[..., None],
    plain: dict[str, Any],
    folder: Path,
    checkpoint: Path | None,
    stops: set[int],
    terminal: str,
) -> None:
    """Join the other ranks and run `rank`; a user's mistake is left as a sentence for the process that started it.

    Rank 0 opens the debugger before the steps `stops`.
    """
    parent = multiprocessing.parent_process()
    assert parent and parent.pid, "`run_on_devices` starts the ranks"
    threading.Thread(target=end_with, args=(parent.pid,), daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; the one that started this ends it
    connect()
    take_stops(stops if paddle.distributed.get_rank() == 0 else set(), terminal)
    try:
        rank(plain, folder, checkpoint)
        say_unreached()
    except UserError as error:
        (folder / FAILURE).write_text(str(error), "utf-8")
        sys.exit(2)


def end_with(parent: int) -> None:
    """End this process soon after the one that started it was killed, even while this one was importing Paddle.

    It must not write into a run that goes on.
    """
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


@contextmanager
def open_process(cfg: DictConfig, run: Run) -> Iterator[None]:
    """Choose this process's device, and let ranks that a launcher started agree on rank 0's run folder."""
    ranks = paddle.distributed.get_world_size()
    if ranks > 1:
        connect()
        folder = [str(run.path)]
        paddle.distributed.broadcast_object_list(folder, src=0)
        run.path = Path(folder[0])
    paddle.set_device(paddle.get_device() if ranks > 1 else "gpu" if use_gpu(cfg) else "cpu")
    if use_gpu(cfg):
        repeatable = bool(cfg.deterministic)  # else cuDNN times its kernels and takes the fastest
        paddle.set_flags({"FLAGS_cudnn_deterministic": repeatable, "FLAGS_cudnn_exhaustive_search": not repeatable})
    yield


def autocast(precision: str) -> AbstractContextManager[Any]:
    """What a forward pass with a `trainer.precision` runs in; Paddle's own context takes 30 us when disabled, too."""
    dtype = HALF_PRECISION.get(precision)
    return paddle.amp.auto_cast(dtype=dtype) if dtype else nullcontext()


@contextmanager
def readable_errors(cfg: DictConfig) -> Iterator[None]:
    """Turn memory that is full, and a weight that `trainer.strategy=fsdp` has freed, into one sentence each.

    Raises:
        UserError: one of them happened.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if cfg.trainer.strategy == "fsdp" and "holds no memory" in str(error):
            raise UserError(
                "The network uses a layer's weights without calling the layer, and trainer.strategy=fsdp gathers them "
                "for that only: use zero_2, or call the layer."
            ) from error
        if place := full_memory(error):
            raise UserError(too_large(place, cfg.data.batch_size)) from error
        raise


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
    extra: Any = OmegaConf.to_container(keys.extra, resolve=True)
    refuse_extra(extra, paddle.Model.fit, "paddle.Model.fit", OWN)
    for key in ("num_iters", "save_freq"):
        if extra.get(key) is not None and extra[key] < 1:
            raise UserError(f"trainer.extra.{key} must be at least 1, not {extra[key]}.")
    if keys.precision != "32-true" and not use_gpu(cfg):
        raise UserError(f"Paddle has no trainer.precision={keys.precision} on a CPU: use 32-true.")
    if keys.compile:
        raise UserError("Paddle trains without trainer.compile: leave it out.")
    refuse_strategy(cfg)
    refuse_undivided(cfg)
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


class Batches:
    """A `Loader` as Paddle tensors on the current device. Paddle accepts any iterable with a length."""

    def __init__(self, loader: BatchLoader) -> None:
        self.loader, self.place = loader, current_place()

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[list[paddle.Tensor]]:
        return in_background(self.copied()) if self.place.is_gpu_place() else self.copied()

    def copied(self) -> Generator[list[paddle.Tensor], None, None]:
        """Batches on the device. Each copy is complete when it is yielded, so training never waits for one."""
        for arrays in self.loader:
            yield [paddle.to_tensor(array, place=self.place) for array in arrays]


class DeviceBatches:
    """A `Loader` whose images stay on the device as uint8 and are gathered, shifted, mirrored and normalised there.

    The batches equal the loader's own: random numbers are drawn on the host, an epoch at a time.
    """

    def __init__(self, loader: Loader) -> None:
        self.loader = loader
        planes = read_all(loader.split.images, margin(loader), loader.threads, loader.border)
        self.pixels = paddle.to_tensor(planes)  # (N, C, H, W), with the margin
        self.targets = paddle.to_tensor(loader.split.targets)
        self.scale, self.shift = (paddle.to_tensor(values) for values in normalisation(loader))

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[list[paddle.Tensor]]:
        plan, size = plan_epoch(self.loader), self.loader.batch_size
        parts = [paddle.to_tensor(part) for part in (plan.samples, plan.rows, plan.columns) if part is not None]
        for start in range(0, len(plan.samples), size):
            chosen, *places = (part[start : start + size] for part in parts)
            # Paddle gathers single pixels on a GPU as float32, not as uint8
            images = paddle.gather(self.pixels, chosen).astype("float32")
            moved = self.move(images, *places) if places else images
            yield [moved * self.scale + self.shift, paddle.gather(self.targets, chosen)]

    def move(self, images: paddle.Tensor, rows: paddle.Tensor, columns: paddle.Tensor) -> paddle.Tensor:
        """Gather pixels of float32 (B, C, H, W) by rows (B, h) and columns (B, w): (B, C, h, w)."""
        batch, channels, _, width = images.shape
        places = (rows.unsqueeze(2) * width + columns.unsqueeze(1)).reshape([batch, 1, -1])
        places = places.expand([batch, channels, places.shape[2]])
        picked = paddle.take_along_axis(images.flatten(2), places, 2, broadcast=False)
        return picked.reshape([batch, channels, rows.shape[1], columns.shape[1]])


def current_place() -> Any:
    """The device set by `paddle.set_device`."""
    device = paddle.get_device()  # "cpu" or "gpu:0"
    return paddle.CUDAPlace(int(device.split(":")[1])) if device.startswith("gpu") else paddle.CPUPlace()


def build_batches(loader: BatchLoader, cache: str) -> Batches | DeviceBatches:
    """Batches for `Model.fit`; `cache` is the result of `choose_cache`."""
    if cache != "device":
        return Batches(loader)
    assert isinstance(loader, Loader), "only images stay on the device"
    return DeviceBatches(loader)


def choose_image_cache(cfg: DictConfig, splits: Sequence[Split]) -> str:
    """`choose_cache` for one of the processes on this machine."""
    place = find_place()
    free_device = 0
    if current_place().is_gpu_place():  # Paddle can't report what other programs use
        free_device = paddle.device.cuda.get_device_properties().total_memory - paddle.device.cuda.memory_reserved()
    return choose_cache(cfg, splits, free_ram(SystemProbe()) // (place.local_ranks if place else 1), free_device)
