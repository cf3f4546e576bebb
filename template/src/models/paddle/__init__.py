"""The networks: config name -> "module:function". Listing them imports no framework."""

MODELS = {
    "small_cnn": "src.models.paddle.small_cnn:small_cnn",
    "resnet18": "src.models.paddle.resnet:resnet18",
    "resnet34": "src.models.paddle.resnet:resnet34",
    "resnet50": "src.models.paddle.resnet:resnet50",
    "efficientnet_b0": "src.models.paddle.efficientnet:efficientnet_b0",
    "resnet18_attention": "src.models.paddle.resnet_attention:resnet18_attention",
}
