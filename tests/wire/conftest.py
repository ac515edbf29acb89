from __future__ import annotations

from collections.abc import Iterator

import pytest

from wsframework.wire import assembly, decoder, frames
from wsframework.wire.implementations import installed


@pytest.fixture(scope="module", params=installed("masking"))
def masking(request: pytest.FixtureRequest) -> Iterator[str]:
    """Decode and encode with each implementation of masking that is installed."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (assembly, decoder, frames):
            patch.setattr(module, "apply_mask", installed("masking")[request.param])
        yield request.param


@pytest.fixture(scope="module", params=installed("decoding"))
def decoding(request: pytest.FixtureRequest) -> Iterator[str]:
    """Let `Decoder`, as a test module knows it, be each implementation of decoding that is installed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(request.module, "Decoder", installed("decoding")[request.param])
        yield request.param


@pytest.fixture(scope="module", params=installed("encoding"))
def encoding(request: pytest.FixtureRequest) -> Iterator[str]:
    """Encode messages with each implementation of encoding that is installed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(request.module, "encode_message", installed("encoding")[request.param])
        yield request.param
