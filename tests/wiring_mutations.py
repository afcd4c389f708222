"""Random changes of source files, for tests with generated files."""

import random

from hypothesis import HealthCheck, settings

EXAMPLES = 1_000
many_examples = settings(
    max_examples=EXAMPLES,
    deadline=None,
    print_blob=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def delete(lines: list[bytes], chance: random.Random) -> None:
    del lines[chance.randrange(len(lines))]


def duplicate(lines: list[bytes], chance: random.Random) -> None:
    at = chance.randrange(len(lines))
    lines.insert(chance.randrange(len(lines)), lines[at])


def swap(lines: list[bytes], chance: random.Random) -> None:
    a, b = chance.randrange(len(lines)), chance.randrange(len(lines))
    lines[a], lines[b] = lines[b], lines[a]


def shift(lines: list[bytes], chance: random.Random) -> None:
    at = chance.randrange(len(lines))
    lines[at] = chance.choice([b" ", b"\t", b"    "]) + lines[at]
