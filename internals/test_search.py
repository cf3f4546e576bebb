"""A search: its command line, its mistakes, what it asks for, and that nothing is lost when it is killed."""

import json
import math
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from omegaconf import OmegaConf
from optuna.trial import TrialState

from paths import TEMPLATE
from src.kit.config import UserError, load_config
from src.kit.hardware import detect
from src.kit.hardware.hardware import Gpu
from src.kit.search import on_ray, read_plan, run_search, space
from src.kit.search.page import best_command, find_front, wrapped
from src.kit.search.space import RANGE
from src.kit.search.study import NAME, NOT_FINITE, Search
from src.kit.search.trials import WATCHED, Job, count_gpus
from src.kit.training.inspection import not_finite
from src.kit.training.loop import LossMeter

OBJECTIVES = ["val/accuracy", "val/loss", "parameters", "duration_s"]
TINY = ["data=digits", "model=small_cnn", "model.width=4", "tracker=none", "trainer.accelerator=cpu"]
TINY += [f"trainer.limit_{split}_batches=1" for split in ("train", "val", "test")]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("optimizer.lr=0.1", "Nothing to search: write KEY=LOW..HIGH"),
        ("optimizer.lr=1..0.1", "its second number must be above the first"),
        ("optimizer.lr=0..1:log", "start above 0, or leave :log out"),
        ("optimizer.lr=0.1..1:int", "write whole ends, or leave :int out"),
        ("optimizer.lr=0.1..1:exp", "ends with :exp"),
        ("optimizer.lr=0.1..x", "Cannot read optimizer.lr=0.1..x: write KEY=LOW..HIGH"),
        ("optimizer.lr=0.1,,0.2", "an empty value"),
        ("optimizer.lr=0.1,0.1", "a value twice"),
        ("optimizer.lr=0.1,0.2 optimizer.lr=0.3", "optimizer.lr is given twice"),
        ("name=a,b", "name cannot be searched"),
        ("optimizer.lr=0.1,0.2 --jobs 0", "--jobs must be a whole number of at least 1, not '0'"),
        ("optimizer.lr=0.1,0.2 --trials", "--trials must be a whole number of at least 1, not ''"),
        ("optimizer.lr=0.1,0.2 --trials=-3", "--trials must be a whole number"),
        ("optimizer.lr=0.1,0.2 --sampler cmaes", "--sampler must be one of tpe, gp, random, grid"),
        ("optimizer.lr=0.1,0.2 --job 2", "Did you mean --jobs?"),
        ("optimizer.lr=0.1,0.2 --on moon", "--on must be one of here, slurm, ray"),
        ("optimizer.lr=0.1,0.2 --on slurm", "--on slurm makes each trial a step of a job: run this in a job script"),
        ("optimizer.lr=0.1,0.2 --on ray", "--on ray needs Ray: install the version of your cluster"),
        ("optimizer.lr=0.1..0.2 --sampler grid", "write optimizer.lr=A,B,C instead of 0.1..0.2"),
        ("optimizer.rl=0.1..0.2", "Did you mean optimizer.lr?"),
        ("scheduler=cosine,one_cicle", "Did you mean one_cycle?"),
        ("optimizer.lr=-1..1", "optimizer.lr must be a number"),
        ("model=small_cnn model.width=16..65", "model.width takes whole numbers: write model.width=16..65:int"),
        ("optimizer=adamw,sgd optimizer.momentum=0.8..0.9", "optimizer.momentum"),
        ("optimizer.lr=0.1,0.2 --objectives val/accuracy,", "with :min or :max behind it"),
        ("optimizer.lr=0.1,0.2 --objectives parameters:least", "names of scores, each once"),
        ("optimizer.lr=0.1,0.2 --objectives val/loss,parameters --pruner median", "leave it out with several"),
        ("search=rat", "Did you mean rate? Available: rate. A search is a file of"),
        ("search=rate search=rate", "A search is a file"),
        ("optimizer.lr=0.1,0.2 trainer.folds=3", "leave trainer.folds out"),
        ("optimizer.lr=0.1,0.2 -- modle=resnet18", "Did you mean model?"),
    ],
)
def test_a_mistake_is_one_sentence(words, said, monkeypatch):
    monkeypatch.setattr(space, "find_spec", lambda name: None)
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    with pytest.raises(UserError) as error:
        read_plan(words.split()).check()
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_words_are_read_as_they_are_meant():
    text = "optimizer.lr=1e-4..1e-1:log data.mean=[0.1,0.2] scheduler=cosine|one_cycle model.width=16..64:int --jobs=2"
    plan = read_plan([*text.split(), "--trials", "50", "--", "data=cifar10", "data.root=../photos,old"])
    rate, schedule, width = plan.dimensions
    assert (rate.low, rate.high, rate.log, rate.whole) == (1e-4, 0.1, True, False)
    assert schedule.choices == ("cosine", "one_cycle")
    assert (width.low, width.high, width.whole, width.log) == (16, 64, True, False)
    assert plan.fixed == ("data=cifar10", "data.root=../photos,old", "data.mean=[0.1,0.2]")
    assert (plan.trials, plan.jobs, plan.sampler) == (50, 2, "tpe")
    assert rate.write(0.099999999) == "0.1"
    assert rate.write(1.00001e-4) == "0.0001"  # within the bounds
    assert load_config([f"optimizer.lr={rate.write(1e-4)}"]).optimizer.lr == 1e-4
    assert all(RANGE.fullmatch(word) for word in ("-1..1", ".5..1.", "1e-4..2E+3:log:int"))


