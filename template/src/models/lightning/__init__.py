"""The networks: config name -> "module:function". Listing them imports no framework."""

MODELS = {
    "small_cnn": "src.models.lightning.small_cnn:small_cnn",
    "resnet18": "src.models.lightning.resnet:resnet18",
    "resnet34": "src.models.lightning.resnet:resnet34",
    "resnet50": "src.models.lightning.resnet:resnet50",
    "efficientnet_b0": "src.models.lightning.efficientnet:efficientnet_b0",
    "resnet18_attention": "src.models.lightning.resnet_attention:resnet18_attention",
    "yolov10n": "src.models.lightning.yolov10:yolov10n",
    "yolov10s": "src.models.lightning.yolov10:yolov10s",
    "yolov10m": "src.models.lightning.yolov10:yolov10m",
    "yolov10b": "src.models.lightning.yolov10:yolov10b",
    "yolov10l": "src.models.lightning.yolov10:yolov10l",
    "yolov10x": "src.models.lightning.yolov10:yolov10x",
    "deeplab_mobilenet_v2": "src.models.lightning.deeplab:deeplab_mobilenet_v2",
    "deeplab_resnet18": "src.models.lightning.deeplab:deeplab_resnet18",
    "deeplab_resnet50": "src.models.lightning.deeplab:deeplab_resnet50",
    "mask_rcnn_resnet18": "src.models.lightning.mask_rcnn:mask_rcnn_resnet18",
    "mask_rcnn_resnet50": "src.models.lightning.mask_rcnn:mask_rcnn_resnet50",
    "retinanet_resnet18": "src.models.lightning.retinanet:RetinaNetResNet18",
    "tabular_mlp": "src.models.lightning.tabular_mlp:tabular_mlp",
}
