"""Tables in Lightning: the tasks are learned, and a checkpoint is enough to encode new rows."""

from table_training import TableTests


class TestTablesLightning(TableTests):
    framework = "lightning"
