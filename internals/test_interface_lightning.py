"""The interface for notebooks in Lightning, and Lightning as its users know it."""

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.profilers import PassThroughProfiler

from interface import PAIRS, InterfaceTests
from src.kit.lightning import RunCallback, RunLogger, build_trainer
from src.kit.run import Run
from src.kit.training import Experiment, export_run, find_checkpoint, train
from src.trainers.lightning import DataModule, Module, build_module


class Logging(Module):
    """Logs within each step."""

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        self.log("own/loss", loss, on_step=True, on_epoch=True)
        return loss


class Ordinary(Logging):
    """The same as a plain LightningModule: without what the kit saves."""

    __setattr__ = pl.LightningModule.__setattr__

    def training_step(self, batch, batch_idx):
        return super().training_step(batch, batch_idx)


del Ordinary.training_step.__signature__


class Hooks(pl.Callback):
    """Records each hook of a callback, and which one Lightning says that it is in."""

    def __init__(self):
        self.seen = []

    def __getattribute__(self, name):
        if not name.startswith("on_") or name in ("on_save_checkpoint", "on_load_checkpoint"):
            return super().__getattribute__(name)
        return lambda trainer, module, *_, **__: self.seen.append((name, module._current_fx_name))


class TestInterfaceLightning(InterfaceTests):
    framework = "lightning"
    pairs = PAIRS | {"trainer.precision": ("32-true", "bf16-mixed")}

    def fill_memory(self):
        torch.empty(2**47)

    def test_a_plain_trainer_fits_the_module(self, tmp_path):
        experiment = Experiment(self.configure(tmp_path, "trainer.max_epochs=3"))
        torch.manual_seed(0)
        module, data = build_module(experiment), DataModule(experiment)
        quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        trainer = pl.Trainer(max_epochs=3, accelerator="cpu", enable_checkpointing=False, **quiet)
        trainer.fit(module, data)
        images, targets = next(iter(experiment.build_loader("test")))
        with torch.inference_mode():
            logits = module.eval()(torch.from_numpy(images)).numpy()
        assert (logits.argmax(axis=1) == targets).mean() > 0.8
        groups = trainer.optimizers[0].param_groups
        assert all(group["lr"] < 0.1 * experiment.cfg.optimizer.lr for group in groups), "the schedule has come down"

    def test_load_from_checkpoint(self, tmp_path):
        run = train(self.configure(tmp_path))
        checkpoint = find_checkpoint(run.path, "last") / "training.ckpt"
        module = Module.load_from_checkpoint(checkpoint, map_location="cpu", weights_only=True).eval()
        images, _ = next(iter(run.experiment.build_loader("test")))
        with torch.inference_mode():
            logits = module(torch.from_numpy(images)).numpy()
        assert tuple(module.hparams["classes"]) == run.experiment.classes
        last = run.experiment.build_network(initial=False)
        assert logits.shape == (len(images), 10)
        assert sum(weight.numel() for weight in module.network.parameters()) == sum(
            weight.numel() for weight in last.parameters()
        )
        loaded = torch.load(checkpoint, weights_only=True)["state_dict"]
        assert all(np.array_equal(loaded[name], value) for name, value in module.state_dict().items())

    def test_an_export_is_made_on_the_cpu(self, tmp_path, monkeypatch):
        run = train(self.configure(tmp_path))
        monkeypatch.setattr("src.kit.lightning.trainer.use_gpu", lambda cfg: cfg.trainer.accelerator != "cpu")
        assert (export_run(run.path, ["onnx"])[0] / "model.onnx").is_file(), "where there is a GPU, too"

    def check_compression(self, run, images):
        run = super().check_compression(run, images)
        checkpoint = find_checkpoint(run.path, "best") / "training.ckpt"
        module = Module.load_from_checkpoint(checkpoint, map_location="cpu", weights_only=True).eval()
        images, _ = next(iter(run.experiment.build_loader("test")))
        with torch.inference_mode():
            assert torch.equal(module(torch.from_numpy(images)), run.network(torch.from_numpy(images)))
        assert "Conv2d(6, 12, " in str(module)
        return run

    def test_extra_keys_reach_the_trainer(self, tmp_path):
        run = train(self.configure(tmp_path, "trainer.extra={limit_train_batches: 3, gradient_clip_val: 0.5}"))
        assert run.history[0]["step"] == 3

    def test_what_a_step_saves_changes_nothing(self, tmp_path):
        assert "__signature__" in vars(Logging.training_step)
        found = {}
        for kind in (Logging, Ordinary):
            keys = ["trainer.max_epochs=2", "trainer.limit_train_batches=4", "trainer.accumulate_grad_batches=2"]
            experiment, hooks = Experiment(self.configure(tmp_path / kind.__name__, *keys)), Hooks()
            with Run(experiment.cfg) as run:
                trainer = build_trainer(experiment.cfg, [hooks, RunCallback(experiment, run)], RunLogger(run))
                assert type(trainer.profiler) is not PassThroughProfiler
                if kind is Ordinary:
                    trainer.profiler = PassThroughProfiler()
                torch.manual_seed(0)
                module = build_module(experiment)
                module.__class__ = kind
                trainer.fit(module, DataModule(experiment))
            saved = torch.load(find_checkpoint(run.path, "last") / "training.ckpt", weights_only=True)
            logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
            rows = [{name: row[name] for name in row if name != "epoch_s"} for row in run.rows]
            found[kind] = saved, logged, rows, hooks.seen
        (lean, *rest), (plain, *others) = found.values()
        assert rest == others
        assert ("on_train_batch_end", "on_train_batch_end") in rest[-1]
        assert rest[0].keys() >= {"own/loss_step", "own/loss_epoch"}
        assert lean["loops"] == plain["loops"]
        assert set(lean) == set(plain)
        for part in ("state_dict", "optimizer_states"):
            torch.testing.assert_close(lean[part], plain[part], rtol=0, atol=0)
