"""YOLOv10's assignment and losses in PyTorch, by hand."""

import math

import pytest
import torch
from omegaconf import OmegaConf
from torchvision.ops import complete_box_iou

from src.kit.training.networks import build_loss
from src.tasks.losses.lightning.detection.boxes import assign, complete_iou, distribution_loss, head_losses

POINTS = torch.tensor([[4.0, 4], [12, 4], [4, 12], [12, 12]])
WIDE = [0.0, 0, 16, 8]  # holds the upper two points
CONFIG = OmegaConf.create(
    {"framework": "lightning", "loss": {"name": "boxes", "box": 7.5, "score": 0.5, "distance": 1.5}}
)


def assigned(scores, boxes, labels, true, valid, count):
    return assign(
        torch.tensor([scores]),
        torch.tensor([boxes]),
        POINTS,
        torch.tensor([labels]),
        torch.tensor([true]).reshape(1, -1, 4),
        torch.tensor([valid]),
        (count,),
    )


def test_the_cells_that_fit_best_learn_an_object():
    scores = [[0.9, 0.25], [0.1, 0.81], [0.5, 1.0], [0.5, 1.0]]  # of two classes; the object's is the second
    owner, target = assigned(scores, [WIDE] * 4, [1], [WIDE], [True], 1)
    assert owner.tolist() == [[-1, 0, -1, -1]], "the most confident of the cells inside, and none outside"
    assert target[0].tolist() == pytest.approx([0, 1, 0, 0], abs=1e-5), "its target is its overlap"
    owner, target = assigned(scores, [WIDE] * 4, [1], [WIDE], [True], 10)
    assert owner.tolist() == [[0, 0, -1, -1]]
    assert target[0].tolist() == pytest.approx([math.sqrt(0.25 / 0.81), 1, 0, 0], abs=1e-5)


def test_overlap_counts_more_than_the_score():
    half = [0.0, 0, 8, 8]
    owner, target = assigned([[1.0], [0.1], [0.0], [0.0]], [half, WIDE, WIDE, WIDE], [0], [WIDE], [True], 1)
    assert owner.tolist() == [[-1, 0, -1, -1]]
    owner, target = assigned([[1.0], [0.0], [0.0], [0.0]], [half, WIDE, WIDE, WIDE], [0], [WIDE], [True], 1)
    assert target[0].tolist() == pytest.approx([0.5, 0, 0, 0], abs=1e-5)


def test_an_object_that_nothing_fits_yet_is_learned_all_the_same():
    small, far_too_large = [3.0, 3, 5, 5], [-96.0, -96, 104, 104]
    owner, target = assigned([[1e-5]] * 4, [far_too_large] * 4, [0], [small], [True], 1)
    assert owner.tolist() == [[0, -1, -1, -1]]
    assert target[0, 0].item() == pytest.approx(4 / 200**2, rel=1e-3)


def test_a_cell_that_two_objects_want_goes_to_the_one_it_overlaps_most():
    whole = [0.0, 0, 16, 16]
    boxes = [WIDE, whole, whole, whole]
    owner, _ = assigned([[0.5]] * 4, boxes, [0, 0], [whole, WIDE], [True, True], 4)
    assert owner.tolist() == [[1, 0, 0, 0]]


def test_crowds_and_padding_get_no_cell():
    owner, target = assigned([[0.5]] * 4, [WIDE] * 4, [0, 0], [WIDE, [0.0] * 4], [False, False], 4)
    assert owner.tolist() == [[-1] * 4]
    assert not target.any()
    owner, target = assigned([[0.5]] * 4, [WIDE] * 4, [], [], [], 4)
    assert owner.tolist() == [[-1] * 4]
    assert not target.any()


def test_complete_iou_by_hand():
    one, shifted, lower = torch.tensor([[0.0, 0, 4, 4], [2, 0, 6, 4], [0, 0, 4, 2]])
    assert complete_iou(one, one).item() == pytest.approx(1)
    assert complete_iou(one, shifted).item() == pytest.approx(8 / 24 - 4 / 52)
    shape = 4 / math.pi**2 * (math.atan(1) - math.atan(2)) ** 2
    assert complete_iou(one, lower).item() == pytest.approx(8 / 16 - 1 / 32 - shape**2 / (shape + 1 - 0.5))
    far = torch.tensor([100.0, 100, 101, 101])
    assert -1 < complete_iou(one, far).item() < -0.8


