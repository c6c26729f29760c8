"""Money and credits as integers whose scale is in the asset's name.

`CREDIT/6` is counted in micro-credits, `USD/9` in nano-dollars. Text amounts at the
edges are decimal strings in the main unit ("12.5"); inside there are only integers.
Rates (a price per million tokens) are `Decimal`.
"""

from __future__ import annotations

import re
from decimal import Context, Decimal
from typing import NamedTuple

from tallystick.errors import InvalidInput

INT64_MAX = 2**63 - 1
_AMOUNT = re.compile(r"^-?(0|[1-9][0-9]{0,18})(\.[0-9]{1,18})?$", re.ASCII)
_EXACT = Context(prec=60)


class Asset(NamedTuple):
    """What is counted: `name` like "CREDIT", `scale` decimal digits kept."""

    name: str
    scale: int

    def __str__(self) -> str:
        return f"{self.name}/{self.scale}"


CREDIT = Asset("CREDIT", 6)
USD = Asset("USD", 9)


def parse_amount(text: object, asset: Asset, *, field: str = "amount") -> int:
    """Turn a decimal string in main units into integer units of `asset`.

    Raises InvalidInput (codes `amount_not_decimal`, `amount_too_precise`,
    `amount_too_large`) naming `field`. A float is refused: it has already lost digits.

    >>> parse_amount("12.5", CREDIT)
    12500000
    """
    if isinstance(text, int) and not isinstance(text, bool):
        text = str(text)
    if not isinstance(text, str) or not _AMOUNT.match(text):
        raise InvalidInput(
            f'{field} must be a decimal string such as "12.5"',
            code="amount_not_decimal",
            field=field,
        )
    scaled = _EXACT.scaleb(Decimal(text), asset.scale)
    if scaled != scaled.to_integral_value():
        raise InvalidInput(
            f"{field} has more than {asset.scale} decimals, the scale of {asset}",
            code="amount_too_precise",
            field=field,
        )
    units = int(scaled)
    if abs(units) > INT64_MAX:
        raise InvalidInput(
            f"{field} is beyond the range of {asset}", code="amount_too_large", field=field
        )
    return units


def format_amount(units: int, asset: Asset) -> str:
    """Turn integer units into the shortest decimal string in main units.

    >>> format_amount(12_500_000, CREDIT), format_amount(-1, USD)
    ('12.5', '-0.000000001')
    """
    sign = "-" if units < 0 else ""
    whole, fraction = divmod(abs(units), 10**asset.scale)
    if not fraction:
        return f"{sign}{whole}"
    return f"{sign}{whole}.{fraction:0{asset.scale}d}".rstrip("0")
