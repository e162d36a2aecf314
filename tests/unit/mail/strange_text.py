"""Text that mail has trouble with, for the property tests of this folder."""

from __future__ import annotations

from hypothesis import strategies as st

SAMPLES = (
    "Привет, мир",
    "こんにちは世界、これは長い件名です",
    "مرحبا بالعالم",
    "שלום עולם",
    "नमस्ते दुनिया",
    "สวัสดีชาวโลก",
    "\U0001f469\u200d\U0001f469\u200d\U0001f467 \U0001f3f4\U000e0067\U000e0062\U000e007f",
    "e\u0301a\u0308",
    "\u2066isolated\u2069",
    "=?utf-8?q?fake?=",
    "a =?x?b?y?= b",
    '"quoted" \\ (comment) <angle>',
    "From here",
    ".",
    "..",
    "--",
    "x" * 998,
    "é" * 998,
    "  two  blanks  ",
    "a,b;c:d@e",
    "% ' * utf-8''x",
)

_ONE_LINE = st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="\u2028\u2029\ufffe\uffff\ufdd0\ufeff")
one_line = st.one_of(
    st.sampled_from(SAMPLES),
    st.text(_ONE_LINE, max_size=200),
    st.text(st.sampled_from('ab =?_"\\<>,é😀\u0301'), max_size=120),
    st.lists(st.sampled_from(SAMPLES), max_size=4).map(" ".join),
)
"""Values of a header: any character but controls."""

_PIECES = (
    "\n",
    "\r\n",
    "\r",
    "From ",
    ".",
    " ",
    "\t",
    "=",
    "=_",
    "--",
    "\x00",
    "\x1b",
    "\x0c",
    "é",
    "я",
    "😀",
    "x" * 998,
)
body_text = st.one_of(
    st.text(st.characters(exclude_categories=("Cs",)), max_size=300),
    st.lists(st.one_of(st.sampled_from(_PIECES), st.sampled_from(SAMPLES)), max_size=20).map("".join),
    st.text("ab .\n=", max_size=300),
)
