"""Tables in Paddle: the tasks are learned, and a checkpoint is enough to encode new rows."""

from table_training import TableTests


class TestTablesPaddle(TableTests):
    framework = "paddle"
