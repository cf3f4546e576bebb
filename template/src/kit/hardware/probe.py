"""What the operating system says about this machine: cores, memory, processor, and how busy its GPU is.

Everything goes through `SystemProbe`, so that tests can replay a recorded machine. Standard library only.
"""

import contextlib
import glob
import math
import os
import platform
import re
import shutil
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

READ_LIMIT = 65536  # bytes; all of /proc/cpuinfo on 256 cores takes 100 ms to read, and the first cores suffice
ASSUMED_FREE = 0.5  # share of all memory that counts as free where the system doesn't tell without a library
INSTRUCTIONS = {"avx": "AVX", "avx2": "AVX2", "avx512f": "AVX-512", "amx_tile": "AMX", "asimd": "NEON", "sve": "SVE"}
WINDOWS_FEATURES = {39: "AVX", 40: "AVX2", 41: "AVX-512"}  # PF_AVX_INSTRUCTIONS_AVAILABLE and the two after it
POLL_S = 0.25  # nvidia-smi reports the mean of the last 0.17 to 1 s

# Peak 10^12 operations a second of the tensor cores without sparsity: (fp16 and bf16 with fp32 sums, TF32). TF32 counts
# for trainer.precision=32-true, since both frameworks let cuDNN's convolutions use it; older GPUs: plain fp32.
PEAKS = (
    (r"B200$", 2250, 1100),  # HGX B200 datasheet
    (r"H100 NVL", 835, 417),  # H100 datasheet, whose figures (with sparsity) are twice these
    (r"H100 PCIe", 756, 378),  # the same
    (r"H100 80GB|H200$", 989, 494),  # the same, of SXM modules; H200 datasheet
    (r"A100|A800", 312, 156),  # A100 datasheet
    (r"A30$", 165, 82),  # A30 datasheet
    (r"A40$", 149.7, 74.8),  # A40 datasheet
    (r"A10$", 125, 62.5),  # A10 datasheet
    (r"L40S$", 362, 183),  # L40S datasheet
    (r"L40$", 181, 90.5),  # L40 datasheet
    (r"L4$", 121, 60),  # L4 datasheet, whose figures (with sparsity) are twice these
    (r"RTX 5090$", 209.5, 104.8),  # RTX Blackwell whitepaper
    (r"RTX 4090$", 165.2, 82.6),  # Ada whitepaper
    (r"RTX 4080$", 97.5, 48.7),  # the same
    (r"RTX 3090$", 71, 35.6),  # GA102 whitepaper
    (r"V100-SXM2", 125, 15.7),  # V100 datasheet
    (r"V100-PCIE", 112, 14),  # the same
    (r"T4$", 65, 8.1),  # T4 datasheet
)
WITHOUT_BF16 = r"V100|T4"


class Answer(NamedTuple):
    """What a command printed, and its exit code; None if it didn't finish in time."""

    code: int | None
    output: str


class SystemProbe:
    """Reads files, runs commands and asks the operating system; tests override its methods."""

    def __init__(self, timeout_s: float = 20.0) -> None:
        """`timeout_s` limits each command: without the persistence daemon, eight GPUs take ten seconds to answer."""
        self.timeout_s = timeout_s
        self.system = platform.system()
        self.arch = platform.machine()
        self.name = platform.node()

    def run(self, command: Sequence[str]) -> Answer | None:
        """Run a program without a shell; None if it isn't installed or can't start."""
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
            # A process that hangs inside a broken driver can't even be killed: don't wait for it any longer.
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(1)
            return Answer(None, "")
        return Answer(process.returncode, output)

    def read(self, path: str) -> str | None:
        """Return the beginning of a text file, or None if it can't be read."""
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                return file.read(READ_LIMIT)
        except OSError:
            return None

    def glob(self, pattern: str) -> list[str]:
        """Return matching paths, sorted."""
        return sorted(glob.glob(pattern))

    def cores(self) -> int:
        """Return the number of logical cores that the scheduler lets this process use."""
        if sys.platform == "linux":
            return len(os.sched_getaffinity(0))
        return os.cpu_count() or 1

    def disk_free_mib(self, path: Path) -> int:
        """Return the free MiB on the disk that holds `path`."""
        return shutil.disk_usage(path).free >> 20

    def program_version_key(self, program: str) -> str:
        """Return a string that changes when a program is installed, removed or replaced."""
        path = shutil.which(program)
        return f"{path} {os.stat(path).st_mtime_ns}" if path else ""

    def windows_ram_bytes(self) -> int:
        """Return the physical memory by `GlobalMemoryStatusEx`; 0 on other systems."""
        if sys.platform != "win32":
            return 0
        import ctypes

        # MEMORYSTATUSEX: two 32-bit fields (its own length and the load), then seven 64-bit ones, total RAM the first.
        status = (ctypes.c_ulonglong * 8)(64)
        ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status))
        return int(status[1])

    def windows_feature(self, number: int) -> bool:
        """Return whether Windows reports a processor feature (`PF_*` of winnt.h); False on other systems."""
        if sys.platform != "win32":
            return False
        import ctypes

        return bool(ctypes.windll.kernel32.IsProcessorFeaturePresent(number))


