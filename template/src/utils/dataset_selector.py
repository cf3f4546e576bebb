"""Choose the data set that fits this machine:

    from src.utils.dataset_selector import auto_select_dataset

    selection = auto_select_dataset("classification")
    print(selection.tier, selection.reason)  # "debug", "training runs on the CPU"
    print(selection.arguments)  # ["data=digits", "data.batch_size=64", "trainer.limit_train_batches=100", ...]

`auto_select_dataset(task="classification", hardware=None, stage=None, dataset=None)` returns a `Selection` with

- `tier`: "debug" without a GPU of at least 8 GB, "production-conservative" from 8 to 16 GB, "production-full" above;
  the smallest of several GPUs decides, and `stage="debug"` or `stage="production"` overrides it
- `reason`: why this tier
- `task`, `dataset`, `overrides`: what to train on, with dotted configuration keys; `arguments` is the same for
  `scripts/train.py` or `load_config`
- `memory_mib`, `minutes`: limits of one epoch and its evaluation

The tables are `src/configs/data/debug_datasets.yaml` and `production_datasets.yaml`.
"""

from src.kit.catalog import Selection, auto_select_dataset

__all__ = ["Selection", "auto_select_dataset"]
