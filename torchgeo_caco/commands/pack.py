"""Copy any store of images into a packed one; an interrupted copy goes on where it was."""

import os
from argparse import ArgumentParser, Namespace
from pathlib import Path

from ..stores import PackedStore, open_store, pack, verify
from ..stores.base import SCALES


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument('src', metavar='SRC', help='folder of <location>/<date>/<band>.tif, or any')
    parser.add_argument('dst', metavar='DST', help='folder to make; it is never overwritten')
    parser.add_argument('--bands', metavar='B4,B3,B2', help='bands to take (all)')
    parser.add_argument(
        '--workers', type=int, default=os.cpu_count() or 1, help='processes (%(default)s)'
    )
    parser.add_argument(
        '--shard-size', type=int, default=256, metavar='MIB', help='size of a file (%(default)s)'
    )
    parser.add_argument(
        '--scale',
        choices=SCALES,
        help='units to write down, since folders do not say them; values stay (those of SRC)',
    )
    parser.add_argument(
        '--verify',
        action='store_true',
        help='compare DST with its checksums and with SRC; if DST is there, do only that',
    )


def run(args: Namespace) -> None:
    """Pack, or verify."""
    source = open_store(args.src)
    if args.verify and (Path(args.dst) / 'meta.json').exists():
        packed = PackedStore(args.dst)
    else:
        packed = pack(
            source,
            args.dst,
            bands=args.bands.split(',') if args.bands else None,
            workers=args.workers,
            shard_bytes=args.shard_size * 2**20,
            progress=True,
            scale=args.scale,
        )
        print(f'{sum(packed.sizes)} images of {len(packed)} locations packed into {args.dst}')
    if args.verify:
        verify(source, packed, args.workers, progress=True, scale=args.scale)
        print(f'{args.dst} is whole and equal to {args.src}')