def cpu_model(probe: SystemProbe) -> str:
    """Return the processor's name, or the architecture if nothing tells it."""
    if probe.system == "Darwin":
        return sysctl(probe, "machdep.cpu.brand_string") or probe.arch
    if probe.system == "Windows":
        return platform.processor() or probe.arch
    match = re.search(r"^(?:model name|Model|Hardware)\s*:\s*(.+)$", probe.read("/proc/cpuinfo") or "", re.MULTILINE)
    return match[1].strip() if match else probe.arch


def instructions(probe: SystemProbe) -> tuple[str, ...]:
    """Return the processor's vector and matrix extensions that speed up training: names from `INSTRUCTIONS`."""
    if probe.system == "Windows":
        return tuple(name for number, name in WINDOWS_FEATURES.items() if probe.windows_feature(number))
    if probe.system == "Darwin":
        if probe.arch == "arm64":
            return ("NEON",)
        names = sysctl(probe, "machdep.cpu.features") + " " + sysctl(probe, "machdep.cpu.leaf7_features")
        present = set(names.lower().replace("avx1.0", "avx").split())
    else:
        match = re.search(r"^(?:flags|Features)\s*:(.*)$", probe.read("/proc/cpuinfo") or "", re.MULTILINE)
        present = set(match[1].split()) if match else set()
    return tuple(name for flag, name in INSTRUCTIONS.items() if flag in present)


def cores(probe: SystemProbe) -> int:
    """Return how many cores this process can keep busy: CPU affinity and cgroup quota, rounded up."""
    limit = float(probe.cores())
    for text in cgroup_files(probe, "cpu", "cpu.max"):
        quota, _, period = text.partition(" ")
        if quota.isdigit() and period.strip().isdigit():
            limit = min(limit, int(quota) / int(period))
    quotas = cgroup_files(probe, "cpu", "cpu.cfs_quota_us")
    periods = cgroup_files(probe, "cpu", "cpu.cfs_period_us")
    for quota, period in zip(quotas, periods, strict=False):
        if quota.isdigit() and period.isdigit() and int(period):  # a quota of -1 means none
            limit = min(limit, int(quota) / int(period))
    return max(1, math.ceil(limit))


def ram_mib(probe: SystemProbe) -> int:
    """Return the memory that this process may use, in MiB: the machine's, or less by cgroup limit; 0 if unknown."""
    if probe.system == "Darwin":
        total = int(sysctl(probe, "hw.memsize") or 0)
    elif probe.system == "Windows":
        total = probe.windows_ram_bytes()
    else:
        match = re.search(r"^MemTotal:\s*(\d+) kB", probe.read("/proc/meminfo") or "", re.MULTILINE)
        total = int(match[1]) * 1024 if match else 0
    limits = cgroup_files(probe, "memory", "memory.max") + cgroup_files(probe, "memory", "memory.limit_in_bytes")
    return min([total, *(int(limit) for limit in limits if limit.isdigit())]) >> 20


def free_ram(probe: SystemProbe) -> int:
    """Return the bytes of RAM that are free or hold only cached files, within every cgroup limit."""
    match = re.search(r"^MemAvailable:\s*(\d+) kB", probe.read("/proc/meminfo") or "", re.MULTILINE)
    free = int(match[1]) << 10 if match else int(ASSUMED_FREE * (ram_mib(probe) << 20))
    return max(0, min([free, *cgroup_free_ram(probe)]))


def cgroup_free_ram(probe: SystemProbe) -> list[int]:
    """Return the bytes that each cgroup limit leaves; the kernel evicts cached files, so they don't count as used."""
    free = []
    for names in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
        limits, used, stats = (cgroup_files(probe, "memory", name) for name in (*names, "memory.stat"))
        for limit, usage, stat in zip(limits, used, stats, strict=False):
            match = re.search(r"^(?:total_)?inactive_file (\d+)", stat, re.MULTILINE)
            if limit.isdigit() and usage.isdigit():
                free.append(int(limit) - int(usage) + (int(match[1]) if match else 0))
    return free


