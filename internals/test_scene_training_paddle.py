"""Detection and segmentation in Paddle: whole runs, awkward data and mistakes."""

from scene_training import SceneTrainingTests


class TestSceneTrainingPaddle(SceneTrainingTests):
    framework = "paddle"
