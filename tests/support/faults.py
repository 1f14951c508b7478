"""Schedules of what goes wrong, from a seed."""

import random
import threading

KINDS = ('500', '429', 'stall', 'cut', '404', 'empty', 'garbage')
#: Faults after which a client has every reason to believe that something does not exist.
LYING = ('404', 'empty', 'garbage')


class Schedule:
    """Lets a share of requests meet faults of a few kinds; the same for the same seed and order."""

    def __init__(self, seed: int, kinds: tuple[str, ...] = KINDS, most: float = 0.25) -> None:
        self._random, self._lock = random.Random(seed), threading.Lock()
        self.kinds = self._random.sample(kinds, self._random.randint(1, len(kinds)))
        self.share = self._random.uniform(0.01, most)
        self.met: set[str] = set()

    def __call__(self, path: str) -> str | None:
        with self._lock:
            if self._random.random() > self.share:
                return None
            fault = self._random.choice(self.kinds)
        # Stalls are dear; and only a search can come back empty.
        if fault == 'stall' and self._random.random() > 0.2:
            fault = '500'
        if fault == 'empty' and not path.endswith('/search'):
            return None
        self.met.add(fault)
        return fault
