"""Exact money: sums that never round, and the text of an amount.

A bill's amounts have at most `DIGITS_BEFORE_POINT_MAX` digits before the point and `DIGITS_AFTER_POINT_MAX` after it;
with those bounds the sum of any 10^18 of them fits in `EXACT`'s precision, so a sum can't round. `EXACT` would raise
`decimal.Inexact` rather than round, which makes a mistake in that reckoning an error instead of a lost cent.
"""

from __future__ import annotations

from decimal import Context, Decimal, Inexact, InvalidOperation, Overflow
from typing import Final

DIGITS_BEFORE_POINT_MAX: Final = 30
"""No currency's bill passes this; a value that does was made to make sums slow or inexact."""

DIGITS_AFTER_POINT_MAX: Final = 50
"""Cloud bills print 10 to 20; price times quantity of two such numbers stays below 50."""

EXACT: Final = Context(prec=100, traps=[Inexact, InvalidOperation, Overflow])
ROUNDING: Final = Context(prec=110)
"""For what is shown, never for what is added up."""
ZERO: Final = Decimal(0)


def is_amount(value: Decimal) -> bool:
    """Whether `value` is a finite number within the bounds that keep sums exact."""
    if not value.is_finite():
        return False
    exponent = value.as_tuple().exponent
    assert isinstance(exponent, int)
    return exponent >= -DIGITS_AFTER_POINT_MAX and value.adjusted() < DIGITS_BEFORE_POINT_MAX


def amount_text(value: Decimal) -> str:
    """The amount in full, in plain notation, without zeros that end the fraction: `1.6823086974`, `0`, `-12.5`."""
    text = format(value, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text


def amount_for_people(value: Decimal, currency: str = "") -> str:
    """The amount rounded for reading: `1,234.57 USD`; below a unit with three significant digits: `0.000312 USD`."""
    magnitude = abs(value)
    if magnitude == 0 or magnitude >= 1:
        text = format(value.quantize(Decimal("0.01"), context=ROUNDING), ",f")
    elif magnitude >= Decimal("0.1"):
        text = format(value.quantize(Decimal("0.001"), context=ROUNDING), "f")
    elif magnitude >= Decimal("0.0000000001"):
        places = 2 - value.adjusted()
        text = format(value.quantize(Decimal(1).scaleb(-places), context=ROUNDING), "f").rstrip("0")
    else:
        text = "0.00"
    return f"{text} {currency}" if currency else text
