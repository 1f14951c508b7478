"""Our loss, task and change estimate against numbers of the authors' published code."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.optim import SGD

from torchgeo_caco.change import ChangeEstimator, fit_mixture
from torchgeo_caco.losses import change_aware_logits, info_nce

_spec = importlib.util.spec_from_file_location('published', Path(__file__).parent / 'published.py')
assert _spec is not None and _spec.loader is not None
published = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(published)

LOSSES = {
    'loss_moco': 'moco', 'loss_seco': 'seco', 'loss_teco': 'teco', 'loss_caco_mixed': 'caco',
    'loss_caco_zeros': 'caco', 'loss_caco_ones': 'caco', 'loss_alt_seco_n12': 'seco',
    'loss_alt_teco_n12': 'teco', 'loss_alt_caco_n12': 'caco',
}  # fmt: skip
LONG_TERM = {'moco': 'never', 'seco': 'never', 'teco': 'always', 'caco': 'changed'}


def periods_of(mode: str) -> int:
    return 1 if mode in ('moco', 'seco') else 2


def close(ours: torch.Tensor, theirs: np.ndarray, relative: float) -> None:
    """Differences within a share of the recording's largest number."""
    ours = np.asarray(ours.detach(), np.float64)
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() <= relative * np.abs(theirs).max()


