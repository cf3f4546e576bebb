"""Written shards hold exactly the source's samples, for us, for plain tar and for WebDataset; and all or nothing."""

import io
import json
import shutil
import tarfile
from contextlib import contextmanager

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image

from scripts import make_shards
from scripts.make_shards import main
from src.kit.catalog import build_dataset
from src.kit.config.compose import load_config
from src.kit.errors import UserError
from src.kit.loading import ArrayImages, FileImages, Split
from src.kit.shards import parse_size
from src.kit.shards.read import ShardFolder, ShardImages, parse_index, write_shards


def arrays(count: int, size: int = 8, channels: int = 3, classes: int = 5) -> Split:
    pixels = np.random.default_rng(0).integers(0, 256, (count, size, size, channels), dtype=np.uint8)
    return Split(ArrayImages(pixels), np.arange(count) % classes, tuple(f"class {n}" for n in range(classes)))


def write(split: Split, folder, name: str = "train", shard_bytes: int = 100_000):
    write_shards(split, name, folder / name, shard_bytes, np.arange(len(split)), lambda: None)
    return folder / name


def photos(folder, count: int = 24):
    """Files of several formats in class folders, large and small."""
    rng = np.random.default_rng(1)
    for number in range(count):
        suffix = ("jpg", "PNG", "webp", "bmp")[number % 4]
        size = rng.integers(8, 90, 2)
        path = folder / "abc"[number % 3] / f"image {number}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)
    return folder


@pytest.mark.parametrize("channels", [1, 3])
def test_arrays_come_back_bit_for_bit(tmp_path, channels):
    source = arrays(230, channels=channels)
    images = ShardImages(ShardFolder(write(source, tmp_path)), 8)
    assert images.shape == source.images.shape
    assert len(images.source.index.shards) > 3
    order = np.random.default_rng(2).permutation(230)
    assert np.array_equal(images.get(order), source.images.get(order))
    assert np.array_equal(images.targets(), source.targets)


def test_files_are_stored_as_they_are(tmp_path):
    cfg = load_config(["data=image_folder", f"data.root={photos(tmp_path / 'photos').as_posix()}"])
    source = build_dataset(cfg, "train")
    assert isinstance(source.images, FileImages)
    images = ShardImages(ShardFolder(write(source, tmp_path)), 32)
    found = {place: (name, content) for place, name, content in images.read_files(np.arange(len(images)))}
    for place, path in enumerate(source.images.paths):
        assert found[place][1] == path.read_bytes()
        assert found[place][0].endswith(path.suffix.lower())
    small = FileImages(source.images.paths, 32)
    assert np.array_equal(images.get(np.arange(len(images))), small.get(np.arange(len(images))))


def test_plain_tar_reads_them(tmp_path):
    source = arrays(40)
    folder = write(source, tmp_path, shard_bytes=30_000)
    pixels, targets = [], []
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                content = tar.extractfile(member).read()
                if member.name.endswith(".cls"):
                    targets.append(int(content))
                else:
                    pixels.append(np.asarray(Image.open(io.BytesIO(content))))
    assert np.array_equal(np.stack(pixels), source.images.get(np.arange(40)))
    assert targets == source.targets.tolist()


def test_webdataset_reads_them(tmp_path):
    webdataset = pytest.importorskip("webdataset", reason="webdataset is not installed")
    source = arrays(40)
    shards = sorted(map(str, write(source, tmp_path, shard_bytes=30_000).glob("*.tar")))
    assert len(shards) > 1
    samples = list(webdataset.WebDataset(shards, shardshuffle=False).decode("rgb8"))
    assert [int(sample["cls"]) for sample in samples] == source.targets.tolist()
    assert np.array_equal(np.stack([sample["png"] for sample in samples]), source.images.get(np.arange(40)))


def test_shards_have_the_size_that_was_asked_for(tmp_path):
    folder = write(arrays(300), tmp_path, shard_bytes=50_000)
    index = parse_index((folder / "index.json").read_bytes(), "index")
    sizes = [shard.bytes for shard in index.shards]
    assert [(folder / shard.name).stat().st_size for shard in index.shards] == sizes
    assert max(sizes) <= 50_000
    assert min(sizes[:-1]) > 30_000
    assert sum(shard.samples for shard in index.shards) == 300


def test_a_sample_larger_than_a_shard_gets_one_of_its_own(tmp_path):
    images = ShardImages(ShardFolder(write(arrays(3, size=100), tmp_path, shard_bytes=20_000)), 100)
    assert [shard.samples for shard in images.source.index.shards] == [1, 1, 1]
    assert np.array_equal(images.get(np.arange(3)), arrays(3, size=100).images.get(np.arange(3)))


