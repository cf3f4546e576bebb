"""Metrics against scikit-learn's own numbers and against cases that can be checked by hand."""

import json

import numpy as np
import pytest
from sklearn import metrics as reference

from src.kit.errors import UserError
from src.kit.training import load_task
from src.tasks import classification

TASK = classification.Task()


def one_hot(predicted: list[int], classes: int) -> np.ndarray:
    return np.eye(classes, dtype=np.float32)[predicted]


def random_case(classes: int, samples: int = 300) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(classes)
    targets = random.integers(0, classes, samples)
    outputs = random.normal(size=(samples, classes)).astype(np.float32)
    outputs[np.arange(samples), targets] += 1.5
    return outputs, targets


def test_accuracy_by_hand() -> None:
    outputs = one_hot([0, 1, 1, 2], 3)
    assert TASK.metrics([(outputs, np.array([0, 1, 2, 2]))], "abc") == {"accuracy": 0.75}


@pytest.mark.parametrize("classes", [2, 5, 6, 20])
def test_evaluation_equals_scikit_learn(classes: int) -> None:
    outputs, targets = random_case(classes)
    predicted = outputs.argmax(axis=1)
    result = TASK.evaluate([(outputs, targets)], [f"class {index}" for index in range(classes)])
    assert result["accuracy"] == pytest.approx(reference.accuracy_score(targets, predicted))
    for average in ("macro", "weighted"):
        assert result[f"precision_{average}"] == pytest.approx(
            reference.precision_score(targets, predicted, average=average)
        )
        assert result[f"recall_{average}"] == pytest.approx(reference.recall_score(targets, predicted, average=average))
        assert result[f"f1_{average}"] == pytest.approx(reference.f1_score(targets, predicted, average=average))
    assert result["confusion_matrix"] == reference.confusion_matrix(targets, predicted).tolist()
    if classes > 5:
        five = reference.top_k_accuracy_score(targets, outputs, k=5)
        assert result["top5_accuracy"] == pytest.approx(five)
    else:
        assert "top5_accuracy" not in result


def test_top5_by_hand() -> None:
    outputs = np.tile(np.arange(7, dtype=np.float32), (4, 1))  # classes 2 to 6 are the best five
    result = TASK.evaluate([(outputs, np.array([6, 2, 1, 0]))], list("abcdefg"))
    assert result["top5_accuracy"] == 0.5
    assert result["accuracy"] == 0.25


def test_class_that_never_occurs_does_not_lower_the_macro_average() -> None:
    result = TASK.evaluate([(one_hot([0, 1, 1], 4), np.array([0, 1, 0]))], ["a", "b", "c", "d"])
    assert result["recall_macro"] == pytest.approx((0.5 + 1.0) / 2)
    assert result["precision_macro"] == pytest.approx((1.0 + 0.5) / 2)
    assert [row["samples"] for row in result["per_class"]] == [2, 1, 0, 0]
    assert len(result["confusion_matrix"]) == 4


def test_class_that_is_only_predicted_counts_in_the_macro_average() -> None:
    result = TASK.evaluate([(one_hot([0, 2], 3), np.array([0, 0]))], ["a", "b", "c"])
    assert result["recall_macro"] == pytest.approx(0.5 / 2)


def test_evaluation_is_json() -> None:
    outputs, targets = random_case(6)
    result = TASK.evaluate([(outputs, targets)], list("abcdef"))
    assert json.loads(json.dumps(result)) == result
    assert result["per_class"][0].keys() == {"class", "precision", "recall", "f1", "samples"}


def test_samples_are_half_sure_mistakes_and_half_unsure_answers() -> None:
    confidence = np.array([0.9, 0.5, 0.8, 0.6, 0.99])
    correct = np.array([True, False, False, True, True])
    assert classification.choose_samples(confidence, correct, 4).tolist() == [2, 1, 3, 0]
    assert classification.choose_samples(confidence, correct, 2).tolist() == [2, 3]
    assert classification.choose_samples(confidence, correct, 9).tolist() == [2, 1, 3, 0, 4]
    many = np.arange(100) % 2 == 0
    assert many[classification.choose_samples(np.linspace(0, 1, 100), many, 24)].sum() == 12, "half of 24 are right"
    assert many[classification.choose_samples(np.linspace(0, 1, 100), np.zeros(100, bool), 24)].size == 24


def test_softmax_takes_large_logits() -> None:
    assert classification.softmax(np.array([[1e4, 0.0], [0.0, 0.0]])).tolist() == [[1.0, 0.0], [0.5, 0.5]]


def test_unknown_task_names_the_known_ones() -> None:
    assert isinstance(load_task("classification"), classification.Task)
    with pytest.raises(UserError, match="Did you mean classification"):
        load_task("clasification")
