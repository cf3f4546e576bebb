"""Whose variables say what: the place of a process among those of a launcher, without starting one."""

import os
import subprocess
import sys

import pytest
from omegaconf import OmegaConf

from paths import TEMPLATE
from src.kit.errors import UserError
from src.kit.ranks import Place, find_place, is_main_process, refuse_contradiction

TORCHRUN = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
TORCHRUN |= {"MASTER_ADDR": "head", "MASTER_PORT": "29500"}
SLURM = {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_PROCID": "5", "SLURM_NTASKS": "6", "SLURM_LOCALID": "1"}
SLURM |= {"SLURM_NODEID": "2", "SLURM_STEP_TASKS_PER_NODE": "1,2(x2),1", "SLURM_STEP_NODELIST": "gpu[07-09,12],big"}


def test_torchrun_within_slurm():
    assert find_place(SLURM | TORCHRUN) == Place(3, 4, 1, 2, "head", 29500, "slurm 7")


def test_paddle():
    paddle = {"PADDLE_TRAINER_ID": "1", "PADDLE_TRAINERS_NUM": "2", "PADDLE_LOCAL_SIZE": "1"}
    found = find_place(paddle | {"PADDLE_MASTER": "10.0.0.1:333", "PADDLE_TRAINER_ENDPOINTS": "10.0.0.2:1"})
    assert found == Place(1, 2, 0, 1, "10.0.0.1", 333)


def test_srun_names_the_first_node_and_counts_the_tasks_of_this_one():
    place = find_place(SLURM)
    assert place
    assert (place.rank, place.ranks, place.local_rank, place.local_ranks, place.address) == (5, 6, 1, 2, "gpu07")
    other = find_place(SLURM | {"SLURM_STEP_ID": "1"})
    assert other and other.port != place.port, "two steps on one node do not meet"


def test_a_batch_script_without_srun_runs_alone():
    assert find_place({name: value for name, value in SLURM.items() if name != "SLURM_STEP_ID"}) is None


def test_mpirun_on_several_nodes_has_to_name_the_first():
    mpi = {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_LOCAL_SIZE": "1"}
    with pytest.raises(UserError, match="set MASTER_ADDR"):
        find_place(mpi)
    assert find_place(mpi | {"MASTER_ADDR": "head"})
    here = find_place(mpi | {"OMPI_COMM_WORLD_LOCAL_SIZE": "2"})
    assert here and here.address == "127.0.0.1"


def test_one_process_is_alone():
    assert find_place({"RANK": "0", "WORLD_SIZE": "1"}) is None
    assert find_place({}) is None


def test_restarts_are_known():
    again = find_place(SLURM | {"SLURM_RESTART_COUNT": "1"})
    assert again and again.restarted
    elastic = {"TORCHELASTIC_RUN_ID": "x", "TORCHELASTIC_RESTART_COUNT": "0"}
    first, shared = find_place(TORCHRUN | elastic), {"TORCHELASTIC_USE_AGENT_STORE": "True"}
    assert first and not first.restarted
    counted, member = (
        find_place(TORCHRUN | elastic | {"TORCHELASTIC_RESTART_COUNT": "2"}),
        find_place(TORCHRUN | elastic | shared),
    )
    assert counted and counted.restarted
    assert member and member.restarted, "a node may have joined, which is not counted"


def test_only_rank_0_writes(monkeypatch):
    for name in (*TORCHRUN, *SLURM):
        monkeypatch.delenv(name, raising=False)
    assert is_main_process()
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert not is_main_process(), "a child of Lightning"
    for name, value in (TORCHRUN | {"RANK": "0"}).items():
        monkeypatch.setenv(name, value)
    assert is_main_process() and os.environ["LOCAL_RANK"] == "1"


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"devices": 4}, "trainer.devices=4, but the launcher started 2 processes on this node"),
        ({"devices": [0]}, "trainer.devices"),
        ({"num_nodes": 3}, "trainer.num_nodes=3, but the launcher started 4 processes"),
    ],
)
def test_keys_that_contradict_the_launcher_are_refused(keys, said):
    place = find_place(TORCHRUN)
    assert place
    with pytest.raises(UserError, match=said):
        refuse_contradiction(OmegaConf.create({"devices": "auto", "num_nodes": 1} | keys), place)
    refuse_contradiction(OmegaConf.create({"devices": 2, "num_nodes": 2}), place)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's on_exit")
def test_a_process_ends_without_destructors_but_with_its_code_output_and_handlers():
    script = """if True:
        import atexit, ctypes, logging, sys
        from src.kit.ranks import quick_exit
        libc = ctypes.CDLL(None)
        libc.on_exit(libc.abort, None)  # as a destructor would, with a thread that still runs
        atexit.register(print, "handler")
        if sys.argv[1:]:
            quick_exit()
        atexit.register(print, "later handler")
        print("output")
        sys.exit(3)
    """
    command = [sys.executable, "-c", script]
    with_them = subprocess.run(command, cwd=TEMPLATE, capture_output=True, check=False)
    assert with_them.returncode == -6
    without = subprocess.run([*command, "skip"], cwd=TEMPLATE, capture_output=True, text=True, check=False)
    assert (without.returncode, without.stdout.split("\n")) == (3, ["output", "later handler", "handler", ""])
