"""Randomness as a function of where training is, never of its history.

Every random draw is seeded from (run seed, stage, epoch, step or sample). An interrupted run
therefore continues with the very numbers that an uninterrupted one would have drawn, and no
generator state has to be saved.
"""

from __future__ import annotations

import hashlib


def derive(*parts: int | str) -> int:
    """A 63-bit seed from any mix of numbers and names."""
    text = "/".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1
