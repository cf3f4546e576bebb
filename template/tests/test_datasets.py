"""The data sets in memory, read from files in their publishers' formats, and their splits."""

import gzip
from pathlib import Path

import numpy as np
import pytest
from omegaconf import DictConfig, OmegaConf
from PIL import Image

from src.kit.catalog import build_dataset
from src.kit.config.compose import option_names
from src.kit.errors import UserError
from src.kit.loading import ArrayImages
from src.kit.splitting import stratified_split

CONFIGS = Path(__file__).parents[1] / "src" / "configs" / "data"


def configuration(name: str, seed: int = 0, **keys: object) -> DictConfig:
    """The data set's own YAML files with some keys set."""
    data = OmegaConf.merge(
        OmegaConf.load(CONFIGS / "default.yaml"), OmegaConf.load(next(CONFIGS.rglob(f"{name}.yaml"))), keys
    )
    cfg = OmegaConf.create({"seed": seed, "data": data})
    OmegaConf.set_struct(cfg, True)
    return cfg


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


def write_mnist(root: Path, train: int = 100, test: int = 20) -> dict[str, np.ndarray]:
    arrays = {}
    for prefix, count in (("train", train), ("t10k", test)):
        images = np.random.default_rng(count).integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        (root / f"{prefix}-images-idx3-ubyte").write_bytes(idx(images))
        (root / f"{prefix}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels)))
        arrays[prefix] = images
    return arrays


def write_cifar(folder: Path, count: int = 20) -> np.ndarray:
    folder.mkdir()
    records = np.random.default_rng(0).integers(0, 256, (6, count, 3073), dtype=np.uint8)
    records[:, :, 0] = np.arange(count) % 10
    for number, name in enumerate([f"data_batch_{n}.bin" for n in range(1, 6)] + ["test_batch.bin"]):
        (folder / name).write_bytes(records[number].tobytes())
    return records


@pytest.mark.parametrize("name", option_names("data"))
def test_every_data_set_has_a_small_config(name):
    lines = [line for line in next(CONFIGS.rglob(f"{name}.yaml")).read_text("utf-8").splitlines() if line.strip()]
    assert len([line for line in lines if not line.startswith("#")]) <= 11
    assert configuration(name).data.name == name


def test_digits_are_split_without_overlap_and_cover_everything():
    cfg = configuration("digits")
    parts = [build_dataset(cfg, split) for split in ("train", "val", "test")]
    assert sum(len(part) for part in parts) == 1797
    assert [round(len(part) / 1797, 2) for part in parts] == [0.7, 0.15, 0.15]
    images = np.concatenate([part.images.get(np.arange(len(part))) for part in parts])
    assert images.shape == (1797, 8, 8, 1)
    assert (images.dtype, images.min(), images.max()) == (np.uint8, 0, 255)
    assert (
        len(np.unique(images.reshape(1797, -1), axis=0)) == 1797
    )  # the set has no duplicates, so neither do the parts
    for part in parts:
        shares = np.bincount(part.targets) / len(part)
        assert part.targets.dtype == np.int64
        assert np.abs(shares - 0.1).max() < 0.01
        assert part.classes == tuple("0123456789")


def test_normalisation_constants_of_digits_are_those_of_the_data():
    cfg = configuration("digits")
    part = build_dataset(cfg, "train")
    pixels = part.images.get(np.arange(len(part))) / 255
    assert pixels.mean() == pytest.approx(cfg.data.mean[0], abs=0.01)
    assert pixels.std() == pytest.approx(cfg.data.std[0], abs=0.01)


def test_the_seed_decides_the_split():
    first, again, other = (build_dataset(configuration("digits", seed=seed), "val") for seed in (1, 1, 2))
    assert np.array_equal(first.images.get(np.arange(50)), again.images.get(np.arange(50)))
    assert not np.array_equal(first.images.get(np.arange(50)), other.images.get(np.arange(50)))


def test_mnist_reads_idx_files_plain_and_packed(tmp_path):
    arrays = write_mnist(tmp_path)
    cfg = configuration("mnist", root=str(tmp_path), val_fraction=0.2)
    train, val, test = (build_dataset(cfg, split) for split in ("train", "val", "test"))
    assert (len(train), len(val), len(test)) == (80, 20, 20)
    assert np.bincount(val.targets).tolist() == [2] * 10
    assert np.array_equal(test.images.get(np.arange(20))[..., 0], arrays["t10k"])
    assert test.targets.tolist() == [n % 10 for n in range(20)]
    seen = np.concatenate([part.images.get(np.arange(len(part))) for part in (train, val)])[..., 0]
    assert sorted(map(bytes, seen)) == sorted(map(bytes, arrays["train"]))


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"\0\0\x08\x01\0\0", b"\0\0\x08\x01\0\0\0\x09abc", b"<html>not found</html>"),
        idx(np.zeros((20, 3, 1), "u1")),
    ],
)
def test_a_damaged_idx_file_is_named(tmp_path, content):
    write_mnist(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").unlink()
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(content)
    with pytest.raises(UserError, match=r"t10k-labels-idx1-ubyte is no IDX file .* scripts/download.py data=mnist"):
        build_dataset(configuration("mnist", root=str(tmp_path)), "test")


def test_a_cut_gzip_file_and_other_counts_are_named(tmp_path):
    write_mnist(tmp_path)
    labels = tmp_path / "t10k-labels-idx1-ubyte.gz"
    labels.write_bytes(labels.read_bytes()[:-12])
    cfg = configuration("mnist", root=str(tmp_path))
    with pytest.raises(UserError, match=r"t10k-labels-idx1-ubyte.gz is damaged"):
        build_dataset(cfg, "test")
    labels.write_bytes(gzip.compress(idx(np.zeros(19, np.uint8))))
    with pytest.raises(UserError, match="20 t10k images and 19 labels"):
        build_dataset(cfg, "test")


def test_cifar10_reads_planes_in_the_publishers_order(tmp_path):
    records = write_cifar(tmp_path / "cifar-10-batches-bin")
    cfg = configuration("cifar10", root=str(tmp_path))
    test = build_dataset(cfg, "test")
    image = test.images.get(np.array([3]))[0]
    assert image.shape == (32, 32, 3)
    assert np.array_equal(image[:, :, 0].ravel(), records[5, 3, 1:1025])  # red comes first, row by row
    assert np.array_equal(image[:, :, 2].ravel(), records[5, 3, 2049:])
    assert test.classes[test.targets[3]] == "cat"
    assert [len(build_dataset(cfg, split)) for split in ("train", "val")] == [90, 10]


def test_a_damaged_cifar_batch_is_named(tmp_path):
    write_cifar(tmp_path / "cifar-10-batches-bin")
    cfg = configuration("cifar10", root=str(tmp_path))
    path = tmp_path / "cifar-10-batches-bin" / "data_batch_2.bin"
    for content in (b"", path.read_bytes()[:-1], b"\x0a" + path.read_bytes()[1:]):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"data_batch_2.bin is no CIFAR-10 batch"):
            build_dataset(cfg, "train")


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_missing_files_name_the_command(tmp_path, name):
    with pytest.raises(UserError, match=f"does not exist: run `python scripts/download.py data={name}`"):
        build_dataset(configuration(name, root=str(tmp_path)), "train")


