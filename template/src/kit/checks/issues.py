"""What a check of a data set can find: every kind with its severity, its rule and what to do about it."""

from typing import Literal, NamedTuple

Severity = Literal["error", "warning", "note"]
Box = tuple[float, float, float, float]  # x1, y1, x2, y2 in pixels of the picture as EXIF turns it


class Kind(NamedTuple):
    """An error stops or spoils a training, a warning may be meant, a note is good to know."""

    severity: Severity
    title: str
    advice: str


class Finding(NamedTuple):
    """One thing that is wrong with one file; paths are relative to the data set's root, with slashes."""

    kind: str  # a key of KINDS
    path: str  # the image where there is one, else the annotation file or the folder
    sentence: str
    other: str = ""  # the second image, of which `path` is a copy
    box: Box | None = None  # where in the image

    @property
    def severity(self) -> Severity:
        """How bad it is."""
        return KINDS[self.kind].severity


MOVE = "Replace the file, or move it away with --quarantine."
MEND = "Mend the annotation, or move the image away with --quarantine."
KINDS: dict[str, Kind] = {
    "unreadable": Kind("error", "Images that cannot be decoded", MOVE),
    "bomb": Kind("error", "Images that are too large to decode", "Shrink the file, or move it away with --quarantine."),
    "leak": Kind("error", "The same image in two splits", "Keep it in one split; --quarantine keeps the test image."),
    "annotation_unreadable": Kind("error", "Annotation files that cannot be read", "Export the file again."),
    "annotation_invalid": Kind("error", "Annotations that cannot be read", MEND),
    "class_unknown": Kind(
        "error",
        "Class ids that the data set does not have",
        "Add the class, mend the annotation, or move the image away with --quarantine.",
    ),
    "class_only_here": Kind(
        "error", "Classes that the training split lacks", "Rename the folder or add training images."
    ),
    "duplicate_id": Kind("error", "Ids that are used twice", "Number the entries anew; every id must be unique."),
    "missing_image": Kind("error", "Annotated images that are not there", "Add the images or drop their annotations."),
    "size_mismatch": Kind("error", "Images of another size than annotated", "Export the annotations for these files."),
    "box_empty": Kind("error", "Boxes of no area", MEND),
    "box_outside": Kind("error", "Boxes outside the image", MEND),
    "polygon_short": Kind("error", "Outlines of fewer than 3 points", MEND),
    "outline_needed": Kind(
        "error", "Objects without the outline that the task needs", "Outline them, or train with task=detection."
    ),
    "structure": Kind("error", "Folders that do not make a data set", "Arrange the files as the guide shows."),
    "box_beyond": Kind("warning", "Boxes that reach beyond the image", "They are clipped: look whether they fit."),
    "outline_missing": Kind(
        "warning", "Objects without an outline, where others have one", "Outline them too, or no outline is used."
    ),
    "class_twice": Kind("warning", "Classes with the same name", "Rename one: results do not tell them apart."),
    "damaged": Kind("warning", "Images with damaged data", "Look at the picture: part of it may be grey or shifted."),
    "wrong_extension": Kind("warning", "Files whose content is another format", "Rename the file to what it holds."),
    "tiny": Kind("warning", "Tiny images", "They would be enlarged more than 8 times: look whether they show enough."),
    "cmyk": Kind("warning", "CMYK images", "Convert them to RGB: colours shift, and many libraries cannot read them."),
    "sixteen_bit": Kind("warning", "16-bit images", "They are read with 8 bits: convert them if the range matters."),
    "alpha": Kind("warning", "Images with transparency", "Transparency is dropped: look at what is underneath."),
    "rotated": Kind("warning", "Images rotated by EXIF", "Boxes must refer to the picture as shown, not as stored."),
    "animated": Kind("warning", "Animated images", "Only the first frame is used."),
    "duplicate": Kind(
        "warning", "Exact copies within a split", "Copies count twice, and a random split may part them: keep one."
    ),
    "near_duplicate": Kind("warning", "Nearly the same image within a split", "Keep one of them, or group them."),
    "near_leak": Kind(
        "warning", "Nearly the same image in two splits", "Scores may be too good: keep them in one split."
    ),
    "conflict": Kind("warning", "The same image in two classes", "Decide which class is right."),
    "unlabelled": Kind("warning", "Images without labels", "Add labels, unless the image is meant as background."),
    "label_without_image": Kind("warning", "Labels without an image", "Add the image or delete the label file."),
    "empty_class": Kind("warning", "Classes without samples", "Add samples or take the class out."),
    "class_gap": Kind("warning", "Class ids with gaps", "Number the classes 0, 1, 2, ... without a gap."),
    "not_an_image": Kind("warning", "Files that are not read", "Convert them to JPEG or PNG, or move them away."),
    "no_class": Kind("warning", "Images outside the class folders", "Put them into the folder of their class."),
    "palette": Kind("note", "Palette images", "They are read as RGB."),
    "grey": Kind("note", "Grey images among colour ones", "They are read as RGB."),
    "category_gap": Kind("note", "Category ids with gaps", "They are numbered anew when they are read."),
    "imbalance": Kind("note", "Unbalanced classes", "See data.sampler and loss.class_weights."),
}
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
