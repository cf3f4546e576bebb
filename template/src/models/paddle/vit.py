"""Vision transformers (Dosovitskiy et al. 2021, arXiv 2010.11929) whose layers are named as timm's."""

from collections.abc import Callable
from typing import Annotated, Literal

import paddle
from paddle import nn
from paddle.nn import functional, initializer

from src.kit.config import Range, UserError

PRETRAINED = {  # model name -> Hugging Face repository of its ImageNet weights
    "vit_tiny": "timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k",
    "vit_small": "timm/vit_small_patch16_224.augreg_in21k_ft_in1k",
    "vit_base": "timm/vit_base_patch16_224.augreg2_in21k_ft_in1k",
}
LICENCE = "apache-2.0"  # of these weights, as their publisher names it
WIDTHS = {"vit_tiny": 192, "vit_small": 384, "vit_base": 768}
DEPTH = 12
HEAD = 64  # width of an attention head


class VisionTransformer(nn.Layer):
    """float32 (B, C, S, S) -> logits (B, K), from the class token.

    `clip` is the form of OpenAI's CLIP: a normalisation before the blocks, no bias of patches, and a quicker GELU.
    """

    def __init__(
        self, classes: int, channels: int, grid: int, patch: int, width: int, depth: int, drop: float, clip: bool
    ) -> None:
        super().__init__()
        tokens = grid**2 + 1
        normal = initializer.TruncatedNormal(std=0.02)
        self.cls_token = self.create_parameter([1, 1, width], default_initializer=initializer.Normal(std=1e-6))
        self.pos_embed = self.create_parameter([1, tokens, width], default_initializer=normal)
        self.patch_embed = Patches(channels, width, patch, bias=not clip)
        self.drop = nn.Dropout(drop)
        self.norm_pre = normalisation(width, clip) if clip else nn.Identity()
        self.blocks = nn.LayerList([Block(tokens, width, drop, clip) for _ in range(depth)])
        self.norm = normalisation(width, clip)
        self.head = nn.Linear(width, classes)
        for layer in self.sublayers():
            if isinstance(layer, nn.Linear):
                normal(layer.weight)
                initializer.Constant(0.0)(layer.bias)

    def forward(self, images: paddle.Tensor) -> paddle.Tensor:
        patches = self.patch_embed(images)
        first = self.cls_token + patches[:, :1] * 0.0  # one for each image, in exported programs too
        x = self.norm_pre(self.drop(paddle.concat([first, patches], axis=1) + self.pos_embed))
        for block in self.blocks:
            x = block(x)
        return self.head(self.drop(self.norm(x)[:, 0]))


def normalisation(width: int, clip: bool) -> nn.Layer:
    """Layer normalisation with the epsilon that the published weights were trained with."""
    return nn.LayerNorm(width, 1e-5 if clip else 1e-6)


class Patches(nn.Layer):
    """float32 (B, C, S, S) -> (B, N, D): each patch as a vector."""

    def __init__(self, channels: int, width: int, patch: int, bias: bool) -> None:
        super().__init__()
        self.proj = nn.Conv2D(channels, width, patch, stride=patch, bias_attr=None if bias else False)

    def forward(self, images: paddle.Tensor) -> paddle.Tensor:
        return self.proj(images).flatten(2).transpose([0, 2, 1])


class Block(nn.Layer):
    """Attention among the tokens (B, N, D), then two linear layers for each."""

    def __init__(self, tokens: int, width: int, drop: float, clip: bool) -> None:
        super().__init__()
        self.norm1 = normalisation(width, clip)
        self.attn = Attention(tokens, width)
        self.norm2 = normalisation(width, clip)
        self.mlp = Feedforward(width, drop, quick_gelu if clip else functional.gelu)
        self.drop = nn.Dropout(drop)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        x = x + self.drop(self.attn(self.norm1(x)))
        return x + self.mlp(self.norm2(x))


class Attention(nn.Layer):
    """Multi-head self-attention."""

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.tokens, self.width = tokens, width
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        parts = self.qkv(x).reshape([-1, self.tokens, 3, self.width // HEAD, HEAD]).transpose([2, 0, 3, 1, 4])
        query, key, value = parts[0], parts[1], parts[2]
        shares = functional.softmax(query @ key.transpose([0, 1, 3, 2]) * HEAD**-0.5, axis=-1)
        return self.proj((shares @ value).transpose([0, 2, 1, 3]).reshape([-1, self.tokens, self.width]))


class Feedforward(nn.Layer):
    """Two linear layers with an activation between them."""

    def __init__(self, width: int, drop: float, activation: Callable[[paddle.Tensor], paddle.Tensor]) -> None:
        super().__init__()
        self.fc1, self.fc2, self.drop = nn.Linear(width, 4 * width), nn.Linear(4 * width, width), nn.Dropout(drop)
        self.activation = activation

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return self.drop(self.fc2(self.drop(self.activation(self.fc1(x)))))


def quick_gelu(x: paddle.Tensor) -> paddle.Tensor:
    """GELU as OpenAI approximated it."""
    return x * functional.sigmoid(1.702 * x)


def build(
    *,
    classes: int,
    channels: int,
    image_size: int,
    name: Literal["vit_tiny", "vit_small", "vit_base"] = "vit_tiny",
    patch: Annotated[int, Range(min=1)] = 16,
    dropout: Annotated[float, Range(min=0, below=1)] = 0.0,
) -> nn.Layer:
    """Return the network, see `VisionTransformer`.

    Args:
        name: Size: vit_tiny has 5.7 M parameters, vit_small has 22 M, vit_base has 86 M.
        patch: Pixels of a patch's side; published weights have 16.
        dropout: Share of the features dropped in training, before each addition and the last layer.

    Raises:
        UserError: patches larger than the image.
    """
    if patch > image_size:
        raise UserError(f"model.patch={patch} is larger than data.image_size={image_size}: set model.patch=4, say.")
    return VisionTransformer(classes, channels, image_size // patch, patch, WIDTHS[name], DEPTH, dropout, clip=False)
