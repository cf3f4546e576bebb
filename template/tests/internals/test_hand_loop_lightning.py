"""The Lightning trainer does what a hand-written loop does, to the bit: accumulation and clipping included."""

import numpy as np
import pytest
import torch

from src.datasets import build_dataset
from src.models.lightning import state
from src.trainers.builders import build_loader, build_network
from tests.training import TrainingTests


class Lightning(TrainingTests):
    __test__ = False
    framework = "lightning"


@pytest.mark.parametrize(("accumulate", "clip"), [(1, None), (2, None), (3, 0.05)])
def test_same_weights_as_a_loop(tmp_path, accumulate, clip):
    trainer = Lightning()
    keys = ["scheduler=constant", "trainer.max_epochs=2", "trainer.limit_train_batches=7"]
    keys += [f"trainer.accumulate_grad_batches={accumulate}", f"trainer.gradient_clip_val={clip or 'null'}"]
    cfg = trainer.configure(tmp_path, *keys)
    _, trained = trainer.run(tmp_path, *keys)

    train = build_dataset(cfg, "train")
    torch.manual_seed(cfg.seed)
    network = build_network(cfg, train)
    rule = cfg.optimizer
    options = {"lr": rule.lr, "betas": tuple(rule.betas), "weight_decay": rule.weight_decay, "fused": True}
    optimizer = torch.optim.AdamW(network.parameters(), **options)
    loader = build_loader(cfg, train, "train")
    network.train()
    for epoch in range(2):
        loader.set_epoch(epoch)
        for number, (images, targets) in enumerate(loader, start=1):
            logits = network(torch.from_numpy(images))
            (torch.nn.functional.cross_entropy(logits, torch.from_numpy(targets)) / accumulate).backward()
            if number % accumulate and number < len(loader):
                continue
            if clip:
                torch.nn.utils.clip_grad_norm_(network.parameters(), clip)
            optimizer.step()
            optimizer.zero_grad()
    by_hand = state.to_numpy(network)
    assert all(np.array_equal(trained[name], by_hand[name]) for name in by_hand)
