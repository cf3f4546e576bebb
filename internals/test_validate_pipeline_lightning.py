"""The validate scripts with Lightning."""

from validating import ValidatePipelineTests


class TestValidatePipelineLightning(ValidatePipelineTests):
    framework = "lightning"
