"""A multi-layer perceptron over scaled numbers, their bins, and embedded categories."""

from collections.abc import Sequence
from typing import Annotated

import torch
from torch import nn

from src.kit.config import Range
from src.kit.tabular import check_hidden, embedding_width, list_bins

# for compress.py: layers that make hidden units > layers that read them
PRUNABLE = ("layers.0 > layers.3", "layers.3 > layers.6", "layers.6 > layers.9", "layers.9 > layers.12")


class TabularMLP(nn.Module):
    """float32 (B, F) -> (B, K): `numeric` numbers, then one code for each of `cardinalities`.

    Each category has a learned embedding (Guo and Berkhahn 2016, arXiv 1604.06737). Beside each number stand how far it
    has come through each of its bins, in [0, 1], so that a layer can bend at their ends as trees split there (Gorishniy
    et al. 2022, arXiv 2203.05556).
    """

    def __init__(
        self,
        numeric: int,
        cardinalities: Sequence[int],
        knots: Sequence[Sequence[float]],
        num_outputs: int,
        hidden: Sequence[int],
        dropout: float,
    ) -> None:
        super().__init__()
        self.numeric = numeric
        bins = list_bins(knots)
        for name, values in zip(("number", "low", "width"), bins, strict=True):  # no weights: they come with the data
            self.register_buffer(name, torch.tensor(values), persistent=False)
        self.bins = len(bins[0])
        widths = [embedding_width(count) for count in cardinalities]
        self.embeddings = nn.ModuleList(
            nn.Embedding(count, width) for count, width in zip(cardinalities, widths, strict=True)
        )
        for embedding in self.embeddings:
            nn.init.normal_(embedding.weight, std=0.1)
            nn.init.zeros_(embedding.weight[0])  # code 0 is an unknown category
        layers: list[nn.Module] = []
        inputs = numeric + self.bins + sum(widths)
        for outputs in hidden:
            layers += [nn.Linear(inputs, outputs), nn.ReLU(), nn.Dropout(dropout)]
            inputs = outputs
        self.layers = nn.Sequential(*layers, nn.Linear(inputs, num_outputs))

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        rows = rows.flatten(1)
        codes = rows[:, self.numeric :].long()
        vectors = [embedding(codes[:, column]) for column, embedding in enumerate(self.embeddings)]
        numbers = [rows[:, : self.numeric]]
        if self.bins:
            numbers.append(((numbers[0][:, self.number] - self.low) / self.width).clamp(0, 1))
        logits: torch.Tensor = self.layers(torch.cat([*numbers, *vectors], dim=1))
        return logits


def build(
    *,
    classes: int,
    channels: int,
    image_size: int,
    cardinalities: Sequence[int],
    knots: Sequence[Sequence[float]],
    piecewise: bool = True,
    hidden: Sequence[int] = (256, 256),
    dropout: Annotated[float, Range(min=0, below=1)] = 0.1,
) -> nn.Module:
    """Return the network: float32 (B, F), or (B, F, 1, 1), -> logits (B, K); K is 1 to predict a number.

    The task supplies `cardinalities`, the numbers of codes of the last columns, and `knots`, the ends of the bins of
    each number.

    Args:
        piecewise: Whether the network sees how far each number has come through each of its bins.
        hidden: Widths of the layers between input and output.
        dropout: Share of the features dropped in training.
    """
    assert image_size == 1, "a row is like an image of one pixel"
    numeric = channels - len(cardinalities)
    return TabularMLP(numeric, cardinalities, knots if piecewise else (), classes, check_hidden(hidden), dropout)
