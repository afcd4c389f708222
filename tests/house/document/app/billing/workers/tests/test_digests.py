"""A test of the team's."""

from ..send_digest.worker import send_digest


def test_a_digest_is_tried_three_times() -> None:
    assert send_digest.job.max_attempts == 3
