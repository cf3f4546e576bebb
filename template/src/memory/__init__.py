"""GPU memory before training: events of two steps, replayed through a model of the framework's allocator.

`trace.py` holds the events, `lightning_trace.py` and `paddle_trace.py` make them without a GPU, `replay.py` runs
them through `allocators.py`, `estimate.py` adds them up, `check.py` and `finder.py` decide on the batch size.
"""