def test_a_file_stands_for_words_that_win_over_it(tmp_path, monkeypatch):
    plan = read_plan(["search=rate", "scheduler=linear", "--jobs", "2", "--", "data=digits"])
    assert [part.text for part in plan.dimensions] == ["1e-4..1e-1:log", "1e-6..1e-2:log"]
    assert (plan.trials, plan.jobs, plan.fixed) == (30, 2, ("data=digits", "scheduler=linear"))
    words = ["optimizer.lr=1e-4..1e-1:log", "optimizer.weight_decay=1e-6..1e-2:log", "scheduler=linear"]
    assert read_plan([*words, "--", "data=digits"]).folder == plan.folder, "the same search"
    plan.check()
    monkeypatch.setattr(space, "FILES", tmp_path)
    own = "sampler: grid\nobjectives: [val/accuracy, parameters]\nkeys:\n  data.mean: '[0.5]'\n  seed: [1, 2]\n"
    (tmp_path / "own.yaml").write_text(own, "utf-8")
    plan = read_plan(["search=own"])
    assert plan.combinations == [{"seed": "1"}, {"seed": "2"}] and plan.fixed == ("data.mean=[0.5]",)
    assert plan.objectives == (("val/accuracy", ""), ("parameters", "min")) and plan.pruner == "none"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("trials: 3", "needs keys: and below it"),
        ("keys: [1]", "needs keys: and below it"),
        ("keys: {optimizer.lr: '1..2'}\ntrails: 3", "own.yaml: Unknown option 'trails'. Did you mean trials?"),
        ("keys: {optimizer.lr: '1..2'}\ntrials: many", "own.yaml: trials must be a whole number of at least 1"),
        ("keys: {optimizer.lr: 2..1}", "its second number must be above"),
        ("keys: {", "is not valid YAML"),
    ],
)
def test_a_mistake_in_a_file_is_one_sentence(text, said, tmp_path, monkeypatch):
    monkeypatch.setattr(space, "FILES", tmp_path)
    (tmp_path / "own.yaml").write_text(text, "utf-8")
    with pytest.raises(UserError) as error:
        read_plan(["search=own"])
    assert said in str(error.value) and "\n" not in str(error.value)


