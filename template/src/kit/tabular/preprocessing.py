"""Turn a table's rows into a network's inputs: encode, select columns, balance classes.

Everything is learned from the training rows. `Preprocessing` is saved with the weights as JSON."""

import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from src.kit.errors import UserError
from src.kit.tabular.forms import Form, interpret, read_numbers
from src.kit.tabular.table import Table, is_missing, is_numeric, to_text
from src.kit.tabular.target import restore_target, transform_target

if TYPE_CHECKING:  # prediction needs only NumPy
    from omegaconf import DictConfig

MOST_CATEGORIES = 1000  # per column; rarer ones are treated as unknown
UNKNOWN = 0  # the code of categories not seen in training
MOST_ROWS = 10_000  # random rows used to score columns: more take minutes and hardly change the order
TREES = 200
NEIGHBOURS = 5  # of SMOTE
BINS = 16  # of a column of numbers, for networks that know in which one a number is
NEAREST = 1e-6  # standard deviations between two knots


@dataclass(frozen=True)
class Number:
    """A column of numbers, encoded as `(value - mean) / scale`; `fill`, the median, replaces missing values.

    `knots` are the ends of bins, ascending, see `find_knots`.
    """

    name: str
    fill: float
    mean: float
    scale: float
    knots: tuple[float, ...] = ()


@dataclass(frozen=True)
class Category:
    """A column of categories: `values[i]` has the code i + 1; None among them stands for missing values."""

    name: str
    values: tuple[str | None, ...]


@dataclass(frozen=True)
class Preprocessing:
    """Encode rows of a table as float32 (N, F): the scaled numbers, then the codes of the categories.

    A missing number becomes the median of the training rows. A missing category is a category of its own if the column
    has missing values in the training rows. Otherwise it is unknown, like any value not seen in training: code 0, whose
    embedding is the zero vector.

    Attributes:
        forms: how columns of the file are read that hold no plain numbers.
    """

    numbers: tuple[Number, ...]
    categories: tuple[Category, ...]
    target: str
    target_mean: float = 0.0
    target_scale: float = 1.0
    forms: Mapping[str, Form] = field(default_factory=dict)
    target_transform: str = "none"
    target_knots: tuple[float, ...] = ()

    @property
    def cardinalities(self) -> tuple[int, ...]:
        """Number of codes of each column of categories, including the one for unknown values."""
        return tuple(len(column.values) + 1 for column in self.categories)

    @property
    def knots(self) -> tuple[tuple[float, ...], ...]:
        """The ends of each number's bins, encoded as the numbers are; none of a column that has a single bin."""
        found = []
        for column in self.numbers:
            encoded = (np.array(column.knots) - column.mean) / column.scale
            apart = encoded[np.diff(encoded, prepend=-np.inf) > NEAREST]
            found.append(tuple(apart.tolist()) if len(apart) > 2 else ())
        return tuple(found)

    @property
    def names(self) -> tuple[str, ...]:
        """The columns in the order of the network's inputs."""
        return (*(column.name for column in self.numbers), *(column.name for column in self.categories))

    @property
    def sources(self) -> tuple[str, ...]:
        """The columns of the file that `names` are made of."""
        parts = {f"{name} ({part})": name for name, form in self.forms.items() for part in form.parts}
        return tuple(dict.fromkeys(parts.get(name, name) for name in self.names))

    def transform(self, table: Table) -> np.ndarray:
        """Encode any rows of a file as float32 (N, F), ignoring columns that training did not use.

        Raises:
            UserError: a column is missing, or has text although training had numbers.
        """
        return self.encode(interpret(table, {name: form for name, form in self.forms.items() if name in table.columns}))

    def encode(self, table: Table) -> np.ndarray:
        """Encode rows that `interpret` has read by the forms; raises as `transform`."""
        if absent := [repr(name) for name in self.names if name not in table.columns]:
            raise UserError(f"The table lacks columns that the network was trained on: {', '.join(absent)}.")
        result = np.empty((len(table), len(self.names)), np.float32)
        for index, number in enumerate(self.numbers):
            values = read_numbers(table.columns[number.name], number.name, Form("number", "."))
            filled = np.where(np.isfinite(values), values, number.fill)
            result[:, index] = (filled - number.mean) / number.scale
        for index, category in enumerate(self.categories, len(self.numbers)):
            codes = {value: code for code, value in enumerate(category.values, 1)}
            result[:, index] = [codes.get(value, UNKNOWN) for value in to_text(table.columns[category.name])]
        return result

    def decode(self, outputs: np.ndarray) -> np.ndarray:
        """Convert a regression's outputs (N,) to the target's unit, float64 (N,)."""
        values = outputs.astype(np.float64) * self.target_scale + self.target_mean
        return restore_target(values, self.target_transform, self.target_knots)

    def encode_target(self, targets: np.ndarray) -> np.ndarray:
        """Transform and standardise numbers (N,), float64 (N,): what a network learns."""
        values = transform_target(targets, self.target_transform, self.target_knots)
        standardised: np.ndarray = (values - self.target_mean) / self.target_scale
        return standardised

    def select(self, names: Collection[str]) -> "Preprocessing":
        """Keep only these columns."""
        numbers = tuple(column for column in self.numbers if column.name in names)
        categories = tuple(column for column in self.categories if column.name in names)
        return replace(self, numbers=numbers, categories=categories)

    def to_json(self) -> str:
        """Serialise, so that `from_json` restores the same preprocessing bit for bit."""
        return json.dumps(asdict(self), ensure_ascii=False)


