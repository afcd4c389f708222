"""Tests that share a server run in one process, one after the other."""

import pytest


@pytest.mark.xdist_group("groups")
def test_a_group_is_one_to_pytest_xdist(request: pytest.FixtureRequest) -> None:
    """Its own way to tell is the test's id, which not every pytest lets it change."""
    distributed = bool(getattr(request.config.option, "loadgroup", False))

    assert request.node.nodeid.endswith("@groups") == distributed
