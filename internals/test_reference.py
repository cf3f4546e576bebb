"""The configuration reference fits the configuration files."""

from src.kit.config.compose import group_names, load_config, option_names
from src.kit.config.keys import leaves, reference


def test_the_reference_names_no_key_that_does_not_exist():
    known = set()
    for group in group_names():
        for name in option_names(group):
            framework = "paddle" if "paddle" in name else "lightning"
            known |= leaves(load_config([f"{group}={name}", f"framework={framework}"])).keys()
    assert not reference().keys() - known
    assert all(row["help"].endswith(".") for row in reference().values())
