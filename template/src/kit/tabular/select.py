"""Choose the columns that tell most about the target, from the training rows."""

import numpy as np
from omegaconf import DictConfig

from src.kit.config import UserError
from src.kit.tabular.preprocessing import Preprocessing

MOST_ROWS = 10_000  # that are looked at, drawn at random: more cost minutes and hardly change the order
TREES = 200


def select(
    preprocessing: Preprocessing, inputs: np.ndarray, targets: np.ndarray, cfg_data: DictConfig, seed: int
) -> Preprocessing:
    """Keep the `cfg_data.select.k` columns with the highest scores of `cfg_data.select.method`.

    - mutual_information: how much a column alone tells about the target, also where it is no straight line (Kraskov
      et al. 2004, https://arxiv.org/abs/cond-mat/0305641, as in scikit-learn).
    - anova: the F statistic of a column's means in the classes, or of its correlation with the number; of a column of
      categories that of the category with the highest.
    - forest: the mean decrease in impurity in a random forest (Breiman 2001), which sees columns together.

    Args:
        inputs: float32 (N, F), what `preprocessing` makes of the training rows.
        targets: int64 (N,) classes or float64 (N,) numbers.

    Raises:
        UserError: there are fewer columns than `k`.
    """
    if cfg_data.select.method == "none":
        return preprocessing
    names = preprocessing.names
    if cfg_data.select.k > len(names):
        raise UserError(
            f"data.select.k={cfg_data.select.k} is more than the {len(names)} columns there are: choose fewer, or set "
            "data.select.method=none."
        )
    rng = np.random.default_rng(seed)
    drawn = np.sort(rng.permutation(len(inputs))[:MOST_ROWS])
    scores = SCORES[cfg_data.select.method](inputs[drawn], targets[drawn], len(preprocessing.numbers), seed)
    best = np.argsort(-scores, kind="stable")[: cfg_data.select.k]
    return preprocessing.select([names[place] for place in best])


def mutual_information(inputs: np.ndarray, targets: np.ndarray, numbers: int, seed: int) -> np.ndarray:
    """Mutual information in nats, (F,); the columns from `numbers` on are categories."""
    from sklearn.feature_selection import mutual_info_classif, mutual_info_regression

    estimate = mutual_info_classif if targets.dtype == np.int64 else mutual_info_regression
    scores: np.ndarray = estimate(
        inputs, targets, discrete_features=np.arange(inputs.shape[1]) >= numbers, random_state=seed
    )
    return scores


def anova(inputs: np.ndarray, targets: np.ndarray, numbers: int, seed: int) -> np.ndarray:
    """F statistics, (F,); the columns from `numbers` on are categories."""
    from sklearn.feature_selection import f_classif, f_regression

    test = f_classif if targets.dtype == np.int64 else f_regression
    columns = [inputs[:, [place]] for place in range(numbers)]
    # a category against all others is a column of 0 and 1
    columns += [codes[:, None] == np.unique(codes) for codes in inputs[:, numbers:].T]
    with np.errstate(divide="ignore", invalid="ignore"):  # a constant column has no variance
        found = [np.nan_to_num(test(column.astype(np.float64), targets)[0], posinf=np.inf) for column in columns]
    return np.array([scores.max() for scores in found])


def forest(inputs: np.ndarray, targets: np.ndarray, numbers: int, seed: int) -> np.ndarray:
    """Importances that sum to 1, (F,)."""
    from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

    kind = RandomForestClassifier if targets.dtype == np.int64 else RandomForestRegressor
    trees = kind(TREES, min_samples_leaf=3, max_features="sqrt", random_state=seed, n_jobs=-1)
    importances: np.ndarray = trees.fit(inputs, targets).feature_importances_
    return importances


SCORES = {"mutual_information": mutual_information, "anova": anova, "forest": forest}
