"""Train and predict with PaddlePaddle's high-level API."""

import sys
from pathlib import Path
from typing import Any

import paddle
from omegaconf import DictConfig, OmegaConf

from src.kit.catalog import build_dataset
from src.kit.config import UserError
from src.kit.hardware import Machine
from src.kit.loading import keep_decoded
from src.kit.paddle import (
    Batches,
    DeviceBatches,
    build_batches,
    choose,
    count_devices,
    failure_file,
    list_layers,
    refuse_unsupported,
    start_ranks,
    use_avx2,
    use_gpu,
    weights_from_numpy,
)
from src.kit.run import Run
from src.kit.training import Collector, Session, build_loader, build_network, tasks
from src.kit.weights import load_weights
from src.trainers.paddle_model import Model, SessionCallback, to_numpy

use_avx2(Machine())  # here, since whatever computes with Paddle imports this first


def fit(cfg: DictConfig, run: Run, resume: Path | None = None) -> None:
    """Train until `trainer.max_epochs` or an early stop; checkpoints and metrics go into the run folder.

    `resume` is a checkpoint folder to go on from. Several devices are several processes, started here unless
    `python -m paddle.distributed.launch` has started them already.

    Raises:
        UserError: what Paddle or the machine cannot do, a loss that is not finite, a GPU out of memory.
    """
    refuse_unsupported(cfg)
    devices = count_devices(cfg)
    if len(devices) > 1 and paddle.distributed.get_world_size() == 1:
        start_ranks(fit_rank, cfg, devices, run.path, resume)
        return
    if paddle.distributed.get_world_size() > 1:
        paddle.distributed.init_parallel_env()
    fit_process(cfg, run, resume)


def fit_rank(plain: dict[str, Any], path: Path, resume: Path | None) -> None:
    """Train as one of several processes that `fit` started."""
    cfg = OmegaConf.create(plain)
    paddle.distributed.init_parallel_env()
    try:
        with Run(cfg, path) as run:
            fit_process(cfg, run, resume)
    except UserError as error:
        failure_file(path).write_text(str(error), "utf-8")
        sys.exit(2)


def fit_process(cfg: DictConfig, run: Run, resume: Path | None) -> None:
    """Train in this process, which is the only one or one rank of several."""
    paddle.set_device(
        paddle.get_device() if paddle.distributed.get_world_size() > 1 else "gpu" if use_gpu(cfg) else "cpu"
    )
    if use_gpu(cfg):
        paddle.set_flags({"FLAGS_cudnn_deterministic": bool(cfg.deterministic)})
    # optimizer state is stored under names that count what the process has made so far
    with paddle.utils.unique_name.guard():
        model, loaders, callback = prepare(cfg, run)
        if resume:
            callback.load(resume)
        if model.session.epoch >= cfg.trainer.max_epochs:  # it was cut off after its last epoch
            return
        try:
            model.fit(
                *loaders,
                epochs=cfg.trainer.max_epochs - model.session.epoch,
                verbose=0,
                callbacks=[callback],
            )
        except (MemoryError, RuntimeError) as error:
            if "out of memory" not in str(error).lower():
                raise
            raise UserError(
                f"The GPU ran out of memory with data.batch_size={cfg.data.batch_size}: halve it and double "
                "trainer.accumulate_grad_batches, or use trainer.precision=bf16-mixed."
            ) from error


def prepare(cfg: DictConfig, run: Run) -> tuple[Model, list[Batches | DeviceBatches], SessionCallback]:
    """Data, network and session of this rank."""
    rank, world_size = paddle.distributed.get_rank(), paddle.distributed.get_world_size()
    train, val = build_dataset(cfg, "train"), build_dataset(cfg, "val")
    cache = choose(cfg, (train, val))
    run.log.debug("data.cache=%s keeps images in: %s", cfg.data.cache, cache)
    train, val = keep_decoded(train, cache), keep_decoded(val, cache)
    paddle.seed(cfg.seed)
    network = build_network(cfg, train)
    splits = ((train, "train"), (val, "val"))
    loaders = [build_batches(build_loader(cfg, split, kind, rank, world_size), cache) for split, kind in splits]
    session = Session(cfg, run, len(loaders[0]), lambda losses: paddle.stack(list(losses)).tolist())
    model = Model(cfg, network, session, train)
    return model, loaders, SessionCallback(cfg, model, train, loaders[0].loader)


def predict(cfg: DictConfig, checkpoint: Path, split: str) -> list[Any]:
    """What the task keeps of the predictions for a split, under a checkpoint folder's weights, in float32."""
    dataset = build_dataset(cfg, split)
    paddle.set_device("gpu" if use_gpu(cfg) else "cpu")
    network = build_network(cfg, dataset, initial=False)
    weights_from_numpy(network, load_weights(checkpoint / "model.safetensors")[0])
    network.eval()
    collector = Collector(tasks.load(cfg.task), to_numpy)
    with paddle.no_grad():
        for images, *arrays in Batches(build_loader(cfg, dataset, split)):
            collector.add(network(images), arrays)
    return collector.result()[0]


def layers(cfg: DictConfig, dataset: Any) -> list[dict[str, Any]]:
    """The network's layers for `src/kit/report/model_graph.py`, with their shapes for one image of the data set."""
    height, width, channels = tasks.load(cfg.task).image_shape(cfg, dataset)
    return list_layers(build_network(cfg, dataset, initial=False), (1, channels, height, width))
