"""Where in its epochs a run resumes: Lightning's counters, brought in line with our loader's."""

from typing import Any


def align(loops: dict[str, Any], samples: int, batch: int, *, afresh: bool = False) -> bool:
    """Bring the counters of a checkpoint in line with the data at hand, in place.

    Lightning counts batches, and at the edges of an epoch it takes short cuts: a checkpoint of the
    last batch would skip what belongs to the end of its epoch, and with ``max_steps`` one of the
    end of an epoch would run that end twice. The position of
    :class:`~torchgeo_caco.datamodules.loader.ResumableLoader` is in samples instead, so that a run
    can resume with another batch size or number of processes.

    Args:
        loops: State of the fit loop.
        samples: Samples in the data.
        batch: Samples in a batch of all processes together.
        afresh: Begin an epoch that was not finished from its start, because the order of the
            samples is another one.

    Returns:
        Whether the run resumes in an epoch that was not finished.
    """
    epochs, batches = loops['epoch_progress'], loops['epoch_loop.batch_progress']
    positions = loops['state_dict'].get('combined_loader') or [{}]
    position = positions[0]
    if 'consumed' not in position:
        # Not our loader's.
        return False
    current = batches['current']
    last, batches['is_last_batch'] = batches['is_last_batch'], False
    if epochs['current']['processed'] == epochs['current']['ready']:
        for which in ('total', 'current'):
            epochs[which]['completed'] = epochs[which]['processed']
        batches['current'] = dict.fromkeys(current, 0)
        return False
    total = samples // batch
    if last:
        # Nothing is left to read, whatever limits there were, but the end of the epoch.
        position['consumed'], done = samples, total
    else:
        # An epoch must have a last batch, with which the learning rate moves; where a batch has
        # become larger than what is left, it takes samples before that as well.
        position['consumed'] = 0 if afresh else min(position['consumed'], samples - batch)
        done = total - (samples - position['consumed']) // batch
    shift = done - current['ready']
    batches['current'] = {key: count + shift for key, count in current.items()}
    return True
