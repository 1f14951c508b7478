"""Weights in torchgeo-bench, on a small data set of a kind that it has."""

import pytest
import torch

pytest.importorskip('torchgeo_bench')

from torchgeo_bench.datasets import EuroSAT as BenchEuroSAT
from torchgeo_bench.datasets.base import BandSpec

from torchgeo_caco.bench import EncoderBench
from torchgeo_caco.transforms import PublishedInput


def rgb() -> list[BandSpec]:
    return BenchEuroSAT().select_band_specs(('red', 'green', 'blue'))


def test_input_scale(pretrained):
    raw = torch.randint(0, 6000, (2, 3, 32, 32)).float()
    model = EncoderBench(rgb(), str(pretrained / 'model'))
    expected = PublishedInput('reflectance')(raw)
    torch.testing.assert_close(model.normalize_inputs(raw), expected)
    # The same as reflectance in [0, 1].
    shares = [
        BandSpec(b.sensor, b.name, b.source_name, b.mean / 1e4, b.std / 1e4, 0, 2.8) for b in rgb()
    ]
    model = EncoderBench(shares, str(pretrained / 'model'))
    torch.testing.assert_close(model.normalize_inputs(raw / 1e4), expected, rtol=1e-4, atol=1e-4)


def test_bands_are_chosen_or_missed(pretrained):
    model = EncoderBench(BenchEuroSAT().bands, str(pretrained / 'model'))
    assert model(torch.randint(0, 3000, (2, 13, 64, 64)).float()).shape == (2, 512)
    with pytest.raises(ValueError, match='trained on bands B4, B3, B2, but the data have only'):
        EncoderBench(BenchEuroSAT().select_band_specs(('nir', 'red')), str(pretrained / 'model'))
    with pytest.raises(ValueError, match='random has 3 input channels, the data set gives 13'):
        EncoderBench(BenchEuroSAT().bands)


def test_a_run(eurosat, pretrained, tmp_path, monkeypatch):
    """Features by its own loader, scores by its own classifier."""
    from torchgeo_bench.knn import KNNClassifier
    from torchgeo_bench.utils import extract_features

    monkeypatch.setattr(BenchEuroSAT, 'data_root', classmethod(lambda cls: eurosat))
    data = BenchEuroSAT()
    model = EncoderBench(rgb(), str(pretrained / 'checkpoints' / 'last.ckpt'), normalize=True)
    found = [
        extract_features(
            model,
            data.get_dataloader(
                split, batch_size=6, num_workers=0, pin_memory=False,
                bands=('red', 'green', 'blue'),
            ),
            'cpu',
        )
        for split in ('train', 'test')
    ]  # fmt: skip
    (x, y), (x_test, _) = (each[:2] for each in found)
    assert x.shape == (18, 512)
    predicted = KNNClassifier(5).fit(x, y).predict(x_test)
    assert len(predicted) == 6
