"""CLIP as a classifier: tokens, the text network, weights in OpenCLIP's format from a hub on loopback, a run."""

import math
import os
import re
import shlex
import shutil
import subprocess
import sys
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import onnxruntime
import paddle
import pytest
import timm
import torch
from safetensors.torch import save
from torch import nn

from memory_paddle import real_step
from memory_traces import live
from src.kit import clip
from src.kit.clip import byte_letters, tokenize
from src.kit.config import UserError, load_config
from src.kit.inference import read_card
from src.kit.memory.estimate import DataShape
from src.kit.paddle.memory_trace import trace_steps
from src.kit.training import build_model, find_checkpoint, train
from src.kit.training.experiment import build_network
from src.kit.training.exports import export_network
from src.kit.weights import load_weights
from tests.support import hub, model_config

FRAMEWORKS = ["lightning", "paddle"]
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
    """A small CLIP, published in OpenCLIP's file by a hub on loopback."""
    published = clip.Published("timm/small_clip.openai", PATCH, WIDTH, LAYERS, WIDTH)
    monkeypatch.setitem(clip.PUBLISHED, "clip-vit-base-patch32", published)
    torch.manual_seed(0)
    network = Reference().eval()
    weights = {"open_clip_model__safetensors": (published.repository, save(network.published()))}
    merges = {"merges__txt": ("openai/clip-vit-base-patch32", "\n".join(MERGES).encode())}
    with hub("nothing", b"", tmp_path, monkeypatch, **weights, **merges):
        yield network


def configure(framework: str, **changes):
    return model_config(framework, "clip", pretrained=True, **changes)


def logits(framework: str, network: Any, images: torch.Tensor) -> np.ndarray:
    network.eval()
    with torch.no_grad(), paddle.no_grad():
        return network(images if framework == "lightning" else paddle.to_tensor(images.numpy())).numpy()


def test_where_timm_has_the_weights_and_how_large_they_are():
    for name, published in clip.PUBLISHED.items():
        model, larger = re.fullmatch(r"clip-vit-(\w+-\w+?)(-336)?", name).groups()
        model = f"vit_{model.replace('-', '_')}_clip_quickgelu_{336 if larger else 224}"
        known = timm.get_pretrained_cfg(f"{model}.openai")
        assert (known.hf_hub_id, known.license) == (published.repository, clip.LICENCE)
        with torch.device("meta"):
            vision = timm.create_model(model, weight_init="skip")
        sizes = (vision.patch_embed.patch_size[0], vision.embed_dim, len(vision.blocks), vision.num_classes)
        assert sizes == published[1:]
        assert vision.blocks[0].attn.head_dim == clip.HEAD


def test_published_weights_give_the_logits_of_both_networks(reference: Reference):
    names, images = ["Cat", "photo", "a cat at 7"], torch.randn(4, 3, SIDE, SIDE)
    with torch.no_grad():
        expected = reference(images, tokenize(MERGES, [f"photo {name}" for name in names]))
    other = torch.randn(2, 4, 48, 48)
    resized = []
    for framework in FRAMEWORKS:
        network = build_model(configure(framework, prompt="photo {}", class_names=names), 3, 3, SIDE)
        found = logits(framework, network, images)
        np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-4)
        resized.append(logits(framework, build_model(configure(framework, class_names=["a", "b"]), 2, 4, 48), other))
    np.testing.assert_allclose(*resized, rtol=1e-4, atol=1e-4)


