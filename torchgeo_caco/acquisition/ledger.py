"""What was done to which place: it outlives the process."""

import json
import os
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

from .patch import Place
from .plan import Plan

#: Names within the store's folder; the store looks at neither.
LEDGER, PLAN, REPORT = 'ledger.jsonl', 'plan.json', 'report.txt'


def read_plan(root: Path) -> dict[str, Any] | None:
    """Settings that a store was begun with.

    Args:
        root: Folder of the store.

    Returns:
        What :meth:`~torchgeo_caco.acquisition.plan.Plan.to_json` wrote; None if it is a new store.

    Raises:
        ValueError: If they cannot be read.
    """
    path = root / PLAN
    if not path.exists():
        return None
    try:
        plan = json.loads(path.read_text())
        date.fromisoformat(plan['dates']['reference'])
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f'{path} is damaged: the settings of an earlier call were expected; delete it and call '
            'with the same settings, or use another folder.'
        ) from error
    settings: dict[str, Any] = plan
    return settings


def _check(entry: Any) -> None:
    """See that a line says what is needed of a place."""
    if not isinstance(entry, dict):
        raise ValueError('it is no object')
    kinds: dict[str, Any] = {'place': str, 'status': str, 'lon': int | float, 'lat': int | float}
    if entry.get('status') == 'done':
        kinds['images'] = list
    for name, kind in kinds.items():
        if not isinstance(entry.get(name), kind):
            raise ValueError(f'{name} is missing')


class Ledger:
    """A line of JSON for each place and attempt, the last one counts.

    A place's line is written before its folder gets its name; it is done if both are there. So a
    process may be killed at any moment.
    """

    def __init__(self, root: Path) -> None:
        """Initialize a new Ledger instance.

        Args:
            root: Folder of the store.
        """
        self.root, self._path = root, root / LEDGER
        self.entries: dict[str, dict[str, Any]] = {}
        for entry in self._read():
            if entry['status'] != 'done' or (root / entry['place']).is_dir():
                self.entries[entry['place']] = entry

    def _read(self) -> Iterator[dict[str, Any]]:
        if not self._path.exists():
            return
        text = self._path.read_bytes()
        # Killed while it was written: a line like that is never followed by its folder.
        whole = text.rfind(b'\n') + 1
        if whole < len(text):
            os.truncate(self._path, whole)
        for number, line in enumerate(text[:whole].splitlines(), 1):
            try:
                entry = json.loads(line)
                _check(entry)
            except ValueError as error:
                raise ValueError(
                    f'{self._path}: line {number} is damaged ({error}); delete it.'
                ) from error
            yield entry

    def add(self, place: Place, status: str, record: dict[str, Any]) -> None:
        """Write what came of a place.

        Args:
            place: The place.
            status: See :class:`~torchgeo_caco.acquisition.patch.Outcome`.
            record: The rest.
        """
        entry = {
            'place': place.name,
            'status': status,
            'lon': place.lon,
            'lat': place.lat,
            **record,
        }
        with self._path.open('ab') as file:
            file.write(json.dumps(entry).encode() + b'\n')
            file.flush()
            os.fsync(file.fileno())
        self.entries[place.name] = entry

    def status(self, place: Place) -> str | None:
        """What came of a place so far.

        Args:
            place: The place.

        Returns:
            Its status, or None if it was never tried.

        Raises:
            ValueError: If a place of this name lay elsewhere.
        """
        entry = self.entries.get(place.name)
        if entry is None:
            return None
        if max(abs(entry['lon'] - place.lon), abs(entry['lat'] - place.lat)) > 1e-6:
            raise ValueError(
                f'{self.root}: {place.name} lay at {entry["lon"]}, {entry["lat"]} before, now at '
                f'{place.lon}, {place.lat}; use the same places, or another folder.'
            )
        status: str = entry['status']
        return status

    def keep_to(self, plan: Plan) -> None:
        """Remember the settings, or see that they are the same as before.

        Args:
            plan: The settings.

        Raises:
            ValueError: If they are others, or cannot be read.
        """
        path, text = self.root / PLAN, plan.to_json()
        before, now = read_plan(self.root), json.loads(text)
        if before is None:
            partial = path.with_suffix('.partial')
            partial.write_text(text)
            os.replace(partial, path)
            return
        other = [name for name in now if before.get(name) != now[name]]
        if other:
            raise ValueError(
                f'{self.root} was begun with other settings ({", ".join(other)}), see {path}; '
                'use those, or another folder.'
            )

    def report(self) -> list[str]:
        """One line for each place that was not filled, and each scene or date given up.

        Returns:
            The lines, also written to ``report.txt``.
        """
        lines = []
        for name, entry in sorted(self.entries.items()):
            if entry['status'] != 'done':
                lines.append(f'{name}: {entry["status"]}: {entry.get("reason", "")}')
            lines += [f'{name}: scene given up: {text}' for text in entry.get('skipped', [])]
            if entry['status'] == 'done':
                lines += [f'{name}: date missing: {text}' for text in entry.get('missing', [])]
        partial = self.root / f'{REPORT}.partial'
        partial.write_text(''.join(f'{line}\n' for line in lines))
        os.replace(partial, self.root / REPORT)
        return lines
