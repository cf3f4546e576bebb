"""Errors that users can fix: one sentence on stderr and exit code 2, no traceback.

Standard library only: scripts import this and nothing else of the kit before `main`, so that a virtual environment that
was not activated is one sentence too. Everything else imports it from `src.kit.config`.
"""

import errno
import gc
import importlib.util
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

__all__ = [
    "MASK",
    "URL",
    "Stopped",
    "UserError",
    "exit_with",
    "full_memory",
    "give_stops",
    "hide_passwords",
    "name_layer",
    "refuse_url",
    "run_main",
    "say_unreached",
    "stop_at",
    "take_stops",
    "too_large",
    "way_out",
]

MASK = "***"
# scheme://user:password@host, scheme://long-token@host, and ?token=...&signature=... of a signed URL
PASSWORDS = (
    re.compile(r"(?P<before>\b[A-Za-z][\w+.-]*://[^\s/:@'\"]*:)(?!\d+/)[^\s'\"]+(?P<after>@[^\s@'\"]+)"),
    re.compile(r"(?P<before>\b[A-Za-z][\w+.-]*://)[^\s/:@'\"]{16,}(?P<after>@)"),
    re.compile(
        r"(?P<before>[?&;][\w.-]*(?:passw|pwd|token|secret|signature|credential|api[_-]?key|access[_-]?key|\bsig\b)"
        r"[\w.-]*=)[^\s&;#'\"]+(?P<after>)",
        re.IGNORECASE,
    ),
)


URL = re.compile(r"([a-z][a-z0-9+.-]+):/+", re.IGNORECASE)  # two letters at least: C:/ is a drive
IN_CONTAINER = ("/.dockerenv", "/run/.containerenv")  # made by Docker and Podman
ROOM, PLACE = "free some space or choose another folder", "move what is in its place"
DISK = dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EACCES, errno.EROFS), ROOM)
DISK |= dict.fromkeys((errno.EISDIR, errno.ENOTDIR, errno.EEXIST), PLACE)
DISK[errno.ENAMETOOLONG] = "choose a shorter one"


MEMORY_FULL = ("out of memory", "can't allocate memory", "cannot allocate memory", "resourceexhausted")
KIT = Path(__file__).resolve().parent
STOPS: set[int] = set()  # training steps at which to open a debugger


class UserError(ValueError):
    """What is wrong and what to do about it, in one sentence."""


class Stopped(SystemExit):
    """A signal ended the program; the exit code is 128 plus its number, as shells report it.

    Not a KeyboardInterrupt, which Lightning turns into exit code 1. Without it, SIGTERM ends Lightning with 0.
    """


def run_main(main: Callable[[list[str]], None], argv: Sequence[str] | None = None) -> None:
    """Run a script's `main(argv)`; exit with 2 after a mistake that `explain_error` knows, with 130 after Ctrl-C.

    SIGTERM (docker stop, Kubernetes, SLURM) ends it with 143, as cleanly as Ctrl-C. The traceback of another error is
    that of the project's files, without what frameworks and kit did in between. `--debug` anywhere on the command line
    shows whole tracebacks instead. `--debugger` opens a debugger where the error arose; `--debugger 120` before the
    training step 120 too.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = bool({"--debug", "--debugger"} & set(arguments))
    if "--debugger" in arguments:
        place = arguments.index("--debugger")
        if arguments[place + 1 :] and arguments[place + 1].isdecimal():
            STOPS.add(int(arguments.pop(place + 1)))
            if not sys.stdin.isatty():
                exit_with(f"--debugger {min(STOPS)} waits for what you type, and this is no terminal: leave it out.")
        main = debugged(main)
    arguments = [argument for argument in arguments if argument not in ("--debug", "--debugger")]
    prepare(arguments, debug)
    try:
        main(arguments)
    except BrokenPipeError:  # the reader has closed the pipe, such as `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)  # what a shell reports for SIGPIPE
    except Exception as error:
        if not debug and (sentence := explain_error(error)):
            exit_with(sentence)
        frames, layer = [] if debug else own_frames(error), name_layer(error)
        if not frames and not layer:
            raise
        if frames:
            hidden = len(list(walk(error.__traceback__))) - len(frames)
            print(f"Without {hidden} frames of frameworks and kit, which --debug shows:", file=sys.stderr)
            error.__traceback__ = linked(frames)
        sys.excepthook(type(error), error, error.__traceback__)  # which suggests names, as Python does
        print(layer, end="", file=sys.stderr)
        sys.exit(1)


def explain_error(error: Exception) -> str:
    """What is wrong and what to do about it, in one sentence; "" for an error that no user can fix."""
    if isinstance(error, UserError):
        return str(error)
    if place := full_memory(error):
        return f"{place} ran out of memory: choose a smaller model, batch or data.image_size, or stop other programs."
    if isinstance(error, ModuleNotFoundError) and error.name and error.name.partition(".")[0] != "src":
        return (
            f"{sys.executable} has no {error.name}: activate the project's virtual environment, or install the "
            "packages with `pip install -r requirements-cpu.txt` (on a GPU, requirements-gpu.txt)."
        )
    if isinstance(error, AttributeError) and (key := getattr(error, "full_key", None)):  # OmegaConf's
        return f"The configuration has no key {key}: a file lacks it; `git diff src/configs` shows what changed."
    if isinstance(error, OSError) and error.errno in DISK:
        what = str(error.filename or "a file")[:300]
        return f"Cannot write {what}: {error.strerror}; {way_out(error, DISK[error.errno])}."
    return ""


def own_frames(error: Exception) -> list[TracebackType]:
    """The project's part of an error's traceback, outermost first, and where the error arose.

    Empty where the kit itself is to blame: that needs the whole traceback.
    """
    *outer, last = walk(error.__traceback__)
    own = [trace for trace in outer if is_own(file_of(trace))]
    return [] if file_of(last).is_relative_to(KIT) or not (own or is_own(file_of(last))) else [*own, last]


def name_layer(error: BaseException | None) -> str:
    """The line below an error's traceback that names the layer in which it arose; "" if there is none."""
    layer = find_layer(error) if error else ""
    return f"It arose in the network's layer {layer}.\n" if layer else ""


