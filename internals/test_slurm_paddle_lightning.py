"""The job script and a search in a real SLURM: a controller and two nodes on this machine, without MUNGE."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from jinja2 import Template

from paths import TEMPLATE
from test_search import check_epochs, check_unreached, kill_and_go_on, wait

# The first node's name is the address of its processes, and their port follows from the job's number.
CONFIG = """
ClusterName=test
FirstJobId={number}
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
AuthType=auth/none
CryptoType=crypto/none
CredType=cred/none
MpiDefault=none
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/controller.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/controller.log
SlurmdLogFile={folder}/%n.log
SchedulerType=sched/backfill
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
SlurmdParameters=config_overrides
NodeName={host} NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=1 State=UNKNOWN
NodeName={host}z NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=1 State=UNKNOWN
PartitionName=all Nodes={host},{host}z Default=YES MaxTime=INFINITE State=UP
"""
PROGRAMS = ("slurmctld", "slurmd", "sbatch", "salloc", "srun", "scontrol", "scancel")

pytestmark = pytest.mark.skipif(
    not all(map(shutil.which, PROGRAMS)) or os.geteuid() != 0, reason="needs SLURM, as in Debian's slurm-wlm, and root"
)


@pytest.fixture(scope="module", autouse=True)
def slurm(tmp_path_factory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("slurm")
    host = socket.gethostname()
    for name in ("state", f"spool-{host}", f"spool-{host}z"):
        (folder / name).mkdir()
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    config = folder / "slurm.conf"
    config.write_text(CONFIG.format(host=host, number=os.getpid(), ports=ports, folder=folder), "utf-8")
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("SLURM_", "SRUN_"))]:
            patch.delenv(name)
        patch.setenv("SLURM_CONF", str(config))
        patch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        commands = [["slurmctld", "-D", "-c"], ["slurmd", "-D", "-N", host], ["slurmd", "-D", "-N", f"{host}z"]]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        daemons = [subprocess.Popen(command, **quiet) for command in commands]
        try:
            wait(idle, 30)
            yield
            ask("scancel", f"--user={os.geteuid()}")
            wait(lambda: not ask("squeue", "--noheader"), 60)
        finally:
            for daemon in reversed(daemons):
                daemon.terminate()
            for daemon in daemons:
                daemon.wait(30)


def ask(*command: str) -> str:
    """What a command of SLURM prints."""
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60).stdout


def idle() -> bool:
    """Whether nothing runs on either node."""
    return ask("sinfo", "--noheader", "--Node", "--format=%t").split() == ["idle"] * 2


@pytest.mark.parametrize("framework", ["lightning", "paddle"])
def test_a_job_stopped_by_sigterm_is_queued_again_and_goes_on(tmp_path, framework):
    (source,) = TEMPLATE.glob("deploy/cluster/train.sbatch*")
    answers = {"gpu": "none", "project_slug": "test", "start": ["small_cnn", "digits"]}
    (script := tmp_path / "train.sbatch").write_text(Template(source.read_text("utf-8")).render(answers), "utf-8")
    keys = [f"framework={framework}", "model=small_cnn", "data=digits", "tracker=none", "trainer.accelerator=cpu"]
    keys += [f"output_dir={tmp_path}", "name=job", "trainer.max_epochs=30"]
    options = ["--parsable", "--cpus-per-task=1", f"--output={tmp_path}/job.log", f"--chdir={TEMPLATE}"]
    job = ask("sbatch", *options, str(script), *keys).strip()
    wait(lambda: [*tmp_path.glob("job-*/checkpoints/epoch=*/checkpoint.json")])
    ask("scancel", "--signal=TERM", job)
    wait(lambda: "queued again" in (tmp_path / "job.log").read_text("utf-8"))
    # started again before its old script has ended, the job would get that one's exit code
    wait(lambda: "JobState=PENDING" in ask("scontrol", "show", "job", job) and idle())
    ask("scontrol", "update", f"JobId={job}", "StartTime=now")  # a requeued job waits for two minutes
    wait(lambda: re.search("JobState=(COMPLETED|FAILED)", ask("scontrol", "show", "job", job)))
    log = (tmp_path / "job.log").read_text("utf-8")
    assert "JobState=COMPLETED" in ask("scontrol", "show", "job", job), log
    (run,) = tmp_path.glob("job-*/")
    about = json.loads((run / "run.json").read_text("utf-8"))
    assert (about["status"], about["processes"], about["job"]) == ("finished", 2, f"slurm {job}")
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text("utf-8").splitlines()]
    assert [row["epoch"] for row in rows] == list(range(1, 31))


def test_a_killed_search_goes_on_with_its_trials_on_both_nodes(tmp_path, monkeypatch):
    """Each node has one CPU, so trials that are trained at once are on both."""
    granted = subprocess.run(["salloc", "--no-shell", "-N2", "-n2"], capture_output=True, text=True, check=True)
    monkeypatch.setenv("SLURM_JOB_ID", (job := re.findall(r"allocation (\d+)", granted.stderr)[0]))
    try:
        check_epochs(*kill_and_go_on(tmp_path, "slurm"))
    finally:
        ask("scancel", job)


def test_a_search_in_a_job_that_has_ended_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    check_unreached(tmp_path, "slurm", "srun starts no trial (Unable to confirm allocation for job 1: Invalid job id")
