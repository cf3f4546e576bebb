"""The command line: composition, overrides, and one sentence for every mistake."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from src.kit.config.compose import CONFIGS, load_config, option_names, write_config
from src.kit.config.keys import leaves, reference
from src.kit.errors import UserError


def test_overrides_beat_groups_and_groups_beat_defaults():
    cfg = load_config(["model=resnet18", "data=mnist", "trainer=debug", "trainer.max_epochs=3", "optimizer.lr=0.5"])
    assert (cfg.model.name, cfg.data.name) == ("resnet18", "mnist")
    assert cfg.trainer.max_epochs == 3
    assert cfg.trainer.limit_train_batches == 5, "trainer=debug states it"
    assert cfg.trainer.precision == "32-true", "trainer/default.yaml is the base of the other trainers"
    assert cfg.optimizer.lr == 0.5
    assert cfg.name == "resnet18-mnist"


def test_an_experiment_chooses_groups_and_the_command_line_beats_it():
    cfg = load_config(["experiment=mnist_fast"])
    assert (cfg.data.name, cfg.trainer.max_epochs) == ("mnist", 1)
    cfg = load_config(["experiment=mnist_fast", "data=digits", "trainer.max_epochs=2"])
    assert (cfg.data.name, cfg.trainer.max_epochs) == ("digits", 2)


@pytest.mark.parametrize("group", [path.name for path in CONFIGS.iterdir() if path.is_dir()])
def test_every_option_of_every_group_loads(group):
    for name in option_names(group):
        load_config([f"{group}={name}"])


def test_every_key_is_in_the_reference():
    rows = reference()
    for group in (path.name for path in CONFIGS.iterdir() if path.is_dir()):
        for name in option_names(group):
            missing = [key for key in leaves(load_config([f"{group}={name}"])) if key not in rows]
            assert not missing, f"{group}={name}: give {missing} a row in reference.yaml"


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("modle=resnet18", "Did you mean model?"),
        ("model=resnet81", "Did you mean resnet18?"),
        ("data=mnits", "Did you mean mnist?"),
        ("trainer.max_epoch=1", "Did you mean trainer.max_epochs?"),
        ("trainer.scheduler=cosine", "Did you mean scheduler=NAME?"),
        ("lr=0.1", "Did you mean optimizer.lr?"),
        ("trainer.max_epochs=abc", "an integer of at least 1, not 'abc'"),
        ("trainer.max_epochs=0", "an integer of at least 1, not 0"),
        ("trainer.max_epochs=true", "an integer of at least 1, not True"),
        ("trainer.max_epochs=null", "an integer of at least 1, not None"),
        ("optimizer.lr=-1", "a number above 0, not -1"),
        ("optimizer.lr=.nan", "a number above 0, not nan"),
        ("loss.label_smoothing=1", "below 1, not 1"),
        ("trainer.precision=fp8", "one of 32-true, bf16-mixed, 16-mixed, not 'fp8'"),
        ("trainer.limit_val_batches=1.5", "not 1.5"),
        ("trainer.early_stopping=3", "set one of trainer.early_stopping.patience"),
        ("framework=jax", "one of lightning, paddle, not 'jax'"),
        ("-m", "not supported"),
        ("+new=1", "every key is declared"),
        ("~seed", "every key is declared"),
        ("resnet18", "write key=value"),
        ("trainer.max_epochs=[", "quote it"),
        ("name=", "a text, not"),
    ],
)
def test_a_mistake_gets_one_sentence(argument, said):
    with pytest.raises(UserError) as error:
        load_config(["task=classification", argument])
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("value", [1, 5, 0.1, 1.0])
def test_a_limit_is_batches_or_a_fraction(value):
    assert load_config([f"trainer.limit_train_batches={value}"]).trainer.limit_train_batches == value


def test_a_saved_configuration_loads_as_it_was(tmp_path):
    cfg = load_config(["model=resnet18", "seed=7"])
    write_config(cfg, tmp_path / "config.yaml")
    again = load_config(["trainer.max_epochs=2"], base=tmp_path / "config.yaml")
    assert again.trainer.max_epochs == 2
    again.trainer.max_epochs = cfg.trainer.max_epochs
    assert OmegaConf.to_container(again) == OmegaConf.to_container(cfg, resolve=True)


def test_a_configuration_saved_before_a_key_existed_gets_its_default(tmp_path):
    cfg = load_config(["data=mnist"])
    OmegaConf.set_struct(cfg, False)
    del cfg.data.fold, cfg.data.sampler
    write_config(cfg, tmp_path / "config.yaml")
    again = load_config([], base=tmp_path / "config.yaml")
    assert (again.data.fold, again.data.sampler) == (None, "none")
    assert again.data.name == "mnist"


def test_a_missing_saved_configuration_is_said():
    with pytest.raises(UserError, match="does not exist"):
        load_config([], base=Path("outputs/none/config.yaml"))


def test_environment_variables_can_be_used(monkeypatch):
    monkeypatch.setenv("MY_DATA", "elsewhere")
    assert load_config(["output_dir=${oc.env:MY_DATA}"]).output_dir == "elsewhere"


def test_an_unset_environment_variable_is_one_sentence():
    with pytest.raises(UserError, match="NO_SUCH_VARIABLE"):
        load_config(["output_dir=${oc.env:NO_SUCH_VARIABLE}"])
