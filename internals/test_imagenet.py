"""ImageNet prepared from tiny archives in the publisher's format: a tar of tars, flat photos, MAT-file and labels."""

import hashlib
import io
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from scipy.io import savemat

from src.datasets import imagenet
from src.kit.catalog import build_dataset
from src.kit.catalog.imagenet import prepare_imagenet
from src.kit.catalog.specs import DatasetSpec, find_spec
from src.kit.config.compose import CONFIGS
from src.kit.errors import UserError

# WordNet id, synonyms, children: the numbers of the development kit follow another order than the ids
SYNSETS = [
    ("n03000003", "crane", 0),
    ("n01000001", "tench, Tinca tinca", 0),
    ("n02000002", "crane", 0),
    ("n00000009", "animal", 3),
]
COLOURS = {"n01000001": (250, 0, 0), "n02000002": (0, 250, 0), "n03000003": (0, 0, 250)}
TRAIN = "ILSVRC2012_img_train.tar"
VAL = "ILSVRC2012_img_val.tar"
DEVKIT = "ILSVRC2012_devkit_t12.tar.gz"
TRUTH = [2, 3, 1, 1, 2, 3]  # ILSVRC2012_ID of each validation image


def add(packed: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    packed.addfile(member, io.BytesIO(content))


def jpeg(colour: tuple[int, int, int]) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (30, 20), colour).save(buffer, "JPEG")
    return buffer.getvalue()


