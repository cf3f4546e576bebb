"""Trainings as Lightning's documentation starts them: default logging, bar and checkpoints.

python benchmarks/plain_lightning.py FOLDER_WITH_THE_IDX_FILES     # one epoch of MNIST, images one by one, an MLP
python benchmarks/plain_lightning.py digits                        # what train.py does by default, pictures included
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
import torchmetrics
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms


class MNIST(Dataset):
    """Images as PIL, transformed one by one, as torchvision's MNIST gives them."""

    def __init__(self, folder: Path, part: str) -> None:
        images = (folder / f"{part}-images-idx3-ubyte").read_bytes()
        labels = (folder / f"{part}-labels-idx1-ubyte").read_bytes()
        self.images = np.frombuffer(images, np.uint8, offset=16).reshape(-1, 28, 28)
        self.labels = np.frombuffer(labels, np.uint8, offset=8)
        self.transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(Image.fromarray(self.images[index])), int(self.labels[index])


class Classifier(pl.LightningModule):
    """An MLP with batch normalisation."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Flatten()]
        for inputs, outputs in ((784, 64), (64, 128), (128, 64)):
            layers += [nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs), nn.ReLU()]
        self.network = nn.Sequential(*layers, nn.Linear(64, 10))
        self.accuracy = torchmetrics.classification.MulticlassAccuracy(10, average="micro")

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        loss = nn.functional.cross_entropy(self.network(batch[0]), batch[1])
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def test_step(self, batch: Any, index: int) -> None:
        self.accuracy(self.network(batch[0]), batch[1])
        self.log("test/accuracy", self.accuracy)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=1e-3)


def digits() -> None:
    """15 epochs of scikit-learn's digits, validated after each, the best weights tested, two pictures drawn."""
    import matplotlib as mpl
    from pytorch_lightning.callbacks import ModelCheckpoint
    from sklearn.datasets import load_digits
    from sklearn.metrics import ConfusionMatrixDisplay
    from torch.utils.data import TensorDataset, random_split

    mpl.use("Agg")
    torch.manual_seed(42)
    images, targets = load_digits(return_X_y=True)
    data = TensorDataset(torch.tensor(images, dtype=torch.float32).view(-1, 1, 8, 8) / 16, torch.tensor(targets))
    train, val, test = (DataLoader(part, 64) for part in random_split(data, [1258, 270, 269]))
    train = DataLoader(train.dataset, 64, shuffle=True)

    class Digits(Classifier):
        def __init__(self) -> None:
            super().__init__()
            layers: list[nn.Module] = []
            for inputs, outputs in ((1, 16), (16, 32), (32, 32)):
                layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]
            self.network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10))

        def validation_step(self, batch: Any, index: int) -> None:
            self.accuracy(self.network(batch[0]), batch[1])
            self.log("val/accuracy", self.accuracy, prog_bar=True)

    with tempfile.TemporaryDirectory() as root:
        best = ModelCheckpoint(monitor="val/accuracy", mode="max")
        trainer = pl.Trainer(max_epochs=15, default_root_dir=root, callbacks=[best], log_every_n_steps=10)
        model = Digits()
        trainer.fit(model, train, val)
        result = trainer.test(model, test, ckpt_path="best", verbose=False)
        for name, loader in (("val", val), ("test", test)):
            answers = torch.cat([model.network(batch[0]).argmax(1) for batch in loader])
            truth = torch.cat([batch[1] for batch in loader])
            ConfusionMatrixDisplay.from_predictions(truth, answers).figure_.savefig(f"{root}/{name}.png")
    print(f"test split, best\n  accuracy {result[0]['test/accuracy']:.4f}", flush=True)


def main(folder: Path) -> None:
    """Train one epoch and print the test accuracy."""
    torch.manual_seed(1)
    with tempfile.TemporaryDirectory() as root:
        trainer = pl.Trainer(max_epochs=1, default_root_dir=root)
        model = Classifier()
        trainer.fit(model, DataLoader(MNIST(folder, "train"), batch_size=64, shuffle=True))
        result = trainer.test(model, DataLoader(MNIST(folder, "t10k"), batch_size=64), verbose=False)
    print(f"test split, last\n  accuracy {result[0]['test/accuracy']:.4f}", flush=True)


if __name__ == "__main__":
    digits() if sys.argv[1] == "digits" else main(Path(sys.argv[1]))