def test_what_the_sentence_about_a_failed_download_advises_helps(reference: Reference, tmp_path, monkeypatch):
    fetch, other, here = huggingface_hub.hf_hub_download, tmp_path / "other machine", tmp_path / "here"
    nowhere = partial(fetch.func, endpoint="http://127.0.0.1:9")
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", nowhere)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(here))
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)  # between attempts
    config = configure("lightning", class_names=["a", "b"])
    advice = r"run `(hf download .+)` on another machine and copy (\S+) from its ~/\.cache/huggingface/hub to (.+)\."
    for file in (clip.WEIGHTS, clip.TOKENS[1]):
        with pytest.raises(UserError, match=rf"Cannot download .*{file}") as caught:
            build_model(config, 2, 3, SIDE)
        command, folder, place = re.search(advice, str(caught.value)).groups()
        environment = {**os.environ, "HF_ENDPOINT": fetch.keywords["endpoint"], "HF_HOME": str(other)}
        program, *words = shlex.split(command)  # of this environment, which need not be active
        program = str(Path(sys.executable).with_name(program))
        subprocess.run([program, *words], env=environment, check=True, capture_output=True)
        shutil.copytree(other / "hub" / folder, Path(place) / folder, symlinks=True)
    found = build_model(config, 2, 3, SIDE).state_dict()["vision.cls_token"]
    assert torch.equal(found.flatten(), reference.first)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prompt": "a photo"}, "model.prompt='a photo' needs {} where the name of the class is to stand."),
        ({"class_names": ["a", "b"]}, "model.class_names has 2 names for 3 classes."),
        ({"name": "clip-vit-base"}, "model.name must be one of clip-vit-base-patch32, clip-vit-base-patch16,"),
        ({"name": "clip-vit-base-patch16"}, "clip-vit-base-patch16 needs images of 16 pixels at least: set"),
    ],
)
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_what_cannot_be_meant_is_refused(framework: str, changes, message: str):
    with pytest.raises(UserError, match=re.escape(message)):
        build_model(configure(framework, **changes), 3, 3, 15)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_run_starts_from_the_names_of_its_classes(framework: str, reference: Reference, tmp_path: Path):
    keys = [f"framework={framework}", "model=openai/clip-vit-base-patch32", "data=digits", f"output_dir={tmp_path}"]
    keys += ["data.image_size=32", "trainer=debug", "tracker=none", "trainer.limit_train_batches=1"]
    keys += ["data.classes=['1', '7']"]
    cfg = load_config([*keys, "model.pretrained=true", "model.freeze=[vision]"])
    network = build_network(cfg, ("1", "7"), (SIDE, SIDE, 1), {})
    before = import_module(f"src.kit.{framework}").weights_to_numpy(network)
    published = {name: array.numpy() for name, array in reference.published().items()}
    expected = clip.class_weights(published, MERGES, ["a photo of a 1.", "a photo of a 7."])
    assert np.array_equal(before["head.weight"], expected), "zero-shot"
    assert np.linalg.norm(expected, axis=1) == pytest.approx([math.exp(2.5)] * 2, rel=1e-5)
    run = train(cfg)
    assert read_card(run.path).weights["licence"] == clip.LICENCE
    weights = find_checkpoint(run.path, "last") / "model.safetensors"
    trained = load_weights(weights)[0]
    assert {name for name in before if not np.array_equal(trained[name], before[name])} == {"head.weight"}, "frozen"
    for other in FRAMEWORKS:
        changes = [f"framework={other}", f"model.weights={weights}", "model.lora=2", "model.class_names=[a, b, c]"]
        larger = build_model(load_config([*keys, *changes]), 3, 1, 48)
        assert larger.vision.pos_embed.shape[1] == 10, "as for any other network of both"


def test_paddles_network_is_exported_and_its_memory_estimated(reference: Reference, tmp_path: Path):
    network = build_model(configure("paddle", class_names=["a", "b"]), 2, 1, SIDE)
    network.eval()
    export_network(network, "paddle", (1, SIDE, SIDE), tmp_path)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    for batch in (1, 5):
        images = torch.randn(batch, 1, SIDE, SIDE)
        found = session.run(None, {"input": images.numpy()})[0]
        np.testing.assert_allclose(found, logits("paddle", network, images), rtol=1e-4, atol=1e-4)
    cfg = load_config(["framework=paddle", "model=clip", "trainer.accelerator=cpu"])
    shape = DataShape(classes=10, channels=3, image_size=SIDE, images=100)
    series, kinds = live(trace_steps(cfg, shape, (7, 14))[0])
    parameters, forward, backward = real_step(cfg, shape, 7)
    assert parameters == series[kinds.index("data") - 1]
    before = series[: kinds.index("gradients")]
    assert min(before, key=lambda size: abs(size - forward)) == pytest.approx(forward, rel=5e-3)
    assert min(series, key=lambda size: abs(size - backward)) == pytest.approx(backward, abs=64)