def tar(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as packed:
        for name, content in files.items():
            add(packed, name, content)
    return buffer.getvalue()


def mat() -> bytes:
    fields = (
        "ILSVRC2012_ID",
        "WNID",
        "words",
        "gloss",
        "num_children",
        "children",
        "wordnet_height",
        "num_train_images",
    )
    rows = np.empty((len(SYNSETS), 1), dtype=[(field, object) for field in fields])
    for number, (wnid, words, children) in enumerate(SYNSETS, 1):
        values = (number, wnid, words, "a gloss", children, np.arange(children), 0, 1300)
        rows[number - 1, 0] = tuple(np.float64(value) if isinstance(value, int) else value for value in values)
    buffer = io.BytesIO()
    savemat(buffer, {"synsets": rows})
    return buffer.getvalue()


def write_archives(
    root: Path, train: dict[str, bytes] | None = None, val: dict[str, bytes] | None = None
) -> DatasetSpec:
    """The three archives, and ImageNet's table entry with their checksums and counts."""
    root.mkdir(exist_ok=True)
    train = train or {
        f"{wnid}.tar": tar({f"{wnid}_{number}.JPEG": jpeg(colour) for number in range(10)})
        for wnid, colour in COLOURS.items()
    }
    wnids = [SYNSETS[number - 1][0] for number in TRUTH]
    val = val or {f"ILSVRC2012_val_{number:08d}.JPEG": jpeg(COLOURS[wnid]) for number, wnid in enumerate(wnids, 1)}
    (root / TRAIN).write_bytes(tar(train))
    (root / VAL).write_bytes(tar(val))
    with tarfile.open(root / DEVKIT, "w:gz") as packed:
        add(packed, "ILSVRC2012_devkit_t12/data/meta.mat", mat())
        truth = "".join(f"{number}\n" for number in TRUTH).encode()
        add(packed, "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt", truth)
        add(packed, "ILSVRC2012_devkit_t12/readme.txt", b"how to use it")
    spec = find_spec("imagenet")
    sums = {
        part.archive: hashlib.md5((root / part.archive).read_bytes(), usedforsecurity=False).hexdigest()
        for part in spec.files
    }
    files = tuple(replace(part, checksum=f"md5:{sums[part.archive]}") for part in spec.files)
    return replace(spec, files=files, splits={"train": 30, "test": 6})


def configuration(root: Path) -> DictConfig:
    keys = {"root": str(root), "image_size": 16, "val_fraction": 0.2}
    data = OmegaConf.merge(
        *(OmegaConf.load(CONFIGS / "data" / f"{name}.yaml") for name in ("default", "imagenet")), keys
    )
    return OmegaConf.create({"seed": 0, "data": data})


def listing(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_archives_become_folders_whose_labels_are_the_development_kits(tmp_path):
    root = tmp_path / "imagenet"
    prepare_imagenet(root, write_archives(root))
    assert sorted(path.name for path in root.iterdir()) == sorted([TRAIN, VAL, DEVKIT, "synsets.txt", "train", "val"])
    assert len(listing(root / "train")) == 30
    assert (root / "val" / "n01000001" / "ILSVRC2012_val_00000001.JPEG").is_file()  # ID 2 is the second row
    parts = {split: build_dataset(configuration(root), split) for split in ("train", "val", "test")}
    assert {split: len(part) for split, part in parts.items()} == {"train": 24, "val": 6, "test": 6}
    for part in parts.values():
        assert part.classes == ("tench", "crane (n02000002)", "crane (n03000003)")  # in the order of the ids
        images = part.images.get(np.arange(len(part)))
        assert images.shape == (len(part), 16, 16, 3)
        assert images.mean(axis=(1, 2)).argmax(axis=1).tolist() == part.targets.tolist()  # red, green, blue
    seen = [path for split in ("train", "val") for path in parts[split].images.paths]
    assert len(set(seen)) == 30


def test_without_the_archives_it_says_where_they_are(tmp_path):
    with pytest.raises(
        UserError,
        match=r"register at https://image-net.org/.* download ILSVRC2012_img_train.tar, "
        r"ILSVRC2012_img_val.tar, ILSVRC2012_devkit_t12.tar.gz there, put them into .*imagenet",
    ):
        imagenet.download(root=str(tmp_path / "imagenet"))
    assert not (tmp_path / "imagenet").exists()
    with pytest.raises(UserError, match=r"run `python scripts/download.py data=imagenet`"):
        build_dataset(configuration(tmp_path), "train")


def test_only_what_is_missing_is_asked_for(tmp_path):
    spec = write_archives(tmp_path)
    (tmp_path / VAL).rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=rf"download {VAL} there, put it into"):
        prepare_imagenet(tmp_path, spec)
    (tmp_path / "elsewhere").rename(tmp_path / VAL)
    prepare_imagenet(tmp_path, spec)
    for name in (TRAIN, VAL, DEVKIT):
        (tmp_path / name).unlink()
    assert prepare_imagenet(tmp_path, spec) == tmp_path


def test_an_interrupted_run_goes_on(tmp_path, monkeypatch):
    spec = write_archives(tmp_path)
    real, written = Path.write_bytes, []

    def fails_after_17(path: Path, content: bytes) -> int:
        if len(written) == 17:
            raise KeyboardInterrupt
        written.append(path)
        return real(path, content)

    monkeypatch.setattr(Path, "write_bytes", fails_after_17)
    with pytest.raises(KeyboardInterrupt):
        prepare_imagenet(tmp_path, spec)
    assert not (tmp_path / "train").exists()
    assert len(listing(tmp_path / "train.unfinished")) == 17
    monkeypatch.setattr(Path, "write_bytes", lambda path, content: written.append(path) or real(path, content))
    prepare_imagenet(tmp_path, spec)
    assert len(listing(tmp_path / "train")) == 30
    assert len(written) == 30 + 6 + 1  # nothing twice
    assert not list(tmp_path.glob("*.unfinished"))


def test_an_archive_with_another_checksum_is_refused(tmp_path):
    spec = write_archives(tmp_path)
    with (tmp_path / TRAIN).open("r+b") as file:
        file.seek(3000)
        file.write(b"damaged")
    with pytest.raises(UserError, match=rf"{TRAIN} has the checksum md5:\w+ and not its publisher's"):
        prepare_imagenet(tmp_path, spec)
    assert not (tmp_path / "train").exists()


@pytest.mark.parametrize(
    "name", ["../n01000001_9.JPEG", "/n01000001_9.JPEG", "n01000001_9.JPEG/x", "evil.sh", "n01000001_9.JPEG\\..\\x"]
)
def test_nothing_can_leave_the_folder(tmp_path, name):
    inner = tar({"n01000001_0.JPEG": jpeg((0, 0, 0)), name: b"evil"})
    spec = write_archives(tmp_path / "imagenet", train={"n01000001.tar": inner})
    with pytest.raises(UserError, match="was not unpacked, since it holds"):
        prepare_imagenet(tmp_path / "imagenet", spec)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["imagenet"]
    assert not (tmp_path / "imagenet" / "train").exists()


def test_links_and_unknown_classes_are_refused(tmp_path):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as packed:
        link = tarfile.TarInfo("n01000001_0.JPEG")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        packed.addfile(link)
    photo = jpeg((0, 0, 0))
    for train in (
        {"n01000001.tar": buffer.getvalue()},
        {"n09999999.tar": tar({"n09999999_0.JPEG": photo})},
        {"x.JPEG": photo},
    ):
        spec = write_archives(tmp_path, train=train)
        with pytest.raises(UserError, match="was not unpacked"):
            prepare_imagenet(tmp_path, spec)
    spec = write_archives(tmp_path, val={"ILSVRC2012_val_00000007.JPEG": photo})
    with pytest.raises(UserError, match=r"holds 'ILSVRC2012_val_00000007\.JPEG'"):
        prepare_imagenet(tmp_path, spec)


def test_another_number_of_images_is_refused(tmp_path):
    spec = write_archives(tmp_path)
    with pytest.raises(UserError, match="has 30 images and should have 31"):
        prepare_imagenet(tmp_path, replace(spec, splits={"train": 31, "test": 6}))


def test_a_folder_that_lost_a_class_is_named(tmp_path):
    prepare_imagenet(tmp_path, write_archives(tmp_path))
    (tmp_path / "val" / "n02000002").rename(tmp_path / "val" / ".hidden")
    with pytest.raises(UserError, match="2 class folders and should have 3; n02000002 is the first"):
        build_dataset(configuration(tmp_path), "test")
