"""The command line, ``torchgeo-caco``. Training is ``torchgeo fit``."""

import sys
from argparse import REMAINDER, ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Sequence
from importlib import import_module

#: Each sub-command is the module of this name in ``commands``, imported only when it is called.
COMMANDS = {
    'pack': 'copy any store of images into a packed one, which is read many times faster',
    'convert': "turn anybody's checkpoint into a timm model folder",
    'evaluate': 'score frozen features of any weights on labelled data',
    'export': 'turn a checkpoint of ours into a model folder, TorchScript, ONNX...',
    'locate': 'draw places around cities, for a dataset of your own',
    'download': 'fetch satellite images of places into a folder to train on',
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a sub-command.

    Args:
        arguments: What follows the program's name; that of the process by default.

    Returns:
        0, or 1 after an error that was told in one sentence.
    """
    listed = '\n'.join(f'  {name:<10} {text}' for name, text in COMMANDS.items())
    parser = ArgumentParser(
        'torchgeo-caco',
        description=f'commands:\n{listed}',
        formatter_class=RawDescriptionHelpFormatter,
        epilog="'torchgeo-caco COMMAND --help' says more. Training is 'torchgeo fit'.",
    )
    parser.add_argument('command', choices=COMMANDS, metavar='COMMAND', help='one of these')
    parser.add_argument('rest', nargs=REMAINDER, metavar='...', help='its arguments')
    chosen = parser.parse_args(arguments)
    try:
        command = import_module(f'.commands.{chosen.command}', __package__)
        sub = ArgumentParser(f'torchgeo-caco {chosen.command}', description=command.__doc__)
        command.add_arguments(sub)
        command.run(sub.parse_args(chosen.rest))
    except (ValueError, OSError, ImportError) as error:
        print(f'torchgeo-caco {chosen.command}: {error}', file=sys.stderr)
        return 1
    return 0
