"""Detection on machines whose answers were recorded, and on this one with programs that misbehave."""

import dataclasses
import fnmatch
import json
import os
import subprocess
import sys
import time

import pytest

from paths import TEMPLATE
from src.kit.hardware.hardware import Hardware, detect
from src.kit.hardware.probe import Answer, SystemProbe

HEADER = "| NVIDIA-SMI {0}    Driver Version: {0}    CUDA Version: {1}     |\n"
CPUINFO = "processor : 0\nmodel name\t: Intel(R) Xeon(R) Platinum 8480+\nflags\t\t: fpu sse avx avx2 avx512f amx_tile\n"
MIG_TABLE = """\
| MIG devices:                                                                |
| GPU  GI  CI  MIG |         Memory-Usage |        Vol|         Shared        |
|==================+======================+===========+=======================|
|  1    3   0   0  |  14366MiB / 19968MiB | 28      0 |  2   0    1    0    0 |
|                  |      4MiB / 32767MiB |           |                       |
+------------------+----------------------+-----------+-----------------------+
|  1    3   1   1  |                      | 14      0 |  2   0    1    0    0 |
+------------------+----------------------+-----------+-----------------------+
|  1    7   0   2  |     12MiB /  4864MiB | 14      0 |  1   0    0    0    0 |
"""


class Recorded(SystemProbe):
    """A machine that answers from recordings: commands by how they begin, files by path."""

    def __init__(self, commands=None, files=None, system="Linux", arch="x86_64", cores=16):
        super().__init__()
        self.system, self.arch, self.name = system, arch, "recorded"
        self.commands, self.core_count, self.asked = commands or {}, cores, []
        self.files = {"/proc/cpuinfo": CPUINFO, "/proc/meminfo": "MemTotal:       67108864 kB\n"} | (files or {})

    def run(self, command):
        line = " ".join(command)
        self.asked.append(line)
        matches = [start for start in self.commands if line.startswith(start)]
        answer = self.commands[max(matches, key=len)] if matches else None
        return Answer(0, answer) if isinstance(answer, str) else answer

    def read(self, path):
        return self.files.get(path)

    def glob(self, pattern):
        return sorted(path for path in self.files if fnmatch.fnmatch(path, pattern))

    def cores(self):
        return self.core_count

    def disk_free_mib(self, path):
        return 50_000

    def program_version_key(self, program):
        return ""


def nvidia(rows: str, driver="570.133.07", cuda="12.8", extra="", **others) -> Recorded:
    return Recorded(
        {"nvidia-smi": HEADER.format(driver, cuda) + extra, "nvidia-smi --query-gpu": rows.replace("DRIVER", driver)},
        **others,
    )


def test_a_machine_without_a_gpu(tmp_path):
    hardware = detect(probe=Recorded(), root=tmp_path)
    assert (hardware.gpus, hardware.driver, hardware.cuda, hardware.notes) == ((), None, None, ())
    assert hardware.cpu == "Intel(R) Xeon(R) Platinum 8480+"
    assert hardware.instructions == ("AVX", "AVX2", "AVX-512", "AMX")
    assert (hardware.cores, hardware.ram_mib, hardware.disk_free_mib) == (16, 65536, 50_000)


def test_one_gpu(tmp_path):
    hardware = detect(probe=nvidia("DRIVER, 24564, [N/A], 8.9, NVIDIA GeForce RTX 4090\n"), root=tmp_path)
    (gpu,) = hardware.gpus
    assert (gpu.vendor, gpu.model, gpu.memory_mib) == ("nvidia", "NVIDIA GeForce RTX 4090", 24564)
    assert (gpu.compute_capability, gpu.mig) == ("8.9", False)
    assert (hardware.driver, hardware.cuda) == ("570.133.07", "12.8")


def test_eight_equal_gpus(tmp_path):
    hardware = detect(probe=nvidia("DRIVER, 81559, Disabled, 9.0, NVIDIA H100 80GB HBM3\n" * 8), root=tmp_path)
    assert len(hardware.gpus) == 8
    assert len(set(hardware.gpus)) == 1


