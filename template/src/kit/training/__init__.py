"""Training, whatever the framework: the experiment, the loop's counters, checkpoints, evaluation, cross-validation."""

from src.kit.training.cards import find_card, write_card
from src.kit.training.checkpoints import Checkpoints, find_checkpoint, find_resumable, restore_config
from src.kit.training.distillation import Teacher, check_teacher, load_teacher
from src.kit.training.evaluation import (
    evaluate_command,
    evaluate_run,
    load_backend,
    load_benchmark,
    load_callbacks,
    load_experiment,
    load_memory,
    load_trainer,
    newest_run,
)
from src.kit.training.experiment import BaseTask, Dataset, Experiment, build_network, load_task
from src.kit.training.exports import CALIBRATION, RunPredictor, export_command, export_run, score, training_batches
from src.kit.training.inspection import Inspector, Layers, MemoryWatch
from src.kit.training.loop import (
    Collector,
    LossSchedule,
    Schedule,
    TrainingLoop,
    anneal,
    average_decay,
    batches_per_step,
)
from src.kit.training.networks import (
    announce_weights,
    build_loss,
    build_model,
    frozen_layers,
    merge_adapters,
    orthogonalize,
    parameter_groups,
    stem_stride,
    weigh_classes,
)
from src.kit.training.runs import TrainedRun, cross_validate, evaluate, load_run, train, train_run
from src.kit.training.splits import list_ids

__all__ = [
    "CALIBRATION",
    "BaseTask",
    "Checkpoints",
    "Collector",
    "Dataset",
    "Experiment",
    "Inspector",
    "Layers",
    "LossSchedule",
    "MemoryWatch",
    "RunPredictor",
    "Schedule",
    "Teacher",
    "TrainedRun",
    "TrainingLoop",
    "anneal",
    "announce_weights",
    "average_decay",
    "batches_per_step",
    "build_loss",
    "build_model",
    "build_network",
    "check_teacher",
    "cross_validate",
    "evaluate",
    "evaluate_command",
    "evaluate_run",
    "export_command",
    "export_run",
    "find_card",
    "find_checkpoint",
    "find_resumable",
    "frozen_layers",
    "list_ids",
    "load_backend",
    "load_benchmark",
    "load_callbacks",
    "load_experiment",
    "load_memory",
    "load_run",
    "load_task",
    "load_teacher",
    "load_trainer",
    "merge_adapters",
    "newest_run",
    "orthogonalize",
    "parameter_groups",
    "restore_config",
    "score",
    "stem_stride",
    "train",
    "train_run",
    "training_batches",
    "weigh_classes",
    "write_card",
]
