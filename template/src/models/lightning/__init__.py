"""The networks: config name -> "module:function". Listing them imports no framework."""

MODELS = {
    "small_cnn": "src.models.lightning.small_cnn:small_cnn",
    "resnet18": "src.models.lightning.resnet:resnet18",
    "resnet34": "src.models.lightning.resnet:resnet34",
    "resnet50": "src.models.lightning.resnet:resnet50",
    "efficientnet_b0": "src.models.lightning.efficientnet:efficientnet_b0",
    "resnet18_attention": "src.models.lightning.resnet_attention:resnet18_attention",
}
