"""Which route a domain takes."""

from __future__ import annotations

from posthouse.egress.model import Kind, Route
from posthouse.egress.routes import Routes
from posthouse.net.tls import TlsPolicy


def route(name: str, *domains: str) -> Route:
    return Route(name, Kind.STATIC, domains, TlsPolicy(), (("127.0.0.1", 25),))


DEFAULT = Route("mx", Kind.MX, ("*",), TlsPolicy())


def test_the_most_specific_pattern_wins() -> None:
    routes = Routes(
        [route("all", "*"), route("below", "*.example"), route("exact", "a.example"), route("deep", "*.b.example")],
        DEFAULT,
    )
    assert routes.find("a.example").name == "exact"
    assert routes.find("x.a.example").name == "below"
    assert routes.find("x.b.example").name == "deep"
    assert routes.find("b.example").name == "below"
    assert routes.find("example").name == "all"
    assert routes.find("else.test").name == "all"


def test_without_routes_everything_goes_to_its_mx() -> None:
    assert Routes([], DEFAULT).find("example.com") is DEFAULT


def test_of_two_equal_patterns_the_first_wins() -> None:
    routes = Routes([route("one", "*", "a.example"), route("two", "*", "a.example")], DEFAULT)
    assert routes.find("a.example").name == routes.find("b.example").name == "one"
