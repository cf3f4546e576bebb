"""Housing: 4,000 made-up districts with the columns of the California housing table, so they need no network.

The true table (Pace and Barry, 1997) has to be downloaded. Here each column is drawn from a distribution like its own;
the median house value, in 100,000 dollars, follows a formula of income, crowding, age and the distance to two cities on
the coast, with noise and the original's cap of 5.
"""

import numpy as np
from omegaconf import DictConfig

from src.kit.tabular import Table, TableSplit, load_table

ROWS = 4000
CITIES = ((37.8, -122.3), (34.0, -118.3))  # latitude, longitude
SEED = 0  # the districts are the same everywhere


def load(cfg_data: DictConfig, split: str, seed: int) -> TableSplit:
    """One split; `val_fraction` and `test_fraction` are taken from the one table there is."""
    return load_table(read, cfg_data, split, seed)


def read(cfg_data: DictConfig) -> Table:
    """Eight columns of numbers, and the value in the column `cfg_data.target.column`."""
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
    return Table({**columns, cfg_data.target.column: value})


def download(cfg_data: DictConfig) -> None:
    """Nothing to fetch: the table is computed."""
