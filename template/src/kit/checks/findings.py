"""What a check reports (`Kind`, `Finding`) and what it looks at (`Entry`, `Source`, `ImageFiles`).

Paths are relative to the data set's root, with slashes.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from src.kit.errors import UserError
from src.kit.loading import PLAIN, SUFFIXES, Reading, walk

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
Region = tuple[float, float, float, float]  # x1, y1, x2, y2 in pixels of the image after EXIF rotation
IMBALANCE = 10  # report a training split whose largest class is this many times its smallest
MOVE = "Replace the file, or move it away with --quarantine."


class Kind(NamedTuple):
    """An error stops or spoils training, a warning may be intended, a note is good to know."""

    severity: Severity
    title: str
    advice: str


class Finding(NamedTuple):
    """One problem with one file."""

    kind: str  # a key of KINDS
    path: str  # of the image if there is one, else of the file or folder
    sentence: str
    other: str = ""  # the second image of a pair: `path` is a copy of it
    region: Region | None = None  # where in the image

    @property
    def severity(self) -> Severity:
        """The severity of its kind."""
        return KINDS[self.kind].severity


# packages with further checks add their kinds on import
KINDS: dict[str, Kind] = {
    "unreadable": Kind("error", "Unreadable images", MOVE),
    "bomb": Kind("error", "Images too large to decode", "Shrink the file, or move it away with --quarantine."),
    "leak": Kind(
        "error", "Same image in two splits", "Keep it in one split. --quarantine keeps the copy in the test split."
    ),
    "class_only_here": Kind(
        "error", "Classes missing from the training split", "Rename the folder or add training images."
    ),
    "structure": Kind("error", "Folder layout", "Arrange the files as the guide shows."),
    "bands": Kind("error", "Images with other bands", "Choose bands that all images have with data.bands."),
    "damaged": Kind("warning", "Damaged images", "Look at the picture: part of it may be grey or shifted."),
    "wrong_extension": Kind("warning", "Wrong file extension", "Rename the file to match its format."),
    "tiny": Kind("warning", "Tiny images", "They are enlarged more than 8 times. Check that they show enough."),
    "cmyk": Kind("warning", "CMYK images", "Convert them to RGB: colours shift, and many libraries can't read CMYK."),
    "alpha": Kind("warning", "Images with transparency", "Training sees them on data.background: choose what fits."),
    "rotated": Kind("warning", "Images rotated by EXIF", "Training sees the image as shown, not as stored."),
    "animated": Kind("warning", "Animated images, several pages", "Only the first is used, unless data.bands chooses."),
    "duplicate": Kind(
        "warning", "Exact copies within a split", "Keep one: copies count twice, and a random split may separate them."
    ),
    "near_duplicate": Kind(
        "warning", "Near-duplicates within a split", "Keep one, or keep them together with data.group_pattern."
    ),
    "near_leak": Kind("warning", "Near-duplicates in two splits", "Scores may look too good. Keep them in one split."),
    "conflict": Kind("warning", "Same image in two classes", "Decide which class is right."),
    "empty_class": Kind("warning", "Classes without samples", "Add samples or remove the class."),
    "not_an_image": Kind("warning", "Ignored files", "Convert them to JPEG or PNG, or move them away."),
    "no_class": Kind("warning", "Images outside the class folders", "Move them into the folder of their class."),
    "sixteen_bit": Kind("note", "Images of more than 8 bits", "Training reads them in the range of data.range."),
    "palette": Kind("note", "Palette images", "They are converted to RGB."),
    "grey": Kind("note", "Grey images among colour images", "They are converted to RGB."),
    "imbalance": Kind("note", "Imbalanced classes", "Consider data.sampler or loss.class_weights."),
}


class Facts(NamedTuple):
    """What is known about an image file; `problems` are pairs of a finding's kind and its sentence."""

    size: int = 0  # bytes
    digest: bytes = b""  # first 16 bytes of the content's SHA-256
    format: str = ""
    mode: str = ""
    width: int = 0  # as stored
    height: int = 0
    orientation: int = 1  # EXIF orientation; 2 to 8 rotate or mirror the image
    thumb: bytes = b""  # 9 x 9 grey pixels
    problems: tuple[tuple[str, str], ...] = ()

    @property
    def shown(self) -> tuple[int, int]:
        """Width and height after EXIF rotation."""
        return (self.height, self.width) if self.orientation >= 5 else (self.width, self.height)


