"""The one door through which the machine is looked at; tests hand in a recorded machine instead."""

import contextlib
import glob
import os
import platform
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

READ_LIMIT = 65536  # /proc/cpuinfo of a 256-core machine costs 100 ms when read to its end; the first cores say it all


class Answer(NamedTuple):
    """What a command printed, and its exit code; the code is None where the command did not end in time."""

    code: int | None
    output: str


class Machine:
    """This machine, as far as commands, text files and the operating system tell."""

    def __init__(self, timeout_s: float = 20.0) -> None:
        """`timeout_s` bounds each command; eight GPUs without the persistence daemon take ten seconds to answer."""
        self.timeout_s = timeout_s
        self.system = platform.system()
        self.arch = platform.machine()
        self.name = platform.node()

    def run(self, command: Sequence[str]) -> Answer | None:
        """Run a program without a shell; None where it is not installed or cannot be started."""
        import subprocess

        program = shutil.which(command[0])
        if program is None:
            return None
        try:
            process = subprocess.Popen(
                [program, *command[1:]],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                encoding="utf-8",
                errors="replace",
            )
        except OSError:
            return None
        try:
            output = process.communicate(timeout=self.timeout_s)[0]
        except subprocess.TimeoutExpired:
            process.kill()
            # A process that hangs inside a broken driver does not even die, so it is not waited for any longer.
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(1)
            return Answer(None, "")
        return Answer(process.returncode, output)

    def read(self, path: str) -> str | None:
        """The beginning of a text file, or None where there is none."""
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                return file.read(READ_LIMIT)
        except OSError:
            return None

    def glob(self, pattern: str) -> list[str]:
        """Sorted paths that match."""
        return sorted(glob.glob(pattern))

    def cores(self) -> int:
        """Logical cores that the scheduler lets this process use."""
        if sys.platform == "linux":
            return len(os.sched_getaffinity(0))
        return os.cpu_count() or 1

    def disk_free_mib(self, path: Path) -> int:
        """Free space of the disk that holds `path`."""
        return shutil.disk_usage(path).free >> 20

    def program_age(self, program: str) -> str:
        """A mark that changes when a program is installed, removed or replaced."""
        found = shutil.which(program)
        return f"{found} {os.stat(found).st_mtime_ns}" if found else ""

    def windows_ram_bytes(self) -> int:
        """Physical memory by `GlobalMemoryStatusEx`; 0 on other systems."""
        if sys.platform != "win32":
            return 0
        import ctypes

        # MEMORYSTATUSEX: two 32-bit fields (its own length and the load), then seven 64-bit ones, total RAM the first.
        status = (ctypes.c_ulonglong * 8)(64)
        ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status))
        return int(status[1])

    def windows_feature(self, number: int) -> bool:
        """Whether Windows says that the processor has a feature (`PF_*` of winnt.h); False on other systems."""
        if sys.platform != "win32":
            return False
        import ctypes

        return bool(ctypes.windll.kernel32.IsProcessorFeaturePresent(number))
