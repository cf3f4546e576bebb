"""Train on the nodes of a Ray cluster, a process for each GPU.

    python deploy/cluster/ray_train.py --nodes 2 --gpus 4 model=resnet18 data=cifar10
    python deploy/cluster/ray_train.py --nodes 2 --gpus 0 trainer.accelerator=cpu       # one process a node

Run it on a node of the cluster, in the project's folder. Every node needs the same folder (a shared file system, which
holds outputs/ and data/), the same Python packages and the same version of Ray. If a node dies, or a spot machine is
taken away, the run goes on from its last checkpoint as soon as Ray has as many nodes again.
"""

import argparse
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from src.kit.errors import Stopped, UserError, run_main

PROJECT = Path(__file__).resolve().parents[2]
TRAIN = ("deploy/keep_training.py", "--auto-resume")
SIGNALS = (signal.SIGINT, signal.SIGTERM)
PATIENCE_S, POLL_S = 60.0, 0.2  # for processes that are asked to end: a checkpoint has to be whole
ANSWER_S = 10.0  # for a cluster to answer
LAST = Path("/tmp/ray/ray_current_cluster")  # Ray's note of the cluster that this machine is in


def main(argv: list[str]) -> None:
    """Train; exits with the code of the process that failed, if the last start did."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=2, help="how many (2)")
    parser.add_argument("--gpus", type=int, default=1, help="of each node, a process each; 0: one process, no GPU (1)")
    parser.add_argument("--cpus", type=int, default=4, help="cores of each process (4)")
    parser.add_argument("--restarts", type=int, default=3, help="how often to go on after a failure (3)")
    parser.add_argument("--wait", type=float, default=600.0, help="seconds to wait for the nodes (600)")
    parser.add_argument("--address", default="auto", help="of the cluster (auto)")
    options, overrides = parser.parse_known_args(argv)
    if options.nodes < 1 or options.cpus < 1 or min(options.gpus, options.restarts) < 0:
        raise UserError("--nodes and --cpus must be 1 or more, --gpus and --restarts 0 or more.")
    try:
        import ray
    except ModuleNotFoundError as error:
        raise UserError("Ray is missing: install your cluster's version, such as with pip install ray.") from error
    if silent := find_silent(options.address):
        raise UserError(f"No Ray cluster answers at {silent}: start one with `ray start --head`, or set RAY_ADDRESS.")
    try:
        ray.init(address=options.address, log_to_driver=True)
    except ConnectionError as error:
        raise UserError(f"No Ray cluster at {options.address}: start one with `ray start --head`.") from error
    except RuntimeError as error:  # another version of Python or Ray
        raise UserError(f"Cannot join the cluster at {options.address}: {' '.join(str(error).split())}") from error
    for start in range(options.restarts + 1):
        code = train_once(options, overrides)
        if code == 0:
            return
        print(f"Start {start + 1} of {options.restarts + 1} ended with {code}.", flush=True)
    sys.exit(code)


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


def train_once(options: Any, overrides: list[str]) -> int:
    """Start the processes on nodes of their own; the first exit code that is not 0, or 0."""
    import ray
    from ray.util.placement_group import placement_group, remove_placement_group
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    processes = max(options.gpus, 1)
    share = {"CPU": options.cpus * processes} | ({"GPU": options.gpus} if options.gpus else {})
    group = placement_group([share] * options.nodes, strategy="STRICT_SPREAD")
    try:
        if not group.wait(options.wait):
            raise UserError(
                f"Ray has not had {options.nodes} nodes with {share} free for {options.wait:g} s: see `ray status`."
            )

        def on(node: int, function: Any) -> Any:
            where = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=node)
            own = {"num_cpus": share["CPU"], "num_gpus": options.gpus, "max_retries": 0}
            return ray.remote(function).options(scheduling_strategy=where, **own)

        master = ray.get(on(0, find_address).remote())
        places = [(node, options.nodes, processes, *master) for node in range(options.nodes)]
        threads = os.environ.get("OMP_NUM_THREADS", str(options.cpus))  # Ray's number is for all processes together
        running = [on(place[0], train_node).remote(place, overrides, threads) for place in places]
        return first_failure(running)
    finally:
        remove_placement_group(group)


def first_failure(running: list[Any]) -> int:
    """Wait for all nodes; the first exit code that is not 0, and 1 for a node that died.

    Then the other nodes' processes are ended: they would wait for those that are gone, for as long as NCCL does.

    Raises:
        Stopped: by a signal, after all processes have ended. Ray's own handler would end them with SIGKILL.
    """
    import ray

    code, every = 0, running
    stopped: list[int] = []
    before = {number: signal.signal(number, lambda *what: stopped.append(what[0])) for number in SIGNALS}
    while running and not stopped and not code:
        done, running = ray.wait(running, timeout=POLL_S)
        for task in done:
            try:
                code = code or ray.get(task)
            except ray.exceptions.RayError as error:
                print(f"A node was lost: {type(error).__name__}", flush=True)
                code = code or 1
    for task in running:
        ray.cancel(task)
    ray.wait(every, num_returns=len(every), timeout=PATIENCE_S)
    if stopped:
        raise Stopped(128 + stopped[0])
    for number, handler in before.items():
        signal.signal(number, handler)
    return code


def find_address() -> tuple[str, int]:
    """On the first node: its address and a free port."""
    import ray

    with socket.socket() as probe:
        probe.bind(("", 0))
        return ray.util.get_node_ip_address(), probe.getsockname()[1]


def train_node(place: tuple[int, int, int, str, int], overrides: list[str], threads: str) -> int:
    """On each node: run its processes until all have ended or one has failed, whose exit code is returned; else 0."""
    node, nodes, processes, address, port = place
    started = []
    for local in range(processes):
        own: dict[str, Any] = {"RANK": node * processes + local, "WORLD_SIZE": nodes * processes, "LOCAL_RANK": local}
        own |= {"OMP_NUM_THREADS": threads, "LOCAL_WORLD_SIZE": processes, "MASTER_ADDR": address, "MASTER_PORT": port}
        variables = os.environ | {name: str(value) for name, value in own.items()}
        started.append(subprocess.Popen([sys.executable, *TRAIN, *overrides], cwd=PROJECT, env=variables))
    try:
        while None in (codes := [process.poll() for process in started]) and not any(codes):
            time.sleep(POLL_S)
    finally:  # an exception is Ray's way to cancel
        end(started)
    return next((code for code in codes if code), 0)


def end(processes: "list[subprocess.Popen[bytes]]") -> None:
    """End processes in order, and those that are stuck at once when `PATIENCE_S` is over."""
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + PATIENCE_S
    for process in processes:
        with suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, deadline - time.monotonic()))
        process.kill()
        process.wait()


if __name__ == "__main__":
    run_main(main)
