"""The networks: config name -> "module:function". Listing them imports no framework."""

MODELS = {
    "small_cnn": "src.models.paddle.small_cnn:small_cnn",
    "resnet18": "src.models.paddle.resnet:resnet18",
    "resnet34": "src.models.paddle.resnet:resnet34",
    "resnet50": "src.models.paddle.resnet:resnet50",
    "efficientnet_b0": "src.models.paddle.efficientnet:efficientnet_b0",
    "resnet18_attention": "src.models.paddle.resnet_attention:resnet18_attention",
    "yolov10n": "src.models.paddle.yolov10:yolov10n",
    "yolov10s": "src.models.paddle.yolov10:yolov10s",
    "yolov10m": "src.models.paddle.yolov10:yolov10m",
    "yolov10b": "src.models.paddle.yolov10:yolov10b",
    "yolov10l": "src.models.paddle.yolov10:yolov10l",
    "yolov10x": "src.models.paddle.yolov10:yolov10x",
    "deeplab_mobilenet_v2": "src.models.paddle.deeplab:deeplab_mobilenet_v2",
    "deeplab_resnet18": "src.models.paddle.deeplab:deeplab_resnet18",
    "deeplab_resnet50": "src.models.paddle.deeplab:deeplab_resnet50",
    "mask_rcnn_resnet18": "src.models.paddle.mask_rcnn:mask_rcnn_resnet18",
    "mask_rcnn_resnet50": "src.models.paddle.mask_rcnn:mask_rcnn_resnet50",
    "tabular_mlp": "src.models.paddle.tabular_mlp:tabular_mlp",
}
