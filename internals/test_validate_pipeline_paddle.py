"""The validate scripts with Paddle."""

from validating import ValidatePipelineTests


class TestValidatePipelinePaddle(ValidatePipelineTests):
    framework = "paddle"
