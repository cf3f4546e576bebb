"""Run a command as a task of a Ray cluster: `on_ray.py LOG JOBS GPUS COMMAND...`, a script which needs only Ray.

It exits with the command's code. The command is ended by the end of this process's standard input and by SIGTERM. If
this process is killed, Ray ends its task, and with the task ends the command's own standard input.
"""

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

LOST, STOPPED = 137, 143  # exit codes, as after SIGKILL and SIGTERM
UNREACHED = 69  # exit code where the command could not begin, as in BSD's sysexits.h; scripts/train.py never has it
JOIN_S = 120.0  # to join the cluster, once it answers
ANSWER_S = 10.0  # for a cluster to answer
LAST = Path("/tmp/ray/ray_current_cluster")  # Ray's note of the cluster that this machine is in
PATIENCE_S, POLL_S = 15.0, 0.2  # for a command that is asked to end; less than the search waits for this process


def main(log: str, jobs: int, gpus: str, command: Sequence[str]) -> int:
    """Run it on any node with its share free; the exit code, `LOST` if Ray failed, `UNREACHED` without a cluster."""
    import ray

    stopped, joining = threading.Event(), threading.Timer(JOIN_S, give_up)
    joining.start()
    threading.Thread(target=watch, args=(stopped, joining), daemon=True).start()
    try:
        if silent := find_silent("auto"):
            raise ConnectionError(f"nothing answers at {silent}")
        ray.init(address="auto", log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = next(iter(str(error).splitlines()), "")
        print(f"error: Cannot join a Ray cluster ({reason}): start one with `ray start --head`, or set RAY_ADDRESS.")
        return UNREACHED
    finally:
        joining.cancel()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())  # in place of Ray's
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    threads = os.environ.get("OMP_NUM_THREADS", "")
    cpus, mine = share(nodes, jobs, gpus, int(threads) if threads.isdigit() else 0)
    print(f"Asks Ray for {cpus} CPUs and {mine} GPUs on one node.", flush=True)
    options = {"num_cpus": cpus, "num_gpus": mine, "max_retries": 0}
    task = ray.remote(run).options(**options).remote(command, os.getcwd(), dict(os.environ), log)
    while not ray.wait([task], timeout=POLL_S)[0] and not stopped.is_set():
        pass
    try:
        if stopped.is_set():
            ray.cancel(task)
        return int(ray.get(task, timeout=PATIENCE_S + 1))
    except ray.exceptions.RayError as error:
        print(f"{type(error).__name__}: {error}", flush=True)
        return STOPPED if stopped.is_set() else LOST


def find_silent(address: str) -> str:
    """The address that Ray would join, if nothing answers there for `ANSWER_S`; "" if something does, or it names none.

    Ray itself would try for two minutes.
    """
    address = os.environ.get("RAY_ADDRESS") or address
    if address == "auto" and LAST.is_file():
        address = LAST.read_text("utf-8").strip()
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not host or not port.isdigit():
        return ""
    end = time.monotonic() + ANSWER_S
    while (left := end - time.monotonic()) > 0:  # a head that is started again needs some seconds
        with suppress(OSError, OverflowError), socket.create_connection((host.strip("[]"), int(port)), left):
            return ""
        time.sleep(POLL_S)
    return address


def watch(stopped: threading.Event, joining: threading.Timer) -> None:
    """Wait for the end of standard input; while Ray waits for an answer, nothing else ends this process."""
    while os.read(0, 1):
        pass
    stopped.set()
    if not joining.finished.is_set():
        os._exit(STOPPED)


def give_up() -> None:
    """End this process: Ray itself tries for many minutes to reach a cluster that is gone."""
    print(f"error: The Ray cluster has not answered for {JOIN_S:g} s: see `ray status`.", flush=True)
    os._exit(UNREACHED)


def share(nodes: Sequence[Mapping[str, float]], jobs: int, gpus: str, cpus: int) -> tuple[int, int]:
    """CPUs and GPUs of one command: as many as let all jobs run at once, but one of each, if there are any.

    Args:
        nodes: the resources of each, such as `{"CPU": 16.0, "GPU": 4.0}`.
        gpus: how many, if the cluster has any, or "auto".
        cpus: how many; 0: its share.
    """
    sizes = [(int(node.get("CPU", 0)), int(node.get("GPU", 0))) for node in nodes]

    def together(cores: int, devices: int) -> int:
        return sum(min(own // cores, more // devices if devices else own) for own, more in sizes)

    most = max((more for _, more in sizes), default=0)
    if gpus != "auto":
        wanted = int(gpus) if most else 0
    else:
        wanted = next((count for count in range(most, 0, -1) if together(1, count) >= jobs), min(1, most))
    jobs = max(1, min(jobs, together(1, wanted)))
    most = max((own for own, _ in sizes), default=0)
    return cpus or next((count for count in range(most, 0, -1) if together(count, wanted) >= jobs), 1), wanted


def run(command: Sequence[str], folder: str, variables: Mapping[str, str], log: str) -> int:
    """On the node: run the command until it ends, or Ray cancels this task.

    Args:
        variables: the search's environment, in which Ray's choice of GPUs wins.
        log: the file to which its output is added.
    """
    chosen = {name: value for name, value in os.environ.items() if name == "CUDA_VISIBLE_DEVICES"}
    with open(log, "ab") as file:
        process: subprocess.Popen[Any] = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=file,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env={**os.environ, **variables, **chosen},
        )
    try:
        while process.poll() is None:
            time.sleep(POLL_S)
    finally:  # an exception is Ray's way to cancel
        process.terminate()
        try:
            process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    return process.returncode if process.returncode >= 0 else 128 - process.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4:]))