def from_json(text: str) -> Preprocessing:
    """Undo `Preprocessing.to_json`."""
    fields = json.loads(text)
    numbers = tuple(Number(**{**column, "knots": tuple(column.get("knots", ()))}) for column in fields.pop("numbers"))
    categories = tuple(Category(column["name"], tuple(column["values"])) for column in fields.pop("categories"))
    forms = {
        name: Form(form["kind"], form["style"], tuple(form["parts"])) for name, form in fields.pop("forms", {}).items()
    }
    fields["target_knots"] = tuple(fields.get("target_knots", ()))
    return Preprocessing(numbers, categories, forms=forms, **fields)


def fit(
    table: Table,
    target: str,
    target_mean: float = 0.0,
    target_scale: float = 1.0,
    forms: Mapping[str, Form] | None = None,
) -> Preprocessing:
    """Learn medians, scales, bins and categories from the training rows, read by `forms` (without the target column).

    Raises:
        UserError: a column without values.
    """
    numbers: list[Number] = []
    categories: list[Category] = []
    for name, column in table.columns.items():
        if is_missing(column).all():
            raise UserError(f"The column {name!r} has no value in the training rows: list it in data.columns.drop.")
        if is_numeric(column):
            known = column[np.isfinite(column)]
            fill = float(np.median(known))
            filled = np.where(np.isfinite(column), column, fill)
            numbers.append(Number(name, fill, float(filled.mean()), float(filled.std()) or 1.0, find_knots(known)))
        else:
            categories.append(Category(name, frequent(column)))
    return Preprocessing(tuple(numbers), tuple(categories), target, target_mean, target_scale, forms or {})


def find_knots(values: np.ndarray) -> tuple[float, ...]:
    """The ends of the bins of float64 (N,): quantiles, or all values where these are few, such as hours."""
    distinct = np.unique(values)
    if len(distinct) > 2 * BINS:
        distinct = np.unique(np.quantile(values, np.linspace(0, 1, BINS + 1)))
    return tuple(distinct.tolist())


def frequent(column: np.ndarray) -> tuple[str | None, ...]:
    """The most frequent values in alphabetical order, then None if some are missing."""
    counts: Counter[str] = Counter(value for value in column if value is not None)
    missing = (None,) if counts.total() < len(column) else ()
    ordered = sorted(counts, key=lambda value: (-counts[value], value))
    return (*sorted(ordered[:MOST_CATEGORIES]), *missing)


def select_columns(
    preprocessing: Preprocessing, inputs: np.ndarray, targets: np.ndarray, cfg_data: "DictConfig", seed: int
) -> Preprocessing:
    """Keep the `cfg_data.select.k` columns with the highest scores of `cfg_data.select.method`.

    - mutual_information: what a column alone tells about the target, linear or not (Kraskov et al. 2004,
      https://arxiv.org/abs/cond-mat/0305641, as in scikit-learn).
    - anova: F statistic of the column's means per class, or of its correlation with the number. A column of categories
      gets the score of its best category.
    - forest: mean decrease in impurity in a random forest (Breiman 2001), which sees columns together.

    Args:
        inputs: float32 (N, F), the training rows encoded by `preprocessing`.
        targets: int64 (N,) classes or float64 (N,) numbers.

    Raises:
        UserError: there are fewer columns than `k`.
    """
    if cfg_data.select.method == "none":
        return preprocessing
    names = preprocessing.names
    if cfg_data.select.k > len(names):
        raise UserError(
            f"data.select.k={cfg_data.select.k} is more than the {len(names)} columns of the table: choose fewer, "
            "or set data.select.method=none."
        )
    rng = np.random.default_rng(seed)
    drawn = np.sort(rng.permutation(len(inputs))[:MOST_ROWS])
    scores = SCORES[cfg_data.select.method](inputs[drawn], targets[drawn], len(preprocessing.numbers), seed)
    best = np.argsort(-scores, kind="stable")[: cfg_data.select.k]
    return preprocessing.select([names[index] for index in best])


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
    columns = [inputs[:, [index]] for index in range(numbers)]
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


