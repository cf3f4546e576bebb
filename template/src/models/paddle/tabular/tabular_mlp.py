"""A multi-layer perceptron over scaled numbers and embedded categories."""

from collections.abc import Sequence

import paddle
from paddle import nn

from src.kit.paddle import initialise
from src.models.tabular.tabular_sizes import check_hidden, embedding_width


class TabularMLP(nn.Layer):
    """float32 (B, F) -> (B, K): `numeric` numbers, then one code for each of `cardinalities`.

    Each category has a vector of its own, which is learned (Guo and Berkhahn 2016, arXiv 1604.06737).
    """

    def __init__(
        self, numeric: int, cardinalities: Sequence[int], num_outputs: int, hidden: Sequence[int], dropout: float
    ) -> None:
        super().__init__()
        self.numeric = numeric
        widths = [embedding_width(count) for count in cardinalities]
        self.embeddings = nn.LayerList(
            nn.Embedding(count, width) for count, width in zip(cardinalities, widths, strict=True)
        )
        for embedding in self.embeddings:
            nn.initializer.Normal(std=0.1)(embedding.weight)
            with paddle.no_grad():
                embedding.weight[0] = 0.0  # an unknown category says nothing
        layers: list[nn.Layer] = []
        inputs = numeric + sum(widths)
        for outputs in hidden:
            layers += [nn.Linear(inputs, outputs), nn.ReLU(), nn.Dropout(dropout)]
            inputs = outputs
        self.layers = nn.Sequential(*layers, nn.Linear(inputs, num_outputs))

    def forward(self, rows: paddle.Tensor) -> paddle.Tensor:
        rows = rows.flatten(1)
        codes = rows[:, self.numeric :].astype("int64")
        vectors = [embedding(codes[:, place]) for place, embedding in enumerate(self.embeddings)]
        logits: paddle.Tensor = self.layers(paddle.concat([rows[:, : self.numeric], *vectors], axis=1))
        return logits


def tabular_mlp(
    num_classes: int,
    in_channels: int,
    image_size: int = 1,
    cardinalities: Sequence[int] = (),
    hidden: Sequence[int] = (64, 32),
    dropout: float = 0.1,
) -> nn.Layer:
    """float32 (B, F), or (B, F, 1, 1), -> logits (B, K); to predict a number, K is 1.

    The last columns are codes below `cardinalities`, and `hidden` are the widths of the layers between.
    """
    assert image_size == 1, "a row is like an image of one pixel"
    return initialise(
        TabularMLP(in_channels - len(cardinalities), cardinalities, num_classes, check_hidden(hidden), dropout)
    )
