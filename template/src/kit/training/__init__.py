"""Training, whatever the framework: the experiment, the loop's counters, checkpoints, evaluation, cross-validation."""

from src.kit.training.backends import load_backend, load_benchmark, load_callbacks, load_memory, load_trainer
from src.kit.training.batch_picture import describe_batch, draw_image_batch
from src.kit.training.checkpoints import find_checkpoint
from src.kit.training.cross_validation import cross_validate
from src.kit.training.evaluation import evaluate_command, evaluate_run, newest_run
from src.kit.training.experiment import Experiment, build_network
from src.kit.training.loop import Collector, TrainingLoop
from src.kit.training.losses import build_loss, weigh_classes
from src.kit.training.networks import build_model, is_small
from src.kit.training.schedules import LossSchedule, Schedule, anneal, batches_per_step
from src.kit.training.split_record import list_ids
from src.kit.training.task import BaseTask, Dataset, load_task
from src.kit.training.train import train_run
from src.kit.training.trained_run import TrainedRun, evaluate, load_run, train

__all__ = [
    "BaseTask",
    "Collector",
    "Dataset",
    "Experiment",
    "LossSchedule",
    "Schedule",
    "TrainedRun",
    "TrainingLoop",
    "anneal",
    "batches_per_step",
    "build_loss",
    "build_model",
    "build_network",
    "cross_validate",
    "describe_batch",
    "draw_image_batch",
    "evaluate",
    "evaluate_command",
    "evaluate_run",
    "find_checkpoint",
    "is_small",
    "list_ids",
    "load_backend",
    "load_benchmark",
    "load_callbacks",
    "load_memory",
    "load_run",
    "load_task",
    "load_trainer",
    "newest_run",
    "train",
    "train_run",
    "weigh_classes",
]