def resample(
    inputs: np.ndarray, targets: np.ndarray, numbers: int, method: str, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Give all classes the same number of training rows.

    - smote: interpolate rows of rare classes between neighbours, up to the size of the largest class (Chawla et al.
      2002, https://arxiv.org/abs/1106.1813). Categories take the neighbours' most frequent value (SMOTE-NC).
    - under: drop rows of frequent classes, down to the size of the smallest class.
    - both: bring every class to the mean size, by dropping rows or by SMOTE.

    Args:
        inputs: float32 (N, F), scaled numbers, and category codes from column `numbers` on.
        targets: int64 (N,) classes.
        numbers: the number of columns that hold numbers.

    Returns:
        New inputs and targets, and for each of their rows the index of the original row, -1 for a synthetic one.

    Raises:
        UserError: a class has a single row, which SMOTE can't interpolate.
    """
    origin = np.arange(len(targets))
    classes, counts = np.unique(targets, return_counts=True)
    size = {"smote": counts.max(), "under": counts.min(), "both": round(len(targets) / len(classes))}[method]
    larger = {int(name): int(size) for name, count in zip(classes, counts, strict=True) if count > size}
    smaller = {int(name): int(size) for name, count in zip(classes, counts, strict=True) if count < size}
    if larger:
        from imblearn.under_sampling import RandomUnderSampler

        sampler = RandomUnderSampler(sampling_strategy=larger, random_state=seed)
        sampler.fit_resample(origin[:, None], targets)
        origin = np.sort(sampler.sample_indices_)
        inputs, targets = inputs[origin], targets[origin]
    if smaller:
        if counts.min() < 2:
            raise UserError(
                f"data.resample={method} can't interpolate a class with a single training row: add rows, "
                "or use data.resample=none with loss.class_weights=balanced."
            )
        made = build_smote(inputs, numbers, smaller, min(NEIGHBOURS, counts.min() - 1), seed)
        inputs, targets = made.fit_resample(inputs, targets)
        origin = np.concatenate([origin, np.full(len(targets) - len(origin), -1)])
    return inputs.astype(np.float32), targets.astype(np.int64), origin


def build_smote(inputs: np.ndarray, numbers: int, smaller: dict[int, int], neighbours: int, seed: int) -> Any:
    """SMOTE for numbers, for categories, or for both."""
    from imblearn.over_sampling import SMOTE, SMOTEN, SMOTENC

    common = {"sampling_strategy": smaller, "k_neighbors": int(neighbours), "random_state": seed}
    if numbers == inputs.shape[1]:
        return SMOTE(**common)
    if numbers == 0:
        return SMOTEN(**common)
    return SMOTENC(categorical_features=list(range(numbers, inputs.shape[1])), **common)


def embedding_width(cardinality: int) -> int:
    """Return the width of an embedding: half the number of codes, rounded up, at most 50 (the usual rule of thumb)."""
    return min(50, (cardinality + 1) // 2)


def list_bins(knots: Sequence[Sequence[float]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All bins of a table's numbers, (M,) each: int64 number, float32 lower end and width.

    Args:
        knots: of each number, see `Preprocessing.knots`.
    """
    bins = [(number, low, high) for number, ends in enumerate(knots) for low, high in pairwise(ends)]
    numbers, lows, highs = np.array(bins, np.float64).reshape(-1, 3).T
    return numbers.astype(np.int64), lows.astype(np.float32), (highs - lows).astype(np.float32)


def check_hidden(hidden: Sequence[int]) -> list[int]:
    """Return the widths of the hidden layers as a list.

    Raises:
        UserError: a width is not an integer above 0.
    """
    if not all(isinstance(width, int) and width > 0 for width in hidden):
        raise UserError(f"model.hidden must be a list of layer widths above 0, such as [64, 32], not {list(hidden)}.")
    return list(hidden)
