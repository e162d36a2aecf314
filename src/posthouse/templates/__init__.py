"""Templates, in five steps.

1. `service.create` or `add_version` compiles a version once and refuses what is wrong with it
   (`compile`): syntax, size, what the language may do (`language`). CSS is inlined (`css`), a
   missing text part is derived from the HTML (`plain`).
2. When a message is submitted, `service.resolve` turns its template's name into a `Key`, the
   template's id and a version, which never means anything else afterwards.
3. When it is due, `service.compiled` gives the compiled versions of a batch, from memory mostly.
4. `fill.Filler`, in a render process, fills one for a recipient: a few microseconds.
5. Whatever a template does, a fill ends: steps, output, values and nesting are bounded.
"""
