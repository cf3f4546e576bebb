"""CLIP as a classifier: tokens, the text network, weights in OpenCLIP's format from a hub on loopback, a run."""

import copy
import math
import re
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save
from timm.models import _registry, generate_default_cfgs, register_model
from timm.models.vision_transformer import _create_vision_transformer
from torch import nn

from src.kit.clip_lightning import byte_letters, tokenize
from src.kit.config import UserError, load_config
from src.kit.inference import read_card
from src.kit.training import build_model, find_checkpoint, train
from src.kit.training.experiment import build_network
from src.kit.weights import load_weights
from src.models.lightning import clip
from tests.support import hub, model_config

MERGES = ["#version: 0.2", "a t</w>", "c at</w>", "p h", "ph o", "t o</w>", "pho to</w>", "o n", "e </w>", "on e</w>"]
WIDTH, LAYERS, SIDE, PATCH = 64, 2, 32, 16
NAMES = ("cat", "photo", "x")
TOKENS = 512 + len(MERGES) - 1 + 2


def test_words_are_split_as_they_were_learned():
    letters = list(byte_letters().values())
    alone = {letter: number for number, letter in enumerate(letters)}
    start, end = TOKENS - 2, TOKENS - 1
    cat, photo = 512 + MERGES.index("c at</w>") - 1, 512 + MERGES.index("pho to</w>") - 1
    found = tokenize(MERGES, ["  Cat\n photo ", "chat", "cat7_é", ""])
    assert found[0] == [start, cat, photo, end]
    assert found[1] == [start, alone["c"], alone["h"], 512, end], "at</w> was learned before any longer part"
    accented = [*"é".encode()]
    spelt = [letters.index(byte_letters()[accented[0]]), 256 + letters.index(byte_letters()[accented[1]])]
    assert found[2] == [start, cat, 256 + alone["7"], 256 + alone["_"], *spelt, end]
    assert found[3] == [start, end]