def test_several_objectives_have_a_front(tmp_path, capsys):
    search = open_search(tmp_path, "optimizer.momentum=0.1..0.9", "--objectives", "val/accuracy,parameters")
    assert search.objectives == [("val/accuracy", "max"), ("parameters", "min")]
    for accuracy, parameters in [(0.5, 10), (0.9, 99), (0.9, 98), (0.4, 11), (0.9, 98)]:
        job = ask(search)
        run = tmp_path / f"{job.name}-20260101-000000"
        run.mkdir()
        rows = [{"epoch": 1, "val/accuracy": accuracy}, {"epoch": 2, "val/accuracy": accuracy - 0.1}]
        (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        (run / "run.json").write_text(json.dumps({"status": "finished", "parameters": parameters}), "utf-8")
        assert search.settle(job)
    assert [trial.values for trial in search.trials()][:2] == [[0.5, 10], [0.9, 99]]
    assert [trial.number for trial in find_front(search.trials(), search.objectives)] == [2, 0]
    search.draw()
    search.board.summary(search.trials(), tmp_path)
    assert "best: trial 2, val/accuracy 0.9000, parameters 98\n" in capsys.readouterr().out
    page = (tmp_path / "search.html").read_text("utf-8")
    assert page.count("on the Pareto front</td>") == 2 and (tmp_path / "pictures" / "front.png").is_file()
    with pytest.raises(UserError, match=r"Unknown objective 'val/acuracy'. Did you mean val/accuracy\?"):
        job.scores(["val/acuracy"], "val/accuracy", "max")
    with pytest.raises(UserError, match="Write val/f1:max or val/f1:min in --objectives"):
        open_search(tmp_path / "other", "optimizer.momentum=0.1..0.9", "--objectives", "val/f1")


def test_a_grid_has_as_many_trials_as_combinations():
    plan = read_plan(["--sampler", "grid", "optimizer.lr=0.1,0.01", "model.width=4..6:int"])
    assert plan.trials == len(plan.combinations) == 6
    assert read_plan(["--sampler=grid", "optimizer.lr=0.1,0.01", "--trials=9"]).trials == 2
    assert plan.combinations[-1] == {"optimizer.lr": "0.01", "model.width": 6}


def test_the_same_words_have_the_same_folder():
    words = ["optimizer.lr=0.1..0.2", "scheduler=cosine,constant"]
    folder = read_plan([*words, "seed=2"]).folder
    assert folder == read_plan(["seed=2", *reversed(words), "--trials", "99", "--jobs", "3"]).folder
    assert folder.startswith("search-lr-scheduler-")
    assert len({folder, read_plan([*words, "seed=3"]).folder, read_plan([words[0], "scheduler=cosine,x"]).folder}) == 3


def open_search(folder: Path, *words: str) -> Search:
    plan = read_plan([*words, "--", *TINY])
    folder.mkdir(exist_ok=True)
    return Search(plan, load_config(plan.fixed), folder, None, detect(), [])


def ask(search: Search) -> Job:
    search.seed(len(search.trials()))
    return search.open(search.study.ask()._trial_id)


@pytest.mark.parametrize("sampler", ["tpe", "grid"])
def test_a_search_that_was_killed_asks_for_what_it_would_have_asked_for(tmp_path, sampler):
    words = ["optimizer.lr=0.1,0.2,0.3", "scheduler=cosine,constant", "--sampler", sampler]
    whole = open_search(tmp_path / "whole", *words)
    expected = [ask(whole).words for _ in range(2)]
    found = [ask(open_search(tmp_path / "killed", *words)).words for _ in range(2)]
    assert found == expected
    assert len(set(map(tuple, found))) == 2 or sampler != "grid"


def test_a_trial_that_was_killed_before_it_had_all_values_gets_the_others(tmp_path):
    words = ["optimizer.lr=1e-4..1e-1:log", "model.dropout=0..0.5"]
    search = open_search(tmp_path, *words)
    plan = search.plan
    trial = search.study.ask()
    value = plan.dimensions[0].suggest(trial)
    job = open_search(tmp_path, *words)
    (interrupted,) = job.interrupted
    found = job.open(interrupted._trial_id)
    assert found.words[0] == f"optimizer.lr={value}"
    assert found.words[1].startswith("model.dropout=0.")


def test_jobs_share_the_gpus_that_are_visible(tmp_path, monkeypatch):
    plan = read_plan(["optimizer.lr=0.1,0.2", "--jobs", "3", "--", *TINY])
    two = replace(detect(), gpus=(Gpu("nvidia", "a", 8000, "8.6"), Gpu("nvidia", "b", 8000, "8.6")), cores=12)
    search = Search(plan, load_config(plan.fixed), tmp_path, None, two, [])
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    search.sharing, paddle = (replace(search.sharing, framework=each) for each in ("lightning", "paddle"))
    assert search.sharing.environment(2) == {"OMP_NUM_THREADS": "4", "CUDA_VISIBLE_DEVICES": "0"}
    assert paddle.environment(2)["OMP_NUM_THREADS"] == "1", "as it trains without a search"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "6,7")
    assert search.sharing.environment(1)["CUDA_VISIBLE_DEVICES"] == "7"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
    assert [search.sharing.environment(slot)["CUDA_VISIBLE_DEVICES"] for slot in range(3)] == ["4,7", "5", "6"]
    assert search.sharing.part.smallest_gpu_mib == 4000  # two jobs on one of them
    search.plan, search.sharing = replace(plan, on="ray"), replace(search.sharing, on="ray")
    assert search.sharing.part.smallest_gpu_mib == 8000 and not search.sharing.environment(0)
    job = ask(search)
    assert job.launcher == [sys.executable, on_ray.__file__, str(job.log), "3", "0"], "trainer.accelerator=cpu"


