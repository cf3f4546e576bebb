"""A multi-layer perceptron over scaled numbers and embedded categories."""

from collections.abc import Sequence

import torch
from torch import nn

from src.models.tabular.tabular_sizes import check_hidden, embedding_width


class TabularMLP(nn.Module):
    """float32 (B, F) -> (B, K): `numeric` numbers, then one code for each of `cardinalities`.

    Each category has a vector of its own, which is learned (Guo and Berkhahn 2016, arXiv 1604.06737).
    """

    def __init__(
        self, numeric: int, cardinalities: Sequence[int], num_outputs: int, hidden: Sequence[int], dropout: float
    ) -> None:
        super().__init__()
        self.numeric = numeric
        widths = [embedding_width(count) for count in cardinalities]
        self.embeddings = nn.ModuleList(
            nn.Embedding(count, width) for count, width in zip(cardinalities, widths, strict=True)
        )
        for embedding in self.embeddings:
            nn.init.normal_(embedding.weight, std=0.1)
            nn.init.zeros_(embedding.weight[0])  # an unknown category says nothing
        layers: list[nn.Module] = []
        inputs = numeric + sum(widths)
        for outputs in hidden:
            layers += [nn.Linear(inputs, outputs), nn.ReLU(), nn.Dropout(dropout)]
            inputs = outputs
        self.layers = nn.Sequential(*layers, nn.Linear(inputs, num_outputs))

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        rows = rows.flatten(1)
        codes = rows[:, self.numeric :].long()
        vectors = [embedding(codes[:, place]) for place, embedding in enumerate(self.embeddings)]
        logits: torch.Tensor = self.layers(torch.cat([rows[:, : self.numeric], *vectors], dim=1))
        return logits


def tabular_mlp(
    num_classes: int,
    in_channels: int,
    image_size: int = 1,
    cardinalities: Sequence[int] = (),
    hidden: Sequence[int] = (64, 32),
    dropout: float = 0.1,
) -> nn.Module:
    """float32 (B, F), or (B, F, 1, 1), -> logits (B, K); to predict a number, K is 1.

    The last columns are codes below `cardinalities`, and `hidden` are the widths of the layers between.
    """
    assert image_size == 1, "a row is like an image of one pixel"
    return TabularMLP(in_channels - len(cardinalities), cardinalities, num_classes, check_hidden(hidden), dropout)
