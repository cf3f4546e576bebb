"""Scores of predicted probabilities, which the share of right answers does not see."""

import numpy as np

BINS = 10  # of probabilities, for the calibration error


def score_probabilities(probabilities: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """Scores of probabilities (N, K) for true classes (N,): the mean over several classes, each against the rest.

    Returns:
        roc_auc: chance that a row of a class gets a higher probability for it than a row of another; 0.5 is guessing.
        pr_auc: average precision, of which guessing has the class's share.
        log_loss: mean negative log-likelihood in nats, 0 at best.
        calibration_error: mean distance between the probability of the answer and the share of right answers, in ten
            bins (Guo et al. 2017, arXiv 1706.04599); 0 at best.

        Without rows of two classes, the first two are left out.
    """
    from sklearn.metrics import average_precision_score, roc_auc_score

    kinds = range(probabilities.shape[1]) if probabilities.shape[1] > 2 else (1,)
    seen = [k for k in kinds if 0 < (targets == k).sum() < len(targets)]
    result = {}
    for name, score in (("roc_auc", roc_auc_score), ("pr_auc", average_precision_score)):
        if seen:
            result[name] = float(np.mean([score(targets == k, probabilities[:, k]) for k in seen]))
    likely = np.clip(probabilities[np.arange(len(targets)), targets], 1e-15, 1)
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == targets
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    gaps = [abs((confidence[bins == k] - right[bins == k]).sum()) for k in range(BINS)]
    return {**result, "log_loss": float(-np.log(likely).mean()), "calibration_error": float(sum(gaps) / len(targets))}
