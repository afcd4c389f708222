"""Tests that share a server run in one process and one after the other."""

import pytest


@pytest.mark.xdist_group("groups")
def test_pytest_xdist_knows_the_groups(request: pytest.FixtureRequest) -> None:
    """It marks the test's id with the group, which not every pytest version allows."""
    distributed = bool(getattr(request.config.option, "loadgroup", False))

    assert request.node.nodeid.endswith("@groups") == distributed
