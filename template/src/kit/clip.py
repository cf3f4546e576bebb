"""OpenAI's CLIP for networks of any framework: the published weights, and its text network in NumPy.

Class names become the weights of a classifier's last layer, once, before training. Radford et al. 2021, arXiv
2103.00020, with the names of weights of OpenCLIP's files.
"""

import html
import math
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from src.kit.config import UserError
from src.kit.training import announce_weights
from src.kit.weights import adapt_positions, adapt_stem, download_weights, load_weights

__all__ = ["LICENCE", "PUBLISHED", "Published", "class_prompts", "class_weights", "start_from_clip", "tokenize"]


class Published(NamedTuple):
    """Where a network's weights are, and how large its images' network is; an attention head is 64 wide."""

    repository: str  # on the Hugging Face hub
    patch: int  # pixels of a side
    width: int
    blocks: int
    embedding: int  # width of what images and texts become


PUBLISHED = {  # by OpenAI's names
    "clip-vit-base-patch32": Published("timm/vit_base_patch32_clip_224.openai", 32, 768, 12, 512),
    "clip-vit-base-patch16": Published("timm/vit_base_patch16_clip_224.openai", 16, 768, 12, 512),
    "clip-vit-large-patch14": Published("timm/vit_large_patch14_clip_224.openai", 14, 1024, 24, 768),
    "clip-vit-large-patch14-336": Published("timm/vit_large_patch14_clip_336.openai", 14, 1024, 24, 768),
}
LICENCE = "apache-2.0"  # of these weights, as their publisher names it
WEIGHTS = "open_clip_model.safetensors"  # both networks in one file
TOKENS = ("openai/clip-vit-base-patch32", "merges.txt")  # the same for all
VISION = (  # OpenCLIP's names, timm's
    ("conv1", "patch_embed.proj"),
    ("class_embedding", "cls_token"),
    ("positional_embedding", "pos_embed"),
    ("transformer.resblocks", "blocks"),
    ("in_proj_", "qkv."),
    ("out_proj", "proj"),
    ("mlp.c_fc", "mlp.fc1"),
    ("mlp.c_proj", "mlp.fc2"),
    ("ln_pre", "norm_pre"),
    ("ln_post", "norm"),
    ("ln_", "norm"),
)
HEAD = 64  # width of an attention head in all of CLIP's networks
AT_ONCE = 64  # prompts
WORD = re.compile(r"'s|'t|'re|'ve|'m|'ll|'d|[^\W\d_]+|\d|(?:[^\s\w]|_)+", re.IGNORECASE)


def class_prompts(prompt: str, class_names: Sequence[str] | None, classes: int) -> list[str]:
    """A text for each class; none without names.

    Raises:
        UserError: a prompt without {}, or other than one name for each class.
    """
    if "{}" not in prompt:
        raise UserError(f"model.prompt={prompt!r} needs {{}} where the name of the class is to stand.")
    if class_names is not None and len(class_names) != classes:
        raise UserError(f"model.class_names has {len(class_names)} names for {classes} classes.")
    return [prompt.replace("{}", each) for each in class_names or ()]


def start_from_clip(name: str, initial: dict[str, np.ndarray], prompts: Sequence[str]) -> dict[str, np.ndarray]:
    """The weights of a classifier that starts from OpenAI's, downloaded.

    Args:
        initial: of the whole network: "vision." with timm's names, and "head.weight" (K, D).
        prompts: a text for each class, which makes the last layer; none leaves it as it is.

    Raises:
        UserError: a download failed.
    """
    announce_weights(PUBLISHED[name].repository, LICENCE)
    arrays = load_weights(download_weights(PUBLISHED[name].repository, WEIGHTS))[0]
    found = adapt_stem(adapt_positions(rename_vision(arrays), initial), initial)
    found["head.weight"] = initial["head.weight"]
    if prompts:
        merges = download_weights(*TOKENS).read_text("utf-8").splitlines()
        found["head.weight"] = class_weights(arrays, merges, prompts)
    return found


