"""What several tests need: experiments without a script, networks, and a hub on loopback."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from omegaconf import DictConfig, OmegaConf

from src.kit import clip
from src.kit.config import find_component
from src.kit.run import Run
from src.kit.training import Experiment, load_backend, load_task, load_trainer

# (channels, image size): the small stem; ImageNet's stem above 64 pixels, with grey images
INPUTS = [(3, 32), (1, 65)]
CONFIGS = Path(__file__).parents[1] / "src" / "configs" / "model"


def models(framework: str) -> dict[str, DictConfig]:
    """Option -> configuration of every model that the framework has a file for."""
    configs = {file.stem: OmegaConf.load(file) for file in sorted(CONFIGS.rglob("*.yaml"))}
    return {
        option: config
        for option, config in configs.items()
        if find_component("model", config.get("file") or config.name, framework)
    }


def classifiers(framework: str) -> list[str]:
    """The models for classification; your own may leave `tasks` out."""
    fitting = models(framework).items()
    return [option for option, config in fitting if "classification" in config.get("tasks", ["classification"])]


def model_config(framework: str, name: str, /, **changes) -> DictConfig:
    """The model part of a merged config, as `build_model` takes it."""
    model = OmegaConf.merge(OmegaConf.load(next(CONFIGS.rglob(f"{name}.yaml"))), changes)
    return OmegaConf.create({"framework": framework, "model": model})


def make_clip_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Build two narrow blocks for OpenAI's smallest network, whose 86 M weights would take seconds."""
    small = clip.Published("nowhere", patch=32, width=128, blocks=2, embedding=32)
    monkeypatch.setitem(clip.PUBLISHED, "clip-vit-base-patch32", small)


@contextmanager
def hub(
    repository: str, content: bytes, cache: Path, monkeypatch: pytest.MonkeyPatch, **others: tuple[str, bytes]
) -> Iterator[None]:
    """A loopback server that answers for `repository`/model.safetensors as the Hugging Face hub does, and is asked.

    `others` are further files: (repository, content) by the file's name with two underscores for its dot.
    """
    files = {f"/{repository}/resolve/main/model.safetensors": content}
    for name, (place, held) in others.items():
        files[f"/{place}/resolve/main/{name.replace('__', '.')}"] = held

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            known = files.get(self.path)
            self.send_response(404 if known is None else 200)
            if known is not None:
                self.send_header("ETag", f'"{sha256(known).hexdigest()}"')
                self.send_header("X-Repo-Commit", "0" * 40)
            self.send_header("Content-Length", str(len(known or b"")))
            self.end_headers()

        def do_GET(self) -> None:
            self.do_HEAD()
            self.wfile.write(files.get(self.path, b""))

        def log_message(self, *arguments) -> None:
            """Keep the test's output clean."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    download = partial(huggingface_hub.hf_hub_download, endpoint=address, cache_dir=cache)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


def fit(cfg: DictConfig, run: Run, checkpoint: Path | None = None) -> None:
    """Train into an open run folder, without the evaluation after it."""
    load_trainer(cfg).fit(Experiment(cfg), run, checkpoint)


def predict(cfg: DictConfig, checkpoint: Path, split: str) -> list[Any]:
    """What the task collects from the predictions of a checkpoint."""
    experiment, backend = Experiment(cfg), load_backend(cfg)
    experiment.split(split)
    return backend.predict(experiment, backend.load_network(experiment, checkpoint), split)


def build_loader(cfg: DictConfig, dataset: Any, kind: str, rank: int = 0, world_size: int = 1) -> Any:
    """Batches of a data set."""
    return load_task(cfg.task).build_loader(cfg, dataset, kind, rank, world_size)


def build_network(cfg: DictConfig, dataset: Any, initial: bool = True) -> Any:
    """The network for a data set."""
    return Experiment(cfg, {"train": dataset}).build_network(initial)