def test_the_smallest_of_unequal_gpus(tmp_path):
    rows = "DRIVER, 24576, [N/A], 8.6, NVIDIA GeForce RTX 3090\nDRIVER, 8192, [N/A], 7.5, NVIDIA GeForce RTX 2070\n"
    assert detect(probe=nvidia(rows), root=tmp_path).smallest_gpu_mib == 8192


def test_mig_instances_take_the_place_of_their_gpu(tmp_path):
    rows = "DRIVER, 40960, Disabled, 8.0, NVIDIA A100-SXM4-40GB\nDRIVER, 40960, Enabled, 8.0, NVIDIA A100-SXM4-40GB\n"
    gpus = detect(probe=nvidia(rows, extra=MIG_TABLE), root=tmp_path).gpus
    assert [(gpu.mig, gpu.memory_mib) for gpu in gpus] == [(False, 40960), (True, 19968), (True, 4864)]


def test_mig_mode_without_an_instance_is_no_gpu(tmp_path):
    hardware = detect(probe=nvidia("DRIVER, 40960, Enabled, 8.0, NVIDIA A100-SXM4-40GB\n"), root=tmp_path)
    assert hardware.gpus == ()
    assert "MIG mode" in hardware.notes[0]


def test_an_old_driver_that_knows_neither_mig_nor_compute_capability(tmp_path):
    class Old(Recorded):
        def run(self, command):
            line = " ".join(command)
            for field in ("mig.mode.current", "compute_cap"):
                if field in line:
                    return Answer(2, f'Field "{field}" is not a valid field to query.\n\n')
            return Answer(
                0, "440.118.02, 16160, Tesla V100-SXM2-16GB\n" if "query" in line else "NVIDIA-SMI 440.118.02"
            )

    hardware = detect(probe=Old(), root=tmp_path)
    (gpu,) = hardware.gpus
    assert (gpu.memory_mib, gpu.compute_capability) == (16160, "7.0")
    assert (hardware.driver, hardware.cuda) == ("440.118.02", "10.2")


def test_the_heading_of_drivers_since_610(tmp_path):
    machine = nvidia("DRIVER, 183359, Disabled, 10.0, NVIDIA B200\n", driver="610.43.02")
    machine.commands["nvidia-smi"] = "| NVIDIA-SMI 610.43.02    KMD Version: 610.43.02     CUDA UMD Version: 13.3     |"
    assert detect(probe=machine, root=tmp_path).cuda == "13.3"


def test_a_gpu_that_shares_the_ram(tmp_path):
    gpus = detect(probe=nvidia("DRIVER, [N/A], [N/A], 12.1, NVIDIA GB10\n"), root=tmp_path).gpus
    assert gpus[0].memory_mib == 65536


@pytest.mark.parametrize(
    "rows", ["\x00\ufffd!!\n<html>504</html>\n", "DRIVER\n", "Unable to determine the device handle\n"]
)
def test_a_garbled_answer_is_noted_and_no_gpu_is_made_up(tmp_path, rows):
    hardware = detect(probe=nvidia(rows), root=tmp_path)
    assert hardware.gpus == ()
    assert "cannot be read" in hardware.notes[0]


def test_one_garbled_line_costs_only_that_gpu(tmp_path):
    rows = "DRIVER, 24576, [N/A], 8.6, NVIDIA GeForce RTX 3090\n[GPU is lost]\n"
    hardware = detect(probe=nvidia(rows), root=tmp_path)
    assert (len(hardware.gpus), len(hardware.notes)) == (1, 1)


def test_a_failing_nvidia_smi_is_quoted(tmp_path):
    said = "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\n"
    hardware = detect(probe=Recorded({"nvidia-smi": Answer(9, said)}), root=tmp_path)
    assert hardware.gpus == ()
    assert "exit code 9" in hardware.notes[0]
    assert "communicate with the NVIDIA driver" in hardware.notes[0]


def test_a_container_without_its_gpu(tmp_path):
    hardware = detect(probe=Recorded(files={"/proc/driver/nvidia/version": "NVRM version: 570"}), root=tmp_path)
    assert "--gpus all" in hardware.notes[0]


