"""Two parts of a data set as one, for folds that divide both."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from src.kit.config import UserError
from src.kit.scenes.annotations import Annotations
from src.kit.scenes.outlines import Outline
from src.kit.scenes.samples import Scenes


def join(first: Scenes, second: Scenes) -> Scenes:
    """The images of `first`, then those of `second`, which number the same classes alike.

    Raises:
        UserError: one pixel value means different classes in the class maps of the two.
    """
    assert first.classes == second.classes, (first.classes, second.classes)
    joined = Annotations()
    for scenes in (first, second):
        for identifier, number in scenes.annotations.class_ids.items():
            known = joined.class_ids.setdefault(identifier, int(scenes.numbers[number]))
            if known != scenes.numbers[number] and (first.has_class_maps or second.has_class_maps):
                names = first.classes[known], first.classes[scenes.numbers[number]]
                raise UserError(
                    f"The category id {identifier} is {names[0]!r} in the training annotations and {names[1]!r} in "
                    "those of val, so their class maps cannot be joined: give the categories the same ids, or train "
                    "without folds."
                )
        for index in range(len(scenes)):
            record = scenes.record(index)
            image = joined.add_image(record.path, record.image_id, record.size, record.class_map)
            outlines: Sequence[Outline | None] = record.outlines or [None] * len(record.labels)
            for box, label, crowd, outline in zip(record.boxes, record.labels, record.crowd, outlines, strict=True):
                rings = (
                    outline
                    if outline is None or isinstance(outline, Mapping)
                    else [ring.ravel().tolist() for ring in outline]
                )
                joined.add_object(image, box, int(label), bool(crowd), rings)
    return Scenes(joined.finish(Path(first.path(0)).parent), first.classes, first.flippable and second.flippable)
