"""Turn anybody's checkpoint into a timm model folder; nothing in it is executed."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from ..models import find_encoder, read_encoder
from .export import add_output, describe, write


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        'file',
        metavar='FILE',
        help='.pth, .pth.tar, .ckpt or .safetensors: the published CACo and SeCo files, GSSL, '
        'TorchGeo, lightly, solo-learn, MoCo, torchvision; or the name of a weights enum, which '
        'is downloaded',
    )
    add_output(parser)
    parser.add_argument('--model', help='timm name, if it is no ResNet that is recognised')
    parser.add_argument('--prefix', help="what stands before the encoder's names, if several fit")


def run(args: Namespace) -> None:
    """Convert."""
    if '_Weights.' in args.file and not Path(args.file).exists():
        encoder = find_encoder(args.file)
    else:
        encoder = read_encoder(args.file, args.model, args.prefix)
    write(describe(encoder, args), args)