class Entry(NamedTuple):
    """A sample of the data set."""

    path: str
    split: str  # "train", "val", "test", or "" if the files don't say
    label: str = ""  # its class, if it has exactly one


class Source:
    """The samples of a data set and what was found about them."""

    items = "images"  # what `entries` are
    unit = "images"  # what `counts` counts

    def __init__(self, root: Path) -> None:
        self.root = root
        self.reading: Reading = PLAIN  # how training reads the files
        self.entries: list[Entry] = []
        self.findings: list[Finding] = []
        self.classes: Sequence[str] = ()
        self.counts: dict[str, Counter[str]] = defaultdict(Counter)  # split -> class -> number of samples

    def add(self, kind: str, path: str, sentence: str) -> None:
        """Add a finding."""
        self.findings.append(Finding(kind, path, sentence))

    def check_balance(self) -> None:
        """Report classes without samples, and rare classes in the training split."""
        for split, counts in self.counts.items():
            where = f"The {split} split" if split else "The data set"
            for name in self.classes:
                if counts[name] == 0:
                    self.add("empty_class", name, f"{where} has no {self.unit} of class {name}.")
            present = [(counts[name], name) for name in self.classes if counts[name]]
            if split in ("train", "") and present and max(present)[0] >= IMBALANCE * min(present)[0]:
                (most, frequent), (fewest, rare) = max(present), min(present)
                sentence = f"{where} has {most:,} {self.unit} of {frequent} and {fewest:,} of {rare}."
                self.add("imbalance", split or ".", sentence)


class ImageFiles(Source):
    """A folder of image files. The constructor lists the images; `check` runs once all of them have been decoded."""

    task = ""  # the task the data is checked for, if known
    image_size = 0  # of the network's input, in pixels

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.recount: Callable[[Source], None] | None = None  # corrects `counts` if training cuts the splits itself

    def check(self, facts: Mapping[str, Facts]) -> None:
        """Check everything except the images; `facts` holds every image's by path."""
        self.check_balance()

    def companions(self, path: str) -> list[str]:
        """The files that move with this image."""
        return []

    def rewrite(self, gone: set[str]) -> dict[str, bytes]:
        """New contents for the files that list images, without those in `gone`."""
        return {}

    def relative(self, path: Path) -> str:
        """A path below the root in the form that findings use."""
        return path.relative_to(self.root).as_posix()

    def add_strangers(self, folder: Path, known: Sequence[str] = ()) -> None:
        """Report the files below `folder` that are neither images nor `known`."""
        for path in walk(folder):
            if not path.lower().endswith(SUFFIXES) and (name := self.relative(folder / path)) not in known:
                self.add("not_an_image", name, f"Only {', '.join(SUFFIXES)} are read.")

    def check_balance(self) -> None:
        """As `Source.check_balance`, on the splits that training uses."""
        if self.recount:
            self.recount(self)
        super().check_balance()


def refuse_links(root: Path, paths: Sequence[str]) -> None:
    """Refuse to move files that links lead to out of the data set: others may use them, or never have asked for them.

    Raises:
        UserError: names the folder.
    """
    for folder in dict.fromkeys((root / path).parent for path in paths):
        if not folder.resolve().is_relative_to(root.resolve()):
            raise UserError(
                f"{folder} is a link, or in one, to {folder.resolve()}, outside of the data set, where no file is "
                "moved: check that folder as data.root, or put a copy in the link's place."
            )
