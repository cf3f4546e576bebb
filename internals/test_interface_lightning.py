"""The interface for notebooks in Lightning, and Lightning as its users know it."""

import numpy as np
import pytorch_lightning as pl
import torch

from interface import PAIRS, InterfaceTests
from src.kit.training import Experiment, export_run, find_checkpoint, train
from src.trainers.lightning import DataModule, Module, build_module


class TestInterfaceLightning(InterfaceTests):
    framework = "lightning"
    pairs = PAIRS | {"trainer.precision": ("32-true", "bf16-mixed")}
    callback = """
        import pytorch_lightning as pl


        class WeightNorm(pl.Callback):
            def on_train_epoch_end(self, trainer, pl_module):
                norm = sum(float(weight.norm()) for weight in pl_module.parameters())
                pl_module.log("weights/norm", norm)


        def build():
            return WeightNorm()
    """

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
