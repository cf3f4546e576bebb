"""Housing: 4,000 synthetic districts with the columns of the California housing table, so nothing is downloaded.

The original (Pace and Barry, 1997) would be a download. Here each column is drawn from a similar distribution. The
median house value, in 100,000 dollars, follows a formula of income, crowding, age and the distance to two cities on the
coast, with noise and the original's cap of 5.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from src.kit.splitting import SplitRule
from src.kit.tabular import Table, TableSplit, load_table

ROWS = 4000
CITIES = ((37.8, -122.3), (34.0, -118.3))  # latitude, longitude
SEED = 0  # the districts are the same everywhere


def build(
    split: SplitRule,
    *,
    target: Mapping[str, str],
    columns: Mapping[str, Any],
    select: Mapping[str, Any],
    resample: str = "none",
    preprocessing: str | None = None,
) -> TableSplit:
    """Rows of the table; `val_fraction` and `test_fraction` are cut from all of them.

    Args:
        target: `column` is the name that the value gets; `kind` is number.
        columns: Columns whose numbers are `categories`.
        select: `method` that scores columns, and the number `k` of columns to keep.
        resample: none; the others need classes.
        preprocessing: A run's model.safetensors: encode and scale as that run does.
    """
    keys: dict[str, Any] = {"target": target, "columns": columns, "select": select}
    keys |= {"resample": resample, "preprocessing": preprocessing}
    return load_table(partial(read_whole, target=target), split, keys)


def read_whole(*, target: Mapping[str, str]) -> Table:
    """Eight columns of numbers, and the value in the column `target["column"]`."""
    rng = np.random.default_rng(SEED)
    latitude = rng.uniform(32.5, 42.0, ROWS)
    longitude = -114.5 - (latitude - 32.5) * 0.85 - rng.gamma(2.0, 1.2, ROWS)
    income = np.clip(rng.lognormal(1.25, 0.45, ROWS), 0.5, 15.0)
    age = rng.integers(1, 53, ROWS).astype(np.float64)
    rooms = 2.5 + 0.6 * income + rng.normal(0, 0.8, ROWS)
    bedrooms = np.clip(rng.normal(1.07, 0.08, ROWS), 0.5, None)
    population = np.round(rng.lognormal(7.0, 0.7, ROWS))
    occupancy = np.clip(rng.lognormal(1.05, 0.25, ROWS), 1.0, None)
    way = np.min([np.hypot(latitude - north, longitude - east) for north, east in CITIES], axis=0)  # degrees
    value = 0.45 * income + 1.5 * np.exp(-way / 1.5) - 0.35 * (occupancy - 3) + 0.008 * age - 0.05 * income * (way > 3)
    value = np.clip(value + rng.normal(0, 0.25, ROWS), 0.15, 5.0)
    columns = {"MedInc": income, "HouseAge": age, "AveRooms": rooms, "AveBedrms": bedrooms, "Population": population}
    columns |= {"AveOccup": occupancy, "Latitude": latitude, "Longitude": longitude}
    return Table({**columns, target["column"]: value})
