"""Turn anybody's checkpoint into a timm model folder; nothing in it is executed."""

from argparse import ArgumentParser, Namespace

from ..models.convert import read_encoder
from .export import add_output, describe, write


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        'file',
        metavar='FILE',
        help='.pth, .pth.tar, .ckpt or .safetensors: the published CACo and SeCo files, GSSL, '
        'TorchGeo, lightly, solo-learn, MoCo, torchvision',
    )
    add_output(parser)
    parser.add_argument('--model', help='timm name, if it is no ResNet that is recognised')
    parser.add_argument('--prefix', help="what stands before the encoder's names, if several fit")


def run(args: Namespace) -> None:
    """Convert."""
    write(describe(read_encoder(args.file, args.model, args.prefix), args), args)
