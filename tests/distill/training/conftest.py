"""Views that the tests of ray samplers draw from."""

import pytest

from tests.small_views import small_views, without_alpha


@pytest.fixture
def views(look_at):
    return small_views(look_at)


@pytest.fixture
def opaque_views(views):
    return without_alpha(views)
