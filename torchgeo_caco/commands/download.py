"""Fetch satellite images of places into a folder to train on; continues what was interrupted."""

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from dataclasses import fields, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, get_args, get_type_hints

from ..stores import PackedStore, canonical_band, open_store, pack
from .locate import read_vector


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments."""
    try:
        from ..acquisition import PROVIDERS, Dates, Quality
        from ..acquisition.plan import Network
    except ImportError as error:
        raise ImportError(
            f'{error}; downloads need: pip install "torchgeo_caco[acquisition]"'
        ) from error
    parser.add_argument('places', metavar='PLACES', help='of torchgeo-caco locate, or any vectors')
    parser.add_argument('-o', '--out', metavar='DIR', required=True, help='folder of the store')
    parser.add_argument(
        '--count', type=int,
        help='places to fill; one that cannot be filled makes room for a later one (all)',
    )  # fmt: skip
    what = parser.add_argument_group('what')
    what.add_argument('--bands', default='B4,B3,B2', help='%(default)s')
    what.add_argument('--size', type=int, default=264, help='pixels a side (%(default)s)')
    what.add_argument('--resolution', type=float, default=10, help='metres (%(default)s)')
    what.add_argument(
        '--scale', choices=('reflectance', '0-255'), default='reflectance',
        help='of the values: reflectance times 10000, or 0 to 1 in a byte (%(default)s)',
    )  # fmt: skip
    what.add_argument('--resampling', default='nearest', help='for other grids (%(default)s)')
    when = parser.add_argument_group('when')
    when.add_argument(
        '--reference', type=date.fromisoformat, metavar='YYYY-MM-DD',
        help='the newest date (four weeks before the first call)',
    )  # fmt: skip
    _add_fields(when, Dates, skip=('reference',))
    good = parser.add_argument_group('what is good enough')
    _add_fields(good, Quality)
    where = parser.add_argument_group('where from')
    where.add_argument(
        '--provider', choices=PROVIDERS, default='planetary-computer',
        help='address, collection and names of the bands (%(default)s)',
    )  # fmt: skip
    where.add_argument('--stac', metavar='URL', help="another STAC API than the provider's")
    where.add_argument('--collection', help="another collection than the provider's")
    where.add_argument(
        '--asset', metavar='BAND=NAME', type=_asset, action='append', default=[],
        help="a band's asset, if the provider's names do not fit; may come more than once",
    )  # fmt: skip
    where.add_argument(
        '--classes', metavar='NAME', help="the scene classification's asset, or none"
    )
    where.add_argument(
        '--offset', choices=('baseline', 'flag', 'metadata', 'none'),
        help='what is taken off: 1000 from baseline 04.00 on, the same unless a flag says that it '
        "was done, what the asset says, nothing (the provider's)",
    )  # fmt: skip
    how = parser.add_argument_group('how')
    how.add_argument('--workers', type=int, default=8, help='places at a time (%(default)s)')
    how.add_argument('--dask', metavar='ADDRESS', help='of a Dask scheduler that does the work')
    how.add_argument('--budget', type=int, help='stop after so many searches and reads')
    how.add_argument(
        '--pack', metavar='DST', help='when all places are there, pack them into this folder, too'
    )
    how.add_argument('--again', action='store_true', help='retry what could not be filled')
    _add_fields(how, Network)


def _add_fields(group: object, settings: type, skip: tuple[str, ...] = ()) -> None:
    """Offer each number among some settings as an argument."""
    about, hints = settings.__doc__ or '', get_type_hints(settings)
    for field in fields(settings):
        if field.name not in skip:
            text = about.split(f'        {field.name}: ')[1].split('\n        ')[0]
            hint = hints[field.name]
            # The default's own type is no guide: 15 may stand for a float.
            kind = next((t for t in get_args(hint) if t is not type(None)), hint)
            group.add_argument(  # type: ignore[attr-defined]
                f'--{field.name.replace("_", "-")}', type=kind,
                default=field.default, help=f'{text.strip()} (%(default)s)', metavar='N',
            )  # fmt: skip


def run(args: Namespace) -> None:
    """Download."""
    from ..acquisition import PROVIDERS, Dates, Plan, Quality, download
    from ..acquisition.plan import Network

    def chosen(settings: type, **more: object) -> Any:
        known = {f.name: getattr(args, f.name) for f in fields(settings)}
        return settings(**(known | more))

    there = Path(args.pack) if args.pack else None
    if there and there.exists() and not (there / 'meta.json').exists() and any(there.iterdir()):
        raise FileExistsError(f'{args.pack} exists and is no packed store; nothing was done.')
    provider = PROVIDERS[args.provider]
    assets = provider.assets | {canonical_band(band): name for band, name in args.asset}
    provider = replace(
        provider,
        url=args.stac or provider.url,
        collection=args.collection or provider.collection,
        assets=assets,
        classes=None if args.classes == 'none' else args.classes or provider.classes,
        offset=args.offset or provider.offset,
    )
    plan = Plan(
        provider,
        chosen(Dates, reference=args.reference or _first_reference(args.out)),
        tuple(canonical_band(band) for band in args.bands.split(',')),
        args.size,
        args.resolution,
        args.scale,
        args.resampling,
        chosen(Quality),
        chosen(Network),
    )
    summary = download(
        read_vector(args.places), args.out, plan, count=args.count, workers=args.workers,
        dask=args.dask, budget=args.budget, again=args.again,
    )  # fmt: skip
    print(
        f'{summary.done} places in {args.out}, {summary.unfillable} could not be filled, '
        f'{summary.failed} failed; {summary.requests} requests in this call'
    )
    print(summary.spans)
    if summary.report:
        print(f'{len(summary.report)} remarks in {args.out}/report.txt, the first: ')
        print('\n'.join(summary.report[:5]))
    if summary.stopped or summary.failed:
        raise ConnectionError(f'{summary.stopped or "servers failed"}; the same command goes on.')
    if args.pack:
        _pack(args.out, args.pack, args.workers, plan.scale)


def _pack(out: str, destination: str, workers: int, scale: str) -> None:
    """Pack what was downloaded, unless an earlier call has done so."""
    source = open_store(out)
    if (Path(destination) / 'meta.json').exists():
        packed = PackedStore(destination)
        if packed.names != source.names:
            raise FileExistsError(
                f'{destination} holds {len(packed)} locations, but {out} other {len(source)}; '
                'pack into a new folder.'
            )
        print(f'{destination} was packed before')
        return
    packed = pack(source, destination, workers=workers, progress=True, scale=scale)
    print(f'{sum(packed.sizes)} images of {len(packed)} locations packed into {destination}')


def _asset(text: str) -> tuple[str, str]:
    band, separator, name = text.partition('=')
    if not (band and separator and name):
        raise ArgumentTypeError(f'{text!r} is not of the form BAND=NAME')
    return band, name


def _first_reference(out: str) -> date:
    """The newest date of the first call, which later ones must keep."""
    from ..acquisition.ledger import read_plan

    plan = read_plan(Path(out))
    if plan is not None:
        return date.fromisoformat(plan['dates']['reference'])
    return datetime.now(UTC).date() - timedelta(weeks=4)
