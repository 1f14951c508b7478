"""How long it takes to draw 100,000 places: ``python benchmarks/places.py``."""

import argparse
import time

from torchgeo_caco.samplers import GeographicSampler

if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('-n', '--number', type=int, default=100_000)
    number = parser.parse_args().number
    print('| law | places | wall s | CPU s |\n|---|---|---|---|')
    for law in ('caco', 'seco', 'uniform'):
        wall, cpu = time.perf_counter(), time.process_time()
        GeographicSampler(law=law).places(number)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        print(f'| {law} | {number:,} | {wall:.1f} | {cpu:.1f} |')