class QuickGELU(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(1.702 * x)


def blocks() -> nn.TransformerEncoder:
    layer = nn.TransformerEncoderLayer(WIDTH, WIDTH // 64, 4 * WIDTH, 0, QuickGELU(), batch_first=True, norm_first=True)
    return nn.TransformerEncoder(layer, LAYERS, enable_nested_tensor=False)


class Reference(nn.Module):
    """Both networks of CLIP from PyTorch's own layers, with random weights."""

    def __init__(self) -> None:
        super().__init__()
        self.token, self.place = (nn.Parameter(torch.randn(rows, WIDTH)) for rows in (TOKENS, 77))
        self.text, self.text_end = blocks(), nn.LayerNorm(WIDTH)
        self.stem = nn.Conv2d(3, WIDTH, PATCH, PATCH, bias=False)
        self.first, self.places = nn.Parameter(torch.randn(WIDTH)), nn.Parameter(torch.randn(5, WIDTH))
        self.before, self.vision, self.after = nn.LayerNorm(WIDTH), blocks(), nn.LayerNorm(WIDTH)
        self.text_out, self.vision_out = (nn.Parameter(torch.randn(WIDTH, WIDTH) / 8) for _ in range(2))
        self.scale = nn.Parameter(torch.tensor(2.5))

    def forward(self, images: torch.Tensor, tokens: list[list[int]]) -> torch.Tensor:
        patches = self.stem(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.first.expand(len(images), 1, -1), patches], dim=1) + self.places
        shown = self.after(self.vision(self.before(x))[:, 0]) @ self.vision_out
        said = []
        for each in tokens:  # one at a time, with nothing to pad
            mask = nn.Transformer.generate_square_subsequent_mask(len(each))
            ends = self.text(self.token[each][None] + self.place[: len(each)], mask=mask)
            said.append(self.text_end(ends[0, -1]) @ self.text_out)
        unit = [rows / rows.norm(dim=1, keepdim=True) for rows in (shown, torch.stack(said))]
        return self.scale.exp() * unit[0] @ unit[1].T

    def published(self) -> dict[str, torch.Tensor]:
        """The weights under OpenCLIP's names."""
        names = {"token": "token_embedding.weight", "place": "positional_embedding", "text_end": "ln_final"}
        names |= {"text_out": "text_projection", "scale": "logit_scale", "stem": "visual.conv1"}
        names |= {"first": "visual.class_embedding", "places": "visual.positional_embedding"}
        names |= {"before": "visual.ln_pre", "after": "visual.ln_post", "vision_out": "visual.proj"}
        names |= {"text.layers": "transformer.resblocks", "vision.layers": "visual.transformer.resblocks"}
        inner = {"self_attn": "attn", "norm1": "ln_1", "norm2": "ln_2", "linear1": "mlp.c_fc", "linear2": "mlp.c_proj"}
        found = {}
        for name, array in self.state_dict().items():
            start = next(each for each in sorted(names, key=len, reverse=True) if f"{name}.".startswith(f"{each}."))
            rest = re.sub(r"\b(self_attn|norm[12]|linear[12])\b", lambda part: inner[part[1]], name[len(start) :])
            found[names[start] + rest] = array.contiguous()
        return found


@pytest.fixture
def reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A small CLIP, which timm and a hub on loopback know."""
    tag = {"hf_hub_id": "timm/vit_small_clip.openai", "license": "mit", "num_classes": WIDTH, "classifier": "head"}
    tag |= {"input_size": (3, SIDE, SIDE), "first_conv": "patch_embed.proj", "fixed_input_size": True}

    def vit_small_clip(pretrained: bool = False, **keys):
        shape = {"img_size": SIDE, "patch_size": PATCH, "embed_dim": WIDTH, "depth": LAYERS, "num_heads": WIDTH // 64}
        form = {"pre_norm": True, "norm_layer": "layernorm", "act_layer": "quick_gelu"}
        return _create_vision_transformer("vit_small_clip", pretrained=pretrained, **{**shape, **form, **keys})

    vit_small_clip.__module__ = "timm.models.vision_transformer"
    module = timm.models.vision_transformer
    more = generate_default_cfgs({"vit_small_clip.openai": tag})
    monkeypatch.setattr(module, "default_cfgs", module.default_cfgs | more)
    monkeypatch.setattr(module, "__all__", list(module.__all__))
    for name, held in list(vars(_registry).items()):  # other tests list what timm knows
        if name.startswith("_") and not name.startswith("__") and isinstance(held, dict | set):
            monkeypatch.setattr(_registry, name, copy.deepcopy(held))
    register_model(vit_small_clip)
    monkeypatch.setitem(clip.VISION, "clip-vit-base-patch32", "vit_small_clip")
    torch.manual_seed(0)
    network = Reference().eval()
    weights = {"open_clip_model__safetensors": ("timm/vit_small_clip.openai", save(network.published()))}
    merges = {"merges__txt": ("openai/clip-vit-base-patch32", "\n".join(MERGES).encode())}
    with hub("nothing", b"", tmp_path, monkeypatch, **weights, **merges):
        yield network


def configure(**changes):
    return model_config("lightning", "clip", pretrained=True, **changes)


def test_published_weights_give_the_logits_of_both_networks(reference: Reference):
    names = ["Cat", "photo", "a cat at 7"]
    network = build_model(configure(prompt="photo {}", class_names=names), 3, 3, SIDE).eval()
    images = torch.randn(4, 3, SIDE, SIDE)
    with torch.no_grad():
        expected = reference(images, tokenize(MERGES, [f"photo {name}" for name in names]))
        torch.testing.assert_close(network(images), expected, rtol=1e-4, atol=1e-4)
        assert build_model(configure(class_names=["a", "b"]), 2, 1, 48).eval()(torch.zeros(1, 1, 48, 48)).shape == (
            1,
            2,
        )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt": "a photo"}, "model.prompt='a photo' needs {} where the name of the class is to stand."),
        ({"class_names": ["a", "b"]}, "model.class_names has 2 names for 3 classes."),
        ({"name": "clip-vit-base"}, "model.name must be one of clip-vit-base-patch32, clip-vit-base-patch16,"),
    ],
)
def test_what_cannot_be_meant_is_refused(changes, message):
    with pytest.raises(UserError, match=re.escape(message)):
        build_model(configure(**changes), 3, 3, SIDE)


def test_a_run_starts_from_the_names_of_its_classes(reference: Reference, tmp_path: Path):
    keys = ["model=openai/clip-vit-base-patch32", "data=digits", "trainer=debug", f"output_dir={tmp_path}"]
    cfg = load_config(
        [*keys, "data.image_size=32", "data.classes=['1', '7']", "model.pretrained=true", "model.freeze=[vision]"]
    )
    network = build_network(cfg, ("1", "7"), (SIDE, SIDE, 1), {})
    expected = clip.class_weights(
        {name: array.numpy() for name, array in reference.published().items()},
        MERGES,
        ["a photo of a 1.", "a photo of a 7."],
    )
    assert np.array_equal(network.head.weight.detach().numpy(), expected), "zero-shot"
    assert np.linalg.norm(expected, axis=1) == pytest.approx([math.exp(2.5)] * 2, rel=1e-5)
    run = train(cfg)
    assert read_card(run.path).weights["licence"] == "mit"
    weights = find_checkpoint(run.path, "last") / "model.safetensors"
    trained = load_weights(weights)[0]
    assert np.array_equal(trained["vision.cls_token"], network.vision.cls_token.detach().numpy()), "frozen"
    assert not np.array_equal(trained["head.weight"], expected)
    keys += ["model.name=openai/clip-vit-base-patch32", f"model.weights={weights}"]
    assert build_model(load_config(keys), 2, 1, SIDE).head.weight.shape == (2, WIDTH)
