"""Read weights that PyTorch has saved, without PyTorch and without unpickling.

A pickle is a list of operations. `pickletools` lists them; the few that a dictionary of tensors needs are carried out
here, on plain values, and a file with any other is refused. So nothing of the file is ever called or imported.
"""

import math
import pickletools
import zipfile
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from src.kit.config import UserError

__all__ = ["read_published"]

DTYPES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
}
CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
VALUES = {"BININT", "BININT1", "BININT2", "LONG1", "BINUNICODE", "SHORT_BINUNICODE", "BINFLOAT", "GLOBAL"}
MAGIC = 0x1950A86A20F9469CFC6C  # the first number of a file from before PyTorch 1.6
MARK = object()


class Storage(NamedTuple):
    """Numbers in a file, in a row."""

    key: str
    dtype: str


class View(NamedTuple):
    """A tensor: a part of a storage. Offset and strides count elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read_published(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a dictionary of tensors that `torch.save` wrote, by name; other values are left out.

    Raises:
        UserError: the file is damaged, or holds something else.
    """
    try:
        with path.open("rb") as file:
            zipped = zipfile.is_zipfile(file)
            file.seek(0)
            views, numbers = read_zipped(file) if zipped else read_old(file)
        named = {name: view for name, view in views.items() if isinstance(view, View)}
        return {name: read_view(view, numbers[view.storage.key]) for name, view in named.items()}
    except (AttributeError, EOFError, IndexError, KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} holds no weights that PyTorch saved ({error}); download the file again.") from error


def read_zipped(file: IO[bytes]) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The dictionary, and the bytes of each storage: a file since PyTorch 1.6."""
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        root = next(name for name in names if name.endswith("data.pkl")).removesuffix("data.pkl")
        with archive.open(f"{root}data.pkl") as pickled:
            values = interpret(pickled)
        start = f"{root}data/"
        return values, {name.removeprefix(start): archive.read(name) for name in names if name.startswith(start)}


def read_old(file: IO[bytes]) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Likewise: a file from before, with the storages after the pickles, each with its number of elements."""
    if interpret(file) != MAGIC:
        raise ValueError("an unknown format")
    _, _, values, keys = (interpret(file) for _ in range(4))
    sizes = {view.storage.key: np.dtype(view.storage.dtype).itemsize for view in values.values() if type(view) is View}
    numbers = {}
    for key in keys:
        numbers[key] = file.read(int.from_bytes(file.read(8), "little") * sizes[key])
    return values, numbers


def read_view(view: View, numbers: bytes) -> np.ndarray:
    """A copy of a tensor's elements; float32 if they are floats."""
    count = math.prod(view.shape)
    expected = tuple(math.prod(view.shape[axis + 1 :]) for axis in range(len(view.shape)))
    used = [axis for axis, size in enumerate(view.shape) if size > 1]
    if any(view.strides[axis] != expected[axis] for axis in used):
        raise ValueError("a tensor that is not contiguous")
    array = np.frombuffer(numbers, view.storage.dtype, count, view.offset * np.dtype(view.storage.dtype).itemsize)
    return array.reshape(view.shape).astype(np.float32 if array.dtype.kind == "f" else array.dtype)


def interpret(file: IO[bytes]) -> Any:
    """The value of the pickle at the file's position."""
    stack: list[Any] = []
    memo: dict[Any, Any] = {}
    for operation, argument, _ in pickletools.genops(file):
        name = operation.name
        if name in CONSTANTS:
            stack.append(CONSTANTS[name])
        elif name in VALUES:
            stack.append(argument)
        elif name in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name == "STOP":
            return stack.pop()
        elif name != "PROTO":
            combine(name, stack)
    raise EOFError("it ends within a pickle")


def combine(name: str, stack: list[Any]) -> None:
    """Carry out an operation on the values on the stack."""
    if name == "MARK":
        stack.append(MARK)
    elif name in ("EMPTY_DICT", "EMPTY_LIST"):
        stack.append({} if name == "EMPTY_DICT" else [])
    elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
        count = int(name[-1])
        stack[-count:] = [tuple(stack[-count:])]
    elif name == "TUPLE":
        stack.append(tuple(pop_marked(stack)))
    elif name in ("APPEND", "APPENDS"):
        values = pop_marked(stack) if name == "APPENDS" else [stack.pop()]
        stack[-1].extend(values)
    elif name in ("SETITEM", "SETITEMS"):
        values = pop_marked(stack) if name == "SETITEMS" else [stack.pop(-2), stack.pop()]
        stack[-1].update(zip(values[::2], values[1::2], strict=True))
    elif name == "BINPERSID":
        kind, storage, key, *_ = stack.pop()
        if kind != "storage":
            raise ValueError(f"a {kind}")
        stack.append(Storage(key, DTYPES[storage.removeprefix("torch ")]))
    elif name == "REDUCE":
        arguments, function = stack.pop(), stack.pop()
        stack.append(build(function, arguments))
    elif name == "BUILD":  # the version of each layer, which a dictionary has as an attribute
        stack.pop()
    else:
        raise ValueError(f"the operation {name}")


def pop_marked(stack: list[Any]) -> list[Any]:
    """Take the values after the last mark off the stack, and the mark."""
    place = max(place for place, value in enumerate(stack) if value is MARK)
    values = stack[place + 1 :]
    del stack[place:]
    return values


def build(function: str, arguments: tuple[Any, ...]) -> Any:
    """What one of the two known functions makes."""
    if function == "collections OrderedDict" and arguments == ():
        return {}
    if function == "torch._utils _rebuild_tensor_v2":
        return View(*arguments[:4])
    raise ValueError(f"a call of {function}")
