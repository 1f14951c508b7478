"""The stretch and the views."""

import pytest
import torch

from torchgeo_caco.transforms import (
    PUBLISHED_QUANTILES,
    SeasonalViews,
    Stretch,
    artificial_augmentation,
    moco_view,
    normalised_crop,
)


def test_stretch_and_nodata():
    stretch = Stretch([PUBLISHED_QUANTILES[b] for b in ('B4', 'B3', 'B2')])
    image = torch.full((2, 3, 4, 4), 60, dtype=torch.uint8)
    image[0, :, 0, 0] = 255
    image[1, :, :1] = 0
    image[1, 0, 3, 3] = 0
    out, valid = stretch(image)
    assert out[0, :, 0, 0].tolist() == [1, 1, 1]
    assert out[0, :, 1, 1].tolist() == pytest.approx([60 / 129, 58 / 101, 57 / 85])
    assert valid.tolist() == [1, 0.75]
    # Filled by the mean of the rest: eleven of twelve pixels at 60, one at 0.
    assert out[1, 0, 0].tolist() == pytest.approx([60 / 129 * 11 / 12] * 4)
    empty, share = stretch(torch.zeros(1, 3, 2, 2, dtype=torch.uint16))
    assert share.tolist() == [0]
    assert not empty.any()
    assert Stretch([[0, 10]], nodata=None)(torch.zeros(1, 1, 2, 2)).valid.tolist() == [1]


@pytest.mark.parametrize('nodata', [None, float('nan'), -9999])
def test_not_a_number_is_filled(nodata):
    nan = float('nan')
    image = torch.tensor([[[2.0, nan, nan]], [[4.0, nan, 8.0]]])
    stretched = Stretch([[0, 10], [0, 10]], nodata)(image)
    expected = torch.tensor([[[0.2, 0.2, 0.2]], [[0.4, 0.6, 0.8]]])
    torch.testing.assert_close(stretched.image, expected)
    assert stretched.valid.item() == pytest.approx(2 / 3)


def test_bad_quantiles():
    with pytest.raises(ValueError, match='each upper quantile must lie above'):
        Stretch([[5, 5]])


@pytest.mark.parametrize('channels', [1, 3, 4, 12])
@pytest.mark.parametrize('make', [normalised_crop, artificial_augmentation, moco_view])
def test_pipelines_of_any_bands(make, channels):
    torch.manual_seed(0)
    image = torch.rand(1, channels, 24, 24).expand(6, -1, -1, -1)
    out = make(16, channels)(image)
    assert out.shape == (6, channels, 16, 16)
    assert out.isfinite().all()
    # Each image has parameters of its own.
    assert len({tuple(o.flatten().tolist()) for o in out}) == 6


def test_views_show_the_dates_they_should():
    image = torch.arange(3.0).view(1, 1, 3, 1, 1, 1).expand(2, 2, 3, 3, 8, 8)
    query, keys = SeasonalViews(lambda x: x, lambda x: x + 10)(image)
    assert query.shape == (2, 2, 3, 8, 8)
    assert query.unique().tolist() == [0]
    assert [key.unique().tolist() for key in keys] == [[11], [2], [10]]
    query, keys = SeasonalViews(lambda x: x, lambda x: x + 10, 1)(image[:, :, :2])
    assert (query.unique().tolist(), keys.unique().tolist()) == ([10], [11])
    with pytest.raises(ValueError, match='need three dates a period, not 2'):
        SeasonalViews(lambda x: x, lambda x: x)(image[:, :, :2])
