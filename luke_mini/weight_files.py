"""Weight files on the disk -> tensors by name: safetensors and torch's pickles, whole or in shards.

In: a folder. Out: for each name a tensor, or a `Stored` one that says where its bytes lie. A safetensors file is a
header and then the tensors one after the other,

    8 bytes       length of the header, little-endian
    header        JSON: {"name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, ...}
    tensors       bytes; offsets count from here

so we read each tensor straight to where it is wanted: `join` puts several into one parameter without a copy in between,
and a model takes no more memory than its file. torch's own files are pickles, which can hold code: they are opened with
`weights_only`, which knows tensors and nothing else, and mapped into memory. Left out: other frameworks' files.
"""

import json
import math
import pickle
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from luke_mini import files

# In this order: the first one that is there is read. An index names the shard of each tensor.
NAMES = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
COMPARED = 1 << 12  # rows at a time
DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip


class Stored(NamedTuple):
    """A tensor of a safetensors file that was not read yet."""

    path: Path
    dtype: torch.dtype
    shape: tuple[int, ...]
    offset: int  # of its first byte in the file

    def read_into(self, out: Tensor) -> None:
        """Reads the values into `out`, a contiguous tensor of this shape and any type."""
        buffer = out if out.dtype == self.dtype else torch.empty(self.shape, dtype=self.dtype)
        if buffer.numel():
            with open(self.path, "rb", buffering=0) as file:
                file.seek(self.offset)
                bytes_left = memoryview(buffer.view(-1).view(torch.uint8).numpy())
                while bytes_left:  # one call reads at most 2 GB
                    count = file.readinto(bytes_left)
                    if not count:
                        raise ValueError(f"{self.path}: became shorter while it was read")
                    bytes_left = bytes_left[count:]
        if buffer is not out:
            out.copy_(buffer)


def join(parts: Sequence[Tensor | Stored]) -> Tensor:
    """All parts below each other in one tensor: [n, ...], [m, ...] -> [n + m, ...]. Half precision becomes float32.

    A single tensor is returned as it is, without a copy.
    """
    halves = (torch.float16, torch.bfloat16)
    if all(isinstance(part, Tensor) for part in parts):
        whole = torch.cat(parts) if len(parts) > 1 else parts[0]
        return whole.float() if whole.dtype in halves else whole
    dtype = torch.float32 if parts[0].dtype in halves else parts[0].dtype
    if len(parts) == 1:
        whole = torch.empty(parts[0].shape, dtype=dtype)
        parts[0].read_into(whole)
        return whole
    whole = torch.empty(sum(part.shape[0] for part in parts), *parts[0].shape[1:], dtype=dtype)
    for part, out in zip(parts, whole.split([part.shape[0] for part in parts])):
        out.copy_(part) if isinstance(part, Tensor) else part.read_into(out)
    return whole


def equal(one: Tensor | Stored, other: Tensor | Stored) -> bool:
    """Whether two tables have the same shape and values. What was not read yet is read a part at a time."""
    if tuple(one.shape) != tuple(other.shape):
        return False
    starts = range(0, one.shape[0], COMPARED)
    return all(torch.equal(join([_rows(one, k)]), join([_rows(other, k)])) for k in starts)


def _rows(table: Tensor | Stored, start: int) -> Tensor | Stored:
    if isinstance(table, Tensor):
        return table[start : start + COMPARED]
    shape = (min(COMPARED, table.shape[0] - start), *table.shape[1:])
    return table._replace(shape=shape, offset=table.offset + start * math.prod(shape[1:]) * table.dtype.itemsize)


def read(folder: Path) -> dict[str, Tensor | Stored]:
    """Everything that the folder's weight file (or its shards) holds, by the names of the file.

    ValueError with one line if there is none, or naming the file that is cut short, no weight file or more than that.
    """
    found = [folder / name for name in NAMES if (folder / name).is_file()]
    if not found:
        raise ValueError(f"{folder / NAMES[0]}: missing from the folder, and so is {NAMES[2]}")
    if not found[0].name.endswith(".index.json"):
        return read_file(found[0])
    shard_of = _read_index(found[0])
    tensors = {}
    for shard in sorted(set(shard_of.values())):
        if not (folder / shard).is_file():
            raise ValueError(f"{folder / shard}: missing from the folder, though {found[0].name} names it")
        tensors |= read_file(folder / shard)
    lost = [name for name in shard_of if name not in tensors]
    if lost:
        raise ValueError(f"{found[0]}: {lost[0]} is not in {shard_of[lost[0]]}")
    return tensors


def _read_index(path: Path) -> dict[str, str]:
    try:
        shard_of = files.read_object(path)["weight_map"]
        names = set(shard_of.values())
    except (KeyError, TypeError, AttributeError):
        raise ValueError(f'{path}: expected {{"weight_map": {{"name of a tensor": "name of a file"}}}}') from None
    if not names or any(not isinstance(name, str) or Path(name).name != name for name in names):
        raise ValueError(f"{path}: weight_map must name files of the same folder")
    return shard_of


def read_file(path: Path) -> dict[str, Tensor | Stored]:
    """The same for one file: what it is, is told by the end of its name."""
    return _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)


def _read_safetensors(path: Path) -> dict[str, Stored]:
    size = path.stat().st_size
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > size - 8:
            raise ValueError(f"{path}: no whole safetensors file ({size} bytes end within its header)")
        header = file.read(length)
    try:
        entries = []
        for name, entry in json.loads(header).items():
            if name != "__metadata__":
                first, last = map(int, entry["data_offsets"])
                entries.append((name, str(entry["dtype"]), tuple(map(int, entry["shape"])), first, last))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f"{path}: no safetensors file (its header is not the expected JSON)") from None
    tensors, end = {}, 0
    for name, dtype, shape, first, last in entries:
        if dtype not in DTYPES:
            raise ValueError(f"{path}: {name} is of type {dtype}, expected one of {' '.join(DTYPES)}")
        if min([first, *shape]) < 0 or last - first != math.prod(shape) * DTYPES[dtype].itemsize:
            raise ValueError(f"{path}: {name} has {last - first} bytes for the shape {list(shape)} of {dtype}")
        tensors[name] = Stored(path, DTYPES[dtype], shape, 8 + length + first)
        end = max(end, 8 + length + last)
    if size < end:
        raise ValueError(f"{path}: no whole safetensors file ({size} bytes, its header promises {end})")
    return tensors


def _read_pickle(path: Path) -> dict[str, Tensor]:
    try:
        try:
            found = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError as error:
            if "mmap can only be used" not in str(error):  # files of torch before 1.6
                raise
            found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        code = re.search(r"GLOBAL (\S+)", str(error))
        if not code:
            raise ValueError(f"{path}: no torch weight file") from None
        raise ValueError(f"{path}: holds code ({code[1]}) beside tensors, so it was not opened") from None
    except Exception as error:  # damaged bytes can make the unpickler raise anything
        if isinstance(error, OSError) and error.errno:
            raise
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise ValueError(f"{path}: no whole torch weight file ({reason})") from None
    for wrapping in ("state_dict", "model", "module"):  # training states: Lightning's, many people's, DeepSpeed's
        if isinstance(found, dict) and isinstance(found.get(wrapping), dict):
            found = found[wrapping]
    if not isinstance(found, dict) or not any(isinstance(value, Tensor) for value in found.values()):
        raise ValueError(f"{path}: expected tensors by name, found {type(found).__name__}")
    return {name: value for name, value in found.items() if isinstance(value, Tensor)}
