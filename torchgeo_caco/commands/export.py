"""Turn a checkpoint of ours into a model folder, or what the suffix of OUT says."""

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ..models.convert import Encoder, read_encoder
from ..models.describe import last_metrics
from ..models.export import export_encoder, push


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument('file', metavar='CKPT', help='checkpoint of a run, or model folder')
    add_output(parser)


def run(args: Namespace) -> None:
    """Export."""
    encoder = read_encoder(args.file)
    path, about = Path(args.file).resolve(), encoder.about
    # A run's figures lie in its folder, its checkpoints one below. A model folder has its own.
    if path.is_file() and 'steps' in about:
        figures = last_metrics(path.parent.parent / 'metrics.csv', about['steps'])
        about = about | {'scores': figures | dict(about.get('scores', {}))}
    write(describe(encoder._replace(about=about), args), args)


def add_output(parser: ArgumentParser) -> None:
    """Declare what is common to all that write an encoder."""
    parser.add_argument(
        'out',
        metavar='OUT',
        help='a folder (timm: safetensors, config, card), or a name ending in .pth, .safetensors, '
        ".ckpt (for TorchGeo's tasks), .ts (TorchScript), .pt2 (torch.export) or .onnx",
    )
    parser.add_argument(
        '--size', type=int, default=224, help='pixels a side for .ts, .pt2 and .onnx (%(default)s)'
    )
    parser.add_argument('--bands', metavar='B4,B3,B2', help='bands of the input, if not known')
    parser.add_argument(
        '--score', metavar='NAME=VALUE', type=_score, action='append', default=[],
        help='a score for the card; may come more than once',
    )  # fmt: skip
    parser.add_argument('--licence', help='licence for the card')
    parser.add_argument('--push', metavar='ORG/NAME', help='upload the folder to Hugging Face')


def describe(encoder: Encoder, args: Namespace) -> Encoder:
    """Add what the command line says to what is known of an encoder."""
    described, about = dict(encoder.described), dict(encoder.about)
    if args.bands:
        described['bands'] = args.bands.split(',')
    if args.score:
        about['scores'] = {**about.get('scores', {}), **dict(args.score)}
    if args.licence:
        about['license'] = args.licence
    return encoder._replace(described=described, about=about)


def write(encoder: Encoder, args: Namespace) -> None:
    """Write it, and upload it if that is wanted."""
    out = export_encoder(encoder, args.out, args.size)
    print(f'{encoder.architecture} written to {out}')
    if not args.push:
        return
    with TemporaryDirectory() as folder:
        # A folder of its own, whose card calls the model as others will.
        export_encoder(encoder, folder, args.size, f'hf-hub:{args.push}')
        print(f'uploaded to {push(folder, args.push)}')


def _score(text: str) -> tuple[str, Any]:
    name, separator, value = text.rpartition('=')
    try:
        return name, float(value if separator else 'none')
    except ValueError:
        raise ArgumentTypeError(f'{text!r} is not of the form NAME=VALUE') from None
