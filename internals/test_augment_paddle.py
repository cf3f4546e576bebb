"""Every way to change the training images trains a network in Paddle, and can be repeated."""

from augmented_training import AugmentedTraining, every_change


class Paddle(AugmentedTraining):
    framework = "paddle"


@every_change
def test_it_learns(tmp_path, name):
    Paddle().learn(tmp_path, name)


def test_the_seed_decides_whatever_the_workers(tmp_path):
    Paddle().repeat(tmp_path)
