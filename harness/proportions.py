"""How sure a share is that was counted: k of n."""

from __future__ import annotations

import math


def wilson(found: int, trials: int, z: float = 1.96) -> tuple[float, float]:
    """The interval of a share, 95 % for z = 1.96 (Wilson 1927, "Probable inference, the law of succession, and statistical inference").

    Of no trials nothing is known: 0 to 1.
    """
    if not trials:
        return 0.0, 1.0
    share, spread = found / trials, z * z / trials
    middle = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * math.sqrt(share * (1 - share) / trials + spread / (4 * trials))
    # Rounding puts the ends for none and for all of them a hair beside 0 and 1.
    return 0.0 if not found else middle - half, 1.0 if found == trials else middle + half
