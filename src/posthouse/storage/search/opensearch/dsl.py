"""A parsed query as OpenSearch's: terms, phrases and beginnings, joined. No part of it is text
that OpenSearch would parse, and everything is a filter: nothing is scored."""

from __future__ import annotations

from typing import Any, TypeAlias

from posthouse.storage.search.query import All, Node, Not, Some, Term
from posthouse.storage.search.tokens import MARKS

Json: TypeAlias = dict[str, Any]

WORDS_BEGUN_AT_MOST = 4096
"""Of how many words of the shard a phrase's unfinished last word may be the beginning; of more,
the first by alphabet. A single word's beginning has no such bound."""


def within(account: str, root: Node) -> Json:
    """The account's messages that match."""
    return {"bool": {"filter": [{"term": {"account": account}}, _part(root)]}}


def _part(node: Node) -> Json:
    match node:
        case Term():
            return _term(node)
        case Some(parts):
            return _either([_part(part) for part in parts])
        case Not(part):
            return {"bool": {"must_not": [_part(part)]}}
        case All(parts):
            wanted = [_part(part) for part in parts if not isinstance(part, Not)]
            unwanted = [_part(part.part) for part in parts if isinstance(part, Not)]
            return {"bool": {"filter": wanted, "must_not": unwanted}}


def _either(parts: list[Json]) -> Json:
    return {"bool": {"should": parts, "minimum_should_match": 1}}


def _term(term: Term) -> Json:
    if term.field is None:
        return _either([_row("body", list(term.words), term.prefix), _row("head", list(term.words), term.prefix)])
    if term.field == "body":
        return _row("body", list(term.words), term.prefix)
    mark = MARKS[term.field]
    if term.whole:
        return _row("head", [mark + term.whole], begins=False)
    return _row("head", [mark + word for word in term.words], term.prefix)


def _row(field: str, words: list[str], begins: bool) -> Json:
    """Words that stand in a row; with `begins` the last is how a word begins."""
    if len(words) == 1:
        return {"prefix" if begins else "term": {field: {"value": words[0]}}}
    text = " ".join(words)  # divided at the spaces again, by our own analyzer
    if begins:
        return {"match_phrase_prefix": {field: {"query": text, "max_expansions": WORDS_BEGUN_AT_MOST}}}
    return {"match_phrase": {field: {"query": text}}}
