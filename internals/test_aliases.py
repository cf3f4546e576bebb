"""What users of other tools type is understood, or answered with this project's word."""

import re
import shutil

import numpy as np
import pytest
from omegaconf import OmegaConf
from PIL import Image

from src.kit.config import UserError, compose, load_config, option_names, run_main
from src.kit.config.aliases import refuse_foreign, table
from src.kit.config.compose import CONFIGS, group_names
from src.kit.config.keys import component_rules, leaves, reference
from src.kit.training import Experiment

GROUPS = sorted(group_names())


@pytest.mark.parametrize(
    ("words", "key", "value"),
    [
        ("epochs=3", "trainer.max_epochs", 3),
        ("trainer.batch_size=4", "data.batch_size", 4),
        ("trainer.num_workers=2", "data.num_workers", 2),
        ("trainer.log_every_n_steps=1", "log_every_n_steps", 1),
        ("trainer.precision=16", "trainer.precision", "16-mixed"),
        ("trainer.precision=32", "trainer.precision", "32-true"),
        ("trainer.precision=bf16", "trainer.precision", "bf16-mixed"),
        ("lr=0.1", "optimizer.lr", 0.1),
        ("+trainer.max_epochs=3", "trainer.max_epochs", 3),
        ("++trainer.max_epochs=3", "trainer.max_epochs", 3),
        ("+trainer.extra.benchmark=true", "trainer.extra.benchmark", True),
        ("logger=wandb", "tracker.name", "wandb"),
        ("logger=csv", "tracker.name", "none"),
        ("trainer=gpu", "trainer.accelerator", "gpu"),
        ("trainer=ddp", "trainer.strategy", "ddp"),
        ("trainer.plugins=deepspeed_stage_1", "trainer.strategy", "zero_1"),
        ("trainer.strategy=os_g", "trainer.strategy", "zero_2"),
        ("trainer.devices=-1", "trainer.devices", "auto"),
        ("trainer.gradient_clip_val=0", "trainer.gradient_clip_val", None),
        ("trainer.accumulate_grad_batches=8", "trainer.accumulate_grad_batches", 8),
        ("Global.epochs=5", "trainer.max_epochs", 5),
        ("Arch.name=resnet18", "model.name", "resnet18"),
        ("optimizer=SGD", "optimizer.name", "sgd"),
        ("model=ResNet50", "model.name", "resnet50"),
        ("data=mnist.yaml", "data.name", "mnist"),
        ("model=resnet18 imgsz=64 data=image_folder", "data.image_size", 64),
        ("model=resnet18 data=cifar10 trainer.max_epochs=1 trainer.limit_train_batches=5", "data.name", "cifar10"),
        ("trainer.devices=4 trainer.strategy=ddp", "trainer.devices", 4),
    ],
)
def test_a_word_is_understood(words, key, value):
    assert OmegaConf.select(load_config(words.split()), key) == value


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("ckpt_path=x.ckpt", "--resume outputs/RUN"),
        ("--resume_from_checkpoint=x", "--resume outputs/RUN"),
        ("trainer.resume_from_checkpoint=x", "--resume outputs/RUN"),
        ("trainer.gpus=2", "trainer.devices=N"),
        ("trainer.plugins=bagua", "trainer.strategy"),
        ("-m", "scripts/search.py --sampler grid"),
        ("--multirun", "scripts/search.py --sampler grid"),
        ("hparams_search=mnist", "scripts/search.py --sampler grid"),
        ("~logger", "set tracker=VALUE"),
        ("~trainer.gradient_clip_val", "null where --help allows it"),
        ("--cfg", "--help lists every key"),
        ("--config-name", "experiment=NAME"),
        ("--config-name=x", "experiment=NAME"),
        ("-cn", "experiment=NAME"),
        ("hydra.run.dir=.", "output_dir=FOLDER"),
        ("hydra/launcher=joblib", "scripts/search.py --sampler grid"),
        ("hydra.sweeper.n_trials=3", "scripts/search.py --sampler grid"),
        ("+hydra.job.chdir=true", "output_dir=FOLDER"),
        ("-o", "without -o"),
        ("-c", "experiment=NAME"),
        ("--epochs=5", "write trainer.max_epochs=5"),
        ("--batch-size", "write data.batch_size=VALUE"),
        ("trainer.max_steps=100", "trainer.max_epochs"),
        ("trainer.sync_batchnorm=true", "trainer.extra.KEY=VALUE"),
        ("callbacks=default", "trainer.early_stopping.patience"),
        ("callbacks.model_checkpoint.monitor=val", "trainer.checkpoint.keep_best"),
        ("train=false", "always trained"),
        ("Optimizer.once=1", "--help lists their keys"),
        ("degrees=10", "data.augment"),
        ("lerning_rate=1", "Unknown key 'lerning_rate'"),
        ("--no-such-option", "write key=value"),
    ],
)
def test_a_word_is_answered(argument, said):
    with pytest.raises(UserError) as error:
        load_config([argument])
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("framework", ["lightning", "paddle"])
@pytest.mark.parametrize(
    ("argument", "owners"),
    [
        ("data.root=photos", "no key of data=digits, but of data=cifar10, image_folder, "),
        ("optimizer.momentum=0.9", "no key of optimizer=adamw, but of optimizer="),
        ("model.depth=18", "no key of model=small_cnn, but of model=resnet18, resnet34, resnet50."),
    ],
)
def test_a_key_of_other_options_names_them(framework, argument, owners):
    with pytest.raises(UserError, match=f"^Unknown key '[a-z]+.[a-z]+': {re.escape(owners)}"):
        load_config([f"framework={framework}", "task=classification", "data=digits", argument])