@pytest.mark.skipif(os.name == "nt", reason="a program on PATH made of a shell script")
def test_a_hanging_nvidia_smi_is_left_behind(tmp_path, monkeypatch):
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\nsleep 30\n", encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    started = time.monotonic()
    hardware = detect(probe=SystemProbe(timeout_s=0.3), root=tmp_path)
    assert time.monotonic() - started < 3
    assert "did not answer within 0.3 s" in hardware.notes[0]


KFD = {"/sys/class/kfd/kfd/topology/nodes/1": "", "/sys/module/amdgpu/version": "6.10.5\n"}


def test_rocm_ignores_the_display_gpu_of_the_processor(tmp_path):
    card = {"VRAM Total Memory (B)": "17163091968", "Card Series": "Radeon RX 6800", "GFX Version": "gfx1030"}
    display = {"VRAM Total Memory (B)": "67108864", "Card Series": "Raphael", "GFX Version": "gfx1036"}
    text = "WARNING: low power state\n" + json.dumps(
        {"card1": display, "card0": card, "system": {"Driver version": "6.8"}}
    )
    hardware = detect(probe=Recorded({"rocm-smi": text}, KFD), root=tmp_path)
    (gpu,) = hardware.gpus
    assert (gpu.vendor, gpu.model, gpu.memory_mib) == ("amd", "Radeon RX 6800", 16368)
    assert (gpu.compute_capability, hardware.driver, hardware.cuda) == ("gfx1030", "6.8", None)


@pytest.mark.parametrize("answer", [None, "no JSON", '{"card0": "text"}', "[1]"])
def test_amd_without_a_usable_rocm_smi(tmp_path, answer):
    folder = "/sys/class/drm/card0/device"
    files = {f"{folder}/mem_info_vram_total": "68702699520\n", f"{folder}/vendor": "0x1002\n"}
    hardware = detect(probe=Recorded({"rocm-smi": answer} if answer else {}, KFD | files), root=tmp_path)
    assert [(gpu.vendor, gpu.memory_mib) for gpu in hardware.gpus] == [("amd", 65520)]
    assert hardware.driver == "6.10.5"


def test_apple_silicon(tmp_path):
    commands = {"sysctl -n hw.memsize": f"{32 << 30}\n", "sysctl -n machdep.cpu.brand_string": "Apple M2 Max\n"}
    hardware = detect(probe=Recorded(commands, system="Darwin", arch="arm64", cores=12), root=tmp_path)
    assert [(gpu.vendor, gpu.model, gpu.memory_mib) for gpu in hardware.gpus] == [("apple", "Apple M2 Max", 21845)]
    assert (hardware.cpu, hardware.ram_mib, hardware.instructions) == ("Apple M2 Max", 32768, ("NEON",))


V1 = "12:memory:/docker/4f1\n5:cpu,cpuacct:/docker/4f1\n1:name=systemd:/docker/4f1\n"
CONTAINERS = {
    "version 1": {
        "/proc/self/cgroup": V1,
        "/sys/fs/cgroup/cpu/cpu.cfs_quota_us": "100000\n",
        "/sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
        "/sys/fs/cgroup/memory/memory.limit_in_bytes": "2147483648\n",
    },
    "version 2": {
        "/proc/self/cgroup": "0::/\n",
        "/sys/fs/cgroup/cpu.max": "100000 100000\n",
        "/sys/fs/cgroup/memory.max": "2147483648\n",
    },
    "version 2, limit set on a parent group": {
        "/proc/self/cgroup": "0::/jobs.slice/job_7/step_0\n",
        "/sys/fs/cgroup/jobs.slice/job_7/step_0/cpu.max": "max 100000\n",
        "/sys/fs/cgroup/jobs.slice/job_7/step_0/memory.max": "max\n",
        "/sys/fs/cgroup/jobs.slice/job_7/cpu.max": "50000 100000\n",
        "/sys/fs/cgroup/jobs.slice/job_7/memory.max": "2147483648\n",
    },
}


@pytest.mark.parametrize("files", CONTAINERS.values(), ids=CONTAINERS)
def test_a_container_of_one_core_and_two_gib(tmp_path, files):
    hardware = detect(probe=Recorded(files=files), root=tmp_path)
    assert (hardware.cores, hardware.ram_mib) == (1, 2048)


