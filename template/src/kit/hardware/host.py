"""Processor and memory of the machine, as far as this process may use them."""

import math
import re

from src.kit.hardware.machine import Machine

INSTRUCTIONS = {"avx": "AVX", "avx2": "AVX2", "avx512f": "AVX-512", "amx_tile": "AMX", "asimd": "NEON", "sve": "SVE"}
WINDOWS_FEATURES = {39: "AVX", 40: "AVX2", 41: "AVX-512"}  # PF_AVX_INSTRUCTIONS_AVAILABLE and the two after it


def cpu_model(machine: Machine) -> str:
    """The processor's name, or the architecture where nothing tells."""
    if machine.system == "Darwin":
        return sysctl(machine, "machdep.cpu.brand_string") or machine.arch
    if machine.system == "Windows":
        import platform

        return platform.processor() or machine.arch
    found = re.search(r"^(?:model name|Model|Hardware)\s*:\s*(.+)$", machine.read("/proc/cpuinfo") or "", re.MULTILINE)
    return found[1].strip() if found else machine.arch


def instructions(machine: Machine) -> tuple[str, ...]:
    """Vector and matrix instruction sets that make training on the processor fast, as in `INSTRUCTIONS`."""
    if machine.system == "Windows":
        return tuple(name for number, name in WINDOWS_FEATURES.items() if machine.windows_feature(number))
    if machine.system == "Darwin":
        if machine.arch == "arm64":
            return ("NEON",)
        names = sysctl(machine, "machdep.cpu.features") + " " + sysctl(machine, "machdep.cpu.leaf7_features")
        present = set(names.lower().replace("avx1.0", "avx").split())
    else:
        found = re.search(r"^(?:flags|Features)\s*:(.*)$", machine.read("/proc/cpuinfo") or "", re.MULTILINE)
        present = set(found[1].split()) if found else set()
    return tuple(name for flag, name in INSTRUCTIONS.items() if flag in present)


def cores(machine: Machine) -> int:
    """Cores that this process may keep busy: affinity and the cgroup's quota count, rounded up to whole cores."""
    limit = float(machine.cores())
    for text in cgroup_files(machine, "cpu", "cpu.max"):
        quota, _, period = text.partition(" ")
        if quota.isdigit() and period.strip().isdigit():
            limit = min(limit, int(quota) / int(period))
    quotas = cgroup_files(machine, "cpu", "cpu.cfs_quota_us")
    periods = cgroup_files(machine, "cpu", "cpu.cfs_period_us")
    for quota, period in zip(quotas, periods, strict=False):
        if quota.isdigit() and period.isdigit() and int(period):  # a quota of -1 means none
            limit = min(limit, int(quota) / int(period))
    return max(1, math.ceil(limit))


def ram_mib(machine: Machine) -> int:
    """Memory that this process may use, in MiB: the cgroup's limit or all that the machine has; 0 if unknown."""
    if machine.system == "Darwin":
        total = int(sysctl(machine, "hw.memsize") or 0)
    elif machine.system == "Windows":
        total = machine.windows_ram_bytes()
    else:
        found = re.search(r"^MemTotal:\s*(\d+) kB", machine.read("/proc/meminfo") or "", re.MULTILINE)
        total = int(found[1]) * 1024 if found else 0
    limits = cgroup_files(machine, "memory", "memory.max") + cgroup_files(machine, "memory", "memory.limit_in_bytes")
    return min([total, *(int(limit) for limit in limits if limit.isdigit())]) >> 20


def cgroup_files(machine: Machine, controller: str, name: str) -> list[str]:
    """Contents of a cgroup file at every level from this process's group up to the root: the strictest one holds.

    Version 1 has one tree for each controller, version 2 a single one. In a container the group's own path is often
    not mounted and its limits stand at the root of the mount, so a level that is missing is passed over.
    """
    contents = []
    for line in (machine.read("/proc/self/cgroup") or "0::/").splitlines():
        _, controllers, group = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        tree = ["/sys/fs/cgroup", controller] if controllers else ["/sys/fs/cgroup"]
        levels = [part for part in group.split("/") if part and part != ".."]
        for depth in range(len(levels), -1, -1):
            text = machine.read("/".join([*tree, *levels[:depth], name]))
            if text is not None:
                contents.append(text.strip())
    return contents


def sysctl(machine: Machine, key: str) -> str:
    """A value of macOS's `sysctl`, or "" where it has none."""
    answer = machine.run(["sysctl", "-n", key])
    return answer.output.strip() if answer and answer.code == 0 else ""
