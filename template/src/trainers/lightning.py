"""Train and predict with PyTorch Lightning."""

import logging
import warnings
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from src.kit.catalog import build_dataset
from src.kit.config import UserError
from src.kit.lightning import Batches, choose, list_layers, weights_from_numpy
from src.kit.loading import keep_decoded
from src.kit.run import Run
from src.kit.training import Collector, Session, build_loader, build_network, tasks
from src.kit.weights import load_weights
from src.trainers.lightning_module import Module, to_numpy


def fit(cfg: DictConfig, run: Run, resume: Path | None = None) -> None:
    """Train until `trainer.max_epochs` or an early stop; checkpoints and metrics go into the run folder.

    `resume` is a checkpoint folder to go on from.

    Raises:
        UserError: what Lightning or the machine cannot do, a loss that is not finite, a GPU out of memory.
    """
    quiet()
    train, val = build_dataset(cfg, "train"), build_dataset(cfg, "val")
    trainer = build_trainer(cfg)
    cache = choose(cfg, (train, val), trainer.strategy.root_device, trainer.num_devices)
    run.log.debug("data.cache=%s keeps images in: %s", cfg.data.cache, cache)
    train, val = keep_decoded(train, cache), keep_decoded(val, cache)
    torch.manual_seed(cfg.seed)
    module = Module(cfg, build_network(cfg, train), train, val, cache)
    batches = len(build_loader(cfg, train, "train", world_size=trainer.world_size))
    module.session = Session(cfg, run, batches, lambda losses: torch.stack(list(losses)).tolist())
    checkpoint = resume / "training.ckpt" if resume else None
    try:
        trainer.fit(module, ckpt_path=checkpoint, weights_only=True)
    except torch.cuda.OutOfMemoryError as error:
        raise UserError(
            f"The GPU ran out of memory with data.batch_size={cfg.data.batch_size}: halve it and double "
            "trainer.accumulate_grad_batches, or use trainer.precision=bf16-mixed."
        ) from error
    except MisconfigurationException as error:
        raise UserError(first_sentence(error)) from error


def predict(cfg: DictConfig, checkpoint: Path, split: str) -> list[Any]:
    """What the task keeps of the predictions for a split, under a checkpoint folder's weights, in float32."""
    dataset = build_dataset(cfg, split)
    device = torch.device(f"cuda:{torch.cuda.current_device()}" if use_gpu(cfg) else "cpu")
    network = build_network(cfg, dataset, initial=False)
    weights_from_numpy(network, load_weights(checkpoint / "model.safetensors")[0])
    network.to(device).eval()
    collector = Collector(tasks.load(cfg.task), to_numpy)
    with torch.inference_mode():
        for images, *arrays in Batches(build_loader(cfg, dataset, split), device):
            collector.add(network(images.to(device, non_blocking=True)), arrays)
    return collector.result()[0]


def layers(cfg: DictConfig, dataset: Any) -> list[dict[str, Any]]:
    """The network's layers for `src/kit/report/model_graph.py`, with their shapes for one image of the data set."""
    height, width, channels = tasks.load(cfg.task).image_shape(cfg, dataset)
    return list_layers(build_network(cfg, dataset, initial=False), (1, channels, height, width))


def build_trainer(cfg: DictConfig) -> pl.Trainer:
    """A Lightning trainer that leaves logging, checkpoints and progress to the session.

    Lightning's own do their work every step: with its defaults a 0.6 ms step takes 2.8 times as long.
    """
    keys = cfg.trainer
    if keys.precision == "16-mixed" and not use_gpu(cfg):
        raise UserError("trainer.precision=16-mixed needs a GPU: use bf16-mixed or 32-true on a CPU.")
    try:
        return pl.Trainer(
            max_epochs=keys.max_epochs,
            accelerator=keys.accelerator,
            # on a CPU, devices counts processes, and auto must not start one a core
            devices=keys.devices if isinstance(keys.devices, (int, str)) else list(keys.devices),
            num_nodes=keys.num_nodes,
            strategy=keys.strategy,
            precision=keys.precision,
            gradient_clip_val=keys.gradient_clip_val,
            gradient_clip_algorithm=keys.gradient_clip_algorithm,
            deterministic="warn" if cfg.deterministic else None,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
        )
    except (MisconfigurationException, ValueError, RuntimeError) as error:
        raise UserError(f"Lightning refuses these trainer keys: {first_sentence(error)}") from error


def use_gpu(cfg: DictConfig) -> bool:
    """Whether `trainer.accelerator` leads to a CUDA GPU on this machine."""
    return cfg.trainer.accelerator in ("auto", "gpu") and torch.cuda.is_available()


def first_sentence(error: Exception) -> str:
    """The first sentence of a framework's message, on one line."""
    return " ".join(str(error).split()).split(". ")[0].rstrip(".") + "."


def quiet() -> None:
    """Silence Lightning's banner and its hints that do not apply to arrays batched in memory."""
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    warnings.filterwarnings("ignore", ".*GPU available but not used.*")
    warnings.filterwarnings("ignore", ".*your dataloader is not resumable.*")  # `set_epoch` takes the first batch
