"""Money."""

from decimal import ROUND_HALF_UP, Decimal

CENT = Decimal("0.01")


def rounded(amount: Decimal) -> Decimal:
    return amount.quantize(CENT, rounding=ROUND_HALF_UP)


def with_tax(amount: Decimal, rate: Decimal = Decimal("0.19")) -> Decimal:
    return rounded(amount * (1 + rate))
