"""Memory that this process may still take."""

import re

from src.kit.hardware.host import cgroup_files, ram_mib
from src.kit.hardware.machine import Machine

UNKNOWN_SHARE = 0.5  # of all memory counts as free where the system's own figure cannot be read without a library


def free_ram(machine: Machine) -> int:
    """Bytes of RAM that are free or hold only cached files, and within every cgroup's limit."""
    found = re.search(r"^MemAvailable:\s*(\d+) kB", machine.read("/proc/meminfo") or "", re.MULTILINE)
    free = int(found[1]) << 10 if found else int(UNKNOWN_SHARE * (ram_mib(machine) << 20))
    return max(0, min([free, *cgroup_rest(machine)]))


def cgroup_rest(machine: Machine) -> list[int]:
    """What each cgroup's limit leaves; files that its processes have read give way and don't count as used."""
    rest = []
    for names in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
        limits, used, stats = (cgroup_files(machine, "memory", name) for name in (*names, "memory.stat"))
        for limit, usage, stat in zip(limits, used, stats, strict=False):
            found = re.search(r"^(?:total_)?inactive_file (\d+)", stat, re.MULTILINE)
            if limit.isdigit() and usage.isdigit():
                rest.append(int(limit) - int(usage) + (int(found[1]) if found else 0))
    return rest