def test_runs_without_their_study_are_not_taken_for_others(tmp_path):
    (tmp_path / "trial-000-20260101-000000").mkdir()
    with pytest.raises(UserError, match="is gone, which knows the trials"):
        open_search(tmp_path, "optimizer.lr=0.1,0.2")


def test_equal_values_are_trained_once(tmp_path):
    search = open_search(tmp_path, "optimizer.lr=0.1,0.2")
    first = ask(search)
    search.tell(first, TrialState.COMPLETE, [0.5], "")
    for _ in range(6):
        job = ask(search)
        if job.words == first.words:
            assert search.settled_before(job)
            assert search.trials()[job.number].value == 0.5
            assert "as trial 0" in search.trials()[job.number].user_attrs["why"]
            return
    raise AssertionError("six draws of two values were the other one")


def test_a_trial_that_diverged_is_a_bad_one_and_no_failure(tmp_path):
    with pytest.raises(UserError) as error:
        mean = LossMeter(lambda values: values)
        mean.pending = [float("nan")]
        mean.fetch(lambda value, after: not_finite(value, "step 1 of epoch 1", None, 0.1))
    assert str(error.value).startswith(NOT_FINITE)
    search = open_search(tmp_path, "optimizer.lr=0.1,0.2")
    search.fail(ask(search), str(error.value))
    assert search.trials()[0].state == TrialState.PRUNED
    assert search.failed == []


def test_a_trial_whose_score_is_not_finite_is_a_bad_one(tmp_path, capsys):
    search = open_search(tmp_path, "optimizer.lr=0.1,0.2")
    for last in (math.nan, math.inf):
        job = ask(search)
        run = tmp_path / f"{job.name}-20260101-120000"
        run.mkdir()
        (run / "run.json").write_text('{"status": "finished"}', "utf-8")
        monitor = search.monitor
        (run / "metrics.jsonl").write_text(json.dumps({"epoch": 1, monitor: last}) + "\n", "utf-8")
        assert search.settle(job)
    assert [trial.state for trial in search.trials()] == [TrialState.PRUNED] * 2
    assert capsys.readouterr().out.count("a score is not finite") == 2


def test_what_cannot_fit_is_never_started(tmp_path, capsys):
    small = replace(detect(), gpus=(Gpu("nvidia", "tiny", 100, "8.6"),))
    words = ["data.batch_size=64,128", "--trials", "1", "--", *TINY, "trainer.accelerator=gpu"]
    words = [word for word in words if word != "trainer.accelerator=cpu"]
    folder = run_search(read_plan([*words, f"output_dir={tmp_path.as_posix()}"]), words, small)
    assert not list(folder.glob("trial-*"))
    assert capsys.readouterr().out.count("not started: data.batch_size=") == 1
    assert "1 pruned" in (folder / "search.html").read_text("utf-8").replace("</b><span>", " ")


def test_a_changed_configuration_is_not_mixed_in(tmp_path):
    plan = read_plan(["optimizer.lr=0.1,0.2", "--", *TINY, f"output_dir={tmp_path.as_posix()}"])
    folder = tmp_path / plan.folder
    folder.mkdir()
    cfg = load_config([*plan.fixed, "seed=7"])
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(cfg), "utf-8")
    with pytest.raises(UserError, match=r"seed was 7 when this search began and is .* now"):
        run_search(plan, [])


def command(folder: Path, *words: str) -> list[str]:
    return [sys.executable, "scripts/search.py", *words, "--", *TINY, f"output_dir={folder.as_posix()}"]


