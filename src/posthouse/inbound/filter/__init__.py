"""How a message is judged.

1. `gather` looks at it once, without I/O, and writes down what rules may ask about: who is
   proved to have sent it (`facts`), where its links lead (`links`), names that pretend to be
   others (`names`), tricks of HTML (`markup`), what it carries (`files`), what fraud always
   says (`wording`).
2. For a whole batch at once DNS lists of domains (`lists`), scanners (`scanner`, `hook`) and the
   accounts' correspondents are asked.
3. `weigh` takes the table of `rules` over the facts: points and sentences, the same for all
   recipients; the table of `personal` adds what each of them allows, blocks and knows.

Nothing here refuses or moves mail. The store stage reads `Verdict.junk` and `Verdict.virus`.
"""
