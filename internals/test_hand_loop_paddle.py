"""The Paddle trainer does what a hand-written loop does, to the bit: accumulation, clipping, growing batches."""

import math

import numpy as np
import paddle
import pytest

from src.kit.catalog import build_dataset
from src.kit.paddle import weights_to_numpy
from tests.support import build_loader, build_network
from tests.training import TrainingTests


class Paddle(TrainingTests):
    __test__ = False
    framework = "paddle"


@pytest.mark.parametrize(
    ("accumulate", "clip", "growth"), [(1, None, None), (2, None, None), (3, 0.05, None), (1, None, 1), (2, 0.05, 1)]
)
def test_same_weights_as_a_loop(tmp_path, accumulate, clip, growth):
    trainer = Paddle()
    keys = ["trainer.accelerator=cpu", "scheduler=cosine", "trainer.max_epochs=2", "trainer.limit_train_batches=7"]
    keys += ["optimizer.betas=[0.8,0.95]", "optimizer.weight_decay=0.1"]
    keys += [f"trainer.accumulate_grad_batches={accumulate}", f"trainer.gradient_clip_val={clip or 'null'}"]
    keys += [f"trainer.batch_growth.every_n_epochs={growth or 'null'}", "trainer.batch_growth.factor=3"]
    cfg = trainer.configure(tmp_path, *keys)
    _, trained = trainer.run(tmp_path, *keys)

    train = build_dataset(cfg, "train")
    paddle.seed(cfg.seed)
    network = build_network(cfg, train)
    rule = cfg.optimizer
    options = {"beta1": rule.betas[0], "beta2": rule.betas[1], "weight_decay": rule.weight_decay}
    options["grad_clip"] = paddle.nn.ClipGradByGlobalNorm(clip) if clip else None
    matrices = {each.name for each in network.parameters() if each.ndim > 1}
    options["apply_decay_param_fun"] = matrices.__contains__
    optimizer = paddle.optimizer.AdamW(rule.lr, parameters=network.parameters(), **options)
    loader = build_loader(cfg, train, "train")
    network.train()
    steps = math.ceil(7 / accumulate)
    for epoch in range(2):
        loader.set_epoch(epoch)
        batches = accumulate * 3**epoch if growth else accumulate
        for number, (images, targets) in enumerate(loader, start=1):
            logits = network(paddle.to_tensor(images))
            loss = paddle.nn.functional.cross_entropy(logits, paddle.to_tensor(targets))
            (loss / batches if batches > 1 else loss).backward()
            if number % batches and number < len(loader):
                continue
            # a larger batch takes the learning rate of its first images, as if the batch had not grown
            place = epoch * steps + (number - 1) // batches * batches / accumulate
            lr = rule.lr * (1 + math.cos(math.pi * (place / (2 * steps)))) / 2
            optimizer.set_lr(lr)
            optimizer.step()
            optimizer.clear_grad()
    by_hand = weights_to_numpy(network)
    assert all(np.array_equal(trained[name], by_hand[name]) for name in by_hand)
