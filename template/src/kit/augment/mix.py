"""MixUp and CutMix: a batch is mixed with itself in another order, and so are its targets."""

import numpy as np


def mix(
    images: np.ndarray,
    targets: np.ndarray,
    num_classes: int,
    mixup_alpha: float,
    cutmix_alpha: float,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Mix a batch by MixUp or CutMix; where both are on, one of them is drawn for each batch with equal probability.

    Args:
        images: float32 (B, C, H, W), normalised; they are changed in place.
        targets: int64 (B,), below `num_classes`.
        mixup_alpha, cutmix_alpha: the share of the first image is drawn from Beta(alpha, alpha); 0 is off, 1 draws
            every share equally often, and a small alpha draws shares close to 0 or 1.

    Returns:
        The images and float32 (B, num_classes) targets, whose rows sum to 1. With both alphas 0 they are one-hot.
    """
    soft = np.zeros((len(targets), num_classes), np.float32)
    soft[np.arange(len(targets)), targets] = 1
    alphas = [(mixup, mixup_alpha), (cutmix, cutmix_alpha)]
    choices = [(method, alpha) for method, alpha in alphas if alpha > 0]
    if not choices:
        return images, soft
    method, alpha = choices[rng.integers(len(choices))]
    partners = rng.permutation(len(images))
    share = np.float32(method(images, partners, rng.beta(alpha, alpha), rng))
    return images, share * soft + (1 - share) * soft[partners]


def mixup(images: np.ndarray, partners: np.ndarray, share: float, rng: np.random.Generator) -> float:
    """Blend each image with its partner (Zhang et al. 2017, https://arxiv.org/abs/1710.09412); returns `share`."""
    others = images[partners]
    others -= images
    others *= np.float32(1 - share)
    images += others
    return share


def cutmix(images: np.ndarray, partners: np.ndarray, share: float, rng: np.random.Generator) -> float:
    """Paste a box of each partner (Yun et al. 2019, https://arxiv.org/abs/1905.04899).

    The box has the proportions of the image, and its centre may be anywhere: a box at the edge is cut off.

    Returns:
        The share of the pixels that stay.
    """
    height, width = images.shape[2:]
    side = np.sqrt(1 - share)
    (top, bottom), (left, right) = (
        np.clip(np.rint(rng.integers(length) + np.array([-0.5, 0.5]) * length * side), 0, length).astype(int)
        for length in (height, width)
    )
    images[:, :, top:bottom, left:right] = images[partners, :, top:bottom, left:right]
    return 1 - (bottom - top) * (right - left) / (height * width)
