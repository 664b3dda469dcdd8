"""Job ids: UUIDs of version 7 (RFC 9562, section 5.7), which sort by the time of their making."""

from __future__ import annotations

import random
import secrets


class JobIds:
    """Makes ids that only ever rise, also within a millisecond and when the clock steps back.

    Below the milliseconds stand 12 bits of a counter (method 1 of RFC 9562, section 6.2), which
    spill over into the milliseconds; 62 random bits make ids of different nodes differ. An id is a
    name, not a secret, so the bits come from a generator that is seeded once by the system.
    """

    def __init__(self) -> None:
        self._last = 0
        self._random = random.Random(secrets.randbits(256))  # noqa: S311 - see above

    def new(self, now: int) -> str:
        """The next id, at `now` microseconds since 1970."""
        self._last = max((now // 1000) << 12, self._last + 1)
        moment, counter = self._last >> 12, self._last & 0xFFF
        rest = 1 << 63 | self._random.getrandbits(62)
        digits = f"{moment:012x}7{counter:03x}{rest:016x}"
        return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
