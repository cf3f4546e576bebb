"""Where a COCO data set's annotation files, images and class maps lie."""

from pathlib import Path

from src.kit.config import UserError
from src.kit.scenes.formats.layout import by_split, folders

BESIDE = "_annotations.coco.json"


def find_coco_splits(root: Path) -> dict[str, tuple[Path, Path, Path | None]]:
    """Split -> its annotation file, its folder of images and its folder of class maps, None where there is none.

    The file is annotations/<split>.json, with names such as instances_train2017.json too; or the only file in
    annotations/; or <split>/_annotations.coco.json. The images are beside it or in <split>/, images/<split>/ or
    images/, the class maps in class_maps/<split>/.
    """
    files = sorted((root / "annotations").glob("*.json"))
    found = by_split(files) or ({"train": files[0]} if len(files) == 1 else {})
    if not found:
        inside = by_split(folder for folder in folders(root) if (folder / BESIDE).is_file())
        found = {split: folder / BESIDE for split, folder in inside.items()}
    if "train" not in found:
        raise UserError(
            f"{root} holds no COCO data set: put the images in {root / 'train'} and the annotations in "
            f"{root / 'annotations' / 'train.json'} (and the same for val and test), or choose another folder."
        )
    splits = {}
    for split, file in found.items():
        name = file.parent.name if file.name == BESIDE else file.stem.removeprefix("instances_")
        places = [root / name, root / split, root / "images" / name, root / "images" / split]
        images = next((place for place in places if place.is_dir()), root / "images")
        maps = next(
            (place for place in (root / "class_maps" / name, root / "class_maps" / split) if place.is_dir()), None
        )
        splits[split] = (file, images, maps)
    return splits
