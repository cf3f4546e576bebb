"""A thousand seeded faults: whatever a server does, no file with wrong content is ever accepted."""

import hashlib
import random
from collections import Counter

import pytest

from fault_server import serving
from faults import FAULTS, Asked
from src.kit.download import RemoteFile, connection, fetch_all, transfer
from src.kit.errors import UserError

SLOW = ("drip", "drip head", "hang")  # each costs its time limit


@pytest.fixture(autouse=True)
def _small_and_quick(monkeypatch):
    monkeypatch.setattr(connection, "BACKOFF_S", 0.0001)
    monkeypatch.setattr(connection, "TIMEOUT_S", 0.25)
    monkeypatch.setattr(transfer, "MIN_SEGMENT", 6_000)
    monkeypatch.setattr(transfer, "CHUNK", 1_000)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("DATASET_MIRROR", raising=False)


def misbehave(asked: Asked, rng: random.Random) -> str | None:
    """Two answers of three are wrong in some way, each of the ways alike but for the slow ones."""
    quick = [fault for fault in FAULTS if fault not in SLOW]
    return rng.choice(SLOW) if rng.random() < 0.005 else rng.choice([*quick, *[None] * (len(quick) // 2)])


def sha256(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def test_a_thousand_faults_and_no_corrupt_file_is_accepted(tmp_path):
    contents = {f"file{number}": random.Random(number).randbytes(500 * number) for number in range(60)}
    outcomes: Counter[str] = Counter()
    with serving(contents) as bad, serving(contents) as good:
        bad.fault = misbehave
        while sum(asked.fault not in (None, "redirect") for asked in bad.asked) < 1000:
            bad.seed += 1
            for name, content in contents.items():
                target = tmp_path / f"{bad.seed}" / name
                urls = [f"{bad.url}/{name}"] + [f"{good.url}/{name}"] * (bad.seed % 2)
                try:
                    fetch_all([RemoteFile(urls, target, sha256(content))], quiet=True)
                except UserError:
                    outcomes["refused"] += 1
                    assert len(urls) == 1, "the second address was good"
                    assert not target.exists()
                else:
                    outcomes["right" if target.read_bytes() == content else "corrupt"] += 1
    faults = Counter(asked.fault for asked in bad.asked)
    print(outcomes, faults)
    assert outcomes["corrupt"] == 0
    assert outcomes["right"] > outcomes["refused"] > 0
    assert set(faults) >= {*FAULTS} - {*SLOW}
