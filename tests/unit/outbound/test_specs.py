"""What is kept of submissions is bounded by number and by octets."""

from __future__ import annotations

import pytest

from posthouse.outbound import prepare
from posthouse.outbound.prepare import Specs
from posthouse.outbound.spec import Spec, encode


def _row(name: str, text: str) -> tuple[str, str]:
    return name, encode(Spec(("", "a@b.example"), "bulk", "key_1", text=text)).decode()


async def _kept(specs: Specs, names: list[str]) -> set[str]:
    class Nothing:
        async def rows(self, *_: object) -> list[tuple[str, str]]:
            return []

    found, _ = await specs.find(Nothing(), set(names))  # type: ignore[arg-type]
    return set(found)


async def test_large_ones_push_out_the_eldest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "_SPECS_OCTETS", 10_000)
    specs = Specs(None)  # type: ignore[arg-type]
    for n in range(8):
        read = await specs.read(({}, [_row(f"sub_{n}", "x" * 2000)]))
        assert read[f"sub_{n}"].text == "x" * 2000
    assert await _kept(specs, [f"sub_{n}" for n in range(8)]) == {f"sub_{n}" for n in range(4, 8)}
    for _ in range(20):  # the same again takes no more room
        await specs.read(({}, [_row("sub_7", "x" * 2000)]))
    assert len(await _kept(specs, [f"sub_{n}" for n in range(8)])) == 4
    whole = await specs.read(({}, [_row("sub_9", "x" * 20_000)]))
    assert whole["sub_9"].text == "x" * 20_000, "too large to be kept, but read"
    assert await _kept(specs, ["sub_7", "sub_9"]) == set()


async def test_many_small_ones_push_out_the_eldest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "_SPECS_KEPT", 3)
    specs = Specs(None)  # type: ignore[arg-type]
    await specs.read(({}, [_row(f"sub_{n}", "x") for n in range(5)]))
    assert await _kept(specs, [f"sub_{n}" for n in range(5)]) == {"sub_2", "sub_3", "sub_4"}
