"""What a recipe adds to plain training in Paddle: a teacher."""

import paddle
from paddle import Tensor
from paddle.nn import functional as F
from src.kit.training import Experiment, Teacher, load_teacher


def distillation_loss(outputs: Tensor, taught: Tensor, temperature: float) -> Tensor:
    """T^2 times the mean over the batch of KL(teacher || student), of softmax(logits / T).

    T^2 keeps the gradients' size whatever the temperature (Hinton et al. 2015, arXiv 1503.02531, section 2).

    Args:
        outputs, taught: the student's and the teacher's logits (B, K).
    """
    student, teacher = (F.log_softmax(each.astype("float32") / temperature, axis=1) for each in (outputs, taught))
    return temperature**2 * (teacher.exp() * (teacher - student)).sum(axis=1).mean()


class Distillation:
    """Adds a teacher to a loss; the teacher is neither trained nor saved."""

    def __init__(self, teacher: Teacher) -> None:
        self.teacher, self.network = teacher, teacher.network
        self.scale, self.shift = paddle.to_tensor(teacher.scale), paddle.to_tensor(teacher.shift)

    def __call__(self, images: Tensor, outputs: Tensor, loss: Tensor) -> Tensor:
        """The loss of a batch with the teacher's part.

        Args:
            images: the student's input, float32 (B, C, H, W); of tables (B, F).
            outputs: the student's logits (B, K).
            loss: of `outputs` and the targets, a scalar.
        """
        with paddle.no_grad():
            taught = self.network(self.prepare(images))
        part = distillation_loss(outputs, taught, self.teacher.temperature)
        return (1 - self.teacher.weight) * loss + self.teacher.weight * part

    def prepare(self, images: Tensor) -> Tensor:
        """The student's input as the teacher takes it: in its normalisation and size."""
        if self.teacher.size is None:
            return images
        images = images * self.scale + self.shift
        if tuple(images.shape[2:]) == self.teacher.size:
            return images
        return F.interpolate(images, list(self.teacher.size), mode="bilinear", antialias=True)


def build_distillation(experiment: Experiment) -> Distillation | None:
    """The teacher of `trainer.distill`, or None.

    Raises:
        UserError: it cannot teach this student.
    """
    teacher = load_teacher(experiment)
    return Distillation(teacher) if teacher else None
