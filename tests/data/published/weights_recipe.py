"""numpy-only deterministic weights so that e2e parity needs no stored checkpoint.
value(name, shape, seed) depends only on the OFFICIAL state_dict name (e.g. 'encoder_q.0.weight'),
the shape and the seed; RandomState's legacy stream is frozen across numpy versions."""

import zlib

import numpy as np


def value(name, shape, seed):
    rs = np.random.RandomState((zlib.crc32(name.encode()) + seed) % (2**32))
    n = rs.standard_normal(shape)
    if len(shape) == 4:  # conv
        return n * np.sqrt(2.0 / (shape[1] * shape[2] * shape[3]))
    if len(shape) == 2:  # linear weight
        return n * np.sqrt(2.0 / shape[1])
    return 1.0 + 0.1 * n if name.endswith('weight') else 0.1 * n  # BN weight / any bias


def queue(E, D, K, seed):
    q = np.random.RandomState(seed + 777).standard_normal((E, D, K))
    return q / np.sqrt((q**2).sum(1, keepdims=True))


def images(seed, step, N, E):
    """q (N,3,32,32), k (E,N,3,32,32) float32. rows 2l / 2l+1 = earlier / later period of location l."""
    rs = np.random.RandomState(seed * 31 + step)
    up = lambda a: np.kron(a, np.ones((8, 8)))
    L = N // 2
    loc = up(rs.standard_normal((L, 3, 4, 4)))
    per = up(rs.standard_normal((L, 2, 3, 4, 4))) * rs.uniform(0.05, 1.5, (L, 1, 1, 1, 1))
    base = (loc[:, None] + per).reshape(N, 3, 32, 32)
    view = lambda s: (
        base + s * rs.standard_normal((N, 3, 32, 32)) + s * up(rs.standard_normal((N, 3, 4, 4)))
    )
    q = view(0.3)
    k = np.stack([view((0.6, 0.3, 0.5)[j]) for j in range(E)])
    return q.astype(np.float32), k.astype(np.float32)