def test_classes_keeps_some_and_renumbers_them():
    part = build_dataset(configuration("digits", classes=[7, "3"]), "test")
    whole = build_dataset(configuration("digits"), "test")
    assert part.classes == ("3", "7")
    assert len(part) == np.isin(whole.targets, [3, 7]).sum()
    seven = part.images.get(np.flatnonzero(part.targets == 1))
    assert np.array_equal(seven, whole.images.get(np.flatnonzero(whole.targets == 7)))


def test_unknown_names_come_with_the_nearest(tmp_path):
    (tmp_path / "cifar").mkdir()
    write_cifar(tmp_path / "cifar" / "cifar-10-batches-bin")
    with pytest.raises(UserError, match=r"Unknown class in data.classes 'airplan'. Did you mean airplane\?"):
        build_dataset(configuration("cifar10", root=str(tmp_path / "cifar"), classes=["airplan", "cat"]), "train")
    with pytest.raises(UserError, match="leaves 1 class"):
        build_dataset(configuration("digits", classes=["3"]), "train")
    cfg = configuration("digits")
    cfg.data.name = "digit"
    with pytest.raises(UserError, match=r"Unknown data set 'digit'. Did you mean digits\?"):
        build_dataset(cfg, "train")


def test_an_empty_split_says_which_key_to_change():
    with pytest.raises(UserError, match=r"The val split of digits has no sample.*raise data.val_fraction"):
        build_dataset(configuration("digits", val_fraction=0), "val")
    with pytest.raises(UserError, match=r"0.5 \+ 0.6 must be"):
        build_dataset(configuration("digits", val_fraction=0.5, test_fraction=0.6), "train")


def test_stratified_split_of_skewed_classes():
    targets = np.repeat([0, 1, 2, 5], [1000, 100, 3, 2])
    rest, val, test = stratified_split(targets, (0.1, 0.2), seed=0)
    assert sorted(np.concatenate([rest, val, test])) == list(range(len(targets)))
    assert np.bincount(targets[val], minlength=6).tolist() == [100, 10, 1, 0, 0, 0]
    assert np.bincount(targets[test], minlength=6).tolist() == [200, 20, 1, 0, 0, 0]
    assert np.bincount(targets[rest]).tolist() == [700, 70, 1, 0, 0, 2]


@pytest.mark.parametrize(("count", "fractions"), [(3, (0.5, 0.4)), (5, (0.3, 0.3, 0.3)), (4, (0.05, 0.9)), (2, (0.9,))])
def test_a_stratified_split_leaves_each_class_something_to_train_on(count, fractions):
    parts = stratified_split(np.repeat([0, 1], [count, 40]), fractions, seed=0)
    assert all((part < count).any() for part in parts)
    assert sorted(np.concatenate(parts)) == list(range(count + 40))


@pytest.mark.parametrize("size", [14, 28, 40])
def test_images_in_memory_are_resized_as_pillow_does(size):
    array = np.random.default_rng(0).integers(0, 256, (5, 28, 28, 3), dtype=np.uint8)
    resized = ArrayImages(array, size).take(np.array([4, 2])).get(np.array([1, 0]))
    assert resized.shape == (2, size, size, 3)
    for image, source in zip(resized, array[[2, 4]], strict=True):
        expected = np.asarray(Image.fromarray(source).resize((size, size), Image.Resampling.BILINEAR))
        assert np.abs(image.astype(int) - expected).max() <= 1


def test_image_size_changes_what_a_split_gives():
    part = build_dataset(configuration("digits", image_size=16), "val")
    assert part.images.shape == (16, 16, 1)
    assert part.images.get(np.array([0, 1, 2])).shape == (3, 16, 16, 1)
