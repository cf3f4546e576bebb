"""Predicted boxes, masks and class maps: COCO's formats, PNG maps, and pictures with names."""

import json
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from src.kit.inference import Card
from src.kit.predictions import Results as ClassResults
from src.kit.predictions import find_sources, to_rgb
from src.kit.report import escaped, find_font, readable
from src.kit.scenes import SHOWN_SCORE, class_colour, ink_on
from src.kit.storage import write_text

__all__ = ["Results", "find_sources"]

BLEND = 0.45  # of a mask's colour
NAMED = 3  # objects in a caption
BACKGROUND = "background"
LEAST_SHARE = 0.005  # of the pixels of a class that a caption names


def Results(folder: Path, description: Card, shown: int) -> ClassResults:
    """The results for what the network predicts."""
    kind = MapResults if description.output["kind"] == "class_map" else ObjectResults
    return kind(folder, description, shown)


class ObjectResults(ClassResults):
    """Boxes, with masks or without. coco.json has images, categories and annotations; coco_results.json what COCO's
    tools compare with the truth, with the same numbers."""

    columns: ClassVar[tuple[str, ...]] = ("file", "class", "score", "x1", "y1", "x2", "y2")
    wide: ClassVar[bool] = True

    def keep(self, own: str, item: Any, prediction: dict[str, Any]) -> dict[str, Any]:
        return {"height": item.shape[0], "width": item.shape[1], **prediction}

    def rows_of(self, kept: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
        """A row for each object; one without a class for an image without objects."""
        for each in kept["objects"]:
            corners = dict(zip(self.columns[3:], each["box"], strict=True))
            yield {"class": each["class"], "score": each["score"], **corners}
        if not kept["objects"]:
            yield {}

    def draw(self, own: str, name: str, item: Any, prediction: dict[str, Any]) -> str:
        least = self.card.metrics.get("val", {}).get("threshold", SHOWN_SCORE)  # more would hide the image
        shown = [each for each in prediction["objects"] if each["score"] >= least]
        picture = draw_objects(to_rgb(item), shown, self.card.classes)
        names = [f"{each['class']} {each['score']:.0%}" for each in shown]
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        return self.figure(picture, own, f"<b>{escaped(', '.join(names[:NAMED]) or 'nothing')}</b>{more}", name)

    def write(self) -> None:
        """Write COCO's files too."""
        super().write()
        numbers = {name: number for number, name in enumerate(self.card.classes, 1)}
        images, found = [], []
        for number, record in enumerate(self.records, 1):
            size = {"width": record["width"], "height": record["height"]}
            images.append({"id": number, "file_name": record["file"], **size})
            found += [to_coco(each, number, numbers[each["class"]]) for each in record["objects"]]
        categories = [{"id": number, "name": name} for name, number in numbers.items()]
        whole = [{"id": number, "iscrowd": 0, **each} for number, each in enumerate(found, 1)]
        content = {"images": images, "categories": categories, "annotations": whole}
        write_text(self.folder / "coco.json", json.dumps(content, ensure_ascii=False))
        write_text(self.folder / "coco_results.json", json.dumps(found))


def to_coco(each: Mapping[str, Any], image: int, category: int) -> dict[str, Any]:
    """One object as COCO's results have it."""
    x1, y1, x2, y2 = each["box"]
    row = {"image_id": image, "category_id": category, "bbox": [x1, y1, x2 - x1, y2 - y1], "score": each["score"]}
    area = (x2 - x1) * (y2 - y1)
    if "mask" not in each:
        return {**row, "area": area}
    from pycocotools.mask import area as pixels

    return {**row, "segmentation": each["mask"], "area": float(pixels(each["mask"]))}


class MapResults(ClassResults):
    """Class maps, as maps/<name>.png: palette images whose values are class numbers, which classes.json names."""

    columns: ClassVar[tuple[str, ...]] = ("file", "class", "score", "share", "map")
    wide: ClassVar[bool] = True

    def keep(self, own: str, item: Any, prediction: dict[str, Any]) -> dict[str, Any]:
        (self.folder / "maps").mkdir(exist_ok=True)
        path = self.folder / "maps" / f"{own}.png"
        picture = Image.fromarray(prediction["class_map"]).convert("P")
        picture.putpalette([round(255 * part) for k in range(256) for part in class_colour(k)])
        picture.save(path)
        return {"map": f"maps/{own}.png", "classes": prediction["classes"]}

    def rows_of(self, kept: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
        """A row for each class that an image shows."""
        return [{**each, "map": kept["map"]} for each in kept["classes"]]

    def draw(self, own: str, name: str, item: Any, prediction: dict[str, Any]) -> str:
        classes = self.card.classes
        painted = to_rgb(item).astype(np.float32)
        for each in prediction["classes"]:
            number = classes.index(each["class"])
            if each["class"] != BACKGROUND:
                blend(painted, prediction["class_map"] == number, class_colour(number), BLEND)
        shares = [f"{each['class']} {each['share']:.0%}" for each in prediction["classes"]]
        seen = [each for each in prediction["classes"] if each["class"] != BACKGROUND and each["share"] >= LEAST_SHARE]
        dots = "".join(legend(each["class"], classes) for each in seen[:12])
        return self.figure(
            Image.fromarray(painted.astype(np.uint8)), own, dots or escaped(", ".join(shares[:NAMED])), name
        )

    def write(self) -> None:
        """Write the numbers of the classes too."""
        super().write()
        numbers = dict(enumerate(self.card.classes))
        write_text(self.folder / "maps" / "classes.json", json.dumps(numbers, indent=1, ensure_ascii=False))


def legend(name: str, classes: tuple[str, ...]) -> str:
    """A dot in the class's colour, and its name."""
    red, green, blue = (round(255 * part) for part in class_colour(classes.index(name)))
    return f'<i style="color: rgb({red} {green} {blue})">&#9679;</i> {escaped(name)} '


def draw_objects(image: np.ndarray, objects: list[dict[str, Any]], classes: tuple[str, ...]) -> Image.Image:
    """Draw boxes with names, and masks: the surest objects last, so that they stay on top."""
    painted = image.astype(np.float32)
    for each in objects:
        if "mask" in each:
            from pycocotools.mask import decode

            blend(painted, decode(each["mask"]).astype(bool), class_colour(classes.index(each["class"])), BLEND)
    picture = Image.fromarray(painted.astype(np.uint8))
    scale = max(1.0, 400 / max(picture.size))  # names must stay readable on small images
    picture = picture.resize((round(picture.width * scale), round(picture.height * scale)), Image.Resampling.BILINEAR)
    pen, line = ImageDraw.Draw(picture), max(2, round(max(picture.size) / 320))
    for each in reversed(objects):
        draw_box(pen, [edge * scale for edge in each["box"]], each, class_colour(classes.index(each["class"])), line)
    return picture


def draw_box(pen: ImageDraw.ImageDraw, box: list[float], each: Mapping[str, Any], colour: Any, line: int) -> None:
    """Draw one box and its name, above it or inside if there is no room."""
    fill = tuple(round(255 * part) for part in colour)
    pen.rectangle(box, outline=fill, width=line)
    text, font = f"{readable(each['class'])} {each['score']:.0%}", load_font(each["class"], 6 * line)
    left, top, right, bottom = pen.textbbox((0, 0), text, font=font)
    width, height = right - left + 2 * line, bottom - top + 2 * line
    x = max(0.0, min(box[0], pen.im.size[0] - width))
    y = box[1] - height if box[1] >= height else box[1]
    pen.rectangle((x, y, x + width, y + height), fill=fill)
    pen.text((x + line - left, y + line - top), text, fill=ink_on(colour), font=font)


@cache
def load_font(name: str, size: int) -> Any:
    """A font that has the letters of a class name."""
    return ImageFont.truetype(find_font(name), size)


def blend(painted: np.ndarray, mask: np.ndarray, colour: tuple[float, ...], share: float) -> None:
    """Blend a colour into the pixels of a mask, in place."""
    painted[mask] += share * (255 * np.array(colour, np.float32) - painted[mask])
