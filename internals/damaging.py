"""Ways of damaging a run folder: each is survived, or answered in one sentence. test_resume_*.py run them."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from scripts.train import main
from src.kit.config.compose import load_config
from src.kit.errors import run_main
from src.kit.run import read_rows
from src.kit.storage import lock_folder
from src.kit.training import evaluate_command, find_checkpoint, train_run
from src.kit.weights import load_weights

KEYS = ["data=digits", "model=small_cnn", "data.batch_size=64", "tracker=none", "trainer.max_epochs=3", "seed=7"]
KEYS += ["trainer.checkpoint.keep_last=5", "trainer.checkpoint.keep_best=5", "trainer.limit_train_batches=2"]
KEYS += ["trainer.limit_val_batches=1", "trainer.limit_test_batches=1"]
FIRST, NEWEST, END = "epoch=001-step=000002", "epoch=002-step=000004", "epoch=003-step=000006"
WEIGHTS = f"checkpoints/{NEWEST}/model.safetensors"
DESCRIPTION = f"checkpoints/{NEWEST}/checkpoint.json"
INDEX, INFO, CONFIG = "checkpoints/index.json", "run.json", "config.yaml"
BACK = f"Continuing from {FIRST}, the newest checkpoint that is whole"
Damage = Callable[[Path], object]


def cut(name: str, share: float = 0.5) -> Damage:
    def damage(run: Path) -> None:
        content = (run / name).read_bytes()
        (run / name).write_bytes(content[: int(len(content) * share)])

    return damage


def flip(name: str, at: float = 0.9) -> Damage:
    def damage(run: Path) -> None:
        content = bytearray((run / name).read_bytes())
        content[int(len(content) * at)] ^= 1
        (run / name).write_bytes(content)

    return damage


def lose(*names: str) -> Damage:
    def damage(run: Path) -> None:
        for name in names:
            shutil.rmtree(run / name) if (run / name).is_dir() else (run / name).unlink()

    return damage


def fill(name: str, content: str | bytes = b"") -> Damage:
    data = content.encode() if isinstance(content, str) else content
    return lambda run: (run / name).write_bytes(data)


def in_place(name: str, folder: bool) -> Damage:
    """Put a folder where a file is, or the other way round."""

    def damage(run: Path) -> None:
        lose(name)(run)
        (run / name).mkdir() if folder else (run / name).write_bytes(b"?")

    return damage


def both(*damages: Damage) -> Damage:
    return lambda run: [damage(run) for damage in damages]


def edit(name: str, old: str, new: str) -> Damage:
    def damage(run: Path) -> None:
        text = (run / name).read_text("utf-8")
        assert old in text
        (run / name).write_text(text.replace(old, new, 1), "utf-8")

    return damage


def leave_halves(run: Path) -> None:
    """What a process leaves that was killed while it wrote."""
    (run / "checkpoints" / f".{END}.123.partial").mkdir()
    (run / "checkpoints" / f".{END}.123.partial" / "model.safetensors").write_bytes(b"wei")
    (run / ".run.json.123.partial").write_bytes(b"{")
    (run / "metrics.jsonl").open("ab").write(b'{"epoch": 3, "st')


def every(kind: Callable[[str], Damage], file: str) -> Damage:
    return both(*(kind(f"checkpoints/{name}/{file}") for name in (FIRST, NEWEST)))


def state(kind: Callable[[str], Damage]) -> Damage:
    """Damage what the optimizer goes on with, whose name depends on the framework."""
    return lambda run: kind(f"checkpoints/{NEWEST}/{next((run / DESCRIPTION).parent.glob('training.*')).name}")(run)


ODD = '{"epoch": [1], "step": {}}\n5\n[]\nnull\n{"epoch": 1, "step": "x"}\n' + "[" * 99_999
SURVIVED: dict[str, tuple[Damage, str]] = {  # what happens, and what is said about it
    "nothing": (lambda run: None, ""),
    "weights cut": (cut(WEIGHTS), f"The checkpoint {NEWEST} is damaged: model.safetensors has"),
    "weights flipped": (flip(WEIGHTS), "model.safetensors has other bytes than were written"),
    "weights lost": (lose(WEIGHTS), "model.safetensors is missing"),
    "weights empty": (fill(WEIGHTS), BACK),
    "weights of another checkpoint": (
        lambda run: shutil.copy(run / f"checkpoints/{FIRST}/model.safetensors", run / WEIGHTS),
        BACK,
    ),
    "weights are a folder": (in_place(WEIGHTS, folder=True), "model.safetensors is missing"),
    "state cut": (state(cut), BACK),
    "state flipped": (state(flip), BACK),
    "state flipped at its begin": (state(lambda name: flip(name, 0.0)), BACK),
    "state lost": (state(lose), BACK),
    "state empty": (state(fill), BACK),
    "description lost": (lose(DESCRIPTION), ""),
    "description empty": (fill(DESCRIPTION), ""),
    "description odd": (fill(DESCRIPTION, ODD), ""),
    "score changed": (edit(DESCRIPTION, '"score": 0', '"score": 9'), ""),
    "description and index lost": (lose(DESCRIPTION, INDEX), "checkpoint.json is missing or damaged"),
    "checkpoint lost": (lose(f"checkpoints/{NEWEST}"), ""),
    "checkpoint empty": (lambda run: [path.unlink() for path in (run / DESCRIPTION).parent.iterdir()], BACK),
    "checkpoint is a file": (in_place(f"checkpoints/{NEWEST}", folder=False), ""),
    "a foreign checkpoint": (lambda run: (run / "checkpoints/epoch=999-step=999999").mkdir(), "999 is damaged"),
    "best lost": (lose(f"checkpoints/{FIRST}/model.safetensors"), f"The checkpoint {FIRST} is damaged"),
    "index lost": (lose(INDEX), ""),
    "index empty": (fill(INDEX), ""),
    "index binary": (fill(INDEX, bytes(range(256))), ""),
    "index odd": (fill(INDEX, '{"best": 3, "last": [], "checkpoints": [5, {"name": "../.."}, null]}'), ""),
    "index of others": (edit(INDEX, NEWEST, "epoch=777-step=777777"), ""),
    "run.json lost": (lose(INFO), "run.json was missing or damaged"),
    "run.json empty": (fill(INFO), "run.json was missing or damaged"),
    "run.json cut": (cut(INFO), "run.json was missing or damaged"),
    "run.json a list": (fill(INFO, "[1, 2]"), "run.json was missing or damaged"),
    "run.json odd": (fill(INFO, '{"status": 5, "duration_s": "long", "command": {}}'), "run.json was missing"),
    "metrics lost": (lose("metrics.jsonl", "metrics.csv"), ""),
    "metrics cut": (cut("metrics.jsonl"), ""),
    "metrics odd": (fill("metrics.jsonl", ODD), ""),
    "table odd": (fill("metrics.csv", bytes(range(256))), ""),
    "config lost": (lose(CONFIG), "config.yaml was missing or damaged"),
    "config empty": (fill(CONFIG), "config.yaml was missing or damaged"),
    "config cut": (cut(CONFIG), "config.yaml was missing or damaged"),
    "config binary": (fill(CONFIG, bytes(range(256))), "config.yaml was missing or damaged"),
    "config a list": (fill(CONFIG, "[1, 2]"), "config.yaml was missing or damaged"),
    "samples lost": (lose("splits.json"), "splits.json is missing"),
    "halves": (leave_halves, ""),
    "log lost": (lose("train.log"), ""),
}
ANSWERED: dict[str, tuple[Damage, str]] = {
    "every checkpoint cut": (every(cut, "model.safetensors"), r"No checkpoint in .* is whole: train again .*--from"),
    "every checkpoint flipped": (every(flip, "model.safetensors"), "other bytes than were written"),
    "no checkpoints": (lose("checkpoints"), r"has no checkpoint yet.*--from"),
    "checkpoints are a file": (in_place("checkpoints", folder=False), "has no checkpoint yet"),
    "no run": (lambda run: shutil.rmtree(run), "config.yaml does not exist: name a run's folder"),
    "index is a folder": (in_place(INDEX, folder=True), "index.json: .*; move what is in its place"),
    "log is a folder": (in_place("train.log", folder=True), "train.log: .*; move what is in its place"),
    "config and copies lost": (both(lose(CONFIG), every(lose, "checkpoint.json")), "config.yaml does not exist"),
    "samples empty": (fill("splits.json"), r"splits.json is damaged \(it is empty\): delete it"),
    "samples odd": (fill("splits.json", '{"train": {"samples": "all"}}'), "splits.json is damaged"),
    "other samples": (edit("splits.json", '"sha256": "', '"sha256": "0'), "The data have changed since"),
    "finished": (edit(INFO, '"running"', '"finished"'), "has finished: repeat it with --from"),
}
EVALUATION: dict[str, tuple[Damage, str]] = {
    "weights flipped": (both(*(flip(f"checkpoints/{n}/model.safetensors") for n in (FIRST, NEWEST))), "is damaged"),
    "run.json odd": (fill(INFO, '{"duration_s": "long"}'), r"run.json is damaged \(duration_s is 'long'\)"),
    "other evaluation odd": (fill("evaluation-val.json", '{"accuracy": "good"}'), r"damaged \(accuracy\)"),
    "samples odd": (fill("splits.json", '{"train": {"samples": 3, "ids": [[]]}}'), "splits.json is damaged"),
    "pictures are a file": (fill("pictures", b"?"), "pictures: .*; move what is in its place"),
    "report is a folder": (lambda run: (run / "report.html").mkdir(), "report.html: .*; move what is in its place"),
}


class DamageTests:
    """Subclasses name the framework."""

    framework: str

    @pytest.fixture(scope="class")
    @classmethod
    def whole(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """A run of three epochs that nothing has disturbed."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("src.kit.training.runs.finish", lambda *_: None)
            folder = tmp_path_factory.mktemp("whole")
            patch.setattr("tempfile.tempdir", str(folder / "missing"))  # checkpoints are written beside their target
            output = (folder / "outputs").as_posix()
            run = train_run(load_config([f"framework={cls.framework}", f"output_dir={output}", *KEYS]))
        assert not (folder / "missing").exists()
        return run

    @pytest.fixture
    def run(self, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """The same run, killed in its third epoch."""
        monkeypatch.setattr("src.kit.training.runs.finish", lambda *_: None)  # evaluations take longest
        shutil.copytree(whole, run := tmp_path / "run")
        shutil.rmtree(run / "checkpoints" / END)
        info = json.loads((run / INFO).read_text("utf-8"))
        (run / INFO).write_text(json.dumps({**info, "status": "running"}), "utf-8")
        return run

    @pytest.mark.parametrize("damage", SURVIVED)
    def test_a_damaged_run_goes_on_to_the_same_end(self, whole, run, capsys, damage):
        cause, said = SURVIVED[damage]
        cause(run)
        main(["--resume", str(run)])
        captured = capsys.readouterr()
        assert said in captured.out + captured.err
        weights, again = (load_weights(find_checkpoint(path, "last") / "model.safetensors")[0] for path in (whole, run))
        assert all(np.array_equal(weights[name], again[name]) for name in weights)
        rows, rows_again = (
            [{**row, "epoch_s": 0} for row in read_rows(path / "metrics.jsonl")] for path in (whole, run)
        )
        assert rows == rows_again
        assert (run / "metrics.csv").read_text("utf-8").count("\n") == 4
        info = json.loads((run / INFO).read_text("utf-8"))
        assert info["status"] == "finished"
        assert info["seed"] == 7 and info["command"]
        index = json.loads((run / INDEX).read_text("utf-8"))
        assert index["last"] == END
        folders = {path.name for path in (run / "checkpoints").iterdir() if path.is_dir()}
        assert folders == {entry["name"] for entry in index["checkpoints"]}
        assert not list(run.rglob(".*"))

    @pytest.mark.parametrize("damage", ANSWERED)
    def test_what_is_beyond_repair_is_one_sentence(self, run, capsys, damage):
        cause, sentence = ANSWERED[damage]
        cause(run)
        before = {path for path in run.rglob("*") if path.name != "train.log"}
        answer(["--resume", str(run)], capsys, sentence)
        assert before <= {*run.rglob("*")}, "nothing is deleted"

    @pytest.mark.parametrize("damage", EVALUATION)
    def test_an_evaluation_of_a_damaged_run_is_one_sentence(self, run, capsys, damage):
        cause, sentence = EVALUATION[damage]
        cause(run)
        answer([str(run)], capsys, sentence, lambda argv: evaluate_command(argv, "test"))

    def test_every_file_of_a_checkpoint_gets_the_mode_of_any_new_file(self, whole):
        modes = {
            path.name: path.stat().st_mode & 0o777 for path in (whole / "checkpoints").rglob("*.*") if path.is_file()
        }
        assert len(modes) == 4
        assert set(modes.values()) == {(whole / "splits.json").stat().st_mode & 0o777}

    def test_two_processes_do_not_train_in_one_folder(self, run, capsys):
        with lock_folder(run):
            answer(["--resume", str(run)], capsys, "Another process is training in")
        main(["--resume", str(run)])


def answer(argv: list[str], capsys: pytest.CaptureFixture[str], sentence: str, command: Damage = main) -> None:
    """Check that a command ends with code 2 and one sentence."""
    with pytest.raises(SystemExit) as ended:
        run_main(command, argv)
    error = capsys.readouterr().err
    lines = [line for line in error.splitlines() if line.startswith("error: ")]
    assert ended.value.code == 2
    assert len(lines) == 1 and "Traceback" not in error
    assert re.search(sentence, lines[0]), lines[0]