def test_a_cgroup_without_limits_changes_nothing(tmp_path):
    files = {
        "/proc/self/cgroup": V1,
        "/sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
        "/sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
        "/sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
    }
    hardware = detect(probe=Recorded(files=files), root=tmp_path)
    assert (hardware.cores, hardware.ram_mib) == (16, 65536)


def test_part_of_a_core_is_rounded_up(tmp_path):
    files = {"/proc/self/cgroup": "0::/\n", "/sys/fs/cgroup/cpu.max": "250000 100000\n"}
    assert detect(probe=Recorded(files=files), root=tmp_path).cores == 3


def test_the_cache_spares_the_second_question(tmp_path):
    machine = nvidia("DRIVER, 24564, [N/A], 8.9, NVIDIA GeForce RTX 4090\n")
    first = detect(probe=machine, root=tmp_path)
    asked = len(machine.asked)
    assert detect(probe=machine, root=tmp_path) == first
    assert len(machine.asked) == asked
    detect(refresh=True, probe=machine, root=tmp_path)
    assert len(machine.asked) > asked
    assert [path.name for path in tmp_path.iterdir()] == [".hardware.json"]


@pytest.mark.parametrize("changed", ["name", "boot", "driver", "device"])
def test_the_cache_of_another_machine_is_renewed(tmp_path, changed):
    detect(probe=Recorded(), root=tmp_path)
    machine = nvidia("DRIVER, 24564, [N/A], 8.9, NVIDIA GeForce RTX 4090\n")
    assert detect(probe=machine, root=tmp_path).gpus == ()
    if changed == "name":
        machine.name = "another"
    else:
        boot, driver = "/proc/sys/kernel/random/boot_id", "/proc/driver/nvidia/version"
        machine.files[{"boot": boot, "driver": driver, "device": "/dev/nvidia0"}[changed]] = "new"
    assert len(detect(probe=machine, root=tmp_path).gpus) == 1


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"format": 0}', "half", "old", "\ufffd"])
def test_a_damaged_cache_is_renewed(tmp_path, damage):
    machine = nvidia("DRIVER, 24564, [N/A], 8.9, NVIDIA GeForce RTX 4090\n")
    cache = tmp_path / ".hardware.json"
    expected = detect(probe=machine, root=tmp_path)
    good = cache.read_text(encoding="utf-8")
    bad = {"half": good[: len(good) // 2], "old": good.replace('"memory_mib"', '"memory"')}.get(damage, damage)
    cache.write_text(bad, encoding="utf-8")
    assert detect(probe=machine, root=tmp_path) == expected
    assert cache.read_text(encoding="utf-8") == good


def test_a_root_that_cannot_be_written(tmp_path):
    root = tmp_path / "file"
    root.write_text("", encoding="utf-8")
    assert detect(probe=Recorded(), root=root).cores == 16


def test_dictionaries_and_back(tmp_path):
    hardware = detect(probe=nvidia("DRIVER, 24564, [N/A], 8.9, NVIDIA GeForce RTX 4090\n"), root=tmp_path)
    values = json.loads(json.dumps(hardware.to_dict()))
    assert Hardware.from_dict(values) == hardware
    with pytest.raises(TypeError):
        Hardware.from_dict({**values, "unknown": 1})
    with pytest.raises(dataclasses.FrozenInstanceError):
        hardware.cores = 0


def test_this_machine(tmp_path):
    hardware = detect(root=tmp_path)
    assert 1 <= hardware.cores <= (os.cpu_count() or 1)
    assert hardware.ram_mib > 256
    assert hardware.disk_free_mib > 0
    assert hardware.cpu


def test_only_the_standard_library_is_imported():
    code = "import sys; from src.kit import hardware; print(*{name.partition('.')[0] for name in sys.modules})"
    ran = subprocess.run([sys.executable, "-S", "-c", code], cwd=TEMPLATE, capture_output=True, text=True, check=True)
    assert set(ran.stdout.split()) <= set(sys.stdlib_module_names) | {"src", "__main__"}