def our_columns(recorded: np.ndarray, mode: str, subspace: int, rows: int) -> np.ndarray:
    """Recorded logits in our order of rows (B, P) and columns."""
    periods = periods_of(mode)
    if mode == 'teco' and subspace > 0:
        # The published long-term block stands before the other views.
        others = recorded.shape[1] - 2 * rows
        cross = slice(others - rows // 2, others)
        recorded = np.concatenate(
            [recorded[:, : others - rows // 2], recorded[:, others:], recorded[:, cross]], axis=1
        )
    return recorded.reshape(periods, -1, recorded.shape[1]).swapaxes(0, 1)


@pytest.mark.parametrize(('name', 'mode'), LOSSES.items())
@pytest.mark.parametrize('precision', ['', 'f64_'])
def test_logits_and_loss(name, mode, precision):
    data, periods = published.load(name), periods_of(mode)
    meta = data['meta']
    keys = torch.from_numpy(data[f'{precision}z_k']).unflatten(2, (-1, periods))
    # The queue was recorded in float32; in float64 it is the recipe's.
    queue = published.recipe.queue(meta['E'], meta['D'], meta['K'], meta['seed'])
    queue = published.queue_to_ours(queue, periods).to(keys.dtype)
    query = torch.from_numpy(data[f'{precision}z_q']).requires_grad_()
    rows = query.unflatten(1, (-1, periods))
    changed = None
    if 'mmweights' in data:
        changed = torch.from_numpy(data['mmweights'] == 1).unflatten(0, (-1, 2))
    total = torch.zeros((), dtype=torch.float64)
    for h in range(meta['E']):
        logits = change_aware_logits(
            rows[h], keys[h], queue[h], h, changed=changed, long_term_negatives=LONG_TERM[mode]
        )
        recorded = our_columns(data[f'{precision}logits_{h}'], mode, h, meta['N'])
        masked = recorded < -1e6
        assert np.array_equal(masked, np.isneginf(logits.detach().numpy()))
        assert masked.any() == (mode == 'caco' and name != 'loss_caco_ones')
        tolerance = 1e-9 if precision else 2e-5
        close(logits[torch.from_numpy(~masked)], recorded[~masked], tolerance)
        loss = info_nce(logits)
        reference = data[f'{precision}loss_heads_f64ref'][h]
        assert float(loss.detach()) == pytest.approx(reference, rel=1e-9 if precision else 2e-5)
        total = total + loss
        correct = (logits.argmax(-1) == 0).double().mean() * 100
        assert float(correct) == pytest.approx(data['acc_heads'][h])
    total.backward()
    close(query.grad, data[f'{precision}grad_z_q'], 1e-6 if precision else 2e-5)


@pytest.mark.parametrize(('name', 'mode'), LOSSES.items())
def test_the_whole_step_in_float64(name, mode):
    data, periods = published.load(name), periods_of(mode)
    meta = data['meta']
    task = published.make_task(mode, meta, torch.float64)
    task.memory_bank.pointer.copy_(torch.from_numpy(data['queue_ptr_before'] // periods))
    query, keys = published.images(meta['seed'], 0, meta['N'], meta['E'], torch.float64, periods)
    passes = {'query': 0, 'key': 0}

    def count(which):
        return lambda *_: passes.update({which: passes[which] + 1})

    task.backbone.register_forward_hook(count('query'))
    task.backbone_momentum.register_forward_hook(count('key'))
    changed = None
    locations = meta['N'] // periods
    task.estimator.allocate([str(i) for i in range(locations)])
    task.estimator.double()
    if mode == 'caco':
        changed = torch.from_numpy(data['mmweights'] == 1).unflatten(0, (-1, 2))
    out = task.step(query, keys, torch.arange(locations), changed)
    assert passes == {'query': 1, 'key': meta['E'] + (mode == 'caco')}
    assert sum(passes.values()) <= 5
    close(out.losses, data['f64_loss_heads_f64ref'], 1e-9)
    close(out.accuracies * 100, data['acc_heads'], 1e-6)
    ours = published.queue_to_ours(data['queue_after'], periods)
    close(task.memory_bank.queue, ours.numpy(), 1e-5)
    assert task.memory_bank.pointer.tolist() == (data['queue_ptr_after'] // periods).tolist()
    out.loss.backward()
    norms = dict(zip(data['grad_names'].tolist(), data['f64_grad_norms'], strict=True))
    seen = set()
    for parameter_name, parameter in task.named_parameters():
        official = published.official_name(parameter_name)
        if parameter.requires_grad:
            seen.add(official)
            assert float(parameter.grad.norm()) == pytest.approx(norms[official], rel=1e-6)
    assert seen == set(norms)
    if mode == 'caco':
        rows = data['f64_change_rows'].reshape(locations, 2, 3)
        close(task.estimator.estimates, rows, 1e-9)
        assert (task.estimator.visits == 1).all()


def test_change_estimate():
    data = published.load('change_estimate')
    estimator = ChangeEstimator([str(i) for i in range(6)]).double()
    for step in range(len(data['inds'])):
        index = torch.from_numpy(data['inds'][step][::2] // 2)
        query, season = (
            torch.from_numpy(data[key][step]).double().unflatten(0, (-1, 2))
            for key in ('l_q', 'l_k')
        )
        new = estimator.measure(query, season)
        close(new.flatten(0, 1), data['diff_rows'][step].astype(np.float64), 2e-5)
        # Feed what was recorded, so that rounding does not add up.
        estimator.update(
            index, torch.from_numpy(data['diff_rows'][step]).double().unflatten(0, (-1, 2))
        )
        # The published code adds up in float32.
        close(estimator.estimates.flatten(0, 1), data['loss'][step], 1e-6)
        visited = data['lossdeno'][step].reshape(6, 2) > 0
        assert np.array_equal((estimator.visits > 0).numpy(), visited)


@pytest.mark.parametrize('name', ['separated', 'overlap', 'wide'])
def test_mixture(name):
    data = published.load(f'gmm_{name}')
    locations = len(data['loss']) // 2
    estimator = ChangeEstimator([str(i) for i in range(locations)], assignment='posterior').double()
    estimator.estimates.copy_(torch.from_numpy(data['loss']).unflatten(0, (-1, 2)))
    estimator.visits.copy_(torch.from_numpy(data['lossdeno']).unflatten(0, (-1, 2)))
    mixture = estimator.fit()
    assert mixture is not None
    assert estimator.labels.flatten().tolist() == data['gmmlabel'].tolist()
    np.testing.assert_allclose(mixture.means, data['means'], rtol=1e-3)
    np.testing.assert_allclose(mixture.variances, data['variances'], rtol=1e-2)
    posterior = estimator.posterior().flatten().numpy()
    seen = data['visited_rows']
    np.testing.assert_allclose(posterior[seen], data['posterior_high'], atol=5e-3)
    assert np.isnan(np.delete(posterior, seen)).all()

    # Our default departs only below the lower mean.
    estimator.assignment = 'threshold'
    estimator.fit()
    ours, theirs = estimator.labels.flatten().numpy(), data['gmmlabel']
    differ = ours != theirs
    assert differ.sum() == data['n_low_tail_labelled_changed']
    ratios = data['loss'][:, 2]
    assert (ratios[differ] < mixture.means[0]).all()
    assert (ours[differ] == 0).all()
    changed, unchanged = ratios[ours == 1], ratios[ours == 0]
    assert changed.min() > mixture.threshold >= unchanged.max()


def test_one_fit_is_like_another():
    values = published.load('gmm_overlap')['ratio']
    first, second = fit_mixture(values), fit_mixture(values)
    assert first is not None and second is not None
    assert first.means.tolist() == second.means.tolist()


def test_trajectory():
    data = published.load('trajectory_caco_f64')
    meta = {'D': 16, 'K': 16, 'seed': 20230}
    task = published.make_task('caco', meta, torch.float64)
    task.memory_bank.pointer.copy_(torch.tensor([0, 4, 4]))
    task.estimator.allocate(['a', 'b', 'c', 'd'])
    task.estimator.double()
    trained = [p for p in task.parameters() if p.requires_grad]
    optimizer = SGD(trained, lr=0.03, momentum=0.9, weight_decay=1e-4)
    ours = {
        published.official_name(name): tensor
        for name, tensor in [*task.named_parameters(), *task.named_buffers()]
        if name.startswith(('backbone', 'projection_heads'))
    }
    compared = 0
    for step in range(4):
        query, keys = published.images(20230, 200 + step, 8, 3, torch.float64, 2)
        changed = torch.from_numpy(data['mmweights'][step] == 1).unflatten(0, (-1, 2))
        out = task.step(query, keys, torch.arange(4), changed)
        optimizer.zero_grad()
        out.loss.backward()
        optimizer.step()
        close(out.losses, data['f64_loss_heads'][step], 2e-6)
        queue = published.queue_to_ours(data['queue'][step], 2)
        np.testing.assert_allclose(task.memory_bank.queue, queue, atol=1e-8)
        pointer = data['queue_ptr'][step] // 2
        assert task.memory_bank.pointer.tolist() == pointer.tolist()
        table = data['change_loss'][step].reshape(4, 2, 3)
        np.testing.assert_allclose(task.estimator.estimates, table, atol=5e-9)
        for name, recorded in zip(
            data['watch_names'], data['watch_sum_abssum_first4'][step], strict=True
        ):
            if name.startswith('encoder_k.') and ('running' in name or 'num_batches' in name):
                continue
            value = ours[str(name)].detach().double()
            figures = [value.sum(), value.abs().sum(), *value.flatten()[:4]]
            difference = np.abs(np.array([float(f) for f in figures]) - recorded[: len(figures)])
            assert difference.max() <= 1e-7 * max(recorded[1], 1)
            compared += 1
    assert compared == 4 * 10
