"""What scripts/benchmark_data.py needs of Paddle: the plain pipeline and a bare training step."""

import paddle
from omegaconf import DictConfig, OmegaConf
from paddle.io import DataLoader, Dataset

from src import tasks
from src.datasets.base import Split
from src.datasets.loading.cache import keep_decoded
from src.trainers.builders import build_loader, build_network
from src.trainers.paddle_device import Batches, DeviceBatches, build_batches, choose
from src.trainers.paddle_devices import use_gpu
from src.trainers.paddle_optimizer import build_optimizer
from src.utils.data_benchmark import Pillow


class PillowDataset(Pillow, Dataset):  # type: ignore[misc]
    """Paddle's DataLoader takes nothing but its own base class."""


def plain_loader(cfg: DictConfig, split: Split, workers: int) -> DataLoader:
    """Pillow, Paddle's transforms and a DataLoader with worker processes, as tutorials write it."""
    from paddle.vision import transforms

    size = split.images.shape[0]
    # arrays and not tensors: Paddle's operators may crash in a process that was forked
    steps = [transforms.Resize(size), transforms.CenterCrop(size), transforms.Transpose()]
    constants = ([255 * value for value in OmegaConf.to_object(cfg.data[key])] for key in ("mean", "std"))
    steps.append(transforms.Normalize(*constants))
    return DataLoader(
        PillowDataset(split, transforms.Compose(steps)),
        batch_size=cfg.data.batch_size,
        shuffle=True,
        num_workers=workers,
    )


class Trainer:
    """Forward pass, backward pass and optimizer, without `paddle.Model`."""

    def __init__(self, cfg: DictConfig, split: Split) -> None:
        paddle.set_device("gpu" if use_gpu(cfg) else "cpu")
        self.cfg, self.split = cfg, split
        self.network = build_network(cfg, split)
        self.network.train()
        self.loss = tasks.load_loss(cfg, split.class_counts())
        self.optimizer = build_optimizer(cfg, self.network)
        self.amp = {"16-mixed": "float16", "bf16-mixed": "bfloat16"}.get(cfg.trainer.precision)

    def step(self, batch: list[paddle.Tensor]) -> None:
        """Train on one batch; on a GPU it returns before the work is done."""
        images, targets = batch
        with paddle.amp.auto_cast(enable=self.amp is not None, dtype=self.amp or "float16"):
            logits = self.network(images)
        self.loss(logits, targets).backward()
        self.optimizer.step()
        self.optimizer.clear_grad()

    def wait(self) -> None:
        """Until the GPU has done all."""
        if use_gpu(self.cfg):
            paddle.device.synchronize()

    def synthetic(self) -> list[paddle.Tensor]:
        """A batch of noise on the device: data that cost nothing."""
        height, width, channels = self.split.images.shape
        count = min(self.cfg.data.batch_size, len(self.split))
        return [paddle.randn([count, channels, height, width]), paddle.randint(0, len(self.split.classes), [count])]

    def real(self) -> Batches | DeviceBatches:
        """The batches of the training, kept where `data.cache` says."""
        cache = choose(self.cfg, (self.split,))
        return build_batches(build_loader(self.cfg, keep_decoded(self.split, cache), "train"), cache)