def test_a_files_key_of_other_options_names_them(monkeypatch, tmp_path):
    configs = tmp_path / "src" / "configs"
    shutil.copytree(compose.CONFIGS, configs)
    (configs / "experiment" / "mine.yaml").write_text("data:\n  root: photos\n", "utf-8")
    monkeypatch.setattr(compose, "CONFIGS", configs)
    with pytest.raises(
        UserError, match=r"mine\.yaml, line 2: Unknown key 'data\.root': no key of data=digits, but of "
    ):
        load_config(["task=classification", "data=digits", "experiment=mine"])


@pytest.mark.parametrize(
    ("argument", "rule"),
    [
        ("data.batch_size=0", "auto, an integer or a list of integers, each of at least 1, not 0"),
        ("data.augment=much", "one of none, basic, advanced, not 'much'"),
        ("data.cutmix_alpha=-1", "a number of at least 0, not -1"),
    ],
)
def test_a_rule_is_said_in_words(argument, rule):
    with pytest.raises(UserError, match=f" must be {rule}"):
        load_config(["task=classification", argument])


@pytest.mark.parametrize(
    ("model", "nearest"), [("yolov5", "yolov10"), ("deeplab", "deeplab_"), ("maskrcnn", "mask_rcnn_")]
)
def test_models_of_the_users_documents_are_named(model, nearest):
    with pytest.raises(UserError, match=rf"Did you mean {nearest}"):
        load_config([f"model={model}"])


def test_no_alias_hides_a_key_and_each_leads_to_one():
    keys: set[str] = set()
    for group in GROUPS:
        for name in option_names(group):
            cfg = load_config([f"{group}={name}", f"framework={'paddle' if 'paddle' in name else 'lightning'}"])
            keys |= set(leaves(cfg)) | set(component_rules(cfg))
    keys |= set(reference())
    means, values, answers = (table()[part] for part in ("means", "values", "answers"))
    assert not keys & (set(means) | set(answers))
    options = {f"{group}={name}" for group in GROUPS for name in option_names(group)}
    assert not options & set(means)
    targets = {target.partition("=")[0] for target in means.values()} | set(values)
    assert not targets - keys - set(GROUPS)
    wrong = [word for word in means if "=" in word and "=" not in means[word]]
    assert not wrong


def test_every_answer_is_one_sentence():
    for word in table()["answers"]:
        with pytest.raises(UserError) as error:
            refuse_foreign(word)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("folder", ["a #b", "photos: 2024", "[x]", "yes", "010"])
def test_a_path_is_read_as_the_shell_gave_it(tmp_path, monkeypatch, folder):
    monkeypatch.chdir(tmp_path)
    for name, wrong in (("x1", "y1"), ("x2", "y2")):
        for root, label in ((folder, name), (folder.split(" ")[0] + "!", wrong)):
            path = tmp_path / root / label
            path.mkdir(parents=True)
            for number in range(10):
                Image.fromarray(np.full((8, 8, 3), number, np.uint8)).save(path / f"{number}.png")
    words = ["data=image_folder", "data.image_size=8", "data.batch_size=4", f"data.root={folder}"]
    assert Experiment(load_config(words)).classes == ("x1", "x2")


def test_classes_are_read_as_they_were_written(tmp_path, monkeypatch):
    assert load_config(["data=image_folder", "data.classes=[yes, 010, 1.50]"]).data.classes == ["yes", "010", "1.50"]
    shutil.copytree(CONFIGS, tmp_path / "src" / "configs")
    monkeypatch.setattr("src.kit.config.compose.CONFIGS", tmp_path / "src" / "configs")
    text = "name: image_folder\nroot: 2024\nclasses: [yes, no, 001]\nbatch_size: 8\n"
    (tmp_path / "src" / "configs" / "data" / "mine.yaml").write_text(text, "utf-8")
    (tmp_path / "src" / "configs" / "experiment" / "e.yaml").write_text("data: {classes: [on, 010]}\n", "utf-8")
    mine = load_config(["data=mine"]).data
    assert (mine.classes, mine.root, mine.batch_size) == (["yes", "no", "001"], "2024", 8)
    assert load_config(["data=mine", "experiment=e"]).data.classes == ["on", "010"]


def test_a_key_deleted_from_a_file_is_one_sentence(capsys):
    def main(argv: list[str]) -> None:
        cfg = load_config(argv)
        OmegaConf.set_struct(cfg, False)
        del cfg.data.mixup_alpha
        OmegaConf.set_struct(cfg, True)
        print(cfg.data.mixup_alpha)

    with pytest.raises(SystemExit):
        run_main(main, [])
    error = capsys.readouterr().err
    assert error.startswith("error: The configuration has no key data.mixup_alpha")
    assert error.count("\n") == 1
