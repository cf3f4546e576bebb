"""Training, whatever the framework: the experiment, the loop's counters, checkpoints, evaluation, cross-validation."""

from src.kit.training.backends import load_backend, load_benchmark, load_callbacks, load_memory, load_trainer
from src.kit.training.batch_picture import describe_batch, draw_image_batch
from src.kit.training.checkpoints import find_checkpoint
from src.kit.training.cross_validation import cross_validate
from src.kit.training.evaluation import evaluate_command, evaluate_run, newest_run
from src.kit.training.experiment import Experiment, build_loss, build_network
from src.kit.training.loop import Collector, TrainingLoop
from src.kit.training.loss_keys import class_weights, focal_gamma, label_smoothing
from src.kit.training.networks import is_small
from src.kit.training.schedules import Schedule, batches_per_step
from src.kit.training.split_record import list_ids
from src.kit.training.task import BaseTask, BatchLoader, Dataset, load_task
from src.kit.training.train import train_run
from src.kit.training.trained_run import TrainedRun, evaluate, load_run, train

__all__ = [
    "BaseTask",
    "BatchLoader",
    "Collector",
    "Dataset",
    "Experiment",
    "Schedule",
    "TrainedRun",
    "TrainingLoop",
    "batches_per_step",
    "build_loss",
    "build_network",
    "class_weights",
    "cross_validate",
    "describe_batch",
    "draw_image_batch",
    "evaluate",
    "evaluate_command",
    "evaluate_run",
    "find_checkpoint",
    "focal_gamma",
    "is_small",
    "label_smoothing",
    "list_ids",
    "load_backend",
    "load_benchmark",
    "load_memory",
    "load_callbacks",
    "load_run",
    "load_task",
    "load_trainer",
    "newest_run",
    "train",
    "train_run",
]
