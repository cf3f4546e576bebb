"""Two real training steps on noise, in a process of their own: out of memory there costs nothing here.

python -m src.kit.memory.probe CONFIG.yaml          # exit code 0: they fitted, 3: out of memory
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from src.kit.config import UserError
from src.kit.training import load_benchmark

ROOT = Path(__file__).resolve().parents[3]
FULL = 3
SIGNS = ("out of memory", "can't allocate memory", "cannot allocate memory", "resourceexhausted")


def probe(cfg: DictConfig) -> bool:
    """Whether two steps of the configured training fit the GPU.

    Raises:
        UserError: they failed for another reason.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.yaml"
        path.write_text(OmegaConf.to_yaml(cfg, resolve=True), "utf-8")
        command = [sys.executable, "-m", "src.kit.memory.probe", str(path)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode not in (0, FULL):
        said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise UserError(f"Trying data.batch_size={cfg.data.batch_size} failed: {said}")
    return done.returncode == 0


def main(argv: list[str]) -> None:
    """Train two steps: the second one has the optimizer's state."""
    from src.kit.catalog import build_dataset

    cfg = OmegaConf.load(argv[0])
    backend = load_benchmark(cfg.framework)
    try:
        split = build_dataset(cfg, "train")
        trainer = backend.Trainer(cfg, split)
        batch = trainer.synthetic()
        for _ in range(2):
            trainer.step(batch)
        trainer.wait()
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not any(sign in str(error).lower() for sign in SIGNS):
            raise
        sys.exit(FULL)


if __name__ == "__main__":
    main(sys.argv[1:])
