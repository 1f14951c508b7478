"""An encoder in the forms that others read, each compared with the original."""

import contextlib
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import HfApi
from safetensors.torch import save
from torch import Tensor, nn

from .convert import Encoder, read_encoder
from .folder import save_model_folder

#: Largest difference between features of the original and of what was written, relative to the
#: largest feature: other runtimes add in another order.
TOLERANCE = 1e-4


def export_encoder(
    encoder: Encoder, out: str | Path, size: int = 224, name: str | None = None
) -> Path:
    """Write an encoder; the suffix says as what.

    =================== ================================================================
    none                timm model folder (safetensors, config, card)
    ``.pth``            state dict
    ``.safetensors``    state dict
    ``.ckpt``           checkpoint for ``weights:`` of TorchGeo's tasks
    ``.ts``             TorchScript
    ``.pt2``            ``torch.export``
    ``.onnx``           ONNX (needs the extra ``onnx``)
    =================== ================================================================

    The last three take batches of any number of images, (B, C, *size*, *size*). Whatever is written
    is read again and must give the original's features on random input.

    Args:
        encoder: What to write.
        out: File or folder.
        size: Height and width of the random input in pixels, which the last three keep to.
        name: For a folder: what the card's example calls the model.

    Returns:
        What was written.

    Raises:
        ValueError: If the suffix is not known, or what was written gives other features.
        ImportError: If ONNX is not installed.
    """
    out = Path(out)
    model = encoder.build()
    writers: dict[str, Callable[[], Callable[[Tensor], Tensor]]] = {
        '': lambda: _write_folder(encoder, model, out, name),
        '.pth': lambda: _write_state(encoder, out),
        '.safetensors': lambda: _write_state(encoder, out),
        '.ckpt': lambda: _write_checkpoint(encoder, out),
        '.ts': lambda: _write_torchscript(model, out, example),
        '.pt2': lambda: _write_exported(model, out, example),
        '.onnx': lambda: _write_onnx(model, out, example),
    }
    if out.suffix not in writers or (not out.suffix and out.is_file()):
        raise ValueError(
            f'{out} is no form that is known: expected a folder or a name ending in '
            f'{", ".join(suffix for suffix in writers if suffix)}.'
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    channels = next(p for p in model.parameters() if p.ndim == 4).shape[1]
    generator = torch.Generator().manual_seed(0)
    example = torch.randn(2, channels, size, size, generator=generator)
    with torch.no_grad():
        again = writers[out.suffix]()
        # Another number of images than the one it was written with.
        images = torch.randn(3, channels, size, size, generator=generator)
        expected, found = model(images), again(images)
    difference = float((expected - found).abs().max() / expected.abs().max())
    if not difference <= TOLERANCE:
        raise ValueError(f'{out} gives features that differ by {difference:.1e} of the largest.')
    return out


def push(folder: str | Path, repository: str) -> str:
    """Upload a model folder to the Hugging Face hub.

    Args:
        folder: What :func:`export_encoder` wrote.
        repository: ``ORG/NAME``; created if it is not there.

    Returns:
        Address of the upload.

    Raises:
        ValueError: If *repository* is no such name or *folder* no model folder.
    """
    folder = Path(folder)
    if repository.count('/') != 1 or not all(repository.split('/')):
        raise ValueError(f'{repository!r} is not of the form ORG/NAME.')
    if not (folder / 'model.safetensors').is_file():
        raise ValueError(f'{folder} is not a model folder: model.safetensors is not there.')
    api = HfApi()
    api.create_repo(repository, exist_ok=True)
    message = 'Upload the encoder'
    return str(api.upload_folder(repo_id=repository, folder_path=folder, commit_message=message))


def _write_folder(
    encoder: Encoder, model: nn.Module, out: Path, name: str | None
) -> Callable[[Tensor], Tensor]:
    described, about = encoder.described, encoder.about
    save_model_folder(model, encoder.architecture, out, described, about, name)
    return read_encoder(out).build()


def _write_state(encoder: Encoder, out: Path) -> Callable[[Tensor], Tensor]:
    if out.suffix == '.safetensors':
        # Not save_file, whose file only its owner may read.
        out.write_bytes(save(encoder.state))
    else:
        torch.save(encoder.state, out)
    return read_encoder(out, encoder.architecture).build()


def _write_checkpoint(encoder: Encoder, out: Path) -> Callable[[Tensor], Tensor]:
    # What TorchGeo's extract_backbone looks for.
    state = {f'model.{key}': value for key, value in encoder.state.items()}
    hparams = {'model': encoder.architecture, 'input': encoder.described, 'about': encoder.about}
    torch.save({'hyper_parameters': hparams, 'state_dict': state}, out)
    return read_encoder(out, encoder.architecture).build()


def _write_torchscript(model: nn.Module, out: Path, example: Tensor) -> Callable[[Tensor], Tensor]:
    # PyTorch recommends torch.export; those who need TorchScript know.
    with _ignore('`torch.jit'):
        torch.jit.save(torch.jit.trace(model, example), out)
        again = torch.jit.load(out)

    def run(images: Tensor) -> Tensor:
        with _ignore('`torch.jit'):
            features: Tensor = again(images)
        return features

    return run


def _write_exported(model: nn.Module, out: Path, example: Tensor) -> Callable[[Tensor], Tensor]:
    batch = {0: torch.export.Dim('batch')}
    torch.export.save(torch.export.export(model, (example,), dynamic_shapes=(batch,)), out)
    return torch.export.load(out).module()


def _write_onnx(model: nn.Module, out: Path, example: Tensor) -> Callable[[Tensor], Tensor]:
    try:
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"{out} needs {error.name}: install the extra, pip install 'torchgeo_caco[onnx]'."
        ) from error
    torch.onnx.export(
        model, (example,), out, dynamo=True, dynamic_shapes=({0: torch.export.Dim('batch')},),
        input_names=['image'], output_names=['features'], external_data=False, verbose=False,
    )  # fmt: skip
    session = onnxruntime.InferenceSession(out, providers=['CPUExecutionProvider'])

    def run(images: Tensor) -> Tensor:
        features: Any = session.run(['features'], {'image': images.numpy()})[0]
        return torch.from_numpy(features)

    return run


@contextlib.contextmanager
def _ignore(message: str) -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', message=message)
        yield