def cgroup_files(probe: SystemProbe, controller: str, name: str) -> list[str]:
    """Return a cgroup file's contents at every level from this process's group up to the root: the strictest applies.

    Version 1 has a tree for each controller, version 2 a single one. In a container the group's own path is often not
    mounted and its limits are at the root of the mount, so missing levels are skipped.
    """
    contents = []
    for line in (probe.read("/proc/self/cgroup") or "0::/").splitlines():
        _, controllers, group = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        tree = ["/sys/fs/cgroup", controller] if controllers else ["/sys/fs/cgroup"]
        levels = [part for part in group.split("/") if part and part != ".."]
        for depth in range(len(levels), -1, -1):
            text = probe.read("/".join([*tree, *levels[:depth], name]))
            if text is not None:
                contents.append(text.strip())
    return contents


def sysctl(probe: SystemProbe, key: str) -> str:
    """Return a value of macOS's `sysctl`, or "" if it has none."""
    answer = probe.run(["sysctl", "-n", key])
    return answer.output.strip() if answer and answer.code == 0 else ""


def peak_mib() -> int:
    """Return the largest resident set of this process so far, in MiB."""
    if sys.platform == "win32":
        return windows_working_set()[0] >> 20
    if sys.platform == "linux":  # not getrusage: its figure starts at that of the parent process
        match = re.search(r"^VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text("utf-8"), re.MULTILINE)
        if match:
            return int(match[1]) >> 10
    import resource

    # macOS counts bytes, the others KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> (20 if sys.platform == "darwin" else 10)


def resident_bytes() -> int:
    """Return the resident set of this process, in bytes; on macOS the largest one so far, which grows with it."""
    if sys.platform == "win32":
        return windows_working_set()[1]
    if sys.platform == "linux":
        return int(Path("/proc/self/statm").read_text("utf-8").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return peak_mib() << 20


def windows_working_set() -> tuple[int, int]:
    """Return PeakWorkingSetSize and WorkingSetSize of PROCESS_MEMORY_COUNTERS."""
    import ctypes
    from ctypes import wintypes

    class Counters(ctypes.Structure):
        _fields_ = (
            ("cb", wintypes.DWORD),
            ("faults", wintypes.DWORD),
            ("peak", ctypes.c_size_t),
            ("current", ctypes.c_size_t),
            ("others", ctypes.c_size_t * 6),
        )

    counters = Counters(cb=ctypes.sizeof(Counters))
    kernel = ctypes.WinDLL("kernel32")  # type: ignore[attr-defined]
    kernel.GetCurrentProcess.restype = wintypes.HANDLE
    kernel.K32GetProcessMemoryInfo.argtypes = (wintypes.HANDLE, ctypes.POINTER(Counters), wintypes.DWORD)
    kernel.K32GetProcessMemoryInfo(kernel.GetCurrentProcess(), ctypes.byref(counters), counters.cb)
    return int(counters.peak), int(counters.current)


def peak_flops(gpu: str, precision: str) -> float | None:
    """Return a GPU's peak operations a second at `trainer.precision`; None for an unknown GPU or a MIG instance."""
    row = next((row for row in PEAKS if re.search(rf"\b{row[0]}", gpu)), None)
    if row is None or "MIG" in gpu or (precision == "bf16-mixed" and re.search(WITHOUT_BF16, gpu)):
        return None
    return 1e12 * (row[2] if precision == "32-true" else row[1])


class Utilisation:
    """Polls `nvidia-smi` from a thread for the share of time in which a GPU computes: `with Utilisation() as gpu:`."""

    def __init__(self, asked: bool = True, probe: SystemProbe | None = None) -> None:
        """`asked=False` polls nothing, for machines without a GPU."""
        self.asked, self.probe = asked, probe or SystemProbe()
        self.samples: list[tuple[float, float]] = []  # (time.perf_counter, per cent)
        self.stop, self.thread = threading.Event(), threading.Thread(target=self.poll, daemon=True)

    def poll(self) -> None:
        chosen = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0] or "0"
        command = ["nvidia-smi", f"--id={chosen}", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
        while not self.stop.wait(POLL_S):
            answer = self.probe.run(command)
            if answer and answer.output.strip().isdigit():  # a MIG instance answers [N/A]
                self.samples.append((time.perf_counter(), float(answer.output)))

    def __enter__(self) -> "Utilisation":
        if self.asked:
            self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        if self.asked:
            self.thread.join()

    def mean(self, windows: Sequence[tuple[float, float]]) -> float | None:
        """Return the mean per cent within windows of `time.perf_counter`; None if there is no sample."""
        inside = [value for at, value in self.samples if any(begin <= at <= end for begin, end in windows)]
        return sum(inside) / len(inside) if inside else None