def test_the_same_samples_give_the_same_bytes(tmp_path):
    first, second = (write(arrays(50), tmp_path / name) for name in "ab")
    assert sorted(path.name for path in first.iterdir()) == sorted(path.name for path in second.iterdir())
    for path in first.iterdir():
        assert path.read_bytes() == (second / path.name).read_bytes()


def test_the_script_writes_all_splits_of_a_data_set(tmp_path, capsys):
    out = tmp_path / "made" / "shards"
    main(["data=digits", "--out", str(out), "--shard-size", "100KB"])
    shown = capsys.readouterr().out
    assert "train: 1,259 samples, 29 shards, 2.6 MB" in shown
    assert "data.image_size=8" in shown
    cfg = load_config(["data=shards", f"data.root={out.as_posix()}", "data.image_size=8"])
    for name in ("train", "val", "test"):
        source, written = build_dataset(load_config(["data=digits"]), name), build_dataset(cfg, name)
        assert (written.classes, written.flippable) == (source.classes, False)
        order = np.arange(len(source))
        if name == "train":
            order = np.random.default_rng(42).permutation(order)
        assert np.array_equal(written.images.get(np.arange(len(source))), source.images.get(order))
        assert np.array_equal(written.targets, source.targets[order])
    assert [path.name for path in out.parent.iterdir()] == ["shards"]


def test_shards_are_a_data_set_that_can_be_written_again(tmp_path):
    root = photos(tmp_path / "photos", 40)
    main(["data=image_folder", f"data.root={root.as_posix()}", "--out", str(tmp_path / "once"), "--shard-size", "50KB"])
    main(["data=shards", f"data.root={(tmp_path / 'once').as_posix()}", "--out", str(tmp_path / "twice")])
    once, twice = (ShardImages(ShardFolder(tmp_path / name / "val"), 32) for name in ("once", "twice"))
    assert [file[1:] for file in twice.read_files(np.arange(len(twice)))] != []
    assert {content for _, _, content in once.read_files(np.arange(len(once)))} == {
        content for _, _, content in twice.read_files(np.arange(len(twice)))
    }


def test_the_range_of_more_than_8_bits_is_in_the_index(tmp_path, monkeypatch):
    pixels = np.random.default_rng(0).integers(300, 556, (24, 12, 12)).astype(np.uint16)
    for number, image in enumerate(pixels):
        path = tmp_path / "photos" / "ab"[number % 2] / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    source, out = f"data.root={(tmp_path / 'photos').as_posix()}", tmp_path / "shards"
    main(["data=image_folder", source, "--out", str(out)])
    opened = []
    opening = ShardFolder.open
    monkeypatch.setattr(ShardFolder, "open", lambda self, shard: opened.append(shard) or opening(self, shard))

    def build(name: str, *keys: str) -> Split:
        return build_dataset(
            load_config(["data=shards", f"data.root={out.as_posix()}", "data.image_size=12", *keys]), name
        )

    for name in ("train", "val", "test"):
        files = build_dataset(load_config(["data=image_folder", source, "data.image_size=12"]), name)
        split = build(name)
        assert split.images.reading == files.images.reading
        assert split.images.reading["range"] == pytest.approx([300, 555], abs=4)
        assert not opened
        order = np.random.default_rng(42).permutation(len(files)) if name == "train" else np.arange(len(files))
        assert np.array_equal(split.images.get(np.arange(len(files))), files.images.get(order))
        opened.clear()
    [pair] = build("train", "data.bands=[0]", "data.mean=[0.5]", "data.std=[0.2]").images.reading["range"]
    assert pair == split.images.reading["range"]  # other bands than those written: chosen again
    assert build("val", "data.range=file").images.reading["range"] is None
    older = json.loads((out / "train" / "index.json").read_text("utf-8"))
    del older["reading"]
    (out / "train" / "index.json").write_text(json.dumps(older), "utf-8")
    assert build("train").images.reading == split.images.reading


def test_a_failure_leaves_nothing(tmp_path, monkeypatch):
    root = tmp_path / "photos"
    for name in ("train", "val", "test"):
        photos(root / name)
    (tmp_path / ".out.partial" / "train").mkdir(parents=True)  # a run that was killed left it

    @contextmanager
    def lose_a_file(name, total):
        if name == "val":
            (root / "val" / "b" / "image 4.jpg").unlink()
        yield lambda: None

    monkeypatch.setattr(make_shards, "progress", lose_a_file)
    with pytest.raises(UserError, match=r"Cannot read .*image 4\.jpg"):
        make_shards.main(["data=image_folder", f"data.root={root.as_posix()}", "--out", str(tmp_path / "out")])
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


