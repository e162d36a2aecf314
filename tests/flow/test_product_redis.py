"""The product on PostgreSQL with a Redis that comes and goes under it."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import httpx
from house import house, sink
from tests.contract.redis_house import OwnRedis


async def test_mail_goes_on_without_redis(tmp_path: Path, postgres_url: str, redis_server: str) -> None:
    redis = OwnRedis(tmp_path / "redis")
    redis.start()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    try:
        async with (
            sink() as peer,
            house(
                tmp_path,
                sink=peer,
                records=postgres_url,
                bus={"url": redis.url},
                http={"port": 0, "health_port": port},
            ) as one,
        ):
            await one.until(await one.send("a@sink.example"), "delivered")
            assert redis.command("KEYS", "posthouse:bucket:tenant:*").strip()
            assert redis.command("KEYS", "posthouse:slots:site:*").strip()
            await asyncio.to_thread(redis.stop)
            for n in range(5):
                await one.until(await one.send(f"b{n}@sink.example"), "delivered")
            await asyncio.to_thread(redis.start)
            await one.until(await one.send("c@sink.example"), "delivered")
            async with httpx.AsyncClient(timeout=10) as client:
                ready = (await client.get(f"http://127.0.0.1:{port}/readyz")).json()
            assert ready["status"] == "ready"
            assert {"api", "send", "store"} <= set(ready["roles"])
    finally:
        redis.stop()