def rename_vision(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The images' network, with timm's names and shapes under "vision."."""
    found: dict[str, np.ndarray] = {}
    for place, array in arrays.items():
        if not place.startswith("visual."):
            continue
        name = place.removeprefix("visual.")
        for theirs, ours in VISION:
            name = name.replace(theirs, ours)
        if name == "proj":
            name, array = "head.weight", array.T
            found["vision.head.bias"] = np.zeros(len(array), np.float32)
        missing = {"cls_token": 3, "pos_embed": 3}.get(name, array.ndim) - array.ndim
        found[f"vision.{name}"] = array.reshape((1,) * missing + array.shape).astype(np.float32)
    return found


def class_weights(arrays: Mapping[str, np.ndarray], merges: Sequence[str], prompts: Sequence[str]) -> np.ndarray:
    """The zero-shot classifier: float32 (K, D), of unit length times CLIP's temperature.

    Args:
        arrays: of the text network, under OpenCLIP's names.
        merges: the lines of the tokenizer's merges.txt.
        prompts: a text for each class.
    """
    tokens = tokenize(merges, prompts)
    parts = [embed(arrays, tokens[first : first + AT_ONCE]) for first in range(0, len(tokens), AT_ONCE)]
    found = np.concatenate(parts)
    found *= np.exp(arrays["logit_scale"]) / np.linalg.norm(found, axis=1, keepdims=True)
    return found.astype(np.float32)


def tokenize(merges: Sequence[str], texts: Sequence[str]) -> list[list[int]]:
    """Byte-pair encoding: the numbers of each text's tokens, between those of its start and its end."""
    letters = byte_letters()
    pairs = [tuple(line.split()) for line in merges if line and not line.startswith("#version")]
    rank = {pair: number for number, pair in enumerate(pairs)}
    every = [*letters.values(), *(letter + "</w>" for letter in letters.values()), *("".join(pair) for pair in pairs)]
    number = {token: place for place, token in enumerate(every)}
    found = []
    for text in texts:
        words = WORD.findall(" ".join(html.unescape(text).lower().split()))
        spelt = ["".join(letters[byte] for byte in word.encode()) for word in words]
        tokens = [number[token] for word in spelt for token in split_word(word, rank)]
        found.append([len(every), *tokens, len(every) + 1])
    return found


def split_word(word: str, rank: Mapping[tuple[str, ...], int]) -> list[str]:
    """Join the pairs of a word's letters, those learned first at first, until no known pair is left."""
    parts = [*word[:-1], word[-1] + "</w>"]
    while len(parts) > 1:
        best = min(pairwise(parts), key=lambda pair: rank.get(pair, math.inf))
        if best not in rank:
            break
        joined: list[str] = []
        while parts:
            size = 2 if tuple(parts[:2]) == best else 1
            joined.append("".join(parts[:size]))
            parts = parts[size:]
        parts = joined
    return parts


def byte_letters() -> dict[int, str]:
    """A letter that can be printed for each byte, those that are letters already at first, as in GPT-2."""
    printed = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printed]
    return {byte: chr(byte) for byte in printed} | {byte: chr(256 + place) for place, byte in enumerate(others)}


def embed(arrays: Mapping[str, np.ndarray], tokens: Sequence[Sequence[int]]) -> np.ndarray:
    """The embeddings (K, D) of tokenized prompts; no longer than the longest, as later tokens are not looked at."""
    most = min(max(map(len, tokens)), len(arrays["positional_embedding"]))
    numbers = np.zeros((len(tokens), most), np.int64)
    for row, each in zip(numbers, tokens, strict=True):
        kept = [*each[:-1][: most - 1], each[-1]]
        row[: len(kept)] = kept
    x = arrays["token_embedding.weight"][numbers] + arrays["positional_embedding"][:most]
    hidden = np.triu(np.full((most, most), -np.inf, np.float32), 1)
    for block in range(sum(name.endswith(".ln_1.weight") for name in arrays if name.startswith("transformer."))):
        name = f"transformer.resblocks.{block}."
        x = x + attend(arrays, name + "attn.", normalise(arrays, name + "ln_1", x), hidden)
        inner = linear(arrays, name + "mlp.c_fc", normalise(arrays, name + "ln_2", x))
        x = x + linear(arrays, name + "mlp.c_proj", inner / (1 + np.exp(-1.702 * inner)))
    last = numbers.argmax(axis=1)  # the end has the highest number
    ends = normalise(arrays, "ln_final", x)[np.arange(len(x)), last]
    return np.asarray(ends @ arrays["text_projection"])


def attend(arrays: Mapping[str, np.ndarray], name: str, x: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    """Self-attention of (K, T, W), to what `hidden` (T, T) does not set to minus infinity."""
    count, length, width = x.shape
    joined = x @ arrays[name + "in_proj_weight"].T + arrays[name + "in_proj_bias"]
    query, key, value = joined.reshape(count, length, 3, -1, HEAD).transpose(2, 0, 3, 1, 4)  # (K, heads, T, HEAD)
    scores = query @ key.swapaxes(2, 3) / math.sqrt(HEAD) + hidden
    shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
    mixed = shares / shares.sum(axis=-1, keepdims=True) @ value
    return linear(arrays, name + "out_proj", mixed.swapaxes(1, 2).reshape(count, length, width))


def linear(arrays: Mapping[str, np.ndarray], name: str, x: np.ndarray) -> np.ndarray:
    """A linear layer."""
    return np.asarray(x @ arrays[name + ".weight"].T + arrays[name + ".bias"])


def normalise(arrays: Mapping[str, np.ndarray], name: str, x: np.ndarray) -> np.ndarray:
    """Layer normalisation of the last dimension."""
    centred = x - x.mean(axis=-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5)
    return np.asarray(scaled * arrays[name + ".weight"] + arrays[name + ".bias"])
