"""`pl.Trainer` as the configuration asks for it, its errors as sentences, and predictions of a trained network."""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from src.kit.config import UserError
from src.kit.lightning.callback import to_numpy
from src.kit.lightning.device import Batches
from src.kit.lightning.networks import weights_from_numpy
from src.kit.training import Collector, Experiment, Schedule
from src.kit.weights import load_weights


def build_trainer(cfg: DictConfig, callbacks: Sequence[pl.Callback], logger: Any) -> pl.Trainer:
    """A trainer whose logging, checkpoints and progress are left to `callbacks` and `logger`.

    Lightning's own do their work every step: with its defaults a 0.6 ms step takes 2.8 times as long.

    Raises:
        UserError: keys that Lightning or this machine cannot serve.
    """
    silence()
    keys = cfg.trainer
    if keys.precision == "16-mixed" and not use_gpu(cfg):
        raise UserError("trainer.precision=16-mixed needs a GPU: use bf16-mixed or 32-true on a CPU.")
    options: dict[str, Any] = {
        "max_epochs": keys.max_epochs,
        "accelerator": keys.accelerator,
        "devices": keys.devices if isinstance(keys.devices, (int, str)) else list(keys.devices),
        "num_nodes": keys.num_nodes,
        "strategy": keys.strategy,
        "precision": keys.precision,
        "gradient_clip_val": keys.gradient_clip_val,
        "gradient_clip_algorithm": keys.gradient_clip_algorithm,
        "log_every_n_steps": cfg.log_every_n_steps,
        "deterministic": "warn" if cfg.deterministic else None,
        "callbacks": list(callbacks),
        "logger": logger,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
    }
    extra: Any = OmegaConf.to_container(keys.extra, resolve=True)
    try:
        return pl.Trainer(**options | extra)
    except TypeError as error:
        raise UserError(f"trainer.extra has a key that pl.Trainer does not know: {first_sentence(error)}") from error
    except (MisconfigurationException, ValueError, RuntimeError) as error:
        raise UserError(f"Lightning refuses these trainer keys: {first_sentence(error)}") from error


def build_scheduler(cfg: DictConfig, optimizer: torch.optim.Optimizer, steps: int) -> dict[str, Any]:
    """Optimizer and learning-rate schedule for a plain `pl.Trainer` of `steps` optimizer steps."""
    epochs = max(1, int(cfg.trainer.max_epochs))
    schedule = Schedule(cfg.scheduler, 1.0, max(1, steps // epochs), epochs)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: schedule.lr(step))
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


@contextmanager
def readable_errors(cfg: DictConfig) -> Iterator[None]:
    """Turn a GPU out of memory and Lightning's complaints into one sentence each.

    Raises:
        UserError: one of them happened.
    """
    try:
        yield
    except torch.cuda.OutOfMemoryError as error:
        raise UserError(
            f"The GPU ran out of memory with data.batch_size={cfg.data.batch_size}: halve it and double "
            "trainer.accumulate_grad_batches, or use trainer.precision=bf16-mixed."
        ) from error
    except MisconfigurationException as error:
        raise UserError(first_sentence(error)) from error


def load_network(experiment: Experiment, checkpoint: Path) -> torch.nn.Module:
    """The experiment's network with a checkpoint folder's weights, on the device, in evaluation mode."""
    network: torch.nn.Module = experiment.build_network(initial=False)
    weights_from_numpy(network, load_weights(checkpoint / "model.safetensors")[0])
    return network.to(device_of(experiment.cfg)).eval()


def predict(experiment: Experiment, network: torch.nn.Module, split: str) -> list[Any]:
    """What the task collects from a network's predictions for a split, in float32."""
    device = device_of(experiment.cfg)
    collector = Collector(experiment.task, to_numpy)
    with torch.inference_mode():
        for images, *targets in Batches(experiment.build_loader(split), device):
            collector.add(network(images.to(device, non_blocking=True)), targets)
    return collector.result()[0]


def predict_images(network: torch.nn.Module, images: Any) -> Any:
    """Outputs, a NumPy array, for one batch of normalised images float32 (B, C, H, W)."""
    device = next(network.parameters()).device
    with torch.inference_mode():
        return to_numpy(network(torch.from_numpy(images).to(device)))


def device_of(cfg: DictConfig) -> torch.device:
    """The device that evaluates."""
    return torch.device(f"cuda:{torch.cuda.current_device()}" if use_gpu(cfg) else "cpu")


def use_gpu(cfg: DictConfig) -> bool:
    """Whether `trainer.accelerator` leads to a CUDA GPU on this machine."""
    return cfg.trainer.accelerator in ("auto", "gpu") and torch.cuda.is_available()


def first_sentence(error: Exception) -> str:
    """The first sentence of a framework's message, on one line."""
    return " ".join(str(error).split()).split(". ")[0].rstrip(".") + "."


def silence() -> None:
    """Silence Lightning's banner and its hints that do not apply to arrays batched in memory."""
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    warnings.filterwarnings("ignore", ".*GPU available but not used.*")
    warnings.filterwarnings("ignore", ".*your dataloader is not resumable.*")  # `set_epoch` takes the first batch
    warnings.filterwarnings("ignore", ".*is smaller than the logging interval.*")
    warnings.filterwarnings("ignore", ".*is an instance of `nn.Module` and is already saved.*")
