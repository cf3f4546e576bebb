"""The commands of a README: the lines of its code blocks, without comments."""

import re
from pathlib import Path


def commands(readme: Path) -> list[str]:
    """Each command once, in order; `a && b` counts as two."""
    blocks = re.findall(r"^```(?:bash|sh|console)?\n(.*?)^```", readme.read_text("utf-8"), re.M | re.S)
    lines = [re.sub(r"\s+#\s.*", "", line).strip() for block in blocks for line in block.splitlines()]
    parts = [part.strip() for line in lines for part in line.split(" && ")]
    return list(dict.fromkeys(part for part in parts if part and not re.search(r"[─└├│]", part) and part[-1] != "/"))
