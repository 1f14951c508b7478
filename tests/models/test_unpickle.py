"""Foreign pickles: tensors are read, nothing is run."""

import os
import pickle
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest
import torch

from torchgeo_caco.models.unpickle import read_checkpoint


class Attack:
    """Calls a function when it is unpickled."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize('zipped', [True, False])
@pytest.mark.parametrize(
    ('function', 'refused'),
    [(os.system, True), (subprocess.call, True), (eval, True), (exec, True), (Path.touch, False)],
)
def test_nothing_runs(function, refused, zipped, tmp_path):
    victim, path = tmp_path / 'victim', tmp_path / 'bad.ckpt'
    argument = {
        eval: f'open({str(victim)!r}, "w").close()',
        exec: f'open({str(victim)!r}, "w").close()',
        subprocess.call: ['touch', str(victim)],
        Path.touch: victim,
    }.get(function, f'touch {victim}')
    checkpoint = {'state_dict': {'a': torch.ones(2)}, 'x': Attack(function, argument)}
    torch.save(checkpoint, path, _use_new_zipfile_serialization=zipped)
    if refused:
        with pytest.raises(ValueError, match=r'bad\.ckpt is refused: its pickle names'):
            read_checkpoint(path)
    else:
        assert read_checkpoint(path)['state_dict']['a'].tolist() == [1, 1]
    assert not victim.exists()
    torch.load(path, weights_only=False)
    assert victim.exists(), 'the attack itself does not work, the test shows nothing'


def with_pickle(code: bytes, path: Path) -> Path:
    """A zipped checkpoint whose pickle is another."""
    torch.save({'a': torch.ones(1)}, path)
    with zipfile.ZipFile(path) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_STORED) as archive:
        for name, content in records.items():
            archive.writestr(name, code if name.endswith('data.pkl') else content)
    return path


def text(value: str) -> bytes:
    return b'X' + len(value).to_bytes(4, 'little') + value.encode()


#: Sets attributes of the function itself: a pickle can do so to whatever it names.
POISON = b'ctorch._utils\n_rebuild_tensor_v2\nN}('
POISONED = b'u\x86b'


def test_what_is_named_is_not_changed_for_later(tmp_path):
    rebuild = torch._utils._rebuild_tensor_v2
    code = b'\x80\x02' + POISON + text('poisoned') + b'K\x01' + POISONED + b'.'
    assert pickle.loads(code) is rebuild
    assert rebuild.__dict__.pop('poisoned') == 1
    read_checkpoint(with_pickle(code, tmp_path / 'a.pth'))
    assert not vars(rebuild)


@pytest.mark.filterwarnings('ignore:source code of class')
def test_no_patch_file_is_written(tmp_path):
    # torch.load writes a patch of a module whose source has changed, where the module says.
    victim, rebuild = tmp_path / 'victim', torch._utils._rebuild_tensor_v2
    names = text('__name__') + text(str(victim)) + text('dump_patches') + b'\x88'
    what = POISON + names + POISONED + text('source.py') + text('another source')
    code = b'\x80\x02(' + text('module') + what + b'tQ.'
    head = [pickle.dumps(v, 2) for v in (0x1950A86A20F9469CFC6C, 1001, {'little_endian': True})]
    path = tmp_path / 'old.pth'
    path.write_bytes(b''.join([*head, code, pickle.dumps([], 2)]))
    with pytest.raises(ValueError, match=r'old\.pth cannot be read as a checkpoint'):
        read_checkpoint(path)
    patch = Path(f'{victim}.patch')
    assert not patch.exists()
    try:
        torch.load(path, weights_only=False)
        assert patch.exists(), 'the attack itself does not work, the test shows nothing'
    finally:
        rebuild.__name__ = '_rebuild_tensor_v2'
        vars(rebuild).clear()


def test_values_beside_foreign_objects(foreign, tmp_path):
    half = torch.rand(2, 3).half()
    parameter = torch.nn.Parameter(torch.rand(3))
    for zipped in (True, False):
        path = tmp_path / f'{zipped}.ckpt'
        checkpoint = {'a': half, 'b': parameter, 'n': [1, 'x'], 'size': torch.Size([2]),
                      'dtype': torch.int8, 'x': foreign.object()}  # fmt: skip
        foreign.save(checkpoint, path, _use_new_zipfile_serialization=zipped)
        read = read_checkpoint(path)
        assert torch.equal(read['a'], half)
        assert torch.equal(read['b'], parameter)
        assert (read['n'], read['size'], read['dtype']) == ([1, 'x'], torch.Size([2]), torch.int8)
        assert not hasattr(read['x'], 'root')


def test_wrong_files(tmp_path):
    path = tmp_path / 'a.pth'
    torch.save({'a': torch.rand(1000)}, path)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(ValueError, match=r'a\.pth cannot be read as a checkpoint.*truncated'):
        read_checkpoint(path)
    path.write_text('<html>Not found</html>')
    with pytest.raises(ValueError, match=r'a\.pth cannot be read as a checkpoint'):
        read_checkpoint(path)
    with tarfile.open(path, 'w') as archive:
        archive.add(__file__, 'storages')
    with pytest.raises(ValueError, match='it is a tar archive'):
        read_checkpoint(path)


@pytest.mark.filterwarnings('ignore:.torch.jit')
def test_programs_are_refused(tmp_path):
    path = tmp_path / 'a.pt'
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.rand(1, 2)), path)
    with pytest.raises(ValueError, match='it is a TorchScript program'):
        read_checkpoint(path)
