"""Web servers: fsspec's driver, with limits for servers that are silent, slow, or never stop sending."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import aiohttp
from fsspec.implementations.http import HTTPFileSystem

from memdb.errors import StorageError
from memdb.storage.retry import Patience

AS_IT_IS = {"Accept-Encoding": "identity"}


def timeouts(patience: Patience) -> aiohttp.ClientTimeout:
    """Return the limits of a connection. A whole body has none, since it may be large: see `_steadily`."""
    return aiohttp.ClientTimeout(total=None, sock_connect=patience.connect, sock_read=patience.silence)


class WebFileSystem(HTTPFileSystem):  # type: ignore[misc]  # fsspec has no types
    """Files of a web server, which must arrive at a minimum speed, unencoded, and bounded in size."""

    def __init__(
        self, *, patience: Patience, client_kwargs: dict[str, Any] | None = None, **options: Any
    ) -> None:
        super().__init__(client_kwargs={"timeout": timeouts(patience), **(client_kwargs or {})}, **options)
        self._patience = patience

    async def _cat_file(
        self,
        url: str,
        start: int | None = None,
        end: int | None = None,
        most: int | None = None,
        **options: Any,
    ) -> bytes:
        """Return a file's bytes, or those of a range, stopping soon after ``most``.

        Raises:
            TimeoutError: the body arrives more slowly than on the slowest supported line.
            StorageError: it is compressed: a few kilobytes may become gigabytes.
        """
        given = {**self.kwargs, **options, "auto_decompress": False}
        given["headers"] = {**given.get("headers", {}), **AS_IT_IS}
        if start is not None or end is not None:
            if start == end:
                return b""
            limits = await self._process_limits(url, start, end)
            given["headers"] = {**given.get("headers", {}), "Range": limits}
        session = await self.set_session()
        async with session.get(self.encode_url(url), **given) as answer:
            self._raise_not_found_for_status(answer, url)
            encoding = answer.headers.get("Content-Encoding", "identity")
            if encoding.lower() not in {"", "identity"}:
                raise StorageError(
                    f"{url} came encoded as {encoding[:40]}, which was not asked for",
                    hint="ask its administrator to send files unencoded",
                )
            return await _steadily(answer.content, self._patience, most)


async def _steadily(content: aiohttp.StreamReader, patience: Patience, most: int | None) -> bytes:
    """Read a body to its end, or just past ``most``, as long as it arrives fast enough."""
    body, bound = bytearray(), math.inf if most is None else most
    while len(body) <= bound and not content.at_eof():
        wanted = min(bound, len(body) + patience.silence * patience.floor)
        async with asyncio.timeout(patience.silence):
            while len(body) <= wanted and not content.at_eof():
                body += await content.readany()
    return bytes(body)
