"""Who may do what, and how much: tenants, users, API keys, streams, limits, idempotency.

1. `authenticate.Authenticator` turns an `Authorization` header into a `Caller`.
2. `service.Accounts` makes and changes tenants, users and keys; `streams.Streams` a tenant's streams.
3. `limits.RateLimiter` bounds messages a second in memory, `limits.charge` messages a day in the
   transaction that accepts them.
4. `idempotency` keeps the first answer to a key for a day.

One door: `access_*` is the only way to load a tenant's thing. Another tenant's id is answered
like one that does not exist.
"""
