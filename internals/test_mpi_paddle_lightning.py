"""Processes that a real MPI starts on this machine: one is killed, all end, and the run goes on."""

import json
import os
import shutil
import signal
import subprocess
import sys

import pytest

from paths import TEMPLATE
from test_search import TINY, trainings, wait

OPEN_MPI = ["mpirun.openmpi", "--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "-n", "2"]
MPICH = ["mpiexec.hydra", "-n", "2"]  # as is Intel MPI's


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(
    ("framework", "launcher", "package"),
    [("lightning", OPEN_MPI, "openmpi-bin"), ("paddle", OPEN_MPI, "openmpi-bin"), ("lightning", MPICH, "mpich")],
    ids=["lightning-openmpi", "paddle-openmpi", "lightning-mpich"],
)
def test_a_killed_process_ends_all_and_the_run_goes_on(tmp_path, framework, launcher, package):
    if not shutil.which(launcher[0]):
        pytest.skip(f"needs {launcher[0]}, as in Debian's {package}")
    # epochs of one batch each: enough that the training is not over before a process of it is killed
    keys = [f"framework={framework}", *TINY, f"output_dir={tmp_path}", "name=run", "trainer.max_epochs=120"]
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("OMPI_", "PMI", "SLURM_"))}
    command = [*launcher, sys.executable, "scripts/train.py"]
    with (tmp_path / "log").open("w", encoding="utf-8") as log:
        options = {"cwd": TEMPLATE, "env": variables, "stdin": subprocess.DEVNULL}
        job = subprocess.Popen([*command, *keys], stdout=log, stderr=subprocess.STDOUT, **options)
        try:
            wait(lambda: [*tmp_path.glob("run-*/checkpoints/epoch=*/checkpoint.json")])
            ranks = trainings(tmp_path, "OMPI_COMM_WORLD_RANK", "PMI_RANK")
            assert sorted(ranks.values()) == ["0", "1"]
            os.kill(next(process for process, rank in ranks.items() if rank == "1"), signal.SIGKILL)
            assert job.wait(60) != 0
        finally:
            job.kill()
    wait(lambda: not trainings(tmp_path, "OMPI_COMM_WORLD_RANK", "PMI_RANK"), 30)
    (run,) = tmp_path.glob("run-*/")
    again = subprocess.run(
        [*command, "--resume", str(run)], capture_output=True, text=True, check=False, timeout=240, **options
    )
    assert again.returncode == 0, again.stderr
    about = json.loads((run / "run.json").read_text("utf-8"))
    assert (about["status"], about["processes"]) == ("finished", 2)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text("utf-8").splitlines()]
    assert [row["epoch"] for row in rows] == list(range(1, 121))
