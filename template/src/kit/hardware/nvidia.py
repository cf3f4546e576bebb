"""NVIDIA's GPUs, as `nvidia-smi` tells them: whole ones and MIG instances, driver, highest CUDA version."""

import re

from src.kit.hardware.gpus import Found, Gpu
from src.kit.hardware.machine import Answer, Machine

FIELDS = ("driver_version", "memory.total", "mig.mode.current", "compute_cap", "name")

# Driver branch -> highest CUDA version, from the CUDA toolkit's release notes; for an nvidia-smi that names none.
DRIVER_CUDA = {
    590: "13.1", 580: "13.0", 575: "12.9", 570: "12.8", 560: "12.6", 555: "12.5", 550: "12.4", 545: "12.3", 535: "12.2",
    530: "12.1", 525: "12.0", 520: "11.8", 515: "11.7", 510: "11.6", 495: "11.5", 470: "11.4", 465: "11.3", 460: "11.2",
    455: "11.1", 450: "11.0", 440: "10.2", 418: "10.1", 410: "10.0",
}  # fmt: skip

# Drivers before 510 do not tell the compute capability. They run no GPU newer than Ampere, so older ones suffice here.
CAPABILITIES = (
    (r"A100|A30\b|A800", "8.0"),
    (r"RTX 30\d0|RTX A\d000|\bA(2|10|10G|16|40)\b", "8.6"),
    (r"\bT4\b|RTX 20\d0|GTX 16\d0|TITAN RTX|Quadro RTX|T\d{3,4}\b", "7.5"),
    (r"V100|TITAN V|GV100", "7.0"),
    (r"P100|GP100", "6.0"),
    (r"GTX 10\d0|TITAN X|\bP(4|6|40)\b|Quadro P\d", "6.1"),
    (r"GTX 9\d0|\bM(4|6|10|40|60)\b", "5.2"),
    (r"K80|K40", "3.5"),
)


def find_nvidia(machine: Machine, ram_mib: int) -> Found:
    """GPUs that this process can use; a note says why there are none where `nvidia-smi` hangs, fails or is garbled."""
    fields: tuple[str, ...] = FIELDS
    answer = query(machine, fields)
    if answer is None:
        return no_nvidia_smi(machine)
    while (unknown := re.search(r'Field "([\w.]+)" is not a valid', answer.output)) and unknown[1] in fields:
        fields = tuple(field for field in fields if field != unknown[1])  # an old driver
        answer = query(machine, fields) or Answer(1, "")
    if answer.code is None:
        return Found(notes=(f"nvidia-smi did not answer within {machine.timeout_s:g} s.",))
    if answer.code:
        said = next(iter(answer.output.strip().splitlines()), "nothing")
        return Found(notes=(f"nvidia-smi failed with exit code {answer.code} and said: {said[:200]}",))
    summary = machine.run(["nvidia-smi"]) or Answer(0, "")
    instances = mig_instances(summary.output)
    gpus: list[Gpu] = []
    notes: list[str] = []
    driver = None
    for index, line in enumerate(answer.output.strip().splitlines()):
        row = dict(zip(fields, (value.strip() for value in line.split(",", len(fields) - 1)), strict=False))
        if not re.fullmatch(r"\d+\.[\d.]+", row.get("driver_version", "")) or not row.get("name"):
            notes.append(f"nvidia-smi gave a line that cannot be read: {line[:200]!r}")
            continue
        driver = row["driver_version"]
        if row.get("mig.mode.current") == "Enabled":
            gpus += [
                Gpu("nvidia", f"{row['name']} MIG", size, capability(row), True) for size in instances.get(index, [])
            ]
            if index not in instances:
                notes.append(
                    f"GPU {index} ({row['name']}) is in MIG mode but has no instance that this process may use."
                )
        else:
            gpus.append(Gpu("nvidia", row["name"], memory_mib(row["memory.total"], ram_mib), capability(row)))
    return Found(tuple(gpus), driver, cuda_version(summary.output, driver), tuple(notes))


def query(machine: Machine, fields: tuple[str, ...]) -> Answer | None:
    """One line a GPU, the name last since only it might hold a comma."""
    return machine.run(["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"])


def no_nvidia_smi(machine: Machine) -> Found:
    """Nothing, or a note where the driver is loaded all the same, as in a container that was given no GPU."""
    if machine.read("/proc/driver/nvidia/version") is None:
        return Found()
    return Found(
        notes=("An NVIDIA driver is loaded, but there is no nvidia-smi: a container needs `--gpus all` to get it.",)
    )


def memory_mib(text: str, ram_mib: int) -> int:
    """MiB as nvidia-smi gives them; a GPU that shares the RAM (Jetson, GB10) answers [N/A] and may use all of it."""
    if text.isdigit():
        return int(text)
    return ram_mib if text in ("[N/A]", "[Not Supported]") else 0


def capability(row: dict[str, str]) -> str | None:
    """The compute capability such as "8.0"."""
    if re.fullmatch(r"\d+\.\d+", row.get("compute_cap", "")):
        return row["compute_cap"]
    return next((value for pattern, value in CAPABILITIES if re.search(pattern, row["name"])), None)


def mig_instances(summary: str) -> dict[int, list[int]]:
    """GPU index -> memory in MiB of each of its MIG instances, from the second table of a bare `nvidia-smi`.

    Compute instances that share one GPU instance share its memory; the table gives it once, on the first of them.
    """
    instances: dict[int, list[int]] = {}
    table = summary.partition("MIG devices:")[2]
    for row in re.finditer(r"^\|\s+(\d+)\s+\d+\s+\d+\s+\d+\s+\|\s+\d+MiB\s*/\s*(\d+)MiB", table, re.MULTILINE):
        instances.setdefault(int(row[1]), []).append(int(row[2]))
    return instances


def cuda_version(summary: str, driver: str | None) -> str | None:
    """The highest CUDA version that the driver supports; since branch 610 it is headed "CUDA UMD Version"."""
    found = re.search(r"CUDA(?: UMD)? Version\s*:\s*(\d+\.\d+)", summary)
    if found:
        return found[1]
    branch = int(driver.partition(".")[0]) if driver else 0
    return next((cuda for oldest, cuda in DRIVER_CUDA.items() if branch >= oldest), None)
