"""The public HTTP API.

1. `server` runs `app.build_app(services)` on uvicorn, with bounds on heads and times.
2. `edge.Api` finds the operation, authenticates, reads the body and answers.
3. `endpoints/` are the operations, one file a resource; what is in their tables is also what
   `/openapi.json` and `/docs` show.
4. `problems` turns the errors tree into RFC 9457.
"""
