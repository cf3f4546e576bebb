"""What a prediction leaves behind: predictions.csv and .json, and pictures on a page, for images of one class each."""

import base64
import csv
import io
import json
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from string import Template
from types import TracebackType
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from src.kit.inference import Card
from src.kit.report import TEMPLATE, card, duration, escaped, section, table
from src.kit.storage import write_text

SMALL = 96  # pixels: smaller pictures are enlarged
LARGE = 1280  # pixels of a picture's longer side
THUMBNAIL = 360  # the same, on the page
STYLE = """
.gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(180px, 1fr)); gap: 18px; }
.gallery.wide { grid-template-columns: repeat(auto-fill, minmax(300px, 1fr)); }
.gallery figure { margin: 0; text-align: left; font-size: 13px; }
.gallery img { width: 100%; border-radius: 8px; display: block; }
.gallery img.tiny { image-rendering: pixelated; }
.gallery figcaption { padding-top: 5px; overflow-wrap: anywhere; line-height: 1.35; }
.gallery span { color: var(--soft); }
"""


class Results:
    """A folder that fills while predictions come in; leaving it writes the JSON file and the page.

    An interrupted prediction leaves what it has computed until then.
    """

    columns: ClassVar[tuple[str, ...]] = ("file", "class", "score")
    wide: ClassVar[bool] = False  # whether pictures need room for details

    def __init__(self, folder: Path, description: Card, shown: int) -> None:
        """`shown`: pictures to draw."""
        self.folder, self.card, self.shown = folder, description, shown
        self.records: list[dict[str, Any]] = []
        self.counts: Counter[str] = Counter()
        self.skipped: list[str] = []
        self.figures: list[str] = []
        self.names: set[str] = set()
        self.about: dict[str, Any] = {}

    def __enter__(self) -> "Results":
        self.file = (self.folder / "predictions.csv").open("w", encoding="utf-8", newline="")
        self.rows = csv.DictWriter(self.file, self.columns)
        self.rows.writeheader()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.file.close()
        if self.records:
            self.write()

    def add(self, name: str, item: Any, prediction: dict[str, Any]) -> None:
        """Record the prediction for one sample; `item` is what `Predictor.read` gave."""
        own = name_once(name, self.names)
        if len(self.figures) < self.shown:
            self.figures.append(self.draw(own, name, item, prediction))
        kept = self.keep(own, item, prediction)
        self.records.append({"file": name, **kept})
        for row in self.rows_of(kept):
            self.rows.writerow({"file": name, **{key: rounded(value) for key, value in row.items()}})
            self.counts[row.get("class") or "nothing"] += 1
        self.file.flush()

    def keep(self, own: str, item: Any, prediction: dict[str, Any]) -> dict[str, Any]:
        """What the JSON file says of a sample; `own` names its files."""
        return prediction

    def rows_of(self, kept: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
        """The rows of predictions.csv for one sample."""
        return [{"class": kept["class"], "score": kept["score"]}]

    def draw(self, own: str, name: str, item: Any, prediction: dict[str, Any]) -> str:
        """Write the sample's picture and return it as a part of the page."""
        picture = Image.fromarray(to_rgb(item if isinstance(item, np.ndarray) else item[0]))
        caption = f"<b>{escaped(prediction['class'])}</b> {prediction['score']:.0%}"
        return self.figure(picture, own, caption, name)

    def figure(self, picture: Image.Image, own: str, caption: str, name: str) -> str:
        """Save a picture as pictures/<own>.jpg, and return it, made smaller, with a caption for the page."""
        (self.folder / "pictures").mkdir(exist_ok=True)
        tiny = max(picture.size) < SMALL
        if tiny:
            factor = -(-SMALL // max(picture.size))
            picture = picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
        picture = picture.convert("RGB")
        picture.thumbnail((LARGE, LARGE))
        picture.save(self.folder / "pictures" / f"{own}.jpg", quality=88)
        picture.thumbnail((THUMBNAIL * (1 + self.wide),) * 2)
        content = io.BytesIO()
        picture.save(content, "jpeg", quality=80)
        data = base64.b64encode(content.getvalue()).decode("ascii")
        image = f'<img{" class=tiny" if tiny else ""} alt="{escaped(name)}" src="data:image/jpeg;base64,{data}">'
        label = f'<span title="{escaped(name)}">{escaped("/".join(Path(name).parts[-2:]))}</span>'
        return f"<figure>{image}<figcaption>{caption}<br>{label}</figcaption></figure>"

    def write(self) -> None:
        """Write predictions.json and index.html."""
        write_text(self.folder / "predictions.json", json.dumps(self.records, indent=1, ensure_ascii=False))
        write_text(self.folder / "index.html", self.page())

    def label_next(self, count: int) -> list[Path]:
        """Copy the `count` image files with the lowest scores to label_next/<class>/<this folder's name>/.

        Correcting what a network is least sure of teaches it most (Lewis and Gale 1994, arXiv cmp-lg/9407020). Frames
        of videos are no files and are left out.
        """
        known = [record for record in self.records if Path(record["file"]).is_file()]
        copies: list[Path] = []
        taken: set[str] = set()
        for record in sorted(known, key=lambda record: float(record["score"]))[:count]:
            source = Path(record["file"])
            kind = re.sub(r"[^\w .&()-]|^\.+", "_", record["class"])  # an export's card may come from anybody
            target = self.folder / "label_next" / kind / self.folder.name
            target.mkdir(parents=True, exist_ok=True)
            copies.append(target / f"{name_once(source.name, taken)}{source.suffix}")
            shutil.copyfile(source, copies[-1])
        return copies

    def page(self) -> str:
        """The page: what was found how often, and the pictures."""
        seconds = self.about.get("seconds", 0.0)
        facts = [card(f"{len(self.records):,}", "predicted"), card(str(len(self.counts)), "classes found")]
        facts += [card(f"{len(self.skipped):,}", "not readable")] if self.skipped else []
        facts += [card(duration(seconds), f"{len(self.records) / seconds:,.0f} a second")] if seconds else []
        total = self.counts.total()
        found = [
            {"class": name, "count": count, "share": count / total} for name, count in self.counts.most_common(200)
        ]
        return Template(TEMPLATE.read_text("utf-8")).substitute(
            title="Predictions",
            subtitle=escaped(f"{self.card.task}, {' + '.join(self.about.get('networks', [self.card.model]))}"),
            cards="".join(facts),
            advice=f"<style>{STYLE}</style>",
            sections="\n".join([self.gallery(), section("Classes", table(found)), self.unreadable()]),
        )

    def gallery(self) -> str:
        """The pictures."""
        title = "Pictures" if len(self.figures) == len(self.records) else f"The first {len(self.figures)} pictures"
        grid = f'<div class="gallery{" wide" if self.wide else ""}">{"".join(self.figures)}</div>'
        return section(title, grid if self.figures else "")

    def unreadable(self) -> str:
        """The files that could not be read, and why."""
        return section("Not readable", "".join(f"<p>{escaped(sentence)}</p>" for sentence in self.skipped[:200]))


def to_rgb(pixels: np.ndarray) -> np.ndarray:
    """An image uint8 (H, W, C) to look at, (H, W, 3): its first three bands, or its first one in grey."""
    return pixels[..., :3] if pixels.shape[2] >= 3 else np.repeat(pixels[..., :1], 3, axis=2)


def rounded(value: Any) -> Any:
    """Numbers with six significant digits."""
    return float(f"{value:.6g}") if isinstance(value, float) else value


def name_once(name: str, taken: set[str]) -> str:
    """A file name without suffix for a sample, such as "cat-2" if "cat" is taken already, which it adds to `taken`."""
    last = Path(name).name
    stem = re.sub(r"#(\d+)$", r"-frame-\1", last)  # a frame of a video: clip.mp4#4
    stem = last.rsplit(".", 1)[0] if stem == last else stem
    own, number = stem, 1
    while own.lower() in taken:
        number += 1
        own = f"{stem}-{number}"
    taken.add(own.lower())
    return own


def first_lines(sentences: Sequence[str], most: int = 5) -> str:
    """The first sentences, and how many more there are."""
    more = f"\n  and {len(sentences) - most:,} more" if len(sentences) > most else ""
    return "\n".join(f"  {sentence}" for sentence in sentences[:most]) + more
