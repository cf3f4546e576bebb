"""Every way to change the training images trains a network in PyTorch Lightning, and can be repeated."""

from augmented_training import AugmentedTraining, every_change


class Lightning(AugmentedTraining):
    framework = "lightning"


@every_change
def test_it_learns(tmp_path, name):
    Lightning().learn(tmp_path, name)


def test_the_seed_decides_whatever_the_workers(tmp_path):
    Lightning().repeat(tmp_path)
