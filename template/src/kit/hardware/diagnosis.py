"""How the doctor's findings are shown: rich panels on a terminal, plain lines elsewhere, a dictionary for machines."""

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from src.kit.hardware.frameworks import Check
from src.kit.hardware.hardware import Hardware
from src.kit.hardware.recommend import Recommendation, gib, plural

MARKS = {"ok": ("✓", "green"), "warn": ("!", "yellow"), "fail": ("✗", "bold red")}


@dataclass(frozen=True)
class Diagnosis:
    """All that the doctor found."""

    hardware: Hardware
    recommendations: list[Recommendation]
    checks: list[Check]

    @property
    def can_train(self) -> bool:
        """Whether no check failed."""
        return all(check.status != "fail" for check in self.checks)

    @property
    def verdict(self) -> str:
        """The last line: what to do next."""
        faults = sum(check.status == "fail" for check in self.checks)
        warnings = sum(check.status == "warn" for check in self.checks)
        if faults:
            return f"Training cannot start: {plural(faults, 'fault')} to mend, as shown above."
        return "Ready to train" + (f", with {plural(warnings, 'warning')}." if warnings else ".")

    @property
    def command(self) -> str:
        """The training command, with the recommended overrides unless something keeps it from using the GPU."""
        if any(check.status == "warn" and check.name in ("GPU", "Lightning", "Paddle") for check in self.checks):
            return "python scripts/train.py"
        overrides = (f"{item.name}={item.value}" for item in self.recommendations if "." in item.name)
        return " ".join(["python scripts/train.py", *overrides])

    def to_dict(self) -> dict[str, Any]:
        """Keys: hardware, recommendations, checks, can_train, command."""
        return {**asdict(self), "can_train": self.can_train, "command": self.command}


def facts(hardware: Hardware) -> list[tuple[str, str]]:
    """The hardware in rows of a name and a value, equal GPUs counted together."""
    rows = []
    for gpu, count in Counter(hardware.gpus).items():
        label = "compute capability " if gpu.vendor == "nvidia" else ""
        capability = f", {label}{gpu.compute_capability}" if gpu.compute_capability else ""
        memory = gib(gpu.memory_mib) if gpu.memory_mib else "memory unknown"
        rows.append(("GPU", f"{f'{count} x ' if count > 1 else ''}{gpu.model}, {memory}{capability}"))
    if not rows:
        rows.append(("GPU", "none"))
    if hardware.driver:
        cuda = f", supports CUDA up to {hardware.cuda}" if hardware.cuda else ""
        rows.append(("Driver", hardware.driver + cuda))
    extensions = f" ({', '.join(hardware.instructions)})" if hardware.instructions else ""
    rows.append(("CPU", f"{hardware.cpu}, {plural(hardware.cores, 'core')} usable{extensions}"))
    rows.append(("RAM", gib(hardware.ram_mib) if hardware.ram_mib else "unknown"))
    rows.append(("Disk", f"{gib(hardware.disk_free_mib)} free"))
    rows.append(("System", hardware.system))
    return rows


def show_plain(diagnosis: Diagnosis) -> None:
    """Print for pipes, log files, and environments where rich is missing."""
    print("Hardware")
    for name, value in facts(diagnosis.hardware):
        print(f"  {name:<8}{value}")
    print("\nRecommended")
    for item in diagnosis.recommendations:
        print(f"  {item.name:<19}{item.value!s:<25}{item.reason}")
    print("\nEnvironment")
    for check in diagnosis.checks:
        print(f"  {check.status.upper() if check.status == 'fail' else check.status:<6}{check.name:<14}{check.detail}")
        if check.mend:
            print(f"        {'':<12}-> {check.mend}")
    print(f"\n{diagnosis.verdict}")
    if diagnosis.can_train:
        print(f"  {diagnosis.command}")


def show_rich(diagnosis: Diagnosis) -> None:
    """Print for a person at a terminal."""
    from rich.console import Console, RenderableType
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    console = Console(width=min(Console().width, 110))
    unicode = console.encoding.startswith("utf")

    def panel(title: str, rows: list[tuple[RenderableType, ...]]) -> None:
        table = Table.grid(padding=(0, 2))
        for row in rows:
            table.add_row(*row)
        console.print(
            Panel(table, title=Text(title, "bold cyan"), title_align="left", border_style="cyan", padding=(0, 1))
        )

    panel("Hardware", [(Text(name, "bold"), Text(value)) for name, value in facts(diagnosis.hardware)])
    advice = diagnosis.recommendations
    panel("Recommended", [(Text(i.name, "bold"), Text(str(i.value), "green"), Text(i.reason, "dim")) for i in advice])
    rows: list[tuple[RenderableType, ...]] = []
    for check in diagnosis.checks:
        mark, style = MARKS[check.status]
        rows.append((Text(mark if unicode else check.status, style), Text(check.name, "bold"), Text(check.detail)))
        if check.mend:
            rows.append(("", "", Text(f"{'→' if unicode else '->'} {check.mend}", "yellow")))
    panel("Environment", rows)
    console.print(Text(diagnosis.verdict, "bold green" if diagnosis.can_train else "bold red"))
    if diagnosis.can_train:
        console.print(Text(f"  {diagnosis.command}"), soft_wrap=True)