def find_layer(error: BaseException) -> str:
    """The innermost layer, of either framework, in whose forward pass an error arose: "layers.3: ReLU()"; "" if none.

    A `Sequential` calls its layers from the framework's files, so that no line of the project's tells them apart.
    """
    frames = [trace.tb_frame for trace in walk(error.__traceback__)]
    callers = [frame.f_locals.get("self") for frame in frames if frame.f_code.co_name != "__init__"]  # half built there
    layers: list[Any] = [each for each in callers if is_layer(type(each))]
    if not layers:
        return ""
    root, inner = layers[0], layers[-1]
    named = root.named_modules() if hasattr(root, "named_modules") else root.named_sublayers()
    name = next((name for name, layer in named if layer is inner), "")
    shown = repr(inner)
    shown = type(inner).__name__ if "\n" in shown else shown  # it holds others
    return f"{name}: {shown}" if name else ""


def is_layer(kind: type) -> bool:
    """Whether a class is of layers, but not Lightning's around the network."""
    return (hasattr(kind, "named_modules") or hasattr(kind, "named_sublayers")) and not hasattr(kind, "training_step")


def walk(trace: TracebackType | None) -> Iterator[TracebackType]:
    """The parts of a traceback, outermost first."""
    while trace:
        yield trace
        trace = trace.tb_next


def linked(traces: Sequence[TracebackType]) -> TracebackType | None:
    """A traceback of these parts."""
    chain = None
    for trace in reversed(traces):
        chain = TracebackType(chain, trace.tb_frame, trace.tb_lasti, trace.tb_lineno)
    return chain


def file_of(trace: TracebackType) -> Path:
    """The file of a traceback's outermost part."""
    return Path(trace.tb_frame.f_code.co_filename)


def is_own(file: Path) -> bool:
    """Whether a file is the project's, and not the kit's or a package's in an environment inside the project."""
    return file.is_relative_to(KIT.parents[1]) and not file.is_relative_to(KIT) and "site-packages" not in file.parts


def full_memory(error: Exception) -> str:
    """Whose memory is full by a framework's or NumPy's words, "The GPU" or "This machine"; "" for other errors."""
    text = str(error).lower()
    if not isinstance(error, MemoryError) and not any(words in text for words in MEMORY_FULL):
        return ""
    return "The GPU" if re.search(r"\b(cuda|gpu|hip|mps)\b", text) else "This machine"


def too_large(place: str, batch_size: Any) -> str:
    """One sentence for a training that `full_memory` has ended."""
    return (
        f"{place} ran out of memory with data.batch_size={batch_size}: halve it and double "
        "trainer.accumulate_grad_batches, or on a GPU use trainer.precision=bf16-mixed."
    )


