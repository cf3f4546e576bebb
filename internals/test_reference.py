"""The configuration reference fits the configuration files."""

from src.kit.config.compose import CONFIGS, load_config, option_names
from src.kit.config.keys import leaves, reference


def test_the_reference_names_no_key_that_does_not_exist():
    known = set()
    for group in (path.name for path in CONFIGS.iterdir() if path.is_dir()):
        for name in option_names(group):
            known |= leaves(load_config([f"{group}={name}"])).keys()
    assert not reference().keys() - known
    assert all(row["help"].endswith(".") for row in reference().values())
