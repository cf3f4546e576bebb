"""Find copies among images: equal files, and pictures that nearly look alike."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from src.kit.checks.findings import Entry, Facts, Finding
from src.kit.checks.images import THUMB

# Near-duplicates differ in at most MAX_BITS of the 128 comparisons between neighbouring pixels of their thumbnails,
# and by at most MAX_LEVELS grey levels on average after subtracting each thumbnail's mean. On photos this finds 99 % of
# the copies with another size, format or JPEG quality, about half of those cropped by 2 % per side, and no false pair.
MAX_BITS = 7  # of 8 words of 16 bits: with 7 differences at least one word is equal, so sorting by words finds the pair
MAX_LEVELS = 6.0
MIN_SIDE = 32  # pixels; smaller images, such as two handwritten digits, look alike without being copies
MIN_CONTRAST = 4.0  # standard deviation in grey levels
WINDOW = 64  # images with the same word that are compared with each other
KEPT_FIRST = ("test", "val", "train", "")


def find_copies(entries: Sequence[Entry], facts: Sequence[Facts]) -> list[Finding]:
    """Report each copy once, with its original. Across splits, the image in the test split counts as the original."""
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
            sentence = f"It is identical to {original.path} in {original.split or 'no split'}."
            findings.append(Finding("leak", copy.path, sentence, original.path))
        else:
            findings.append(Finding("duplicate", copy.path, f"It is identical to {original.path}.", original.path))
        if copy.label != original.label:
            sentence = f"{copy.path} is {copy.label}, and {original.path} is {original.label}."
            findings.append(Finding("conflict", copy.path, sentence, original.path))
    copies = {finding.path for finding in findings}
    seen = [i for i in order if facts[i].thumb and min(facts[i].width, facts[i].height) >= MIN_SIDE]
    rest = [i for i in seen if entries[i].path not in copies]
    thumbs = np.frombuffer(b"".join(facts[i].thumb for i in rest), np.uint8).reshape(-1, THUMB, THUMB)
    return findings + near_copies([entries[i] for i in rest], thumbs)


def near_copies(entries: Sequence[Entry], thumbs: np.ndarray) -> list[Finding]:
    """Report each image that nearly equals an earlier one; `thumbs` is uint8 (N, 9, 9)."""
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
    """Pairs i < j of nearly equal thumbnails uint8 (N, 9, 9); a pair may come more than once."""
    contrast = thumbs.std(axis=(1, 2)) >= MIN_CONTRAST
    numbers = np.flatnonzero(contrast)
    thumbs = thumbs[numbers]
    words = difference_hash(thumbs)
    for word in range(words.shape[1]):
        order = np.argsort(words[:, word], kind="stable")
        keys = words[order, word]
        positions = np.arange(len(order))
        for step in range(1, WINDOW):
            positions = positions[: np.searchsorted(positions, len(order) - step)]
            positions = positions[keys[positions] == keys[positions + step]]
            if len(positions) == 0:
                break
            i, j = np.sort([order[positions], order[positions + step]], axis=0)
            near = np.bitwise_count(words[i] ^ words[j]).sum(axis=1) <= MAX_BITS
            i, j = i[near], j[near]
            close = mean_difference(thumbs[i], thumbs[j]) <= MAX_LEVELS
            yield from zip(numbers[i[close]].tolist(), numbers[j[close]].tolist(), strict=True)


def difference_hash(thumbs: np.ndarray) -> np.ndarray:
    """Compare each pixel with its left and upper neighbour: (N, 9, 9) -> 128 bits as uint16 (N, 8)."""
    right = thumbs[:, :8, 1:] > thumbs[:, :8, :-1]
    down = thumbs[:, 1:, :8] > thumbs[:, :-1, :8]
    bits = np.concatenate([right.reshape(-1, 64), down.reshape(-1, 64)], axis=1)
    return np.packbits(bits, axis=1).view(np.uint16)


def mean_difference(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Mean absolute difference in grey levels between thumbnails (N, 9, 9), each less its mean: (N,)."""
    gap = left.astype(np.float32) - right
    return np.abs(gap - gap.mean(axis=(1, 2), keepdims=True)).mean(axis=(1, 2))