def test_what_is_there_is_never_overwritten(tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match="exists already: choose another folder for --out, or delete it"):
        main(["data=digits", "--out", str(tmp_path / "out")])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "--out needs the folder to write"),
        (["--out"], "--out needs the folder to write"),
        (["--out", "x", "--shard-size", "large"], "--shard-size must be a size such as 256MB or 20GB, not 'large'"),
        (["--out", "x", "--shard-size", "0"], "--shard-size must be a size"),
        (["--out", "x", "--shard-size", "2KB"], "less than an empty shard's 10,000 bytes"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        main(["data=digits", *options])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "size"), [("256MB", 256_000_000), ("1.5 gb", 1_500_000_000), (4096, 4096), ("7B", 7), ("2TB", 2 * 10**12)]
)
def test_sizes_are_powers_of_a_thousand(text, size):
    assert parse_size(text, "key") == size


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"shards": "x"},
        {"channels": 4},
        {"reading": "x"},
        {"reading": {"range": [5, 5], "bands": None, "background": None}},
        {"reading": {"range": None, "bands": ["red"], "background": None}},
        {"classes": None},
        {"samples": 1},
        {"table": {"name": "t.npy", "bytes": 1, "sha256": "0" * 64, "samples": 1}},
        *(
            {"shards": [{"name": name, "bytes": size, "sha256": checksum, "samples": 40}]}
            for name, size, checksum in [
                ("../train-000000.tar", 1, "0" * 64),
                ("/etc/passwd", 1, "0" * 64),
                ("a\\b.tar", 1, "0" * 64),
                ("..", 1, "0" * 64),
                ("a.tar", 0, "0" * 64),
                ("a.tar", True, "0" * 64),
                ("a.tar", 1, "../../x"),
            ]
        ),
    ],
)
def test_an_index_that_is_none_or_leads_elsewhere_is_refused(tmp_path, change):
    folder = write(arrays(40), tmp_path)
    index = json.loads((folder / "index.json").read_text("utf-8")) | change
    (folder / "index.json").write_text(json.dumps(index), "utf-8")
    with pytest.raises(UserError, match=r"index\.json is no index of shards .*: write them with"):
        ShardFolder(folder)


class Evil:
    def __reduce__(self):
        return (open, ("unpickled", "w"))


@pytest.mark.parametrize("damage", ["pickle", "shape", "target", "block", "size", "short", "gone"])
def test_a_table_of_other_samples_is_refused_and_never_unpickled(tmp_path, monkeypatch, damage):
    monkeypatch.chdir(tmp_path)
    folder = write(arrays(40), tmp_path)
    path = folder / "train-samples.npy"
    table = np.load(path)
    if damage == "pickle":
        np.save(path, np.array([Evil()] * 40, object), allow_pickle=True)
    elif damage == "shape":
        np.save(path, table[:-1])
    elif damage == "short":
        path.write_bytes(path.read_bytes()[:-1])
    elif damage == "gone":
        path.unlink()
    else:
        table[damage][7] = {"target": 5, "block": 0, "size": 2**31}[damage]
        np.save(path, table)
    with pytest.raises(UserError, match=r"train-samples\.npy is not the table of these shards"):
        ShardFolder(folder)
    assert not (tmp_path / "unpickled").exists()


def test_a_folder_without_shards_is_refused(tmp_path):
    cfg = OmegaConf.merge(load_config(["data=shards"]), {"data": {"root": str(tmp_path)}})
    with pytest.raises(UserError, match=r"train holds no shards: write them with `python scripts/make_shards.py"):
        build_dataset(cfg, "train")
    folder = write(arrays(40), tmp_path, shard_bytes=30_000)
    (folder / "train-000001.tar").unlink()
    with pytest.raises(UserError, match=r"lacks 1 of its shards, such as train-000001\.tar: copy them there"):
        build_dataset(cfg, "train")
    shutil.rmtree(folder)
    cfg.data.fold = 1
    with pytest.raises(UserError, match="no folds"):
        build_dataset(cfg, "train")
    cfg.data.fold, cfg.data.group_pattern = None, "patient[0-9]"
    with pytest.raises(UserError, match=r"give data\.group_pattern to scripts/make_shards\.py"):
        build_dataset(cfg, "train")
