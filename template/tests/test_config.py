"""The command line: composition, overrides, and one sentence for every mistake."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from src.kit.config.components import load_component, signature
from src.kit.config.compose import CONFIGS, group_names, load_config, option_names
from src.kit.config.keys import allowed, component_rules, leaves, reference, rule_of
from src.kit.config.values import write_config
from src.kit.errors import UserError

FRAMEWORKS = [name for name in ("lightning", "paddle") if (CONFIGS.parent / "trainers" / f"{name}.py").exists()]


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


@pytest.mark.parametrize("group", sorted(group_names()))
def test_every_option_of_every_group_loads_and_describes_its_keys(group):
    for name in option_names(group):
        folder = next((CONFIGS / group).rglob(f"{name}.yaml")).parent.name  # one framework's options are in its folder
        cfg = load_config([f"{group}={name}", *([f"framework={folder}"] if folder in FRAMEWORKS else [])])
        rows = reference() | component_rules(cfg)
        missing = [key for key in leaves(cfg) if not rows.get(key, {}).get("help")]
        assert not missing, f"{group}={name}: describe {missing} under Args: of its `build`, or in a keys.yaml"


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("modle=resnet18", "Did you mean model?"),
        ("model=resnet81", "Did you mean resnet18?"),
        ("data=mnits", "Did you mean mnist?"),
        ("trainer.max_epoch=1", "Did you mean trainer.max_epochs?"),
        ("callbacks.scheduler=cosine", "your own callbacks are trainer.callbacks=[NAME]"),
        ("learn_rate=0.1", "--help lists every key"),
        ("trainer.max_epochs=abc", "an integer of at least 0, not 'abc'"),
        ("trainer.max_epochs=-1", "an integer of at least 0, not -1"),
        ("trainer.max_epochs=true", "an integer of at least 0, not True"),
        ("trainer.max_epochs=null", "an integer of at least 0, not None"),
        ("trainer.checkpoint.every_n_steps=a: b", "an integer of at least 1 or null, not {'a': 'b'}"),
        ("optimizer.lr=-1", "a number above 0, not -1"),
        ("optimizer.lr=.nan", "a number above 0, not nan"),
        ("loss.label_smoothing=1", "below 1, not 1"),
        ("trainer.precision=fp8", "one of 32-true, bf16-mixed, 16-mixed, auto, not 'fp8'"),
        ("trainer.limit_val_batches=1.5", "not 1.5"),
        ("trainer.early_stopping=3", "set one of trainer.early_stopping.patience"),
        ("framework=jax", f"framework must be one of {', '.join(FRAMEWORKS)}, not 'jax'"),
        ("-m", "not supported"),
        ("+new=1", "Unknown key 'new'"),
        ("~seed", "a key cannot be deleted; set seed=VALUE"),
        ("~logger", "set tracker=VALUE"),
        ("resnet18", "write model=resnet18."),
        (str(Path(__file__).parent), "data= takes a name, and its path is data.root: write data="),
        ("", "write key=value"),
        (300 * "a", "write key=value"),
        ("resnet", "write key=value"),
        ("trainer.max_epochs=[", "quote it"),
        ("name=", "a text of up to 200 letters"),
        ("name=../../x", "without / or "),
        ("name=/tmp/x", "without / or "),
        ("name=a\nb", "that can name a folder"),
        (f"name={300 * 'a'}", "up to 200 letters"),
        ("seed=1e20", "an integer of at least 0 and of at most 4294967295, not 1e+20"),
        ("seed=100000000000000000000", "of at most 4294967295"),
        ("log_every_n_steps=100000000000000000000", "an integer of at least 1"),
        ("optimizer.lr=.inf", "a number above 0, not inf"),
        ("optimizer.betas=[0.9]", "a list of 2 numbers, each of at least 0 and below 1, not [0.9]"),
        ("optimizer.betas=[0.9, 1.0]", "each of at least 0 and below 1, not [0.9, 1.0]"),
        ("optimizer.betas=[a, b]", "a list of 2 numbers"),
        ("data.std=[0.0]", "a list of numbers, each above 0, not [0.0]"),
        ("output_dir=a\0b", "a text, not"),
        ("output_dir=s3://bucket/runs", "output_dir=s3://bucket/runs is not on this machine"),
        ("model.weights=https://a.b/c.safetensors", "is not on this machine"),
        ("trainer.metrics=[[1]]", "a list of texts or a mapping, not [[1]]"),
        ("trainer.early_stopping=null", "trainer.early_stopping is a group of keys"),
    ],
)
def test_a_mistake_gets_one_sentence(argument, said):
    with pytest.raises(UserError) as error:
        load_config(["task=classification", argument])
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("file", "text", "override", "message"),
    [
        (
            "experiment/e1.yaml",
            "defaults:\n  - data: digits\ntrainer:\n  max_epochs: 2\n  max_epoch: 1\n",
            "experiment=e1",
            "experiment/e1.yaml, line 5: Unknown key 'trainer.max_epoch'. Did you mean trainer.max_epochs?",
        ),
        (
            "trainer/mine.yaml",
            "max_epochs: 3\nearly_stopping: {patiense: 3}\n",
            "trainer=mine",
            "trainer/mine.yaml, line 2: Unknown key 'trainer.early_stopping.patiense'. Did you mean "
            "trainer.early_stopping.patience?",
        ),
        (
            "model/mine.yaml",
            "file: small_cnn\nwidht: 8\n",
            "model=mine",
            "model/mine.yaml, line 2: Unknown key 'model.widht'. Did you mean model.width?",
        ),
        (
            "data/mine.yaml",
            "file: digits\nbatch_sise: 8\n",
            "data=mine",
            "data/mine.yaml, line 2: Unknown key 'data.batch_sise'. Did you mean data.batch_size?",
        ),
        ("config.yaml", "sed: 1\n", "seed=1", "line 17: Unknown key 'sed'. Did you mean seed?"),
        ("experiment/e2.yaml", "model: resnet18\n", "experiment=e2", "model is a group: choose an option of it"),
        ("experiment/e3.yaml", "defaults: [_self_]\n", "experiment=e3", "leave _self_ out"),
        ("experiment/e7.yaml", "defaults: [resnet18]\n", "experiment=e7", "write each entry of defaults as"),
        ("experiment/e8.yaml", "defaults: resnet18\n", "experiment=e8", "defaults must be a list"),
        (
            "experiment/e9.yaml",
            "epochs: 3\n",
            "experiment=e9",
            "line 1: Unknown key 'epochs'. Did you mean trainer.max",
        ),
        ("trainer/mine.yaml", "early_stopping: 3\n", "trainer=mine", "trainer.early_stopping is a group of keys"),
        ("experiment/e4.yaml", "defaults: [{override /modle: x}]\n", "experiment=e4", "Unknown group 'modle'"),
        ("experiment/e5.yaml", "trainer: [\n", "experiment=e5", "is not valid YAML"),
        ("experiment/e6.yaml", "- 1\n", "experiment=e6", "must hold keys and values"),
    ],
)
def test_a_mistake_in_a_file_names_the_file(tmp_path, monkeypatch, file, text, override, message):
    shutil.copytree(CONFIGS, tmp_path / "src" / "configs")
    path = tmp_path / "src" / "configs" / file
    path.parent.mkdir(exist_ok=True)
    path.write_text((path.read_text("utf-8") if path.name == "config.yaml" else "") + text, "utf-8")
    monkeypatch.setattr("src.kit.config.compose.CONFIGS", tmp_path / "src" / "configs")
    with pytest.raises(UserError) as error:
        load_config([override])
    assert message in str(error.value)
    assert path.name in str(error.value) or "is a group of keys" in message
    assert "\n" not in str(error.value)


def test_names_of_classes_stay_texts(tmp_path, monkeypatch):
    names = ["yes", "no", "001", "010", "1e3", "null", "2024-01-01"]
    cfg = load_config(["data=image_folder", "data.classes=[yes, no, 001, '010', 1e3, null, 2024-01-01]"])
    assert cfg.data.classes == names
    write_config(cfg, tmp_path / "config.yaml")
    assert load_config([], base=tmp_path / "config.yaml").data.classes == names
    cfg = load_config(["data=mixture", "data.sources=[{data: mnist, weight: 1, classes: {yes: no, 010: null}}]"])
    assert cfg.data.sources == [{"data": "mnist", "weight": 1, "classes": {"yes": "no", "010": None}}]
    shutil.copytree(CONFIGS, tmp_path / "configs")
    (tmp_path / "configs" / "data" / "mine.yaml").write_text("file: image_folder\nclasses: [yes, 01]\n", "utf-8")
    monkeypatch.setattr("src.kit.config.compose.CONFIGS", tmp_path / "configs")
    assert load_config(["data=mine"]).data.classes == ["yes", "01"]


def test_without_experiments_there_are_none_to_choose(tmp_path, monkeypatch):
    shutil.copytree(CONFIGS, tmp_path / "configs")
    shutil.rmtree(tmp_path / "configs" / "experiment")
    monkeypatch.setattr("src.kit.config.compose.CONFIGS", tmp_path / "configs")
    assert load_config(["seed=1"]).seed == 1
    with pytest.raises(UserError, match=r"Unknown experiment 'mnist_fast'\. Available: none\."):
        load_config(["experiment=mnist_fast"])


def test_a_models_name_is_a_file_of_this_project():
    with pytest.raises(UserError, match=r"Unknown model 'smal_cnn'\. Did you mean small_cnn\? Available: "):
        load_component("model", "smal_cnn", load_config([]).framework)


def test_a_component_without_its_yaml_file_is_told_what_it_lacks(tmp_path, monkeypatch):
    shutil.copytree(CONFIGS, tmp_path / "configs")
    (tmp_path / "configs" / "model" / "small_cnn.yaml").rename(tmp_path / "configs" / "model" / "mine.yaml")
    monkeypatch.setattr("src.kit.config.compose.CONFIGS", tmp_path / "configs")
    with pytest.raises(UserError, match=r"small_cnn\.py has no YAML file .* src/configs/model/small_cnn\.yaml "):
        load_config(["model=small_cnn"])
    with pytest.raises(UserError, match=r"Unknown model 'resnet'\. Did you mean resnet"):
        load_config(["model=resnet"])


@pytest.mark.parametrize("path", ["/mine/data.yaml", "/mine", "/mine/annotations/train.json"])
def test_a_path_as_data_is_told_where_it_goes(path):
    with pytest.raises(UserError) as error:
        load_config([f"data={path}"])
    assert str(error.value).startswith("data= takes a name, and its path is data.root: write data=")
    assert f" data.root={Path('/mine')}" in str(error.value)
    assert "image_folder" in str(error.value)


def test_a_folder_here_as_data_is_told_where_it_goes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"Unknown data 'mine'\."):
        load_config(["data=mine"])
    (tmp_path / "mine").mkdir()
    with pytest.raises(UserError, match=r"data= takes a name, and its path is data\.root: write .* data\.root=mine"):
        load_config(["data=mine"])


def test_text_keys_take_the_text_as_it_is():
    for text in ("a #b", "photos: 2024", "yes", "001", "[x]", "1e3"):
        assert load_config(["data=image_folder", f"data.root={text}"]).data.root == text
    assert load_config(["data=image_folder", "data.group_pattern=null"]).data.group_pattern is None


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
    with pytest.raises(UserError, match=r"https://example\.org/run is not on this machine"):
        load_config([], base=Path("https://example.org/run/config.yaml"))


def test_environment_variables_can_be_used(monkeypatch):
    monkeypatch.setenv("MY_DATA", "elsewhere")
    assert load_config(["output_dir=${oc.env:MY_DATA}"]).output_dir == "elsewhere"


def test_an_unset_environment_variable_is_one_sentence():
    with pytest.raises(UserError, match="NO_SUCH_VARIABLE"):
        load_config(["output_dir=${oc.env:NO_SUCH_VARIABLE}"])


SCRIPTS = sorted(path.stem for path in (CONFIGS.parents[1] / "scripts").glob("*.py"))
ARGUMENTS = {"make_shards": ["--out", "x"]}


@pytest.mark.parametrize("script", [name for name in SCRIPTS if name[:7] not in ("doctor", "select_", "convert")])
def test_a_forgotten_virtual_environment_is_one_sentence(script):
    command = [sys.executable, "-S", f"scripts/{script}.py", *ARGUMENTS.get(script, [])]  # -S: without site-packages
    done = subprocess.run(command, capture_output=True, text=True, cwd=CONFIGS.parents[1], check=False)
    assert done.returncode == 2
    assert "activate the project's virtual environment" in done.stderr
    assert done.stderr.count("\n") == 1


def test_an_experiment_beats_a_task_in_any_order(tmp_path, monkeypatch):
    shutil.copytree(CONFIGS, tmp_path / "src" / "configs")
    monkeypatch.setattr("src.kit.config.compose.CONFIGS", tmp_path / "src" / "configs")
    experiment = "defaults: [{model: resnet18}]\ntrainer: {max_epochs: 7}\n"
    task = "defaults: [{model: small_cnn}, {data: digits}, {loss: cross_entropy}]\ntrainer: {max_epochs: 5}\nseed: 3\n"
    (tmp_path / "src" / "configs" / "experiment" / "e.yaml").write_text(experiment, "utf-8")
    (tmp_path / "src" / "configs" / "task" / "classification.yaml").write_text(task + "task: classification\n", "utf-8")
    for words in (["task=classification", "experiment=e"], ["experiment=e", "task=classification"]):
        cfg = load_config(words)
        assert (cfg.model.name, cfg.trainer.max_epochs, cfg.seed) == ("resnet18", 7, 3)


@pytest.mark.parametrize(
    ("rule", "inside", "outside"),
    [
        ({"type": "float", "above": 0}, [1e-9, 5], [0, 0.0, -1e-9]),
        ({"type": "float", "below": 1}, [0.999, -5], [1, 1.0, 1.5]),
        ({"type": "float", "min": 0}, [0, 0.0], [-1e-9]),
        ({"type": "float", "max": 1}, [1, 1.0], [1.0001]),
        ({"type": "list", "items": "float", "above": 0}, [[1e-9], []], [[0], [1, 0.0]]),
        (
            {"type": "list", "items": "int", "length": 2, "min": 0, "below": 3},
            [[0, 2]],
            [[0, 3], [0], [-1, 0]],
        ),
        ({"type": "int|float", "above": 0, "max": 1.0, "max_int": None}, [1, 9, 1.0, 0.5], [0, 0.0, 1.5]),
    ],
)
def test_bounds_are_inclusive_or_exclusive_as_their_names_say(rule, inside, outside):
    assert all(allowed(value, rule) for value in inside)
    assert not any(allowed(value, rule) for value in outside)


@pytest.mark.parametrize("bound", ["above=0", "min=0", "below=1", "max=1"])
def test_bounds_of_a_signature_reach_the_check(tmp_path, bound):
    path = tmp_path / "net.py"
    path.write_text(f"def build(*, width: Annotated[float, Range({bound})] = 0.5):\n    pass\n", "utf-8")
    rule = rule_of(signature(path)["width"])
    edge = {"above": 0, "min": 0, "below": 1, "max": 1}[bound.partition("=")[0]]
    assert allowed(edge, rule) == (bound[0] == "m")
    assert allowed(0.5, rule)
