"""Images with boxes, masks or class maps, without a framework: letterboxed for the network, and its outputs undone.

`input` of the card: shape [C, S, S], mean and std, flippable, pixels, the `Reading` of files, and rectangular, if each
batch is only as high and wide as it must be. `output`: kind "boxes", "masks" (of `side` pixels, stretched over their
boxes) or "class_map"; for objects also score, the least that is reported.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from src.kit.inference import (
    PLAIN,
    Batch,
    Card,
    Place,
    Size,
    View,
    check_pixels,
    existing,
    image_features,
    normalize,
    open_rgb,
    resize_bands,
    shift,
    size_of,
    softmax,
)

__all__ = [
    "GREY",
    "cut",
    "decode",
    "describe",
    "encode_mask",
    "features",
    "fuse",
    "join",
    "letterbox_place",
    "paste",
    "place_pixels",
    "prepare",
    "read",
    "rectangle",
    "scaled_size",
    "sure_rows",
    "undo",
    "visible_part",
]

GREY = 114  # outside the image: close to the mean of photos
STRIDE = 32  # which networks divide height and width by
LEAST_SCORE = 0.001  # of rows that are kept at all
EDGE = 2  # pixels: what ends nearer to a tile's inner edge may be cut off
SAME = 0.55  # overlap from which boxes of several networks show the same object


def read(card: Card, source: Path | str | bytes | np.ndarray) -> np.ndarray:
    """Decode a file or its content at full size, or check an array: uint8 (H, W, C).

    Raises:
        UserError: no such file, not an image, or an array of another type or shape.
    """
    if not isinstance(source, np.ndarray):
        return open_rgb(existing(source), card.input.get("pixels") or PLAIN)
    channels = card.input["shape"][0]
    pixels = check_pixels(source, channels)
    return np.repeat(pixels, channels, axis=2) if pixels.shape[2] == 1 else pixels


def prepare(card: Card, items: Sequence[np.ndarray]) -> Batch:
    """Fit images (H, W, C) into the middle of `canvas_of` them and normalise them: float32 (B, C, height, width)."""
    sizes = [size_of(item) for item in items]
    placed = np.empty((len(items), *canvas_of(card, sizes), card.input["shape"][0]), np.uint8)
    for image, pixels, own in zip(placed, items, sizes, strict=True):
        image[:] = place_pixels(pixels, size_of(image), *letterbox_place(*own, size_of(image)))
    return Batch(normalize(placed.transpose(0, 3, 1, 2), card.input["mean"], card.input["std"]), sizes)


def canvas_of(card: Card, sizes: Sequence[Size]) -> Size:
    """Height and width of a batch of images of these sizes: the card's square, or the `rectangle` that holds them."""
    size = card.input["shape"][1]
    return rectangle(sizes, size) if card.input.get("rectangular") else (size, size)