def test_three_failures_in_a_row_stop_the_search_and_are_tried_again(tmp_path):
    missing = ["optimizer.lr=0.1,0.2,0.3", "--jobs", "3", "--sampler", "grid", "data.root=nowhere"]
    words = [word.replace("data=digits", "data=mnist") for word in command(tmp_path, *missing)]
    done = subprocess.run(words, cwd=TEMPLATE, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: 3 trials in a row failed, the last one so: ")
    assert line.endswith("start the same command: it tries them again.")
    assert {trial.state for trial in load_study(tmp_path).trials} == {TrialState.RUNNING}


def check_unreached(folder: Path, on: str, said: str) -> None:
    """A search whose trials cannot begin where they are to be trained ends with one sentence, and none has failed."""
    words = command(folder, "optimizer.lr=0.1,0.2,0.3,0.4", "--sampler", "grid", "--on", on)
    done = subprocess.run(words, cwd=TEMPLATE, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stdout) == (2, ""), done.stdout
    (line,) = done.stderr.splitlines()
    assert said in line
    assert [trial.state for trial in load_study(folder).trials if trial.state != TrialState.WAITING] == [
        TrialState.RUNNING
    ]


def load_study(outputs: Path) -> optuna.Study:
    (path,) = outputs.glob("search-*/study.db")
    return optuna.load_study(study_name=NAME, storage=f"sqlite:///{path.as_posix()}")


def wait(what, seconds: float = 120.0):
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, what
        time.sleep(0.02)
    return found


def children(process: int) -> set[int]:
    path = Path(f"/proc/{process}/task/{process}/children")
    return set(map(int, path.read_text("ascii").split())) if path.exists() else set()


def alive(process: int) -> bool:
    """Whether a process still runs: who was killed may wait for its parent to take notice."""
    try:
        return Path(f"/proc/{process}/stat").read_text("ascii").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def trainings(folder: Path, *names: str) -> dict[int, str]:
    """The processes that a launcher started to train into `folder`, with their ranks, which one of `names` has."""
    found = {}
    for process in (path for path in Path("/proc").glob("[0-9]*") if alive(int(path.name))):
        try:
            words = (process / "cmdline").read_text("utf-8").split("\0")
            variables = dict(each.partition("=")[::2] for each in (process / "environ").read_text("utf-8").split("\0"))
        except OSError:  # it has just ended, or is another user's
            continue
        if "scripts/train.py" in words and f"output_dir={folder}" in words:
            found |= {int(process.name): variables[name] for name in names if name in variables}
    return found


@pytest.fixture(scope="module")
def killed(tmp_path_factory) -> tuple[Path, dict[str, set[int]]]:
    return kill_and_go_on(tmp_path_factory.mktemp("killed"), "here")


def kill_and_go_on(folder: Path, on: str) -> tuple[Path, dict[str, set[int]]]:
    """A search in both frameworks, killed in the middle and started again; and the epochs saved when it was killed."""
    words = ["framework=lightning,paddle", "--sampler", "grid", "--jobs", "2", "--pruner", "none", "--on", on]
    words = [*command(folder, *words), "trainer.max_epochs=40"]
    with subprocess.Popen(words, cwd=TEMPLATE, stdout=subprocess.PIPE, text=True) as process:
        wait(lambda: len({path.parents[1] for path in folder.glob("*/trial-*/checkpoints/epoch=*")}) == 2, 240)
        begun = children(process.pid)
        process.kill()
    wait(lambda: not any(map(alive, begun)), 20)
    assert begun
    saved = {path.name: epochs_saved(path) for path in folder.glob("*/trial-*/") if path.is_dir()}
    done = subprocess.run(words, cwd=TEMPLATE, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert " of 2 trials are done" in done.stdout  # the faster framework may have ended
    return next(folder.glob("search-*")), saved


def epochs_saved(run: Path) -> set[int]:
    """The epochs up to the last whole checkpoint."""
    last = max(int(path.name[6:9]) for path in run.glob("checkpoints/epoch=*/") if (path / "checkpoint.json").exists())
    return set(range(1, last + 1))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_killed_and_started_again_it_loses_no_trial_and_repeats_no_epoch(killed):
    check_epochs(*killed)


def check_epochs(folder: Path, saved: dict[str, set[int]]) -> None:
    """Every trial has finished, in the run that it began, and trained no saved epoch twice."""
    assert len(saved) == 2
    study = load_study(folder.parent)
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 2
    for name, epochs in saved.items():
        run = folder / name
        assert json.loads((run / "run.json").read_text("utf-8"))["status"] == "finished"
        assert [json.loads(line)["epoch"] for line in (run / "metrics.jsonl").read_text("utf-8").splitlines()] == [
            *range(1, 41)
        ]
        trained = [
            int(epoch) for epoch in re.findall(r"DEBUG .*'epoch': (\d+)", (run / "train.log").read_text("utf-8"))
        ]
        again = {epoch for epoch in trained if trained.count(epoch) > 1}
        assert set(trained) == {*range(1, 41)}
        assert not again & epochs, "an epoch with a whole checkpoint was trained twice"
    assert sorted(path.name for path in folder.glob("trial-*/") if path.is_dir()) == sorted(saved)
    for trial in study.trials:
        scores = Job(trial.number, [], folder, None, 40).scores(OBJECTIVES, "val/accuracy", "max")
        assert scores[0] == trial.value and scores[2] > 0 and scores[3] > 0, "those of each framework's run"


def test_a_trial_on_a_node_ends_with_its_task(tmp_path):
    """Killed with SIGKILL as Ray kills the tasks of a driver that is gone, in a process that stands for its worker."""
    log, child = tmp_path / "log", "print('begun', flush=True); import time; time.sleep(60)"
    (tmp_path / "child.py").write_text(child, "utf-8")
    words = [sys.executable, "-c", WATCHED, str(tmp_path / "child.py")]
    work = "import sys; sys.path.insert(0, 'src/kit/search'); import on_ray\n"
    work += f"on_ray.run({words!r}, {str(tmp_path)!r}, {{}}, {str(log)!r})"
    with subprocess.Popen([sys.executable, "-c", work], cwd=TEMPLATE) as worker:
        wait(lambda: log.is_file() and "begun" in log.read_text("utf-8"))
        (begun,) = children(worker.pid)
        worker.kill()
    wait(lambda: not alive(begun), 10)
    done = [sys.executable, "-c", "import os; print(os.getcwd(), os.environ['A']); raise SystemExit(3)"]
    assert on_ray.run(done, str(tmp_path), {"A": "b"}, str(log)) == 3
    assert log.read_text("utf-8").splitlines() == ["begun", f"{tmp_path} b"]


def test_shares_of_a_ray_cluster():
    trainer = {"accelerator": "auto", "devices": [0, 1]}
    assert count_gpus(OmegaConf.create({"trainer": trainer})) == "2"
    assert count_gpus(OmegaConf.create({"trainer": trainer | {"devices": "auto"}})) == "auto"
    head, small, large = {"CPU": 8.0}, {"CPU": 16.0, "GPU": 2.0}, {"CPU": 32.0, "GPU": 4.0}
    assert on_ray.share([head, head], 2, "auto", 0) == (8, 0)
    assert on_ray.share([head, head], 3, "auto", 0) == (4, 0)
    assert on_ray.share([head], 99, "2", 0) == (1, 0), "processes without GPUs"
    assert on_ray.share([head, small, large], 1, "auto", 0) == (32, 4)
    assert on_ray.share([head, small, large], 3, "auto", 0) == (16, 2)
    assert on_ray.share([head, small, large], 9, "auto", 0) == (8, 1), "six at once, the others wait"
    assert on_ray.share([small, large], 2, "1", 3) == (3, 1), "as many as the user says"
    assert on_ray.share([], 1, "auto", 0) == (1, 0)


def test_the_page_has_the_trials_and_the_best_command(killed):
    folder, _ = killed
    page = (folder / "search.html").read_text("utf-8")
    study = load_study(folder.parent)
    assert "data:image/png;base64" in page
    for trial in study.trials:
        assert f'<a href="{trial.user_attrs["run"]}/report.html">' in page
    plan = read_plan(["framework=lightning,paddle", "--", *TINY])
    line = best_command(plan, study.best_trial)
    assert line.startswith("python scripts/train.py data=digits") and "framework=" in line
    assert load_config(line.split()[2:]).framework in ("lightning", "paddle")
    assert wrapped(["a" * 100, "b" * 100]) == "a" * 100 + " \\\n    " + "b" * 100


def test_a_signal_ends_it_with_the_way_to_go_on(tmp_path):
    words = command(tmp_path, "optimizer.lr=0.1,0.2", "--jobs", "2")
    with subprocess.Popen(words, cwd=TEMPLATE, stdout=subprocess.PIPE, text=True) as process:
        begun = wait(lambda: children(process.pid))
        process.send_signal(signal.SIGTERM)
        output = process.communicate(timeout=60)[0]
    assert process.returncode == 143
    assert output.splitlines()[-1].startswith("Interrupted after 0 of 20 trials: go on with python scripts/search.py ")
    assert not any(map(alive, begun))
