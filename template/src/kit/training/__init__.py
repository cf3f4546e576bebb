"""The training loop's neutral half: experiments, counters, checkpoints, evaluation, cross-validation."""

from src.kit.training import backends, tasks
from src.kit.training.backends import load_benchmark, load_part
from src.kit.training.batch_picture import draw_batch
from src.kit.training.builders import build_loader, build_network, describe_network
from src.kit.training.checkpoints import find
from src.kit.training.collector import Collector
from src.kit.training.cross_validation import cross_validate
from src.kit.training.evaluation import evaluate, main, newest
from src.kit.training.losses import build_loss, weigh_classes
from src.kit.training.networks import build_model, is_small
from src.kit.training.saved_splits import compare, describe_splits, list_ids, refuse_other_data, write_splits
from src.kit.training.schedules import LossSchedule, anneal, batches_per_step
from src.kit.training.session import Session

__all__ = [
    "Collector",
    "LossSchedule",
    "Session",
    "anneal",
    "backends",
    "batches_per_step",
    "build_loader",
    "build_loss",
    "build_model",
    "build_network",
    "compare",
    "cross_validate",
    "describe_network",
    "describe_splits",
    "draw_batch",
    "evaluate",
    "find",
    "is_small",
    "list_ids",
    "load_benchmark",
    "load_part",
    "main",
    "newest",
    "refuse_other_data",
    "tasks",
    "weigh_classes",
    "write_splits",
]
