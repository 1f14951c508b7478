"""Searches and reads that survive what networks do."""

import logging
import math
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import requests
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    stop_after_attempt,
    wait_random_exponential,
)
from urllib3 import Retry
from urllib3.exceptions import InvalidHeader

from .plan import Network
from .providers import Provider

#: Answers that mean "later", not "never".
LATER = (429, 500, 502, 503, 504)
#: Longest time in seconds that a server may make us wait.
PATIENCE = 600.0


class LaterError(ConnectionError):
    """A server did not answer as it should; it may do so later."""

    #: Seconds to wait at least before the next attempt, by the server's Retry-After.
    wait = 0.0


class NeverError(ValueError):
    """A scene cannot be used, however often one asks."""


_QUERY = re.compile(r'\?[^\s\'"<>]*')


def redact(text: object) -> str:
    """A message without what follows a question mark in addresses, which may be a token."""
    return _QUERY.sub('?...', ' '.join(str(text).split()))


def explain(error: BaseException) -> str:
    """All that a chain of exceptions says, without tokens."""
    messages: list[str] = []
    cause: BaseException | None = error
    while cause is not None:
        messages.append(redact(cause))
        cause = cause.__cause__ or cause.__context__
    return '; '.join(dict.fromkeys(messages))


_NETWORK = re.compile(r'response.?code|curl|timed? ?out|too slow|connect|resolve', re.IGNORECASE)


def is_network(message: str) -> bool:
    """Whether GDAL says that the network is to blame, not the file."""
    return _NETWORK.search(message) is not None


class _Redacting(logging.Filter):
    """Keeps tokens out of third parties' logs."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = redact(record.getMessage()), None
        return True


for _name in ('rasterio._env', 'rasterio._err', 'rasterio._io'):
    logging.getLogger(_name).addFilter(_Redacting())


def gdal_options(provider: Provider, network: Network) -> dict[str, Any]:
    """Options for reading cloud-optimised files over HTTP."""
    return {
        # Nothing but the file asked for is looked for.
        'GDAL_DISABLE_READDIR_ON_OPEN': 'EMPTY_DIR',
        # The header and index of a cloud-optimised file in one request.
        'GDAL_INGESTED_BYTES_AT_OPEN': 32768,
        # A file that failed once is not taken to be missing ever after.
        'CPL_VSIL_CURL_NON_CACHED': '/vsicurl/:/vsis3/',
        'GDAL_HTTP_MERGE_CONSECUTIVE_RANGES': 'YES',
        # One request at a time, as the limit for a host takes it.
        'GDAL_HTTP_MULTIRANGE': 'SERIAL',
        'GDAL_HTTP_CONNECTTIMEOUT': network.timeout,
        'GDAL_HTTP_LOW_SPEED_TIME': max(1, round(network.timeout)),
        'GDAL_HTTP_LOW_SPEED_LIMIT': 1,
        # Retries are ours: GDAL knows neither jitter nor Retry-After.
        'GDAL_HTTP_MAX_RETRY': 0,
        'GDAL_NUM_THREADS': 1,
        **provider.gdal,
    }


class _Patient(Retry):
    """Understands whatever servers write into Retry-After."""

    def parse_retry_after(self, retry_after: str) -> float:
        """Seconds to wait, at most PATIENCE; 0, which leaves it to the back-off, for junk."""
        try:
            seconds = float(retry_after)
        except ValueError:
            try:
                seconds = super().parse_retry_after(retry_after)
            except (InvalidHeader, ValueError, OverflowError):
                return 0.0
        return min(max(seconds, 0.0), PATIENCE) if math.isfinite(seconds) else 0.0


def retries(network: Network) -> Retry:
    """How urllib3 repeats a search: with back-off, jitter and Retry-After."""
    return _Patient(
        network.attempts - 1,
        status_forcelist=LATER,
        allowed_methods=None,
        backoff_factor=network.backoff,
        backoff_jitter=network.backoff,
        backoff_max=network.longest,
        respect_retry_after_header=True,
    )


class Hosts:
    """Limits how many requests run at once to each host, and counts them."""

    def __init__(self, limit: int) -> None:
        """Initialize a new Hosts instance.

        Args:
            limit: Requests at a time to one host.
        """
        self._limit, self._lock = limit, threading.Lock()
        self._semaphores: dict[str, threading.BoundedSemaphore] = {}
        #: Requests of the current thread, which works on one place.
        self._count = threading.local()

    @contextmanager
    def request(self, url: str, kind: str | None = None) -> Iterator[None]:
        """Wait for a free place at a host, and count a request.

        Args:
            url: Address.
            kind: What is counted, ``'searches'`` or ``'reads'``; other requests are not.
        """
        with self._lock:
            limit = threading.BoundedSemaphore(self._limit)
            semaphore = self._semaphores.setdefault(urlsplit(url).netloc, limit)
        if kind is not None:
            self.counted[kind] += 1
        with semaphore:
            yield

    @property
    def counted(self) -> Counter[str]:
        """Requests of this thread since :meth:`reset`."""
        if not hasattr(self._count, 'value'):
            self._count.value = Counter()
        counter: Counter[str] = self._count.value
        return counter

    def reset(self) -> None:
        """Count from zero."""
        self.counted.clear()


_limits: dict[int, Hosts] = {}
_LIMITS = threading.Lock()


def hosts(limit: int) -> Hosts:
    """The limits of this process."""
    # Not a cache of functools: threads that come at once would each get their own.
    with _LIMITS:
        return _limits.setdefault(limit, Hosts(limit))


def persist[T](network: Network, attempt: Callable[[], T]) -> T:
    """Do something until it succeeds, or there is no hope.

    Args:
        network: How often, and how long to wait in between.
        attempt: Raises :class:`LaterError` if it may work later.

    Returns:
        Its result.

    Raises:
        LaterError: If the last attempt failed, too.
    """
    back_off = wait_random_exponential(network.backoff, network.longest)

    def pause(state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        told = error.wait if isinstance(error, LaterError) else 0.0
        return max(told, back_off(state))

    for again in Retrying(
        stop=stop_after_attempt(network.attempts),
        wait=pause,
        retry=retry_if_exception_type(LaterError),
        reraise=True,
    ):
        with again:
            return attempt()
    raise AssertionError('unreachable')


def ask_why(url: str, network: Network) -> tuple[int | None, float]:
    """Ask a server for one byte, to learn why a reading failed: GDAL keeps the answer to itself.

    Args:
        url: Address of the file.
        network: Time-out, and how many requests a host gets at a time.

    Returns:
        Status of its answer, None if there was no answer or it is no web address; and the seconds
        that its Retry-After asks to wait.
    """
    if not url.startswith(('http://', 'https://')):
        return None, 0.0
    try:
        with (
            hosts(network.per_host).request(url),
            requests.get(
                url, headers={'Range': 'bytes=0-0'}, timeout=network.timeout, stream=True
            ) as answer,
        ):
            later = answer.status_code in LATER
            wait = retries(network).get_retry_after(answer.raw) if later else None
            return answer.status_code, wait or 0.0
    except requests.RequestException:
        return None, 0.0
