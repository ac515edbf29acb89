"""The chat's forms: a module that uses the fixture `form` runs its tests in each of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.chat.forms import FORMS, Form, choose
from tests.engines.redis.conftest import redis as redis  # the fixture


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> Iterator[Form]:
    """Choose a form for the chats of a test."""
    form = Form()
    if request.param != "one process":
        workers = 2 if request.param == "two workers" else 1
        form = Form(workers, [request.getfixturevalue("redis").url] * workers)
    choose(form)
    yield form
    choose(Form())