def test_complete_iou_is_torchvisions():
    generator = torch.Generator().manual_seed(0)
    corners, sizes = torch.rand(2, 50, 2, generator=generator) * 20, torch.rand(2, 50, 2, generator=generator) * 20 + 1
    one, other = torch.cat([corners, corners + sizes], dim=2)
    found = complete_iou(one.unsqueeze(1), other.unsqueeze(0))
    torch.testing.assert_close(found, complete_box_iou(one, other), atol=1e-5, rtol=1e-5)


def test_distribution_loss_by_hand():
    even = torch.zeros(1, 4, 16)
    assert distribution_loss(even, torch.full((1, 4), 2.25)).item() == pytest.approx(math.log(16))
    bins = torch.zeros(2, 4, 16)
    bins[..., 2], bins[..., 3], bins[..., 15] = 1.0, 2.0, 3.0
    log = bins[0, 0].log_softmax(0)
    found = distribution_loss(bins, torch.tensor([[2.25] * 4, [0.0, 99.0, -3.0, 14.5]]))
    zero, last, middle = log[0], 0.01 * log[14] + 0.99 * log[15], (log[14] + log[15]) / 2
    expected = [-(0.75 * log[2] + 0.25 * log[3]), -(zero + last + zero + middle) / 4]
    assert found.tolist() == pytest.approx([value.item() for value in expected], abs=1e-4)


def test_a_perfect_answer_costs_almost_nothing_and_a_wrong_one_much():
    levels = [torch.zeros(1, 66, side, side) for side in (4, 2, 1)]
    labels, boxes, kinds = torch.tensor([[1]]), torch.tensor([[[0.0, 0, 24, 24]]]), torch.tensor([[1]])
    for level in levels:
        level[:, 64:] = -20.0
    levels[0][0, 65, 1, 1] = 20.0  # the cell around (12, 12) is sure of class 1 ...
    for side in range(4):  # ... and of its box, 1.5 cells away on each side
        levels[0][0, 16 * side + 1, 1, 1] = levels[0][0, 16 * side + 2, 1, 1] = 20.0
    box, score, distance = (part.item() for part in head_losses(levels, labels, boxes, kinds, (1,)))
    assert box == pytest.approx(0, abs=1e-3)
    assert score == pytest.approx(0, abs=1e-3)
    assert distance == pytest.approx(math.log(2), abs=1e-3), "two bins share the truth, so each is half sure"
    levels[0][0, 64:, 1, 1] = torch.tensor([20.0, -20.0])
    wrong = head_losses(levels, labels, boxes, kinds, (1,))[1].item()
    assert wrong == pytest.approx(40, rel=1e-3), "sure of the wrong class"


def test_images_without_objects_teach_the_scores_only():
    levels = [torch.randn(2, 67, side, side, requires_grad=True) for side in (4, 2, 1)]
    nothing = (torch.zeros(2, 0, dtype=torch.int64), torch.zeros(2, 0, 4), torch.zeros(2, 0, dtype=torch.uint8))
    crowd = (torch.zeros(2, 1, dtype=torch.int64), torch.tensor([[WIDE]] * 2), torch.full((2, 1), 2, dtype=torch.uint8))
    expected = sum(torch.nn.functional.softplus(level[:, 64:]).sum() for level in levels).item()
    loss = build_loss(CONFIG)
    for objects in (nothing, crowd):
        total = loss((levels, levels), *objects)
        assert total.item() == pytest.approx(0.5 * 2 * expected, rel=1e-5)
        total.backward()
        assert not any(level.grad[:, :64].any() for level in levels)
        assert all(level.grad[:, 64:].all() for level in levels)


def test_the_loss_is_computed_in_float32_under_autocast():
    torch.manual_seed(0)
    levels = [torch.randn(2, 66, side, side) for side in (8, 4, 2)]
    labels, boxes, kinds = torch.tensor([[1], [0]]), torch.tensor([[[5.0, 7, 24, 30]]] * 2), torch.tensor([[1], [1]])
    exact = head_losses(levels, labels, boxes, kinds, [10])
    with torch.autocast("cpu", torch.bfloat16):
        half = head_losses(levels, labels, boxes, kinds, [10])
    torch.testing.assert_close(half, exact, rtol=1e-6, atol=0)
