"""Several processes that train one network: who this one is, whatever started it, and how all of them end together.

A launcher starts them: `torchrun` or `paddle.distributed.launch` with one command per node, `srun`, or `mpirun`. The
framework connects them; a line of ours between rank 0 and each other rank then tells when one fails or dies. Without it
the others would wait for that rank until a timeout of the framework, and end with a message about connections.
"""

import atexit
import ctypes
import json
import logging
import os
import re
import secrets
import signal
import socket
import sys
import threading
import zlib
from _thread import interrupt_main
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType
from typing import Any

from src.kit.errors import Stopped, UserError

__all__ = ["Place", "Ranks", "find_place", "is_main_process", "quick_exit", "refuse_contradiction", "say_if_waiting"]

# rank, number of ranks, rank on this node, number on this node; the first launcher whose ranks are set counts, so that
# torchrun or mpirun may run within a SLURM job
LAUNCHERS = (
    ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"),  # torchrun
    ("PADDLE_TRAINER_ID", "PADDLE_TRAINERS_NUM", "PADDLE_RANK_IN_NODE", "PADDLE_LOCAL_SIZE"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"),
    ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", "SLURM_NTASKS_PER_NODE"),  # srun
    ("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"),  # MPICH, Intel MPI
)
GRACE_S = 10.0  # for leaving in order after another rank has failed
REASON_S = 3.0  # the frameworks notice a closed connection before its reason arrives
WAIT_S = 30.0
CONNECT_S = 60.0
LONGEST = 20_000  # characters of a message
KEEPALIVE = {"TCP_KEEPIDLE": 5, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}  # a node without power is noticed after 20 s


@dataclass(frozen=True)
class Place:
    """This process's place among those that a launcher has started."""

    rank: int
    ranks: int
    local_rank: int  # on its node
    local_ranks: int
    address: str  # where rank 0 waits for the others
    port: int
    job: str | None = None  # what a restart by the launcher has in common with the first start
    restarted: bool = False  # the launcher may have started it again


def find_place(variables: Mapping[str, str] = os.environ) -> Place | None:
    """Read a launcher's variables; None if this process was started alone.

    Raises:
        UserError: several nodes and no address of the first one.
    """
    for names in LAUNCHERS:
        rank, ranks, local_rank, local_ranks = (variables.get(name) for name in names)
        if not rank or not ranks or (names[0] == "SLURM_PROCID" and not in_step(variables)):
            continue
        if int(ranks) == 1:
            return None
        here = tasks_here(variables) if names[0] == "SLURM_PROCID" else int(local_ranks or 0)
        address, port = find_master(variables, spread=0 < here < int(ranks))
        job, restarted = find_job(variables)
        return Place(int(rank), int(ranks), int(local_rank or 0), here or int(ranks), address, port, job, restarted)
    return None


def refuse_contradiction(keys: Any, place: Place) -> None:
    """Refuse a number of devices or nodes, of `cfg.trainer`, that is not the launcher's.

    Raises:
        UserError: says what the launcher started.
    """
    devices = keys.devices if isinstance(keys.devices, int) else len(keys.devices)
    if keys.devices != "auto" and devices != place.local_ranks:
        asked, started = f"trainer.devices={keys.devices}", f"{place.local_ranks} processes on this node"
    elif keys.num_nodes > 1 and keys.num_nodes * place.local_ranks != place.ranks:
        asked, started = (
            f"trainer.num_nodes={keys.num_nodes}",
            f"{place.ranks} processes, {place.local_ranks} of them here",
        )
    else:
        return
    raise UserError(f"{asked}, but the launcher started {started}: leave the key out, which follows the launcher.")


def say_if_waiting(place: Place) -> threading.Timer:
    """Say after half a minute what this process is waiting for, unless the timer is cancelled."""
    where = f"{place.address}:{place.port}"
    said = f"Process {place.rank} of {place.ranks} waits for the others, which must be able to reach {where}.\n"
    timer = threading.Timer(WAIT_S, sys.stderr.write, [said])
    timer.daemon = True
    timer.start()
    return timer


def in_step(variables: Mapping[str, str]) -> bool:
    """Whether `srun` started this process: a batch script, which runs once, has the job's number of tasks too."""
    return "SLURM_STEP_ID" in variables or "SLURM_JOB_ID" not in variables


def tasks_here(variables: Mapping[str, str]) -> int:
    """SLURM's tasks on this node, such as the second of "2(x3),1"; 0 if unknown."""
    counts: list[int] = []
    for count, times in re.findall(r"(\d+)(?:\(x(\d+)\))?", variables.get("SLURM_STEP_TASKS_PER_NODE", "")):
        counts += [int(count)] * int(times or 1)
    node = int(variables.get("SLURM_NODEID") or 0)
    return counts[node] if node < len(counts) else int(variables.get("SLURM_NTASKS_PER_NODE") or 0)


def find_master(variables: Mapping[str, str], spread: bool) -> tuple[str, int]:
    """Address and port of rank 0; `spread` says that there are several nodes."""
    paddle = variables.get("PADDLE_MASTER") or variables.get("PADDLE_TRAINER_ENDPOINTS", "").split(",")[0]
    address, _, port = paddle.rpartition(":")
    nodes = variables.get("SLURM_STEP_NODELIST") or variables.get("SLURM_NODELIST") or ""
    first = re.sub(r"\[([^,\]-]+)[^\]]*\]", r"\1", nodes).split(",")[0]  # "node[07-09,12],big" -> "node07"
    address = variables.get("MASTER_ADDR") or address or first
    if not address and spread:
        raise UserError(
            "The launcher started processes on several nodes and names none of them: set MASTER_ADDR to the first "
            "node's name or address, such as mpirun -x MASTER_ADDR=HOST."
        )
    job = "".join(variables.get(name, "") for name in ("SLURM_JOB_ID", "SLURM_STEP_ID", "PMIX_NAMESPACE", "PMI_JOBID"))
    own = 20000 + zlib.crc32(job.encode()) % 10000  # so that two jobs on a node do not meet
    return address or "127.0.0.1", int(variables.get("MASTER_PORT") or port or own)


def find_job(variables: Mapping[str, str]) -> tuple[str | None, bool]:
    """What identifies this job, and whether its launcher may have started it again."""
    if job := variables.get("TORCHELASTIC_RUN_ID"):
        # restarts are counted on the node that failed only; the port of the agents' store is another for each job
        unique = variables.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        again = unique or int(variables.get("TORCHELASTIC_RESTART_COUNT") or 0) > 0
        return f"torchrun {job} {variables.get('MASTER_PORT')}", again
    if job := variables.get("SLURM_JOB_ID"):
        return f"slurm {job}", int(variables.get("SLURM_RESTART_COUNT") or 0) > 0
    return None, False


def is_main_process() -> bool:
    """Whether this process writes the run folder: the only one, or rank 0 of several."""
    place = find_place()
    # Lightning's own children, which it starts for trainer.devices, know nothing else
    return place.rank == 0 if place else int(os.environ.get("LOCAL_RANK") or 0) == 0


class Ranks:
    """All processes of a run. As a context it ends them together: the first to fail tells the others why."""

    def __init__(self, place: Place | None = None, exchange: Callable[[Any], list[Any]] = lambda mine: [mine]) -> None:
        """`exchange` returns the objects of all ranks in their order, by means of the framework."""
        self.place, self.exchange = place, exchange
        self.failure: dict[str, Any] | None = None  # of another rank
        self.lines: list[socket.socket] = []  # rank 0 has one to each other rank, which have one to rank 0
        self.left: set[int] = set()
        self.lock, self.ended, self.told = threading.Lock(), threading.Event(), threading.Event()
        self.leaving = False
        self.farewell: Callable[[], Any] = lambda: None  # what is left to do where this process has to end at once

    def agree(self, choose: Callable[[], Any]) -> Any:
        """What rank 0 chooses, on every rank."""
        return self.exchange(choose() if self.place is None or self.place.rank == 0 else None)[0]

    def __enter__(self) -> "Ranks":
        if self.place is None:
            return self
        if threading.current_thread() is threading.main_thread():
            self.handler = signal.signal(signal.SIGTERM, self.stop)
            if os.name == "posix":
                self.catch_abort()
        if self.place.rank == 0:
            self.accept()
        else:
            port, token = self.exchange(None)[0]
            line = socket.create_connection((self.place.address, port), CONNECT_S)
            self.lines = [prepare(line)]
            self.send({"token": token, "rank": self.place.rank, "host": socket.gethostname()})
            threading.Thread(target=self.listen, args=(line, 0, self.place.address), daemon=True).start()
        self.exchange(None)  # nobody goes on before all are connected
        return self

    def accept(self) -> None:
        """Rank 0: wait for a line from each other rank."""
        assert self.place
        token, both = secrets.token_hex(16), socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if both else socket.AF_INET
        with socket.create_server(("", 0), family=family, dualstack_ipv6=both) as server:
            server.settimeout(CONNECT_S)
            self.exchange((server.getsockname()[1], token))
            while len(self.lines) < self.place.ranks - 1:
                line, _ = server.accept()
                line.settimeout(CONNECT_S)
                hello = next(read_lines(line), {})
                if hello.get("token") != token:  # anyone can connect
                    line.close()
                    continue
                self.lines.append(prepare(line))
                arguments = (line, int(hello["rank"]), str(hello["host"]))
                threading.Thread(target=self.listen, args=arguments, daemon=True).start()

    def stop(self, number: int, frame: FrameType | None) -> None:
        """Handle SIGTERM. A launcher sends it when a rank has failed: it must not cut short what this one does then."""
        if self.failure is None:
            if callable(self.handler):
                self.handler(number, frame)
            raise Stopped(128 + number)
        if not self.leaving and (frame is None or frame.f_code is not Ranks.aborted.__code__):
            self.leaving = True
            raise Stopped(128 + number)

    def listen(self, line: socket.socket, rank: int, host: str) -> None:
        """A thread's work: learn of a rank's failure or death, tell all others, and end this process."""
        for message in read_lines(line):
            if "left" in message:
                self.left.add(rank)
            else:
                self.learn(message)
        if rank not in self.left and not self.ended.is_set():
            said = "it died without a word, so it was killed or its machine failed (out of memory?)"
            self.learn({"rank": rank, "host": host, "said": said, "stopped": False})

    def learn(self, failure: dict[str, Any]) -> None:
        """Record the first failure of another rank, pass it on, and leave: in order, or after `GRACE_S` at once."""
        with self.lock:
            if self.failure or self.ended.is_set():
                return
            self.failure = failure
        if self.place and self.place.rank == 0:
            self.send(failure)
        self.told.set()
        interrupt_main(signal.SIGTERM)
        if not self.ended.wait(GRACE_S):  # the main thread waits for a rank that is gone, where no signal reaches it
            self.leave_at_once()

    def leave_at_once(self) -> None:
        """Say why, and end the process."""
        print(f"error: {self.sentence()}", file=sys.stderr, flush=True)
        with suppress(Exception):
            self.farewell()
        os._exit(2)

    def catch_abort(self) -> None:
        """Keep `abort()` from ending this process without the reason: Paddle calls it when Gloo loses a connection."""
        self.abort_handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(self.aborted)  # C keeps no reference
        ctypes.CDLL(None).signal(signal.SIGABRT, self.abort_handler)

    def aborted(self, number: int) -> None:
        """Handle SIGABRT, in C: wait for the reason. If there is none, this returns, and `abort()` ends the process."""
        self.leaving = True
        ctypes.CDLL(None).alarm(2 * int(REASON_S))  # ends the process, should Python not be able to run here
        if self.told.wait(REASON_S):
            self.leave_at_once()

    def sentence(self) -> str:
        """What happened to another rank."""
        assert self.failure
        return "Process {rank} on {host} ended the run: {said}".format(**self.failure)

    def send(self, message: dict[str, Any]) -> None:
        """Send a message along all lines; a rank that is gone does not matter any more."""
        for line in self.lines:
            with suppress(OSError):
                line.sendall(json.dumps(message).encode() + b"\n")

    @contextmanager
    def together(self) -> Iterator[None]:
        """Replace what another rank's end causes here, such as a lost connection, by that rank's own message.

        Raises:
            UserError: another rank failed.
            Stopped: another rank was stopped by a signal.
        """
        try:
            yield
        except UserError:  # our own mistake
            raise
        except BaseException as error:
            if self.lines and not isinstance(error, Stopped):
                self.told.wait(REASON_S)
            if self.failure is None:
                raise
            if self.failure["stopped"]:
                logging.getLogger("train").warning(self.sentence())
                raise Stopped(128 + signal.SIGTERM) from None
            raise UserError(self.sentence()) from None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        self.ended.set()
        if self.place is None:
            return
        if error is None:
            self.send({"left": True})
            if hasattr(self, "abort_handler"):  # it is of no use to C when Python has ended
                ctypes.CDLL(None).signal(signal.SIGABRT, None)
        elif self.failure is None:
            said = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"[: LONGEST // 10]
            stopped = isinstance(error, Stopped | KeyboardInterrupt)
            if stopped:
                said = "it was stopped by a signal."
            self.send({"rank": self.place.rank, "host": socket.gethostname(), "said": said, "stopped": stopped})
        for line in self.lines:
            line.close()


def quick_exit() -> None:
    """End this process without C++'s destructors when Python has ended: its exit code, output and handlers are kept.

    Paddle 3.3.1 has no call that stops the threads of its store and of Gloo, which read what the destructors have freed
    if another rank leaves at that moment: rank 0 of two died so, of SIGSEGV or SIGABRT, after 1 of 6 finished runs.
    """
    libc = ctypes.CDLL(None) if os.name == "posix" else None
    if libc and hasattr(libc, "on_exit"):  # glibc's: calls a C function with the exit code
        atexit.register(libc.on_exit, libc._exit, None)  # not before: what is registered last is called first


def prepare(line: socket.socket) -> socket.socket:
    """Make a connection that waits without end and notices when the other machine is gone."""
    line.settimeout(None)
    line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KEEPALIVE.items():
        if hasattr(socket, name):
            line.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return line


def read_lines(line: socket.socket) -> Iterator[dict[str, Any]]:
    """The messages of a connection, until it is closed or broken."""
    with suppress(OSError, ValueError), line.makefile(encoding="utf-8") as file:
        while text := file.readline(LONGEST):
            message = json.loads(text)
            if isinstance(message, dict):
                yield message