def prepare(arguments: Sequence[str], debug: bool) -> None:
    """Let Ctrl-C and SIGTERM end the program as `stop` does; spare --help what it does not live to need."""
    if {"--help", "-h"} & set(arguments):
        gc.disable()
    for number in (signal.SIGINT, signal.SIGTERM):
        if not debug and signal.getsignal(number) is not signal.SIG_IGN:  # a shell ignores Ctrl-C in background jobs
            signal.signal(number, stop)


def debugged(main: Callable[[list[str]], None]) -> Callable[[list[str]], None]:
    """`main`, with a debugger at its errors: ipdb where it is installed, else Python's own."""

    def run(argv: list[str]) -> None:
        try:
            main(argv)
        except Exception as error:
            import traceback  # here, since --help does without it

            traceback.print_exc()
            print(name_layer(error), end="", file=sys.stderr)
            debugger().post_mortem(error.__traceback__)
            sys.exit(1)
        say_unreached()

    return run


def say_unreached() -> None:
    """Say that the training ended before the step of `--debugger`."""
    for step in STOPS:
        print(f"--debugger {step}: there was no such step in this process.", file=sys.stderr)


def give_stops() -> tuple[set[int], str]:
    """What `take_stops` needs to open the debugger in another process, and no longer in this one."""
    steps = set(STOPS)
    STOPS.clear()
    return steps, os.ttyname(0) if steps and hasattr(os, "ttyname") else "CONIN$"  # Windows' name of the terminal


def take_stops(steps: set[int], terminal: str) -> None:
    """Open a debugger before these steps in this process, whose input the debugger reads from the terminal."""
    if steps:
        STOPS.update(steps)
        sys.stdin = open(terminal, encoding="utf-8")  # noqa: SIM115 (until this process ends)


def debugger() -> Any:
    """The module ipdb where it is installed, else Python's own debugger."""
    return importlib.import_module("ipdb" if importlib.util.find_spec("ipdb") else "pdb")


def stop_at(step: int, here: bool = True) -> None:
    """Open a debugger in the function that called the caller if `--debugger` named this step, counted from 1.

    Of several processes only one does so `here`; the others wait for it, and leave it to say what it did not reach.
    """
    if not here:
        STOPS.clear()
    if step in STOPS:
        STOPS.remove(step)
        module = debugger()
        opened = module.Pdb() if hasattr(module, "Pdb") else module  # pdb's own function takes no frame
        opened.set_trace(sys._getframe(2))


def refuse_url(path: str | Path, name: str = "") -> None:
    """Refuse a URL, also one that `Path` has made https:/host, where a file or folder is needed; `name` is "KEY="."""
    text = path.as_posix() if isinstance(path, Path) else path
    if URL.match(text):
        url = URL.sub(r"\1://", text, count=1)
        raise UserError(f"{name}{url} is not on this machine: give a file or folder that is, such as a download of it.")


def way_out(error: OSError, otherwise: str) -> str:
    """What to do about a file that can't be written: whose folder it is in, or `otherwise` for other errors."""
    if error.errno not in (errno.EACCES, errno.EPERM) or error.filename is None or not hasattr(os, "getuid"):
        return otherwise
    file = Path(os.fsdecode(error.filename)).absolute()
    folder = next(path for path in (file, *file.parents) if path.exists())
    user, owner = os.getuid(), folder.stat()
    if owner.st_uid == user:
        return f"make {folder} writable or choose another folder"
    if not any(Path(mark).exists() for mark in IN_CONTAINER):
        return f"{folder} belongs to user {owner.st_uid} and you are {user}: choose another folder"
    lines = f"HOST_UID={owner.st_uid} and HOST_GID={owner.st_gid}"
    return f"{folder} belongs to user {owner.st_uid} and this container runs as {user}: write {lines} into deploy/.env"


def stop(number: int, frame: FrameType | None) -> None:
    """Handle a signal: leave all `with` and `finally` blocks in order; a second signal ends the program at once."""
    signal.signal(number, signal.SIG_DFL)
    raise Stopped(128 + number)


def exit_with(message: str) -> None:
    """Print `error: message` to stderr, without passwords, and exit with code 2."""
    print(f"error: {hide_passwords(message)}".encode("utf-8", "replace").decode(), file=sys.stderr)
    sys.exit(2)


def hide_passwords(text: str) -> str:
    """Replace what looks like a password or a token in the URLs of a text by `***`."""
    for pattern in PASSWORDS:
        text = pattern.sub(rf"\g<before>{MASK}\g<after>", text)
    return text
