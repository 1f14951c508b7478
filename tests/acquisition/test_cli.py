"""From the command line: download, then train on what came of it."""

from datetime import date
from pathlib import Path

import pytest
import torch
from torchgeo.main import main as torchgeo

from torchgeo_caco.acquisition import Dates, Plan, Summary
from torchgeo_caco.acquisition.plan import Network
from torchgeo_caco.cli import main
from torchgeo_caco.models.describe import last_metrics
from torchgeo_caco.stores import open_store, verify

CONF = Path(__file__).parents[2] / 'conf'


@pytest.mark.filterwarnings('ignore::jsonargparse._deprecated.JsonargparseDeprecationWarning')
@pytest.mark.filterwarnings('ignore:The .*dataloader.* does not have many workers')
@pytest.mark.filterwarnings('ignore:The number of training batches')
@pytest.mark.filterwarnings('ignore:.*litlogger.*')
@pytest.mark.filterwarnings('ignore:Detected call of `lr_scheduler.step')
def test_download_and_fit(server, places, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr('sys.argv', ['torchgeo'])
    places.to_parquet(tmp_path / 'places.parquet')
    arguments = [
        'download', str(tmp_path / 'places.parquet'), '-o', str(tmp_path / 'store'),
        '--provider', 'earth-search', '--stac', f'{server.url}/v1', '--size', '64',
        '--seasons', '3', '--shift-days', '0', '--reference', '2023-06-01',
        '--pack', str(tmp_path / 'packed'),
    ]  # fmt: skip
    assert main(arguments) == 0
    told = capsys.readouterr().out
    assert '3 places in' in told
    assert 'period 1: 9 images from 2022-12-18 to 2023-06-04' in told
    assert 'between the periods: 4.00 years' in told
    assert f'18 images of 3 locations packed into {tmp_path / "packed"}' in told
    packed = open_store(tmp_path / 'packed')
    assert packed.scale == 'reflectance'
    verify(open_store(tmp_path / 'store'), packed, scale='reflectance')
    assert main(arguments) == 0
    assert f'{tmp_path / "packed"} was packed before' in capsys.readouterr().out
    assert main([*arguments, '--pack', str(tmp_path)]) == 1
    assert f'{tmp_path} exists and is no packed store' in capsys.readouterr().err
    torchgeo([
        'fit', '--config', str(CONF / 'caco.yaml'), '--data.root', str(tmp_path / 'store'),
        '--data.seasons_per_period', '3', '--data.batch_size', '3', '--data.num_workers', '0',
        '--model.model', 'resnet10t', '--model.size', '32', '--model.memory_bank_size', '16',
        '--trainer.max_epochs', '2', '--trainer.default_root_dir', str(tmp_path / 'run'),
        '--trainer.accelerator', 'cpu', '--trainer.log_every_n_steps', '1',
        '--trainer.enable_progress_bar', 'false', '--trainer.enable_model_summary', 'false',
    ])  # fmt: skip
    checkpoint = torch.load(tmp_path / 'run' / 'checkpoints' / 'last.ckpt', weights_only=True)
    assert len(checkpoint['caco_locations']) == 3
    assert last_metrics(tmp_path / 'run' / 'metrics.csv', checkpoint['global_step'])


def test_numbers_may_be_fractions(monkeypatch, tmp_path, places):
    places.to_parquet(tmp_path / 'places.parquet')
    plans = []

    def download(table: object, root: object, plan: Plan, **_: object) -> Summary:
        plans.append(plan)
        return Summary(0, 0, 0, 0, (), '')

    monkeypatch.setattr('torchgeo_caco.acquisition.download', download)
    arguments = ['download', str(tmp_path / 'places.parquet'), '-o', str(tmp_path / 'store')]
    fractions = {
        'backoff': 0.5, 'timeout': 2.5, 'scene-cloud': 12.5, 'years-between': 3.5,
        'window-days': 7.5,
    }  # fmt: skip
    for name, value in fractions.items():
        arguments += [f'--{name}', str(value)]
    assert main([*arguments, '--attempts', '3', '--reference', '2023-06-01']) == 0
    assert plans[0].network == Network(timeout=2.5, attempts=3, backoff=0.5)
    assert plans[0].quality.scene_cloud == 12.5
    assert plans[0].dates == Dates(date(2023, 6, 1), years_between=3.5, window_days=7.5)
    with pytest.raises(SystemExit):
        main([*arguments, '--attempts', '2.5'])


def test_arguments_that_are_wrong(tmp_path, capsys, places):
    places.to_parquet(tmp_path / 'places.parquet')
    table, out = str(tmp_path / 'places.parquet'), str(tmp_path / 'store')
    for wrong, told in (
        (['--bands', 'B4,B77'], 'has no band B77; it has B1, B2'),
        (['--window-days', '99'], 'windows must not overlap'),
        (['--periods', '3'], 'periods must be 1 or 2'),
    ):
        assert main(['download', table, '-o', out, *wrong]) == 1
        assert told in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(['download', table, '-o', out, '--asset', 'B4'])
    assert "argument --asset: 'B4' is not of the form BAND=NAME" in capsys.readouterr().err
    assert main(['download', str(tmp_path / 'none.gpkg'), '-o', out]) == 1
    assert 'none.gpkg does not exist' in capsys.readouterr().err
