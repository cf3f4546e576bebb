"""Convert a data set with boxes and outlines between the formats coco, yolo and voc:

    python scripts/convert_scenes.py --from coco --to yolo data/mine data/mine_yolo
    python scripts/convert_scenes.py --from voc --to coco --link data/VOC2012 data/voc_coco

All splits go to the new folder TARGET, in the layout that data=coco_folder and data=yolo_folder read. Images are
copied, or hard-linked with --link. The script prints how much the new format could not represent.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src.kit.errors import refuse_url, run_main


def main(argv: list[str]) -> None:
    """Convert, and print what was written and what was lost."""
    formats = ("coco", "voc", "yolo")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--from", dest="before", choices=formats, required=True, help="the format of SOURCE")
    parser.add_argument("--to", dest="after", choices=formats, required=True, help="the format of TARGET")
    parser.add_argument("--link", action="store_true", help="hard-link the images instead of copying them")
    parser.add_argument("source", type=Path, metavar="SOURCE", help="the data set's folder")
    parser.add_argument("target", type=Path, metavar="TARGET", help="a new folder")
    options = parser.parse_args(argv)
    for path in (options.source, options.target):
        refuse_url(path)
    from src.kit.scenes import convert_data_set  # NumPy and Pillow: not needed for --help

    source, target = options.source.expanduser(), options.target.expanduser()
    counts = convert_data_set(source, target, options.before, options.after, options.link)
    print(f"{target} holds the data set in the format {options.after}:")
    for name, count in counts.items():
        print(f"  {count:>9,} {name}")


if __name__ == "__main__":
    run_main(main)
