"""Checkpoints of others, read without running what is in them."""

import logging
import pickle
import tarfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors.torch import load_file

logger = logging.getLogger(__name__)

#: What no checkpoint needs and an attack does: such a file is refused as a whole. The rest that is
#: not known is inert anyway; this list only makes an attack visible. 'commands' is how Python 2's
#: pickles, and torch.save, write subprocess.
FORBIDDEN_MODULES = (
    'bdb', 'codeop', 'commands', 'ctypes', 'importlib', 'marshal', 'nt', 'os', 'pdb', 'pickle',
    'pip', 'posix', 'pty', 'runpy', 'shutil', 'socket', 'subprocess', 'sys', 'timeit', 'webbrowser',
)  # fmt: skip
FORBIDDEN_BUILTINS = (
    'breakpoint', 'compile', 'eval', 'exec', 'execfile', 'globals', 'input', 'open', '__import__',
)  # fmt: skip


def read_checkpoint(path: str | Path) -> Any:
    """Read a checkpoint; nothing in it is executed.

    ``torch.load(weights_only=True)`` comes first. Where that refuses (published checkpoints hold
    pickled data modules and the like), tensors and plain containers are still read, and everything
    else becomes an inert placeholder that is never called as what it was.

    Args:
        path: A ``.ckpt``, ``.pth``, ``.pth.tar``, ``.pt`` or ``.safetensors`` file.

    Returns:
        What was saved, on the CPU.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, no checkpoint, or malicious.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'{path} is not a file; expected a checkpoint.')
    try:
        if path.suffix == '.safetensors':
            return load_file(path)
        _refuse_code(path)
        try:
            return torch.load(path, map_location='cpu', weights_only=True)
        except pickle.UnpicklingError:
            return _load_tensors(path)
    except _Refused as error:
        raise ValueError(f'{path} is refused: {error}.') from None
    except Exception as error:
        # Damaged pickles fail with any exception there is.
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f'{path} cannot be read as a checkpoint, it may be truncated or something else '
            f'({reason}).'
        ) from error


class _Refused(Exception):
    """The file is not to be read at all."""


def _refuse_code(path: Path) -> None:
    """Refuse containers for which torch.load would leave the unpickler."""
    if tarfile.is_tarfile(path):
        raise _Refused('it is a tar archive, a form of checkpoint last written in 2016')
    with path.open('rb') as file:
        is_zip = file.read(4) == b'PK\x03\x04'
    if is_zip and _is_program(path):
        raise _Refused('it is a TorchScript program; expected a checkpoint')


def _is_program(path: Path) -> bool:
    """Whether a zip is TorchScript, by the reader of torch.load: both see the same names."""
    reader: Any = torch._C.PyTorchFileReader(str(path))
    return bool(reader.has_record('constants.pkl'))


class _Inert:
    """Stands for an object of a class that is not read; takes every operation, does nothing."""

    def __new__(cls, *args: Any, **kwargs: Any) -> '_Inert':
        return object.__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def _nothing(self, *args: Any, **kwargs: Any) -> None:
        pass

    __setstate__ = __setitem__ = append = extend = add = _nothing

    def __call__(self, *args: Any, **kwargs: Any) -> '_Inert':
        return self


class _Function:
    """A function that a pickle can call, but not set attributes of."""

    __slots__ = ('_function',)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *args: Any) -> Any:
        return self._function(*args)

    def __setstate__(self, state: Any) -> None:
        """Nothing is taken over."""


def _allowed(module: str, name: str) -> Any:
    """What a name stands for, None if it is not read; torch itself sees to storages."""
    match module, name:
        case 'collections', 'OrderedDict':
            return OrderedDict
        case 'torch._utils', '_rebuild_tensor' | '_rebuild_tensor_v2' | '_rebuild_parameter':
            return _Function(getattr(torch._utils, name))
        case 'torch', 'Size':
            return torch.Size
        case 'torch', _ if isinstance(vars(torch).get(name), torch.dtype):
            return vars(torch)[name]
    return None


class _Unpickler(pickle.Unpickler):
    """Knows tensors and containers; all else is inert."""

    def find_class(self, module: str, name: str) -> Any:
        root = module.partition('.')[0]
        builtin = root in ('builtins', '__builtin__') and name in FORBIDDEN_BUILTINS
        if root in FORBIDDEN_MODULES or builtin:
            raise _Refused(f'its pickle names {module}.{name}, which no checkpoint needs')
        value = _allowed(module, name)
        if value is None:
            logger.info('%s.%s is not read', module, name)
            value = type('Inert', (_Inert,), {})
        return value


def _load_tensors(path: Path) -> Any:
    def load(file: Any, **kwargs: Any) -> Any:
        return _Unpickler(file, **kwargs).load()

    reader = SimpleNamespace(Unpickler=_Unpickler, load=load, __name__='tensors_only')
    return torch.load(path, map_location='cpu', weights_only=False, pickle_module=reader)