def rectangle(sizes: Sequence[Size], size: int) -> Size:
    """Height and width of the smallest part of a square of `size` pixels that holds images fitted into it.

    Both are multiples of 32, or `size`, as at least one of them is: images are as large as in the square.
    """
    extents = np.array([scaled_size(*own, size, 1.0) for own in sizes])
    width, height = (-(-extents.max(axis=0) // STRIDE) * STRIDE).clip(max=size).tolist()
    return height, width


def scaled_size(height: int, width: int, size: int, zoom: float) -> tuple[int, int]:
    """Width and height of an image after its longer side became `zoom` times `size`."""
    ratio = zoom * size / max(height, width)
    return max(1, round(width * ratio)), max(1, round(height * ratio))


def letterbox_place(height: int, width: int, canvas: Size) -> tuple[tuple[int, int], tuple[int, int]]:
    """(width, height) of an image as long as `canvas` = (height, width), and (x, y) of its upper left corner there."""
    extent = scaled_size(height, width, max(canvas), 1.0)
    return extent, ((canvas[1] - extent[0]) // 2, (canvas[0] - extent[1]) // 2)


def place_pixels(image: np.ndarray, canvas: Size, extent: tuple[int, int], corner: tuple[int, int]) -> np.ndarray:
    """Resize an image to `extent` = (width, height) and put its upper left corner at `corner` = (x, y) of a canvas.

    The rest of `canvas` = (height, width) is grey. What reaches beyond it is cut off.

    Returns:
        uint8 (*canvas, C)
    """
    height, width = image.shape[:2]
    left, top, right, bottom = visible_part(canvas, extent, corner)
    scale, offset = np.tile(np.array(extent) / (width, height), 2), np.tile(corner, 2)
    seen = (([left, top, right, bottom] - offset) / scale).clip(0, [width, height] * 2)  # in the source's pixels
    placed = np.full((*canvas, image.shape[2]), GREY, np.uint8)
    placed[top:bottom, left:right] = resize_bands(image, (right - left, bottom - top), tuple(seen))
    return placed


def visible_part(canvas: Size, extent: tuple[int, int], corner: tuple[int, int]) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of what `canvas` = (height, width) shows of an image placed there."""
    left, top = (max(0, start) for start in corner)
    right, bottom = (
        min(side, start + length) for side, start, length in zip(canvas[::-1], corner, extent, strict=True)
    )
    return left, top, right, bottom


def decode(card: Card, outputs: np.ndarray, sizes: Sequence[Size]) -> list[np.ndarray]:
    """Undo the letterbox.

    Args:
        outputs: rows (B, D, 6 or more): x1, y1, x2, y2 in pixels of `canvas_of` the batch, score, class number, and a
            mask's values; or logits (B, K, height, width).

    Returns:
        For each image rows float32 (M, 6 or more) in its own pixels, best first; or the probability of each class,
        float32 (K, h, w), in the part of the canvas that the image fills.
    """
    canvas = canvas_of(card, sizes)
    places = [letterbox_place(*own, canvas) for own in sizes]
    if card.output["kind"] == "class_map":
        return [crop_probabilities(logits, place) for logits, place in zip(outputs, places, strict=True)]
    results = []
    for rows, (height, width), (extent, corner) in zip(outputs, sizes, places, strict=True):
        kept = sure_rows(rows, LEAST_SCORE).astype(np.float32)
        kept = kept[np.argsort(-kept[:, 4], kind="stable")]
        scale = np.tile(np.array((width, height)) / extent, 2)
        kept[:, :4] = ((kept[:, :4] - np.tile(corner, 2)) * scale).clip(0, [width, height] * 2)
        results.append(kept[(kept[:, 2:4] > kept[:, :2]).all(axis=1)])
    return results


def sure_rows(rows: np.ndarray, least: float) -> np.ndarray:
    """The rows (M, 6 or more) whose score is at least this."""
    return rows[rows[:, 4] >= least]


def crop_probabilities(logits: np.ndarray, place: tuple[tuple[int, int], tuple[int, int]]) -> np.ndarray:
    """Logits (K, H, W) -> probabilities float32 (K, h, w) of the image's part."""
    (width, height), (left, top) = place
    part = logits[:, top : top + height, left : left + width]
    return softmax(part.reshape(1, len(part), -1))[0].reshape(part.shape)


def undo(card: Card, outputs: np.ndarray, view: View, width: int) -> np.ndarray:
    """Outputs for a mirrored or moved batch of so many pixels' width -> outputs for the batch itself."""
    if card.output["kind"] == "class_map":
        back = shift(outputs, -view.right, -view.down)
        return back[..., ::-1] if view.mirror else back
    rows = outputs.copy()
    rows[..., :4] -= np.tile([view.right, view.down], 2)
    if view.mirror:
        rows[..., 0], rows[..., 2] = width - rows[..., 2], width - rows[..., 0].copy()
        side = card.output.get("side", 0)
        rows[..., 6:] = rows[..., 6:].reshape(*rows.shape[:-1], side, side)[..., ::-1].reshape(rows[..., 6:].shape)
    return rows


def cut(image: np.ndarray, side: int) -> tuple[list[Place], list[np.ndarray]]:
    """Cut an image (H, W, 3) into tiles of `side` pixels that overlap by a quarter or more, after the whole image.

    The whole image, made smaller, shows the objects that are larger than a tile.
    """
    height, width = size_of(image)
    whole = Place(0, 0, width, height)
    if max(height, width) <= side:
        return [whole], [image]
    corners = [(x, y) for y in starts(height, side) for x in starts(width, side)]
    places = [whole, *(Place(x, y, min(x + side, width), min(y + side, height)) for x, y in corners)]
    return places, [image[place.top : place.bottom, place.left : place.right] for place in places]


def starts(length: int, side: int) -> list[int]:
    """Where tiles begin that cover `length` pixels evenly."""
    count = 1 + max(0, -(-4 * (length - side) // (3 * side)))
    last = max(0, length - side)
    return [round(k * last / max(1, count - 1)) for k in range(count)]


def join(card: Card, results: Sequence[np.ndarray], places: Sequence[Place], size: Size) -> dict[str, Any]:
    """Describe an image by its tiles.

    Of the objects that overlap by more than half of the smaller one, the surest is kept, but those that an inner edge
    of a tile cuts off come last. A pixel's class is that of the tile whose centre is nearest.
    """
    if card.output["kind"] == "class_map":
        return join_maps(card, results, places, size)
    rows, cut_off = [], []
    for result, place in zip(results, places, strict=True):
        height, width = place.bottom - place.top, place.right - place.left
        inner = np.array([place.left > 0, place.top > 0, place.right < size[1], place.bottom < size[0]])
        near = np.concatenate([result[:, :2] < EDGE, result[:, 2:4] > np.array([width, height]) - EDGE], axis=1)
        moved = result.copy()
        moved[:, :4] += np.tile(place[:2], 2)
        rows.append(moved)
        cut_off.append((near & inner).any(axis=1))
    found, last = np.concatenate(rows), np.concatenate(cut_off)
    kept: list[int] = []
    for k in np.lexsort((-found[:, 4], last)):
        same = [other for other in kept if found[other, 5] == found[k, 5]]
        if not same or covered(found[k, :4], found[same, :4]).max() <= 0.5:
            kept.append(int(k))
    chosen = found[kept]
    return describe(card, chosen[np.argsort(-chosen[:, 4], kind="stable")], size)


def fuse(card: Card, results: Sequence[np.ndarray]) -> np.ndarray:
    """The mean of class maps; or weighted boxes fusion (Solovyev et al. 2021, arXiv 1910.13302) of objects."""
    if len(results) == 1:
        return results[0]
    if card.output["kind"] != "class_map":
        return fuse_rows(results)
    shape = size_of(results[0][0])
    return np.asarray(np.mean([resize_maps(result, shape) for result in results], axis=0, dtype=np.float32))


def fuse_rows(results: Sequence[np.ndarray]) -> np.ndarray:
    """Average the rows that show the same object, weighted by their scores.

    A score is the mean over all results, so an object that only some of them show becomes less certain.
    """
    rows = np.concatenate(results)
    clusters: list[np.ndarray] = []
    space = np.zeros(rows.shape, np.float32)
    for row in rows[np.argsort(-rows[:, 4], kind="stable")]:
        overlaps = overlap(row[:4], space[: len(clusters), :4]) * (space[: len(clusters), 5] == row[5])
        best = int(overlaps.argmax()) if clusters else -1
        if best >= 0 and overlaps[best] > SAME:
            clusters[best] = np.concatenate([clusters[best], row[None]])
            space[best] = np.average(clusters[best], axis=0, weights=clusters[best][:, 4])
            space[best, 5] = row[5]  # a mean of equal numbers is rounded
        else:
            space[len(clusters)] = row
            clusters.append(row[None])
    for row, members in zip(space, clusters, strict=False):  # what is left of the space stays empty
        row[4] = members[: len(results), 4].sum() / len(results)
    return space[np.argsort(-space[: len(clusters), 4], kind="stable")]


def overlap(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union of a box (4,) and others (M, 4): (M,)."""
    inner = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    shared = inner.clip(0).prod(axis=1)
    areas = (others[:, 2:] - others[:, :2]).prod(axis=1) + (box[2:] - box[:2]).prod()
    return np.asarray(shared / np.maximum(areas - shared, 1e-9))


def covered(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The part of the smaller one of a box (4,) and each other (M, 4) that both share: (M,)."""
    inner = np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2])
    areas = np.minimum((others[:, 2:] - others[:, :2]).prod(axis=1), (box[2:] - box[:2]).prod())
    return np.asarray(inner.clip(0).prod(axis=1) / np.maximum(areas, 1e-9))


def describe(card: Card, result: np.ndarray, size: Size) -> dict[str, Any]:
    """{"objects": [{"class", "score", "box": [x1, y1, x2, y2]}]} in pixels, best first.

    With masks each also has "mask", COCO's run-length code {"size": [height, width], "counts": text}.

    Or {"class_map": uint8 (height, width), "classes": [{"class", "score", "share"}]} of the classes that the map
    shows, largest first: the mean probability of their pixels and their share of the image.
    """
    if card.output["kind"] == "class_map":
        return summarise(card, *likeliest_classes(result, size))
    objects = []
    for row in sure_rows(result, card.output["score"]):
        found = {"class": card.classes[int(row[5])], "score": float(row[4]), "box": row[:4].tolist()}
        if card.output["kind"] == "masks":
            side = card.output["side"]
            found["mask"] = encode_mask(paste(row[6:].reshape(side, side), row[:4], size))
        objects.append(found)
    return {"objects": objects}


def features(card: Card, batch: Batch) -> dict[str, np.ndarray]:
    """Those of images, and width / height and pixels of the photos."""
    height, width = np.array(batch.sizes, np.float64).T
    return image_features(card, batch) | {"width / height": width / height, "pixels": width * height}


def join_maps(card: Card, results: Sequence[np.ndarray], places: Sequence[Place], size: Size) -> dict[str, Any]:
    """The class map of an image, each pixel from the tile whose centre is nearest."""
    best, scores = np.zeros(size, np.uint8), np.zeros(size, np.float32)
    nearest = np.full(size, np.inf, np.float32)
    tiles = list(zip(results, places, strict=True))
    for result, place in tiles[1:] or tiles:  # the first one is the whole image
        part = np.s_[place.top : place.bottom, place.left : place.right]
        rows = np.abs(np.arange(place.top, place.bottom) + 0.5 - (place.top + place.bottom) / 2)
        columns = np.abs(np.arange(place.left, place.right) + 0.5 - (place.left + place.right) / 2)
        distance = np.maximum(rows[:, None], columns).astype(np.float32)
        closer = distance < nearest[part]
        classes, likeliest = likeliest_classes(result, size_of(closer))
        best[part][closer], scores[part][closer] = classes[closer], likeliest[closer]
        nearest[part][closer] = distance[closer]
    return summarise(card, best, scores)


def likeliest_classes(probabilities: np.ndarray, size: Size) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (K, h, w) -> the likeliest class of each pixel, uint8 (H, W), and its probability."""
    best = np.zeros(size, np.uint8)
    likeliest = np.full(size, -1, np.float32)
    for number, layer in enumerate(probabilities):  # one class at a time: all of a photo's would take gigabytes
        resized = resize_maps(layer[None], size)[0]
        better = resized > likeliest
        best[better], likeliest[better] = number, resized[better]
    return best, likeliest


def summarise(card: Card, best: np.ndarray, likeliest: np.ndarray) -> dict[str, Any]:
    """Name the classes of a class map uint8 (H, W), whose pixels have these probabilities."""
    counts = np.bincount(best.ravel(), minlength=len(card.classes))
    sums = np.bincount(best.ravel(), likeliest.ravel(), minlength=len(card.classes))
    classes = [
        {"class": card.classes[k], "score": float(sums[k] / counts[k]), "share": float(counts[k] / best.size)}
        for k in np.argsort(-counts, kind="stable")
        if counts[k]
    ]
    return {"class_map": best, "classes": classes}


def resize_maps(maps: np.ndarray, size: Size) -> np.ndarray:
    """Resize float32 (K, h, w) to `size` = (height, width), bilinearly."""
    if maps.shape[1:] == size:
        return maps
    images = [Image.fromarray(np.ascontiguousarray(each, np.float32)) for each in maps]
    return np.stack([np.asarray(each.resize((size[1], size[0]), Image.Resampling.BILINEAR)) for each in images])


def paste(mask: np.ndarray, box: np.ndarray, size: Size) -> np.ndarray:
    """Stretch a mask (side, side) of values 0..1 over its box in an image of `size` = (height, width): bool (H, W)."""
    height, width = size
    left, top = np.floor(box[:2]).astype(int).clip(0, (width - 1, height - 1))
    right, bottom = np.ceil(box[2:]).astype(int).clip((left + 1, top + 1), (width, height))
    whole = np.zeros(size, bool)
    whole[top:bottom, left:right] = resize_maps(mask[None], (bottom - top, right - left))[0] > 0.5
    return whole


def encode_mask(mask: np.ndarray) -> dict[str, Any]:
    """COCO's run-length code of a mask bool (H, W), as pycocotools writes it: {"size": [H, W], "counts": text}.

    Runs go down the columns and begin with zeros. From the third on, each is stored as the difference from the last but
    one, in characters of 5 bits.
    """
    changes = np.flatnonzero(np.diff(np.concatenate([[False], mask.ravel(order="F")]).view(np.uint8)))
    runs = np.diff(np.concatenate([[0], changes, [mask.size]])).tolist()
    text = []
    for number, run in enumerate(runs):
        value = run - runs[number - 2] if number > 2 else run
        more = True
        while more:
            bits, value = value & 31, value >> 5
            more = value != -1 if bits & 16 else value != 0
            text.append(chr(bits + 32 * more + 48))
    return {"size": list(mask.shape), "counts": "".join(text)}
