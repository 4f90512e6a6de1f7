"""Buckets that speak S3: s3fs's driver, with a limit for a server that sends a byte now and then."""

from __future__ import annotations

import asyncio
from typing import Any

from s3fs import S3FileSystem

from memdb.store.retries import Patience

AT_ONCE = 1 << 16  # bytes


class BucketFileSystem(S3FileSystem):  # type: ignore[misc]  # s3fs has no types
    """Objects of a bucket, which must come at some speed."""

    def __init__(self, *, patience: Patience, **options: Any) -> None:
        super().__init__(**options)
        self._patience = patience

    async def _call_s3(self, method: str, *arguments: Any, **options: Any) -> Any:
        answer = await super()._call_s3(method, *arguments, **options)
        if method == "get_object":
            answer["Body"] = SteadyBody(answer["Body"], self._patience)
        return answer


class SteadyBody:
    """A body that is read as long as each stretch of time brings enough of it."""

    def __init__(self, body: Any, patience: Patience) -> None:
        self._body = body
        self._patience = patience

    async def read(self) -> bytes:
        """Read it to its end.

        Raises:
            TimeoutError: some stretch of time brought less than the slowest line would.
        """
        found, chunk = bytearray(), b"?"
        while chunk:
            wanted = len(found) + self._patience.silence * self._patience.floor
            async with asyncio.timeout(self._patience.silence):
                while chunk and len(found) < wanted:
                    chunk = await self._body.read(AT_ONCE)
                    found += chunk
        return bytes(found)

    def close(self) -> None:
        """Give up its connection, or what is left of it."""
        self._body.close()
