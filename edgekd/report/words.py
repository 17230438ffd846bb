"""How figures are written: one place, so that page, Markdown and terminal say the same."""

from __future__ import annotations

import math

from edgekd.results import Score

CI = "[95\u00a0%\u00a0CI]"  # kept in one line
NOT_MEASURED = "not measured"
NOT_RUN = "not run"
UNKNOWN = "unknown"  # a runtime does not say in what precision it ran
DOES_NOT_APPLY = "–"


def count(value: int | None) -> str:
    """`1.26 M`, `148 M`, `8.10 G`; exact below a thousand."""
    if value is None:
        return NOT_MEASURED
    for scale, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= scale:
            return f"{significant(value / scale)} {unit}"
    return str(value)


def integer(value: int) -> str:
    """`12,345`."""
    return f"{value:,}"


def plural(value: int, word: str, words: str = "") -> str:
    """`1 image`, `1,234 images`; `words` where another letter than s makes many."""
    return f"{integer(value)} {word if value == 1 else words or f'{word}s'}"


def size(value: int | None) -> str:
    """Bytes on disk as `1.3 MB` (10^6)."""
    if value is None:
        return NOT_MEASURED
    if value < 1e5:
        return f"{significant(value / 1e3)} kB"
    return f"{significant(value / 1e6)} MB"


def significant(value: float, digits: int = 3) -> str:
    """Three significant digits without an exponent: `0.812`, `12.3`, `1234`."""
    if value == 0 or not math.isfinite(value):
        return "0" if value == 0 else str(value)
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    text = f"{value:.{min(decimals, 6)}f}"
    # 9.999 rounds up to another digit: 10.00 -> 10.0
    return significant(float(text), digits) if _digits(text) > digits and decimals else text


def _digits(text: str) -> int:
    return len(text.lstrip("-0.").replace(".", ""))


def ratio(value: float | None, missing: str = NOT_MEASURED) -> str:
    """`11.8x`."""
    return missing if value is None else f"{significant(value)}×"


def score(value: Score | None) -> str:
    """`0.812 [0.790, 0.833]`."""
    if value is None or value.value is None:
        return NOT_MEASURED
    if value.low is None or value.high is None:
        return f"{value.value:.3f}"
    return f"{value.value:.3f} [{value.low:.3f}, {value.high:.3f}]"


def energy(value: float | None, low: float | None, high: float | None) -> str:
    """Millijoules: `12.3 [11.9, 12.7]`."""
    if value is None:
        return NOT_MEASURED
    if low is None or high is None:
        return significant(value)
    return f"{significant(value)} [{significant(low)}, {significant(high)}]"


def decimal(value: float | None, missing: str = DOES_NOT_APPLY) -> str:
    """A check's value: small differences keep their size (`1.2e-06`)."""
    return missing if value is None else f"{value:.3g}"
