"""Score frozen features of any weights on any data: nearest neighbours, linear, retrieval."""

import sys
import time
from argparse import ArgumentParser, Namespace
from pathlib import Path

import torch

from ..evaluation import DATASETS, EvaluationData, Pair, evaluate_pair, open_data
from ..evaluation.data import label_all
from ..evaluation.plots import draw_all
from ..evaluation.published import NOTE
from ..evaluation.report import rows_of, table, write_csv, write_json
from ..evaluation.weights import GENERIC, common_architecture, resolve_weights, split_name
from ..models import Encoder

#: Errors that are a sentence on one pair and leave the others alone.
EXPECTED = (ValueError, OSError, ImportError)
#: Of PyTorch there are more: memory that does not suffice, a worker that was killed.
EXPECTED_OF_PAIR = (*EXPECTED, RuntimeError)


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        '--weights', nargs='+', required=True, metavar='W',
        help='checkpoints, model folders, names of weights enums, random or imagenet (either also '
        'as random:resnet50); NAME=W gives a name for the tables',
    )  # fmt: skip
    parser.add_argument(
        '--datasets', nargs='+', required=True, metavar='D',
        help=f'folders; KIND=FOLDER if the kind is not recognised ({", ".join(DATASETS)})',
    )  # fmt: skip
    parser.add_argument('--out', type=Path, default=Path('results'), help='folder (%(default)s)')
    parser.add_argument(
        '--normalization', nargs='+', choices=('weights', 'plain'), default=['weights'],
        help="what the weights were trained on, or the data set's own stretch to [0, 1] without "
        'mean and standard deviation; both give rows for both (default: weights)',
    )  # fmt: skip
    parser.add_argument(
        '--batch-norm', nargs='+', choices=('eval', 'adapt'), default=['eval'],
        help="BatchNorm statistics: the weights' own, or those of the training images, without "
        'labels (default: eval)',
    )  # fmt: skip
    parser.add_argument('--seed', type=int, default=0, help='of all draws (%(default)s)')
    parser.add_argument('--batch-size', type=int, default=128, help='(%(default)s)')
    parser.add_argument('--num-workers', type=int, default=0, help='that read (%(default)s)')
    parser.add_argument('--device', default='cpu', help='cpu, cuda, mps (%(default)s)')
    parser.add_argument('--no-plots', action='store_true', help='write no pictures')


def run(args: Namespace) -> None:
    """Evaluate all pairs and report."""
    start = time.monotonic()
    _check_device(args.device)
    failed: list[str] = []
    names = _names(args.weights)
    encoders = _encoders(names, args.seed, failed)
    data = _open_all(args.datasets, failed)
    pairs = _evaluate_all(encoders, data, args, failed)
    if not pairs:
        raise ValueError('nothing could be evaluated, as said above.')
    args.out.mkdir(parents=True, exist_ok=True)
    rows = rows_of(pairs)
    write_csv(rows, args.out / 'results.csv')
    arguments = {key: str(v) if isinstance(v, Path) else v for key, v in vars(args).items()}
    about = {name: encoder.about for name, encoder in encoders.items()}
    write_json(rows, pairs, names, about, arguments, failed, args.out / 'results.json')
    if not args.no_plots:
        draw_all(pairs, args.out, args.seed)
    for data_set in dict.fromkeys(pair.data.title for pair in pairs):
        images = next(len(pair.test.y) for pair in pairs if pair.data.title == data_set)
        print(f'\n{data_set}: {images} images scored, %, ± half a 95 % interval')
        print(table(rows, data_set))
    if any(row['source'] != 'measured' for row in rows):
        print(f'\n{NOTE}')
    print(f'\nEverything is in {args.out}/ (after {time.monotonic() - start:.0f} s).')


def _names(texts: list[str]) -> dict[str, str]:
    """Weights by their names."""
    names: dict[str, str] = {}
    for name, source in map(split_name, texts):
        if name in names:
            raise ValueError(
                f'--weights: {name} is the name of {names[name]} and of {source}; expected each '
                'once, with a name of its own (NAME=W).'
            )
        names[name] = source
    return names


def _check_device(name: str) -> None:
    """Refuse a device on which nothing can be put."""
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError) as error:
        # A PyTorch without CUDA fails by an assertion.
        reason = str(error).splitlines()[0].rstrip('.')
        raise ValueError(
            f'--device {name} cannot be used here ({reason}); cpu always can.'
        ) from None


def _tell(failed: list[str], sentence: str) -> None:
    failed.append(sentence)
    print(sentence, file=sys.stderr, flush=True)


def _encoders(names: dict[str, str], seed: int, failed: list[str]) -> dict[str, Encoder]:
    """The encoders in the order given; random ones take the architecture of the others."""
    found: dict[str, Encoder] = {}
    generic = [name for name, source in names.items() if source in GENERIC]
    for name in [n for n in names if n not in generic] + generic:
        architecture = common_architecture([found[n] for n in found if n not in generic])
        try:
            found[name] = resolve_weights(names[name], architecture, seed)
        except EXPECTED as error:
            _tell(failed, f'{name}: {error}')
    return {name: found[name] for name in names if name in found}


def _open_all(texts: list[str], failed: list[str]) -> list[EvaluationData]:
    found: dict[tuple[str, Path], EvaluationData] = {}
    for text in texts:
        try:
            data = open_data(text)
        except EXPECTED as error:
            _tell(failed, f'{text}: {error}')
            continue
        if found.setdefault((data.name, Path(data.root).resolve()), data) is not data:
            _tell(failed, f'{text}: this folder was given before; expected each once.')
    return label_all(list(found.values()))


def _evaluate_all(
    encoders: dict[str, Encoder], data: list[EvaluationData], args: Namespace, failed: list[str]
) -> list[Pair]:
    pairs = []
    for each in data:
        for name, encoder in encoders.items():
            for normalization in args.normalization:
                for batch_norm in args.batch_norm:
                    try:
                        pair = evaluate_pair(
                            name, encoder, each, normalization, batch_norm, args.seed,
                            args.batch_size, args.num_workers, args.device,
                        )  # fmt: skip
                    except EXPECTED_OF_PAIR as error:
                        # PyTorch's messages go on for lines.
                        reason = str(error).partition('\n')[0] or type(error).__name__
                        _tell(failed, f'{name} on {each.root}: {reason}')
                        continue
                    pairs.append(pair)
                    seconds = sum(pair.about['seconds'].values())
                    print(
                        f'{name} on {each.title} ({normalization}, {batch_norm}): {seconds:.0f} s',
                        file=sys.stderr, flush=True,
                    )  # fmt: skip
    return pairs
